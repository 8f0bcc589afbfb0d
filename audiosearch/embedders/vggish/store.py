"""Where the installed VGGish lies, and whether it is whole.

The folder ``vggish`` of `audiosearch.model_cache.model_root` holds

- ``vggish.onnx`` and its manifest ``vggish.json``, which is written last,
- ``vggish_pca_params.npz``, whose checksum the manifest has,
- ``vggish-int8.onnx`` and ``vggish-int8.json``, once the variant was made,
- until they are converted, the downloads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from audiosearch.errors import ModelError, printable
from audiosearch.model_cache import RemoteFile, model_folder
from audiosearch.models import BundledModel, read_model
from audiosearch.storage import sha256_file

__all__ = [
    "CHECKPOINT",
    "HUB",
    "LICENCE",
    "NAME",
    "ORIGIN",
    "PCA",
    "QUANTISED",
    "SOURCES",
    "Installed",
    "downloaded",
    "folder",
    "installed",
    "is_installed",
]

NAME = "vggish"
QUANTISED = "vggish-int8"
ORIGIN = "Google, https://github.com/tensorflow/models/tree/master/research/audioset/vggish"
LICENCE = "Apache-2.0"

# Hosting protocol of TensorFlow Hub: the handle with this query serves the archive. The second is
# the bucket behind it.
HUB = RemoteFile(
    "vggish_1.tar.gz",
    (
        "https://tfhub.dev/google/vggish/1?tf-hub-format=compressed",
        "https://storage.googleapis.com/tfhub-modules/google/vggish/1.tar.gz",
    ),
    begins=b"\x1f\x8b",
)
# The checksums are not the publisher's, who gives none, but what others recorded of the same
# addresses: the checkpoint's in uncharted-distil/distil-primitives; the PCA's is that of the file
# whose MD5 cosmir/openmic-2018 lists.
CHECKPOINT = RemoteFile(
    "vggish_model.ckpt",
    ("https://storage.googleapis.com/audioset/vggish_model.ckpt",),
    seen_sha256="0962b1914e3e053922d957c45bc84a78c985765641dc6bceeeb3a7d8dfecfdf6",
)
PCA = RemoteFile(
    "vggish_pca_params.npz",
    ("https://storage.googleapis.com/audioset/vggish_pca_params.npz",),
    begins=b"PK",
    seen_sha256="4d878af3e306defbfb37095365aa7e5a6cecb86bad13e859e626151c4e6a8b9d",
)
SOURCES = {"hub": HUB, "checkpoint": CHECKPOINT}
"""Where the weights can be fetched from, by the names that ``--source`` takes."""


@dataclass(frozen=True)
class Installed:
    """The installed files, verified.

    Attributes
    ----------
    model : BundledModel
        The ONNX graph.
    pca : Path
        The PCA parameters.
    weights_hash : str
        What identifies the weights; see `audiosearch.embedders.vggish.layers.weights_identity`.
        Of the int8 variant, the checksum of its file.
    """

    model: BundledModel
    pca: Path
    weights_hash: str


def folder() -> Path:
    """Return the folder, which need not exist."""
    return model_folder(NAME)


def is_installed(name: str = NAME) -> bool:
    """Tell whether a variant was installed; not whether its files are whole."""
    return (folder() / f"{name}.json").is_file()


def downloaded() -> Path | None:
    """Return the weights that were fetched and wait for their conversion, if there are any."""
    return next(
        (path for file in SOURCES.values() if (path := folder() / file.name).is_file()), None
    )


def installed(name: str = NAME) -> Installed:
    """Return an installed variant, with checksums verified once in the life of a process.

    Raises
    ------
    ModelError
        When it is not installed, or a file of it is missing or damaged.
    """
    if not is_installed(name):
        raise _absent(name)
    remedy = "Fetch it again: audiosearch models fetch vggish --force"
    model = read_model(folder(), name, remedy=remedy)
    pca = folder() / PCA.name
    try:
        known = {key: str(model.manifest[key]) for key in ("pca_sha256", "weights_sha256")}
        whole = sha256_file(pca) == known["pca_sha256"]
    except (KeyError, OSError) as error:
        raise ModelError(
            f"The files of '{name}' in {printable(str(folder()))} do not belong together or "
            f"cannot be read ({error}). {remedy}"
        ) from error
    if not whole:
        raise ModelError(f"{printable(str(pca))} is damaged or was replaced. {remedy}")
    return Installed(model, pca, known["weights_sha256"])


def _absent(name: str) -> ModelError:
    if name == QUANTISED and is_installed():
        return ModelError(
            "The int8 variant of VGGish was not made yet. Make and check it: audiosearch models "
            "verify vggish --quantised"
        )
    return ModelError(
        "VGGish is not installed: its weights (about 290 MB) are not part of audiosearch. Fetch "
        "them: audiosearch models fetch vggish. Converting them once needs TensorFlow: pip install "
        '"audiosearch[tensorflow]"'
    )
