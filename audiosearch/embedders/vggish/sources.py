"""Reads VGGish's weights from what Google published, with TensorFlow.

- A SavedModel: TensorFlow Hub's ``google/vggish/1``, as a folder or as the archive
  (``.tar.gz``) that the Hub serves. Its function takes a waveform and gives (n, 128): its own
  log-mel patches, then the network up to the embedding before any activation, without PCA (see
  docs/models/vggish.md). Only its variables are read; nothing of its graph is run, and our own
  front end makes the patches.
- A checkpoint: ``vggish_model.ckpt``, one file in TensorFlow's first checkpoint format, or a
  checkpoint of the second one (``NAME.index`` and ``NAME.data-...``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from audiosearch.embedders.vggish.layers import SHAPES, Weights, checked_weights
from audiosearch.errors import MissingDependencyError, ModelError, printable
from audiosearch.storage import storage_errors

__all__ = ["read_weights"]

# Where a SavedModel of TensorFlow 2 keeps the names of its variables.
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VARIABLES = ("variables", "variables")
# The network has 289 MB; what unpacks to far more is something else.
_MOST_BYTES = 2_000_000_000


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read the weights of VGGish.

    Parameters
    ----------
    path : path-like
        A SavedModel's folder or ``.tar.gz``, or a checkpoint.

    Returns
    -------
    mapping of str to float32
        By their names in the published checkpoint, with the shapes of
        `audiosearch.embedders.vggish.layers.LAYERS`.

    Raises
    ------
    MissingDependencyError
        When TensorFlow is not installed.
    ModelError
        When there is nothing there, it is damaged, or it is another network.
    """
    source, name = Path(path), printable(os.fspath(path))
    with _checkpoint(source, name) as prefix:
        tensorflow = _tensorflow()
        try:
            reader = tensorflow.train.load_checkpoint(str(prefix))
            keys = _keys(reader)
            weights = {found: reader.get_tensor(key) for found, key in keys.items()}
        except Exception as error:  # TensorFlow's errors share no public base with NumPy's
            raise ModelError(
                f"{name} cannot be read as a TensorFlow checkpoint or SavedModel: it is damaged, "
                f"cut off, or something else ({_first_line(error)}). Download or copy it again."
            ) from error
    return checked_weights(weights, origin=name)


def _keys(reader: Any) -> dict[str, str]:
    """Return under which key of a checkpoint each of VGGish's arrays stands, as far as it does."""
    shapes = {key: tuple(shape) for key, shape in reader.get_variable_to_shape_map().items()}
    if _OBJECT_GRAPH not in shapes:
        return {name: name for name in SHAPES if name in shapes}
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    graph = TrackableObjectGraph.FromString(reader.get_tensor(_OBJECT_GRAPH))
    named = {}
    for node in graph.nodes:
        for value in node.attributes:
            # In a scope, a name has the scope's in front: "outer/vggish/conv1/weights".
            full = "vggish/" + value.full_name.rpartition("vggish/")[2]
            if full in SHAPES and value.checkpoint_key in shapes:
                named[full] = value.checkpoint_key
    return named


@contextlib.contextmanager
def _checkpoint(source: Path, name: str) -> Iterator[Path]:
    """Yield the prefix of the checkpoint that `source` is or holds."""
    if source.is_dir():
        yield _in_folder(source, name)
    elif source.is_file() and _is_archive(source):
        with tempfile.TemporaryDirectory(prefix="audiosearch-") as scratch:
            _unpack(source, Path(scratch), name)
            yield _in_folder(Path(scratch), name)
    elif source.is_file() and source.suffix == ".index":
        yield source.with_suffix("")
    elif source.is_file() or Path(f"{source}.index").is_file():
        yield source
    else:
        raise ModelError(
            f"{name}: there is no such file or folder. Name a SavedModel of google/vggish (its "
            "folder or its .tar.gz), or the checkpoint vggish_model.ckpt."
        )


def _in_folder(folder: Path, name: str) -> Path:
    saved = folder.joinpath(*_VARIABLES)
    if saved.with_name("variables.index").is_file():
        return saved
    whole = folder / "vggish_model.ckpt"
    if whole.is_file() or whole.with_name(f"{whole.name}.index").is_file():
        return whole
    raise ModelError(
        f"{name} holds neither a SavedModel (saved_model.pb and variables/variables.index) nor "
        "the checkpoint vggish_model.ckpt."
    )


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _unpack(source: Path, target: Path, name: str) -> None:
    """Unpack the variables of a SavedModel, and nothing else of an archive, into a folder."""
    left = _MOST_BYTES
    try:
        with tarfile.open(source, "r:gz") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if path.parts[-2:-1] != ("variables",) or not member.isfile():
                    continue
                left -= member.size
                if not path.name.startswith("variables.") or left < 0:
                    raise ModelError(f"{name} is not TensorFlow Hub's google/vggish.")
                content = archive.extractfile(member)
                if content is None:
                    continue
                out = target / "variables" / path.name
                with storage_errors(out):
                    out.parent.mkdir(exist_ok=True)
                    file = out.open("wb")
                with file:
                    shutil.copyfileobj(content, file, 1 << 20)
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise ModelError(
            f"{name} cannot be unpacked: it is damaged or cut off ({_first_line(error)}). Download "
            "or copy it again."
        ) from error


def _tensorflow() -> Any:
    if "tensorflow" not in sys.modules:
        # Its start-up notes say nothing to a user; its errors stay.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow
    except ImportError as error:
        raise MissingDependencyError(
            "tensorflow", extra="tensorflow", purpose="Converting VGGish, which is needed once,"
        ) from error
    return tensorflow


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return printable(text[:200]) or type(error).__name__
