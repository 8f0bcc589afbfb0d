"""Installs VGGish: fetches or takes its files, converts them, checks them, stores them.

Nothing is stored that does not pass Google's smoke test. The manifest is written last, so that an
installation that was cut off is none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.downloads import Download, DownloadProgress
from audiosearch.embedders.base import SPACE
from audiosearch.embedders.runtime import PatchNetwork
from audiosearch.embedders.vggish.checks import Agreement, SmokeTest, compare, run_smoke_test
from audiosearch.embedders.vggish.graph import write_graph, write_quantised
from audiosearch.embedders.vggish.layers import PARAMETERS, weights_identity
from audiosearch.embedders.vggish.postprocess import read_postprocessor
from audiosearch.embedders.vggish.probes import made_patches
from audiosearch.embedders.vggish.sources import read_weights
from audiosearch.embedders.vggish.store import (
    CHECKPOINT,
    LICENCE,
    NAME,
    ORIGIN,
    PCA,
    QUANTISED,
    SOURCES,
    downloaded,
    folder,
    installed,
    is_installed,
)
from audiosearch.errors import InvalidArgumentError, ModelError, printable
from audiosearch.model_cache import accept, fetch_file, locked
from audiosearch.models import read_model
from audiosearch.storage import atomic_path, sha256_file, storage_errors, write_json
from audiosearch.version import __version__

__all__ = ["ensure_installed", "install", "quantise", "smoke_test"]

# Made sounds to calibrate the int8 variant with, and others to measure it on; two frames each.
_CALIBRATION = {"count": 16, "seed": 1}
_MEASUREMENT = {"count": 32, "seed": 2}


@dataclass(frozen=True)
class _Files:
    """What is to be installed: the weights and the PCA parameters, fetched or a user's own."""

    weights: Path
    pca: Path
    fetched: tuple[Download, ...] = ()


def install(
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
    """Install VGGish.

    Parameters
    ----------
    source : str
        Where to fetch the weights from: ``"hub"`` (TensorFlow Hub's google/vggish/1) or
        ``"checkpoint"`` (vggish_model.ckpt).
    path : path-like, optional
        A SavedModel's folder or archive, or a checkpoint, in place of a download; it is installed
        in any case.
    pca : path-like, optional
        The file vggish_pca_params.npz; where None, the one beside `path`, else a download.
    sha256 : str, optional
        What the checksum of the downloaded weights must be.
    offline : bool
        Download nothing.
    force : bool
        Install again what is installed.
    on_progress : callable, optional
        Called with each piece of a download.
    on_step : callable, optional
        Called with a sentence before each step that takes a while.

    Returns
    -------
    bool
        False where it was installed already and is left alone.

    Raises
    ------
    DownloadError
        When a file cannot be fetched.
    InvalidArgumentError
        When `source` is none, or `sha256` is given for a file that is not downloaded.
    MissingDependencyError
        When TensorFlow or onnx is not installed; downloads are kept.
    ModelError
        When a file is damaged or is something else, or the smoke test fails.
    StorageError
        When something cannot be written.
    """
    if source not in SOURCES:
        raise InvalidArgumentError(f"source must be one of {', '.join(SOURCES)}, not {source!r}.")
    if path is not None and sha256 is not None:
        raise InvalidArgumentError("A checksum can be asked of a download only, not of a path.")
    step = on_step or (lambda _: None)
    with locked(folder()):
        if is_installed() and path is None and not force:
            installed()
            return False
        if path is not None:
            weights, fetched = Path(path), []
        else:
            remote = SOURCES[source]
            by_hand = (
                "Or take weights that you have: audiosearch models fetch vggish --from PATH"
                if remote is CHECKPOINT
                else "Or fetch the original checkpoint: audiosearch models fetch vggish "
                "--source checkpoint"
            )
            found = fetch_file(
                remote,
                folder(),
                sha256=sha256,
                offline=offline,
                by_hand=by_hand,
                on_progress=on_progress,
            )
            weights, fetched = found.path, [found]
        parameters = Path(pca) if pca is not None else _beside(path)
        if parameters is None:
            by_hand = "Or name the file that you have with --pca"
            found = fetch_file(
                PCA, folder(), offline=offline, by_hand=by_hand, on_progress=on_progress
            )
            parameters = found.path
            fetched.append(found)
        for file in fetched:
            step(_provenance(file))
        _convert(_Files(weights, parameters, tuple(fetched)), step)
    return True


def ensure_installed() -> None:
    """Convert what was fetched and not yet converted; see `install` for what it raises."""
    if is_installed() or downloaded() is None:
        return
    with locked(folder()):
        weights = downloaded()
        # Another process may just have done it.
        if is_installed() or weights is None:
            return
        if (folder() / PCA.name).is_file():
            fetched = [
                fetch_file(file, folder(), offline=True)
                for file in (*SOURCES.values(), PCA)
                if (folder() / file.name).is_file()
            ]
            _convert(_Files(weights, folder() / PCA.name, tuple(fetched)), lambda _: None)


def smoke_test() -> SmokeTest:
    """Run Google's smoke test on the installed VGGish; raises as `store.installed`."""
    files = installed()
    network = PatchNetwork(files.model.path, name=NAME)
    return run_smoke_test(network, read_postprocessor(files.pca))


def quantise(
    *,
    patches: npt.NDArray[np.float32] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Agreement:
    """Make the int8 variant where it is missing, measure it, and record whether it is accepted.

    Parameters
    ----------
    patches : float32 (n, 96, 64), optional
        Log-mel patches to measure on, beside those of made sounds.
    on_step : callable, optional
        Called with a sentence before each step that takes a while.

    Raises
    ------
    MissingDependencyError
        When the package onnx is not installed.
    ModelError
        When VGGish is not installed, or the variant cannot be made.
    StorageError
        When it cannot be written.
    """
    step = on_step or (lambda _: None)
    with locked(folder()):
        files = installed()
        target = folder() / f"{QUANTISED}.onnx"
        made = None
        if is_installed(QUANTISED):
            made = installed(QUANTISED)
        else:
            step("Making the int8 variant.")
            with atomic_path(target) as temporary:
                write_quantised(files.model.path, temporary, patches=made_patches(**_CALIBRATION))
        step("Comparing it with VGGish.")
        measured = made_patches(**_MEASUREMENT)
        if patches is not None:
            measured = np.concatenate([measured, patches])
        agreement = compare(
            PatchNetwork(files.model.path, name=NAME),
            PatchNetwork(target, name=QUANTISED),
            read_postprocessor(files.pca),
            measured,
            size_ratio=target.stat().st_size / files.model.path.stat().st_size,
        )
        checksum = made.model.sha256 if made else sha256_file(target)
        pca_checksum = str(files.model.manifest["pca_sha256"])
        facts = {
            "quantised_from": files.weights_hash,
            "weights": "int8, first and last layer float32",
            "accepted": agreement.accepted,
            "agreement": agreement.to_dict(),
        }
        identity = hashlib.sha256(f"{checksum}{pca_checksum}".encode()).hexdigest()
        _write_manifest(QUANTISED, checksum, pca_checksum, identity, facts)
    return agreement


def _beside(path: str | os.PathLike[str] | None) -> Path | None:
    """Return the PCA parameters that lie with a user's own weights, if they do."""
    if path is None:
        return None
    places = (Path(path).parent / PCA.name, Path(path) / PCA.name)
    return next((place for place in places if place.is_file()), None)


def _provenance(file: Download) -> str:
    """Say whether a file is the one that others recorded, which decides nothing."""
    name = file.path.name
    known = {remote.name: remote.seen_sha256 for remote in (*SOURCES.values(), PCA)}[name]
    if known is None:
        return f"{name} has the SHA-256 {file.sha256}. None is published; the smoke test decides."
    if known == file.sha256:
        return f"{name} is the very file that other projects recorded (SHA-256 {known})."
    return (
        f"{name} has the SHA-256 {file.sha256}, not {known} as other projects recorded. None is "
        "published; the smoke test decides."
    )


def _convert(files: _Files, step: Callable[[str], None]) -> None:
    """Convert, check, and store; the lock is held."""
    postprocess = read_postprocessor(files.pca)
    step("Reading the weights with TensorFlow.")
    try:
        weights = read_weights(files.weights)
    except ModelError as error:
        if files.weights.parent != folder():
            raise
        with storage_errors(files.weights):
            files.weights.unlink(missing_ok=True)
        raise ModelError(f"{error} It was removed.") from error
    identity = weights_identity(weights, postprocess.matrix, postprocess.means)
    target = folder() / f"{NAME}.onnx"
    with atomic_path(target) as temporary:
        step("Converting them to ONNX.")
        write_graph(weights, temporary)
        del weights
        step("Checking them with Google's smoke test.")
        result = run_smoke_test(PatchNetwork(temporary, name=NAME), postprocess)
        if not result.passed:
            raise _not_vggish(files, result)
        checksum = sha256_file(temporary)
        _remove_manifests()
        if not (folder() / PCA.name).is_file() or not files.pca.samefile(folder() / PCA.name):
            with atomic_path(folder() / PCA.name) as copy:
                shutil.copyfile(files.pca, copy)
    facts = {
        "parameters": PARAMETERS,
        "smoke_test": result.to_dict(),
        "source": files.weights.name,
        "downloads": {
            file.path.name: {"sha256": file.sha256, "url": file.url or None}
            for file in files.fetched
        },
    }
    _write_manifest(NAME, checksum, sha256_file(folder() / PCA.name), identity, facts)
    accept(folder(), list(files.fetched))
    for remote in SOURCES.values():
        # Only what was converted: a user's own file elsewhere is not ours to delete.
        path = folder() / remote.name
        with storage_errors(path):
            path.unlink(missing_ok=True)


def _remove_manifests() -> None:
    """Take off what is installed, so that no manifest ever speaks of other files."""
    for name in (QUANTISED, NAME):
        for suffix in (".json", ".onnx"):
            path = folder() / f"{name}{suffix}"
            with storage_errors(path):
                path.unlink(missing_ok=True)
    read_model.cache_clear()


def _write_manifest(
    name: str, checksum: str, pca_checksum: str, identity: str, facts: dict[str, Any]
) -> None:
    write_json(
        folder() / f"{name}.json",
        {
            "format_version": 1,
            "name": name,
            "sha256": checksum,
            "pca_sha256": pca_checksum,
            "weights_sha256": identity,
            "input": "float32 (n, 96, 64) log-mel patches",
            "output": "float32 (n, 128), before activation and PCA",
            "space": SPACE,
            "origin": ORIGIN,
            "licence": LICENCE,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "audiosearch": __version__,
            **facts,
        },
    )
    read_model.cache_clear()


def _not_vggish(files: _Files, result: SmokeTest) -> ModelError:
    wrong = ", ".join(
        f"{figure.name} {figure.measured:.4g} (published: {figure.expected:g})"
        for figure in result.figures
        if not figure.passed
    )
    return ModelError(
        f"{printable(str(files.weights))} and {printable(str(files.pca))} do not pass Google's "
        f"smoke test, so they are not the published VGGish: {wrong}. Nothing was installed. "
        "Delete what was downloaded and fetch it again, or from the other source (--source)."
    )
