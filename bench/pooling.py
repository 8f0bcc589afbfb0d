"""Compare ways of pooling a clip and of telling how much alike two clips are.

    python bench/pooling.py bal_train.h5 [--report eval.h5] [--validation 0.1] [--seed 0]

`--validation` and `--seed` must be those of the classifier's training, so that the split is the
same. The ways are chosen on the validation split, whose clips are compared among themselves;
`--report` measures the same on clips that nothing was chosen on. What is fitted (whitening) is
fitted on training clips.

The columns: how many of the nearest 10 clips share a label with the clip (and, in macro, the class,
averaged over classes); their mean Jaccard index of labels; and of clips cut in halves, how often a
half's nearest is its other half, and how often that is among the nearest 10. The last table
measures where in a clip a match is found: a clip gets two to five frames of another recording, and
the example is three other frames of that.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.rescoring import load_rescorer
from audiosearch.classifier.scorer import load_scorer
from audiosearch.datasets.label_index import LabelIndex
from audiosearch.datasets.packed import CLIP_FRAMES, PackedFile, frame_mask
from audiosearch.labels import load_labels
from audiosearch.library.blocks import POSTED_CODE
from audiosearch.library.columns import decode_scores, encode_scores
from audiosearch.library.likeness import POWER, SCORES_SHARE
from audiosearch.library.refinement import stretch
from audiosearch.models import bundled_model

Floats = npt.NDArray[np.float32]
NEAREST = 10
BATCH = 64
TRIALS = 1500
CLASSES = len(load_labels())


@dataclass
class Clips:
    """Clips, and what the classifier makes of them; every array has one row a clip."""

    x: npt.NDArray[np.uint8]
    n: npt.NDArray[np.int64]
    y: npt.NDArray[np.bool_]
    scores: Floats | None = None
    hidden: Floats | None = None
    pooled: Floats | None = None
    weights: Floats | None = None

    @property
    def mask(self) -> Floats:
        """1 where there is a frame, (n, 10)."""
        return frame_mask(self.n)

    @property
    def frames(self) -> Floats:
        """Values from -1 to 1, 0 where there is no frame, (n, 10, 128)."""
        return values_of(self.x) * self.mask[:, :, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--validation", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with PackedFile(arguments.data, labels=True) as file:
        whole = file.read()
    assert whole.y is not None
    training, held_out = LabelIndex.from_dense(whole.y).split(arguments.validation, arguments.seed)
    fitted = Clips(whole.x[training], whole.n_frames[training], whole.y[training])
    spread = Whitening(mean(fitted))
    show(
        "validation split",
        Clips(whole.x[held_out], whole.n_frames[held_out], whole.y[held_out]),
        spread,
    )
    if arguments.report:
        with PackedFile(arguments.report, labels=True) as file:
            whole = file.read()
        assert whole.y is not None
        show(arguments.report.name, Clips(whole.x, whole.n_frames, whole.y), spread)


def show(name: str, clips: Clips, spread: Whitening) -> None:
    print(f"{name}, {len(clips.x):,} clips")
    print(f"{'':44} values  share  macro Jaccard   half  in 10")
    analyse(clips)
    whole = clips.n == CLIP_FRAMES
    first, second = halves(clips, whole, 0), halves(clips, whole, 1)
    for way, vectors in ways(spread).items():
        measured = nearest(unit(vectors(clips)), clips.y)
        same = found_again(unit(vectors(first)), unit(vectors(second)))
        size = vectors(first).shape[1]
        columns = " ".join(f"{value:6.4f}" for value in (*measured, *same))
        print(f"{way:44} {size:6} {columns}", flush=True)
    print("where the match is     overlap  middle inside")
    for way, where in places().items():
        overlap, inside = located(clips, whole, where)
        print(f"{way:22} {overlap:7.4f}  {inside:7.4f}", flush=True)
    print("like this, unlike that: of the nearest 10, how many are as wanted")
    for factor in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5):
        print(f"{factor:5.2f} taken off         {unlike(clips, factor):7.4f}", flush=True)


def ways(spread: Whitening) -> dict[str, Callable[[Clips], Floats]]:
    """Return the ways of making a vector of a clip; cosines compare them."""
    result: dict[str, Callable[[Clips], Floats]] = {
        "mean of the frames": mean,
        "mean, half whitened": lambda clips: spread.apply(mean(clips), 0.5),
        "mean, whitened": lambda clips: spread.apply(mean(clips), 1.0),
        "max over the frames": largest,
        "mean by the classifier's attention": attended,
        "hidden layer, mean": lambda clips: known(clips.hidden),
        "hidden layer, attention pooling": lambda clips: known(clips.pooled),
    }
    for power in (0.35, POWER, 0.65, 1.0):
        result[f"class scores to the power of {power:g}"] = partial(heard, power=power)
    for share in (0.8, SCORES_SHARE, 0.5):
        result[f"scores {share:.0%}, mean {1 - share:.0%}"] = partial(mixed, share=share)
    result[f"scores {SCORES_SHARE:.0%}, mean whitened"] = lambda clips: both(
        heard(clips, POWER), spread.apply(mean(clips), 1.0), SCORES_SHARE
    )
    return result


def mean(clips: Clips) -> Floats:
    result: Floats = clips.frames.sum(axis=1) / clips.mask.sum(axis=1)[:, None]
    return unit(result)


def largest(clips: Clips) -> Floats:
    return np.where(clips.mask[:, :, None] > 0, clips.frames, -9).max(axis=1)


def attended(clips: Clips) -> Floats:
    weights = known(clips.weights)
    result: Floats = (clips.frames * weights[:, :, None]).sum(axis=1)
    return result


def heard(clips: Clips, power: float) -> Floats:
    """Return powers of class scores as a library holds them."""
    codes = encode_scores(known(clips.scores))
    result: Floats = np.where(codes >= POSTED_CODE, decode_scores(codes) ** np.float32(power), 0)
    return result


def mixed(clips: Clips, share: float) -> Floats:
    return both(heard(clips, POWER), mean(clips), share)


def both(scores: Floats, means: Floats, share: float) -> Floats:
    return np.concatenate(
        [np.sqrt(np.float32(share)) * unit(scores), np.sqrt(np.float32(1 - share)) * unit(means)], 1
    )


class Whitening:
    """Principal components of vectors, each divided by a power of its deviation."""

    def __init__(self, vectors: Floats) -> None:
        self._centre = vectors.mean(axis=0)
        self._variance, self._axes = np.linalg.eigh(np.cov((vectors - self._centre).T))

    def apply(self, vectors: Floats, power: float) -> Floats:
        """Return vectors whose components are divided by that power of their deviation."""
        scale = self._axes / np.maximum(self._variance, 1e-9) ** (power / 2)
        result: Floats = ((vectors - self._centre) @ scale).astype(np.float32)
        return result


def analyse(clips: Clips) -> None:
    """Score clips as a library does, and read the classifier's inner layers."""
    import onnx
    import onnxruntime

    model = onnx.load(bundled_model("classifier").path)
    inputs = {node.output[0]: node for node in model.graph.node}
    makes = {node.input[1]: node for node in model.graph.node if node.op_type == "Gemm"}
    pooled = makes["scores/kernel"].input[0]
    hidden = next(node.input[0] for name, node in makes.items() if name.startswith("attention_"))
    product = inputs[inputs[pooled].input[0]]
    attention = next(name for name in product.input if inputs[name].op_type == "Div")
    for name in (hidden, pooled, attention):
        kind = onnx.TensorProto.FLOAT
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), options)
    parts: list[tuple[Floats, Floats, Floats, Floats]] = []
    for start in range(0, len(clips.x), BATCH):
        rows = slice(start, start + BATCH)
        frames, mask = clips.frames[rows], clips.mask[rows]
        names = ["scores", hidden, pooled, attention]
        scores, layer, pool, weight = session.run(names, {"frames": frames, "mask": mask})
        layer = layer.reshape(len(frames), CLIP_FRAMES, -1) * mask[:, :, None]
        parts.append(
            (scores, layer.sum(axis=1) / mask.sum(axis=1)[:, None], pool, weight.mean(axis=2))
        )
    raw, clips.hidden, clips.pooled, clips.weights = map(np.concatenate, zip(*parts, strict=True))
    calibrated = load_scorer().calibrated(raw).astype(np.float32)
    rescorer = load_rescorer()
    assert rescorer is not None, "the bundled rescorer is of another classifier"
    clips.scores = rescorer.rescore(calibrated, clips.x, clips.n)


def halves(clips: Clips, rows: npt.NDArray[np.bool_], which: int) -> Clips:
    x = np.zeros_like(clips.x[rows])
    half = CLIP_FRAMES // 2
    x[:, :half] = clips.x[rows, which * half : (which + 1) * half]
    result = Clips(x, np.full(len(x), half), clips.y[rows])
    analyse(result)
    return result


def nearest(vectors: Floats, truth: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return how well the labels of the nearest clips agree: share, macro and Jaccard."""
    labels = truth.astype(np.float32)
    shared, jaccard = [], []
    agreement = np.zeros((len(vectors), CLASSES), np.float32)
    for start in range(0, len(vectors), BATCH):
        cosines = vectors[start : start + BATCH] @ vectors.T
        for row, values in enumerate(cosines, start):
            values[row] = -np.inf
            near = np.argpartition(-values, NEAREST)[:NEAREST]
            common = labels[near] @ labels[row]
            both_or_one = labels[near].sum(axis=1) + labels[row].sum() - common
            shared.append((common > 0).mean())
            jaccard.append((common / both_or_one).mean())
            agreement[row] = labels[near].mean(axis=0)
    classes = np.flatnonzero(truth.sum(axis=0) > 1)
    macro = np.mean([agreement[truth[:, index], index].mean() for index in classes])
    return float(np.mean(shared)), float(macro), float(np.mean(jaccard))


def found_again(first: Floats, second: Floats) -> tuple[float, float]:
    cosines = first @ second.T
    ranks = (cosines > np.diagonal(cosines)[:, None]).sum(axis=1)
    return float((ranks == 0).mean()), float((ranks < NEAREST).mean())


Where = Callable[[npt.NDArray[np.uint8], Floats], tuple[int, int]]


def places() -> dict[str, Where]:
    """Return ways of finding where in a clip an example is."""

    def window(frames: npt.NDArray[np.uint8], direction: Floats) -> tuple[int, int]:
        values = unit(values_of(frames)) @ direction
        start = int(np.convolve(values, np.ones(3), "valid").argmax())
        return start, start + 3

    def above(frames: npt.NDArray[np.uint8], direction: Floats) -> tuple[int, int]:
        values = unit(values_of(frames)) @ direction
        best = int(values.argmax())
        start = stop = best
        while start > 0 and values[start - 1] > values.mean():
            start -= 1
        while stop + 1 < len(values) and values[stop + 1] > values.mean():
            stop += 1
        return start, stop + 1

    return {"best window of three": window, "above the mean": above, "as shipped": stretch}


def located(clips: Clips, whole: npt.NDArray[np.bool_], where: Where) -> tuple[float, float]:
    """Return the mean overlap (intersection over union), and how often the middle is inside."""
    draw = np.random.default_rng(0)
    rows = np.flatnonzero(whole)
    overlap, inside = [], []
    for _ in range(TRIALS):
        one, other = draw.choice(rows, 2, replace=False)
        count = int(draw.integers(2, 6))
        start = int(draw.integers(0, CLIP_FRAMES - count + 1))
        frames = clips.x[other].copy()
        frames[start : start + count] = clips.x[one, 5 : 5 + count]
        direction = unit(clips.frames[one, :3].mean(axis=0)[None])[0]
        first, stop = where(frames, direction)
        common = max(0, min(stop, start + count) - max(first, start))
        overlap.append(common / (max(stop, start + count) - min(first, start)))
        inside.append(start <= (first + stop - 1) / 2 <= start + count - 1)
    return float(np.mean(overlap)), float(np.mean(inside))


def unlike(clips: Clips, factor: float) -> float:
    """Return how many of the nearest have a label of the wanted clip and not the unwanted one.

    The unwanted clip shares one label with the wanted one, and none of its others.
    """
    vectors = both(heard(clips, POWER), mean(clips), SCORES_SHARE)
    draw = np.random.default_rng(0)
    good = []
    for row, labels in enumerate(clips.y):
        own = np.flatnonzero(labels)
        if len(own) < 2:
            continue
        left_out = int(draw.choice(own))
        rest = own[own != left_out]
        others = np.flatnonzero(clips.y[:, left_out] & ~clips.y[:, rest].any(axis=1))
        if not len(others):
            continue
        other = int(draw.choice(others))
        score = vectors @ (vectors[row] - np.float32(factor) * vectors[other])
        score[[row, other]] = -np.inf
        near = clips.y[np.argpartition(-score, NEAREST)[:NEAREST]]
        good.append((near[:, rest].any(axis=1) & ~near[:, left_out]).mean())
    return float(np.mean(good))


def known(values: Floats | None) -> Floats:
    assert values is not None  # `analyse` came first
    return values


def values_of(frames: npt.NDArray[np.uint8]) -> Floats:
    """Return frames as values from -1 to 1."""
    return (frames.astype(np.float32) - np.float32(128)) / np.float32(128)


def unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: Floats = vectors / np.maximum(lengths, 1e-12)
    return result


if __name__ == "__main__":
    main()
