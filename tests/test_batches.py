"""Batches that cross files: the same bytes whatever they are made of, and one file's faults."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from library_fixtures import sound_scores

from audiosearch.classifier.scorer import load_scorer
from audiosearch.embedders import get_embedder
from audiosearch.errors import AudioError, EmptyAudioError
from audiosearch.jobs import AnalyzerSettings, Segment, WorkerPool
from audiosearch.jobs.batches import Batches, MixedBatchError, Work
from audiosearch.tagging import TagRules
from audiosearch.tagging.formats import encode_rows

POISON = 7.0


class Embedder:
    """Frames that say which patch they are of; counts its runs."""

    name, weights_hash = "fake", "0" * 64

    def __init__(self) -> None:
        self.runs: list[int] = []

    def embed_patches(self, log_mel: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        self.runs.append(len(log_mel))
        if (log_mel == POISON).any():
            raise MemoryError("poison")
        return np.repeat(log_mel[:, 0, :1].astype(np.uint8), 128, axis=1)


class Scorer:
    """Scores that are the sum and the number of a window's frames."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def score(self, x: npt.NDArray[np.uint8], n: npt.NDArray[Any]) -> Any:
        self.runs.append(len(x))
        scores = np.zeros((len(x), 527), np.float32)
        for row, count in enumerate(n):
            scores[row, 0] = x[row, :count, 0].sum()
            scores[row, 1] = count
        return scores


class Kept:
    """A reduction that keeps all it is given."""

    def __init__(self, window: int, hop: int) -> None:
        self.window, self.hop_frames = window, hop

    def collector(self) -> Any:
        return KeptScores()


class KeptScores:
    def __init__(self) -> None:
        self.rows: list[tuple[float, float]] = []

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        self.rows.extend((float(row[0]), float(row[1])) for row in scores)

    def finish(self, start: float, duration: float) -> Any:
        return self.rows


def patches(values: Sequence[float]) -> npt.NDArray[np.float32]:
    found = np.zeros((len(values), 96, 64), np.float32)
    found[:, 0, 0] = values
    return found


def expected(values: list[int], window: int, hop: int) -> list[tuple[float, float]]:
    """Windows by the definition: the first that reaches the end is the last."""
    rows = []
    for first in range(0, len(values), hop):
        part = values[first : first + window]
        rows.append((float(sum(part)), float(len(part))))
        if first + window >= len(values):
            break
    return rows


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 70), max_size=40),
    window=st.integers(1, 10),
    hop=st.integers(1, 10),
    flushes=st.sets(st.integers(0, 40)),
)
def test_each_file_gets_its_own_windows_in_order(
    lengths: list[int], window: int, hop: int, flushes: set[int]
) -> None:
    hop = min(hop, window)
    embedder, scorer = Embedder(), Scorer()
    batches = Batches(embedder, scorer)  # type: ignore[arg-type]
    values = [[(7 * file + at) % 97 + 10 for at in range(n)] for file, n in enumerate(lengths)]
    works = [Work(str(file), Kept(window, hop)) for file in range(len(lengths))]
    found: dict[str, Any] = {}

    def collect() -> None:
        for work, error in batches.finished():
            assert work.path not in found
            found[work.path] = error or work.collector.finish(0, 0)

    for file, work in enumerate(works):
        for first in range(0, len(values[file]), 32):
            batches.add(work, patches(values[file][first : first + 32]))
        batches.end(work, 1.0)
        if file in flushes:
            batches.flush()
            collect()
            assert not batches.waiting
    batches.flush()
    collect()
    for file in range(len(lengths)):
        if values[file]:
            assert found[str(file)] == expected(values[file], window, hop)
        else:
            assert isinstance(found[str(file)], EmptyAudioError)
    if not flushes:
        assert len(embedder.runs) == -(-sum(lengths) // 32)
        windows = sum(len(expected(each, window, hop)) for each in values)
        assert len(scorer.runs) == -(-windows // 32)


def test_short_files_share_their_batches() -> None:
    embedder, scorer = Embedder(), Scorer()
    batches = Batches(embedder, scorer)  # type: ignore[arg-type]
    for file in range(64):
        work = Work(str(file), Kept(10, 10))
        batches.add(work, patches([20.0]))
        batches.end(work, 1.0)
    assert (embedder.runs, scorer.runs) == ([32, 32], [32, 32])
    assert len(list(batches.finished())) == 64
    assert not batches.waiting


def test_a_batch_that_fails_gives_up_only_the_files_in_it() -> None:
    batches = Batches(Embedder(), Scorer())  # type: ignore[arg-type]
    works = [Work(str(file), Kept(10, 10)) for file in range(4)]
    for work, count in zip(works, (20, 12, 40, 5), strict=True):
        values = [20.0] * count
        if work is works[1]:
            values[3] = POISON
        batches.add(work, patches(values[:32]))
        batches.add(work, patches(values[32:]))
        batches.end(work, 1.0)
    batches.flush()
    outcome = {work.path: error for work, error in batches.finished()}
    assert isinstance(outcome["0"], MixedBatchError)
    assert isinstance(outcome["1"], MixedBatchError)
    assert outcome["2"] is outcome["3"] is None
    assert works[2].collector.finish(0, 0) == [(200.0, 10.0)] * 4
    alone = Work("alone", Kept(10, 10))
    batches.add(alone, patches([POISON]))
    batches.flush()
    ((_, error),) = batches.finished()
    assert isinstance(error, MemoryError), "alone in its batch, a file has its own error"


# with the models


def test_a_row_has_the_same_bytes_wherever_it_stands_and_for_any_threads() -> None:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (45, 10, 128)).astype(np.uint8)
    counts = random.integers(1, 11, 45)
    scores = load_scorer(threads=1).score_calibrated(x, counts)
    order = random.permutation(45)
    assert (load_scorer(threads=1).score_calibrated(x[order], counts[order]) == scores[order]).all()
    assert (load_scorer(threads=2).score_calibrated(x, counts) == scores).all()
    for row in (0, 31, 44):
        alone = load_scorer(threads=3).score_calibrated(x[row : row + 1], counts[row : row + 1])
        assert (alone[0] == scores[row]).all()
    mel = random.normal(-2, 2, (40, 96, 64)).astype(np.float32)
    frames = get_embedder("lite", threads=1).embed_patches(mel)
    assert (get_embedder("lite", threads=2).embed_patches(mel[::-1])[::-1] == frames).all()


@pytest.fixture
def many(sound_master: Path, tmp_path: Path) -> list[str]:
    names = ["tone.wav", "nested/noise.flac", "click.wav", "broken.wav", "silence.wav"]
    paths = []
    for number in range(40):
        source = sound_master / names[number % len(names)]
        paths.append(str(shutil.copy(source, tmp_path / f"{number:02}{source.suffix}")))
    return paths


@pytest.mark.parametrize("per", ["clip", "segment"])
def test_results_are_those_of_one_file_at_a_time(many: list[str], per: str) -> None:
    rules = TagRules(per=per, threshold=0.1)
    chosen = AnalyzerSettings(reduction=rules)
    with WorkerPool(chosen, workers=1) as pool:
        together = list(pool.map(many))
        single = [next(pool.map([path])) for path in many[:5]]
    for number, result in enumerate(together):
        alone = single[number % 5]
        if isinstance(alone, AudioError):
            assert isinstance(result, AudioError)
            continue
        value: Any = result
        assert encode_rows(value.value) == encode_rows(alone.value)  # type: ignore[attr-defined]


def test_an_analysis_in_company_is_the_same(many: list[str]) -> None:
    with WorkerPool(workers=1) as pool:
        for result in pool.map(many):
            if isinstance(result, AudioError):
                assert Path(result.path).name[:2] in {f"{n:02}" for n in range(3, 40, 5)}
                continue
            assert (result.scores == sound_scores(result.frames)).all()


SITE = """
import os, pathlib
import numpy
from audiosearch import audio
original = audio.stream

def stream(path, **options):
    name = os.path.basename(path)
    with open(os.environ["SEEN"], "a") as file:
        print(name, file=file)
    if name in ("07.wav", "25.wav"):
        os.abort()
    return original(path, **options)

audio.stream = stream
"""


def test_a_crash_in_company_costs_one_file(
    many: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    with WorkerPool(workers=2) as pool:
        tasks = [Segment(path) for path in many]
        results = dict(found for found in pool.unordered(tasks, tick=1) if found is not None)
    assert len(results) == len(many)
    crashed = {
        os.path.basename(task.path)  # noqa: PTH119
        for task, result in results.items()
        if isinstance(result, AudioError) and "SIGABRT" in result.reason
    }
    assert crashed == {"07.wav", "25.wav"}
    broken = list(range(3, 40, 5))
    for task, result in results.items():
        number = int(Path(task.path).stem)
        assert isinstance(result, AudioError) == (number in broken or number in (7, 25))
    seen = (tmp_path / "seen").read_text().split()
    assert seen.count("07.wav") == seen.count("25.wav") == 2, "tried again, once"
