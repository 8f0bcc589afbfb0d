"""The models that audiosearch uses: which there are, where they lie, whether they are whole.

`lite` and `classifier` are installed with the package. `vggish` is fetched; its int8 variant is
made from it and accepted or refused by measuring it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from audiosearch import audio, frontend
from audiosearch.downloads import DownloadProgress
from audiosearch.embedders.vggish import store
from audiosearch.errors import (
    AudioError,
    AudioNotFoundError,
    InvalidArgumentError,
    ModelError,
    printable,
)
from audiosearch.models import bundled_model
from audiosearch.storage import read_json, resource_path

if TYPE_CHECKING:
    from audiosearch.embedders.vggish.checks import Agreement, SmokeTest

__all__ = [
    "ModelInfo",
    "ModelVerification",
    "fetch_model",
    "list_models",
    "model_path",
    "verify_model",
]

_BUNDLED = ("lite", "classifier")
_NAMES = (*_BUNDLED, store.NAME, store.QUANTISED)
# Of a user's own sounds: enough to tell, quick enough to wait for.
_MOST_FRAMES = 600
_MOST_FRAMES_A_FILE = 60


@dataclass(frozen=True)
class ModelInfo:
    """One model.

    Attributes
    ----------
    name : str
        As `model_path` and, for embedders, ``--embedder`` take it.
    state : str
        ``bundled``, ``installed``, ``downloaded`` (it is converted when it is first used),
        ``partly downloaded``, ``not fetched``; for the int8 variant also ``not made`` and
        ``refused``.
    path : str or None
        Its ONNX file, where there is one.
    bytes : int
        How much there is of it on the disk.
    origin, licence : str
        Who made it, and what its licence is.
    """

    name: str
    state: str
    path: str | None
    bytes: int
    origin: str
    licence: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class ModelVerification:
    """What `verify_model` found; a damaged file is an error instead.

    Attributes
    ----------
    name : str
        The model.
    path : Path
        Its ONNX file.
    sha256 : str
        The checksum of that file, which is the recorded one.
    smoke_test : SmokeTest or None
        Of VGGish: Google's smoke test.
    agreement : Agreement or None
        Of VGGish's int8 variant: how far it agrees with VGGish.
    """

    name: str
    path: Path
    sha256: str
    smoke_test: SmokeTest | None = None
    agreement: Agreement | None = None

    @property
    def passed(self) -> bool:
        """Whether all is as it should be."""
        tested = self.smoke_test is None or self.smoke_test.passed
        return tested and (self.agreement is None or self.agreement.accepted)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "name": self.name,
            "path": printable(str(self.path)),
            "sha256": self.sha256,
            "passed": self.passed,
            "smoke_test": None if self.smoke_test is None else self.smoke_test.to_dict(),
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
        }


def list_models() -> list[ModelInfo]:
    """Return all models, without verifying their checksums."""
    return [*(_bundled_info(name) for name in _BUNDLED), _vggish_info(), _quantised_info()]


def model_path(name: str) -> Path:
    """Return the ONNX file of a model, whose checksum is verified.

    Raises
    ------
    ModelError
        When there is no such model, or it is not installed or damaged.
    """
    if _known(name) in _BUNDLED:
        return bundled_model(name).path
    return store.installed(name).model.path


def fetch_model(
    name: str,
    *,
    source: str = "hub",
    path: str | os.PathLike[str] | None = None,
    pca: str | os.PathLike[str] | None = None,
    sha256: str | None = None,
    offline: bool = False,
    force: bool = False,
    on_progress: Callable[[DownloadProgress], None] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> bool:
    """Fetch and install a model that is not bundled: ``"vggish"``.

    Converting it, once, needs TensorFlow. The environment variables ``AUDIOSEARCH_MODELS`` (the
    folder), ``AUDIOSEARCH_OFFLINE`` and ``AUDIOSEARCH_MODEL_MIRRORS`` are heeded.

    Parameters
    ----------
    name : str
        The model.
    source : str
        ``"hub"`` (TensorFlow Hub's google/vggish/1) or ``"checkpoint"`` (vggish_model.ckpt).
    path : path-like, optional
        A SavedModel's folder or archive, or a checkpoint, in place of a download.
    pca : path-like, optional
        The file vggish_pca_params.npz; where None, the one beside `path`, else a download.
    sha256 : str, optional
        What the checksum of the downloaded weights must be.
    offline : bool
        Download nothing.
    force : bool
        Install again what is installed.
    on_progress : callable, optional
        Called with a `DownloadProgress` for each piece of a download.
    on_step : callable, optional
        Called with a sentence before each step that takes a while.

    Returns
    -------
    bool
        False where it was there already.

    Raises
    ------
    DownloadError
        When a file cannot be fetched.
    InvalidArgumentError
        When an argument is none.
    MissingDependencyError
        When TensorFlow or onnx is not installed; downloads are kept.
    ModelError
        When there is no such model, or a file is damaged or not VGGish's.
    StorageError
        When something cannot be written.
    """
    if _known(name) in _BUNDLED:
        bundled_model(name)
        return False
    if name == store.QUANTISED:
        raise InvalidArgumentError(
            "The int8 variant is not fetched but made from VGGish: audiosearch models verify "
            "vggish --quantised"
        )
    from audiosearch.embedders.vggish.install import install

    return install(
        source=source,
        path=path,
        pca=pca,
        sha256=sha256,
        offline=offline,
        force=force,
        on_progress=on_progress,
        on_step=on_step,
    )


def verify_model(
    name: str,
    *,
    quantised: bool = False,
    sounds: Iterable[str | os.PathLike[str]] = (),
    on_step: Callable[[str], None] | None = None,
) -> ModelVerification:
    """Verify a model: its checksum, VGGish's smoke test, its int8 variant's agreement.

    Parameters
    ----------
    name : str
        The model.
    quantised : bool
        Of VGGish: make the int8 variant where it is missing, and accept or refuse it.
    sounds : iterable of path-like
        Files and folders to measure the agreement on, beside made sounds; at most a minute of each
        file and ten minutes in all.
    on_step : callable, optional
        Called with a sentence before each step that takes a while.

    Raises
    ------
    AudioError
        When one of `sounds` cannot be used.
    InvalidArgumentError
        When `quantised` or `sounds` do not go with the model.
    MissingDependencyError
        When the int8 variant is to be made and the package onnx is not installed.
    ModelError
        When there is no such model, or it is not installed or damaged.
    """
    quantised = quantised or _known(name) == store.QUANTISED
    own = list(sounds)
    if quantised and name in _BUNDLED:
        raise InvalidArgumentError(f"'{name}' has no quantised variant.")
    if own and not quantised:
        raise InvalidArgumentError("Sounds are for measuring the quantised variant only.")
    if name in _BUNDLED:
        model = bundled_model(name)
        return ModelVerification(name, model.path, model.sha256)
    from audiosearch.embedders.vggish import install

    install.ensure_installed()
    if not quantised:
        model = store.installed().model
        return ModelVerification(name, model.path, model.sha256, install.smoke_test())
    agreement = install.quantise(patches=_patches(own) if own else None, on_step=on_step)
    model = store.installed(store.QUANTISED).model
    return ModelVerification(model.name, model.path, model.sha256, agreement=agreement)


def _known(name: str) -> str:
    if name not in _NAMES:
        raise ModelError(f"There is no model '{printable(name)}'. There is: {', '.join(_NAMES)}.")
    return name


def _bundled_info(name: str) -> ModelInfo:
    path = resource_path("audiosearch.data", f"{name}.onnx")
    facts = _facts(path)
    return ModelInfo(
        name=name,
        state="bundled",
        path=printable(str(path)),
        bytes=_size(path),
        origin=str(facts.get("origin", "audiosearch")),
        licence=str(facts.get("licence", "Apache-2.0")),
    )


def _vggish_info() -> ModelInfo:
    path = store.folder() / f"{store.NAME}.onnx"
    waiting = store.downloaded()
    parts = [store.folder() / f"{file.name}.part" for file in store.SOURCES.values()]
    part = next((part for part in parts if part.is_file()), None)
    if store.is_installed():
        return _info(store.NAME, "installed", path)
    if waiting is not None:
        return _info(store.NAME, "downloaded", waiting, is_model=False)
    if part is not None:
        return _info(store.NAME, "partly downloaded", part, is_model=False)
    return _info(store.NAME, "not fetched", None)


def _quantised_info() -> ModelInfo:
    if not store.is_installed(store.QUANTISED):
        return _info(store.QUANTISED, "not made", None)
    path = store.folder() / f"{store.QUANTISED}.onnx"
    state = "installed" if _facts(path).get("accepted") is True else "refused"
    return _info(store.QUANTISED, state, path)


def _info(name: str, state: str, path: Path | None, *, is_model: bool = True) -> ModelInfo:
    return ModelInfo(
        name=name,
        state=state,
        path=printable(str(path)) if path is not None and is_model else None,
        bytes=0 if path is None else _size(path),
        origin=store.ORIGIN,
        licence=store.LICENCE,
    )


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = read_json(path.with_suffix(".json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _patches(sounds: list[str | os.PathLike[str]]) -> npt.NDArray[np.float32]:
    """Return the first log-mel patches of files and folders, at most `_MOST_FRAMES`."""
    taken: list[npt.NDArray[np.float32]] = []
    for path, listed in _files(sounds):
        missing = _MOST_FRAMES - sum(map(len, taken))
        if missing <= 0:
            break
        single = itertools.chain.from_iterable(frontend.patches(audio.stream(path)))
        try:
            taken.append(np.stack([*itertools.islice(single, min(missing, _MOST_FRAMES_A_FILE))]))
        except AudioError:
            # What else lies in a folder is no reason to stop.
            if not listed:
                raise
    if not taken:
        raise AudioNotFoundError(
            os.fspath(sounds[0]), "There are no sounds in it that can be used."
        )
    return np.concatenate(taken)


def _files(
    sounds: list[str | os.PathLike[str]],
) -> Iterator[tuple[str | os.PathLike[str], bool]]:
    """Yield each file, and whether it was found in a folder."""
    for path in sounds:
        if Path(path).is_dir():
            for found in audio.find_audio(path):
                yield found, True
        else:
            yield path, False
