"""The table of bars: an embedder beside YAMNet, printed as Markdown and kept as JSON."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.classifier.clip_scorer import ClipScorer
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES, PATCH_SECONDS
from tools.lite.catalogue import FOLDER, read_rows
from tools.lite.collection import SoundStore
from tools.lite.measures import (
    Embed,
    Known,
    OnnxEmbedder,
    TopResult,
    interval,
    nearest_released,
    probe,
    read_esc10,
    read_labelled,
    top_classes,
    wilson,
)
from tools.lite.released import Pairs, Released
from tools.lite.teacher import Teacher

__all__ = ["HeldOut", "Tests", "measure", "read_held_out", "speed"]

_RUNS = 40
_BATCH = 16


@dataclass(frozen=True)
class HeldOut:
    """One row of ``heldout.csv``: a sound of known class that is never trained on."""

    sha1: str
    package: str
    path: str
    accepted_class: str


@dataclass(frozen=True)
class Tests:
    """Where the tests lie; what is None is left out.

    Attributes
    ----------
    held_out : list of Known
        Our own sounds of known class, from packages that nothing is trained on.
    esc10 : Path or None
        ESC-10 in ESC-50's layout.
    samples : Path or None
        A folder of recordings and its ``labels.csv``.
    pairs : Pairs or None
        Clips whose released embedding is known.
    released : Released or None
        What they are searched in.
    """

    held_out: list[Known] = field(default_factory=list)
    esc10: Path | None = None
    samples: Path | None = None
    pairs: Pairs | None = None
    released: Released | None = None


def read_held_out(store: SoundStore, path: Path = FOLDER / "heldout.csv") -> list[Known]:
    """Return the held-out sounds that a store holds."""
    from audiosearch.labels import load_labels

    labels = load_labels()
    classes: dict[str, list[int]] = {}
    for row in read_rows(path, HeldOut):
        classes.setdefault(row["sha1"], []).append(labels.by_name(row["accepted_class"]).index)
    found = []
    for sha1, indices in classes.items():
        place = store.find(sha1)
        if place is not None:
            found.append(Known(place, tuple(indices), labels[indices[0]].name))
    return found


def measure(
    embedder: Path,
    tests: Tests,
    scorer: ClipScorer,
    teacher: Teacher,
    *,
    folds: Sequence[Path] = (),
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure an embedder on all tests that are there, and print a table.

    Parameters
    ----------
    embedder : Path
        ONNX file.
    tests : Tests
        The tests.
    scorer : ClipScorer
        The classifier, and the rescorer of the embedder's clips.
    teacher : Teacher
        YAMNet, for the comparison.
    folds : sequence of Path
        Five embedders, each trained without a fold's pairs, for the nearest released clips; where
        there are none, `embedder` itself is asked, which is only fair if it saw none of the pairs.
    say : callable
        Called with each line.

    Returns
    -------
    dict
        All figures.
    """
    embed: Embed = OnnxEmbedder(embedder)
    result: dict[str, Any] = {
        "embedder": embedder.name,
        "classifier": scorer.scorer.name,
        "rescored": scorer.rescorer is not None,
    }
    if scorer.rescorer is None:
        say("No rescorer fits this embedder and classifier; scores are the classifier's.\n")
    say("| bar | recordings | embedder | 95 % | without rescorer | YAMNet | ratio | 95 % |")
    say("|---|---|---|---|---|---|---|---|")
    if tests.held_out:
        found, _ = top_classes(tests.held_out, embed, scorer, teacher)
        result["held_out"] = _say_top("(a) top 5, held-out sources", found, say)
    if tests.esc10 is not None:
        known = read_esc10(tests.esc10)
        found, means = top_classes(known, embed, scorer, teacher)
        result["esc10"] = _say_top("(a) top 5, ESC-10", found, say)
        accuracy, by_class = probe(means, known)
        low, high = wilson(round(accuracy * len(known)), len(known))
        say(f"| (d) probe, ESC-10 | {len(known)} | {accuracy:.3f} | {low:.3f}–{high:.3f} | | | | |")
        result["probe"] = {"accuracy": accuracy, "by_class": by_class}
    if tests.pairs is not None and tests.released is not None:
        result["nearest"] = _nearest(tests.pairs, tests.released, embed, folds, say)
    if tests.samples is not None:
        known = read_labelled(tests.samples / "labels.csv", tests.samples)
        known = [Known(item.path, item.classes, item.path.stem) for item in known]
        found, _ = top_classes(known, embed, scorer, teacher)
        result["samples"] = _say_top("(c) samples", found, say)
    result["speed"] = speed(embedder)
    say("")
    say(f"{embedder.stat().st_size / 1e6:.1f} MB; {result['speed']:,.0f} x real time on 2 threads")
    for name in ("held_out", "esc10", "samples"):
        if name in result:
            _say_groups(name, result[name], say)
    if "probe" in result:
        shares = ", ".join(f"{k} {v:.2f}" for k, v in result["probe"]["by_class"].items())
        say(f"\nprobe by class: {shares}")
    return result


def speed(embedder: Path, *, threads: int = 2) -> float:
    """Return how many seconds of sound a second an embedder takes, the median of some runs."""
    embed = OnnxEmbedder(embedder, threads=threads)
    shape = (_BATCH, PATCH_FRAMES, MEL_BANDS)
    patches = np.random.default_rng(0).uniform(-4, 3, shape).astype(np.float32)
    times = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        embed(patches)
        times.append(time.perf_counter() - began)
    return _BATCH * PATCH_SECONDS / statistics.median(times[5:])


def _nearest(
    pairs: Pairs,
    released: Released,
    embed: Embed,
    folds: Sequence[Path],
    say: Callable[[str], None],
) -> dict[str, Any]:
    embedders: Embed | list[Embed] = [OnnxEmbedder(fold) for fold in folds] if folds else embed
    found = nearest_released(pairs, released, embedders)
    low, high = wilson(int((found.ranks <= 10).sum()), len(pairs))
    how = "five-fold" if folds else "not cross-validated"
    title = f"(b) R@10 of {len(released.x):,}, {how}, median rank {found.median:.0f}"
    say(f"| {title} | {len(pairs)} | {found.recall:.3f} | {low:.3f}–{high:.3f} | | | | |")
    return {"recall": found.recall, "median_rank": found.median, "how": how}


def _say_top(title: str, found: TopResult, say: Callable[[str], None]) -> dict[str, Any]:
    ours = [hit for group in found.ours.values() for hit in group]
    theirs = [hit for group in found.theirs.values() for hit in group]
    low, high = wilson(sum(ours), len(ours))
    ratio = found.share / max(found.their_share, 1e-9)
    ratio_low, ratio_high = interval(ours, theirs)
    say(
        f"| {title} | {len(ours)} | {found.share:.3f} | {low:.3f}–{high:.3f} | "
        f"{found.plain_share:.3f} | {found.their_share:.3f} | {ratio:.2f} | "
        f"{ratio_low:.2f}–{ratio_high:.2f} |"
    )
    order = found.order
    say(
        f"| order by class, AP of {found.classes} classes | {len(ours)} | {order['ours']:.3f} | | "
        f"{order['plain']:.3f} | {order['theirs']:.3f} | | |"
    )
    error = found.error
    say(
        f"| ECE beside YAMNet's scores | {len(ours)} | {error['ours']:.4f} | | "
        f"{error['plain']:.4f} | | | |"
    )
    groups = {
        group: [int(sum(hits)), int(sum(found.theirs[group])), len(hits)]
        for group, hits in found.ours.items()
    }
    return {
        "share": found.share,
        "without_rescorer": found.plain_share,
        "order": {**order, "classes": found.classes},
        "calibration_error": error,
        "yamnet": found.their_share,
        "ratio": ratio,
        "by_class": groups,
    }


def _say_groups(name: str, result: dict[str, Any], say: Callable[[str], None]) -> None:
    say(f"\n{name}, by class: embedder / YAMNet of recordings")
    say(
        ", ".join(
            f"{group} {ours}/{theirs} of {total}"
            for group, (ours, theirs, total) in sorted(result["by_class"].items())
        )
    )
