"""Libraries with made-up scores, and analysis that needs no worker process."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import BAD_SOUNDS, GOOD_SOUNDS

from audiosearch.classifier.rescoring import Rescorer
from audiosearch.classifier.scorer import classifier_identity, clip_frames, load_scorer
from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import AudioError
from audiosearch.jobs import Analysis, Analyzer, AnalyzerSettings
from audiosearch.labels import load_labels
from audiosearch.library import indexing
from audiosearch.library.columns import encode_vectors
from audiosearch.library.indexing import IndexSummary
from audiosearch.library.library import Library
from audiosearch.library.manifest import create_library
from audiosearch.library.recordings import NewRecording
from audiosearch.library.tail import ROW, tail_columns
from audiosearch.models import bundled_model

# How many files of `sound_folder` are sounds, and how many are none though called so.
GOOD, BAD = len(GOOD_SOUNDS), len(BAD_SOUNDS)


def index_of(name: str) -> int:
    return load_labels().by_name(name).index


def random_codes(clips: int, *, seed: int, share: float = 0.02) -> np.ndarray:
    """Codes of which a share is above the score from which on a clip matches."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 70, (clips, 527))
    high = draw.random((clips, 527)) < share
    codes[high] = draw.integers(83, 256, int(high.sum()))
    return codes.astype(np.uint8)


def make_library(
    folder: Path,
    clips: Sequence[int],
    codes: np.ndarray,
    vectors: np.ndarray | None = None,
    *,
    root: str = "/sounds",
) -> Path:
    """Make a library of files `root`/0.wav ... with `clips[i]` clips of the given codes."""
    lite, classifier = bundled_model("lite"), bundled_model("classifier")
    create_library(
        folder,
        embedder=("lite", lite.sha256),
        classifier=(str(classifier.manifest["name"]), classifier_identity(classifier)),
    )
    append(folder, clips, codes, vectors, root=root)
    return folder


def append(
    folder: Path,
    clips: Sequence[int],
    codes: np.ndarray,
    vectors: np.ndarray | None = None,
    *,
    root: str = "/sounds",
) -> None:
    """Add more such recordings to a library."""
    assert codes.shape == (sum(clips), 527)
    if vectors is None:
        values = np.random.default_rng(1).integers(-127, 128, (sum(clips), 128))
        vectors = encode_vectors(values)  # which an export and an import keep as they are
    with Library(folder, writable=True) as library:
        lengths = library.catalogue.lengths()
        first = library.catalogue.next_recording()
        rows = np.zeros(sum(clips), ROW)
        rows["recording"] = np.repeat(np.arange(first, first + len(clips)), clips)
        rows["scores"], rows["vector"] = codes, vectors
        tail_columns(folder, lengths["tail"])[0].append(lengths["tail_rows"], rows)
        with library.catalogue.transaction():
            number = library.catalogue.add_root(os.fsencode(root))
            library.catalogue.add(
                [
                    NewRecording(
                        source="file",
                        name=f"{first - 1 + place}.wav".encode(),
                        start=0.0,
                        duration=9.6 * count - 3.0,
                        clips=count,
                        root=number,
                        size=1,
                        mtime_ns=1,
                    )
                    for place, count in enumerate(clips)
                ]
            )


def rescored(packed: Path, row: int) -> np.ndarray:
    """The scores that a library keeps of a row of a packed file, before they are rounded."""
    with PackedFile(packed) as file:
        rows = file.read(row, row + 1)
    scores = load_scorer().score_calibrated(rows.x, rows.n_frames)
    return rescorer("rescorer").rescore(scores, rows.x, rows.n_frames)[0]


def sound_scores(frames: np.ndarray) -> np.ndarray:
    """The scores of the clips of a sound of which the bundled embedder gave these frames."""
    x, n_frames = clip_frames(frames)
    return frame_scores(x, n_frames)


def frame_scores(x: np.ndarray, n_frames: np.ndarray) -> np.ndarray:
    """The scores of clips of the bundled embedder, (n, 10, 128)."""
    scores = load_scorer().score_calibrated(x, n_frames)
    return rescorer("rescorer-lite").rescore(scores, x, n_frames)


@functools.cache
def rescorer(name: str) -> Rescorer:
    """A bundled rescorer by the name of its file."""
    return Rescorer(bundled_model(name))


def likeness(library: Library) -> np.ndarray:
    """How much alike the clips of a library are, computed from its definition, (clips, clips)."""
    parts = library.snapshot().parts
    codes = np.concatenate([[p.block.column(i) for i in range(527)] for p in parts], axis=1).T
    scores = 1 / (1 + np.exp(9 - codes / 16.0))
    heard = np.where(codes >= np.rint((np.log(0.01 / 0.99) + 9) * 16), scores**0.5, 0.0)
    means = np.concatenate([p.block.vectors for p in parts]).astype(float)
    for values in (heard, means):
        values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    share = np.where(heard.any(axis=1), 2 / 3, 0.0)[:, None]  # of the clip that is looked for
    return share * (heard @ heard.T) + (1 - share) * (means @ means.T)


def remove(folder: Path, *names: str) -> None:
    """Remove recordings of `make_library` again."""
    with Library(folder, writable=True) as library:
        known = library.catalogue.known_files()
        with library.catalogue.transaction():
            for name in names:
                library.catalogue.forget(known[b"/sounds/" + name.encode()])


def write_sounds(folder: Path, count: int, *, seconds: float = 11.0, seed: int = 4) -> Path:
    """Write `count` noises, each another one."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        samples = random.normal(0, 0.01 * (number + 1) % 0.3 + 0.01, round(8000 * seconds))
        soundfile.write(folder / f"{number:03}.wav", samples, 8000, subtype="PCM_16")
    return folder


def counts(summary: IndexSummary) -> dict[str, int]:
    """What a run did, without what took no part."""
    names = ("added", "updated", "unchanged", "removed")
    result = {name: getattr(summary, name) for name in names} | {"skipped": len(summary.skipped)}
    return {name: count for name, count in result.items() if count}


def contents(folder: Path) -> dict[str, list[bytes]]:
    """Every recording with its scores, vectors and frames, clip by clip."""
    found = {}
    with Library(folder) as library:
        parts = library.snapshot().parts
        known = library.catalogue._db.rows("SELECT id, first_clip, clips FROM recordings")
        for number, first, count in known:
            part, row = library.snapshot().find(first)
            rows = np.arange(row, row + count)
            assert (part.block.recordings[rows] == number).all()
            scores = np.stack([part.block.column(c)[rows] for c in range(527)], axis=1)
            pieces = [scores, part.block.vectors[rows]]
            frames = [library.frames(clip) for clip in range(first, first + count)]
            if len(frames[0]):
                pieces.append(np.concatenate(frames))
            name = library.catalogue.recordings([number])[number].name
            assert name not in found
            found[name] = [piece.tobytes() for piece in pieces]
        assert sum(part.block.rows for part in parts) >= sum(count for _, _, count in known)
    return found


def run_without_override(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run Python so that file permissions hold, as they do not for root."""

    def drop() -> None:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP

    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=drop if os.geteuid() == 0 else None,
    )


def make_readonly(folder: Path) -> None:
    """Take the permission to write from a folder of files."""
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)


class InProcessPool:
    """Stands in for `WorkerPool` where a test is about what becomes of its results."""

    seen: list[str]
    """Names of the files that were analysed, by all pools of a test."""

    def __init__(self, settings: AnalyzerSettings, **_: object) -> None:
        self._analyzer = _analyzer(settings.embedder, settings.rescored)

    def __enter__(self) -> InProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def map(self, paths: Iterable[str]) -> Iterator[Analysis | AudioError]:
        for path in paths:
            self.seen.append(Path(path).name)
            try:
                yield self._analyzer.analyze(path)
            except AudioError as error:
                yield error


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Analyse without worker processes; gives the names of the files that were."""
    monkeypatch.setattr(indexing, "WorkerPool", InProcessPool)
    monkeypatch.setattr(InProcessPool, "seen", [], raising=False)
    return InProcessPool.seen


@functools.cache
def _analyzer(embedder: str, is_rescored: bool) -> Analyzer:
    return Analyzer(AnalyzerSettings(embedder=embedder, rescored=is_rescored, threads=1))
