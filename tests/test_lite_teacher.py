"""The teacher of the bundled embedder: what is read of its graph."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import REPOSITORY
from onnx import TensorProto, helper, numpy_helper

# The training tools are no part of the installed package.
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))

from audiosearch.labels import load_labels
from tools.lite.teacher import MAPS, Teacher

RANDOM = np.random.default_rng(0)


class Graph:
    """A network as YAMNet is: 1 x 1 convolutions, between them one that halves each channel."""

    def __init__(self) -> None:
        self.nodes, self.weights, self.at = [], [], "image"

    def add(self, kind: str, *values: np.ndarray, **attributes) -> str:
        names = [f"w{len(self.weights) + number}" for number in range(len(values))]
        pairs = zip(values, names, strict=True)
        self.weights += [numpy_helper.from_array(value, name) for value, name in pairs]
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.at, *names], [name], **attributes))
        self.at = name
        return name

    def convolution(self, *shape: int, stride: int = 1, group: int = 1) -> None:
        kernel = RANDOM.normal(0, 0.3, shape).astype(np.float32)
        self.add("Conv", kernel, strides=[stride, stride], group=group)
        self.add("Clip", np.array(0, np.float32), np.array(6, np.float32))


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def teacher(graph: Graph, tmp_path: Path) -> Teacher:
    graph.at = "log_mel"
    graph.add("Reshape", np.array([-1, 1, 96, 64]))
    graph.convolution(4, 1, 8, 8, stride=8)
    graph.convolution(256, 4, 1, 1)
    graph.convolution(256, 256, 1, 1)
    for channels in (256, 512):
        graph.convolution(channels, 1, 2, 2, stride=2, group=channels)
        graph.convolution(2 * channels, channels, 1, 1)
    graph.add("ReduceMean", axes=[2, 3], keepdims=0)
    graph.nodes[-1].output[0] = graph.at = "embedding"
    graph.add("MatMul", RANDOM.normal(0, 0.1, (1024, 521)).astype(np.float32))
    graph.nodes[-1].output[0] = "scores"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
            for name, width in (("embedding", 1024), ("scores", 521))]  # fmt: skip
    given = helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["n", 96, 64])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "teacher", [given], ends, graph.weights),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model.ir_version = 8
    onnx.save(model, tmp_path / "teacher.onnx")
    mids = load_labels().mids[:521]
    rows = [f"{number},{mid},name" for number, mid in enumerate(mids)]
    (tmp_path / "map.csv").write_text("index,mid,display_name\n" + "\n".join(rows) + "\n")
    return Teacher(tmp_path / "teacher.onnx", tmp_path / "map.csv")


def test_maps_are_the_last_of_each_size_and_end_in_the_embedding(graph, teacher):
    log_mel = RANDOM.uniform(-4.6, 3, (70, 96, 64)).astype(np.float32)
    maps = teacher.maps(log_mel)
    assert [found.shape for found in maps] == [(70, *shape) for shape in MAPS]
    embedding, scores = teacher.answer(log_mel)
    assert np.allclose(maps[-1].mean(axis=(1, 2)), embedding, atol=1e-5)
    assert scores.shape == (70, 527)
    # What stands between the first map and the second is the halving and one convolution.
    kernels = [
        values for item in graph.weights if (values := numpy_helper.to_array(item)).ndim == 4
    ]
    halving, mixing = kernels[3][:, 0], kernels[4][:, :, 0, 0]
    places = maps[0].reshape(70, 6, 2, 4, 2, 256)
    halved = np.einsum("nhawbc,cab->nhwc", places, halving).clip(0, 6)
    assert np.allclose((halved @ mixing.T).clip(0, 6), maps[1], atol=1e-4)
    alone = teacher.maps(log_mel[3:4])
    assert all(
        np.allclose(one[0], many[3], atol=1e-5) for one, many in zip(alone, maps, strict=True)
    )
