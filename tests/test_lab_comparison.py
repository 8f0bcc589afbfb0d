"""The lab's comparison of models: its folds, figures and report, and the measures behind it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from lab_fixtures import class_folders, esc50_layout

from audiosearch.errors import AudioError, InvalidArgumentError, StorageError
from audiosearch.lab import (
    Comparison,
    LabConfig,
    LabelledSound,
    ModelResult,
    SoundSet,
    SplitPlan,
    compare,
    read_sounds,
)
from audiosearch.lab.measures import accuracy_interval, measure
from audiosearch.lab.usage import UsageSample
from audiosearch.own.features import get_feature


def labelled(labels: list[tuple[str, ...]], *, multi_label: bool = False) -> SoundSet:
    sounds = tuple(LabelledSound(f"{row}.wav", each) for row, each in enumerate(labels))
    classes = tuple(sorted({label for each in labels for label in each}))
    return SoundSet("set", "folders", sounds, classes, multi_label=multi_label)


def test_measures_are_those_of_a_worked_example():
    sounds = labelled([("a",), ("a",), ("a",), ("b",), ("c",)])
    scores = np.array(
        [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.5, 0.2, 0.3]],
        np.float32,
    )
    found = measure(sounds.targets(), scores, sounds)
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.confusion == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]
    # a: 2 of 3 found, 2 of 3 right; b: 1 of 1 found, 1 of 2 right; c: none.
    assert found.f1 == pytest.approx({"a": 2 / 3, "b": 2 / 3, "c": 0})
    assert found.macro_f1 == pytest.approx(4 / 9)
    # a ranks its three at 1, 2 and 4; b is second behind none but one; c is first.
    assert found.mAP == pytest.approx(((1 + 1 + 3 / 4) / 3 + 1 + 1) / 3)


def test_several_classes_are_measured_by_decision():
    sounds = labelled([("a", "b"), ("b",), ()], multi_label=True)
    scores = np.array([[0.9, 0.4], [0.6, 0.7], [0.1, 0.2]], np.float32)
    found = measure(sounds.targets(), scores, sounds)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.f1 == pytest.approx({"a": 2 / 3, "b": 2 / 3})
    assert found.confusion == []


def test_the_interval_of_an_accuracy_narrows_with_the_sounds():
    few = accuracy_interval(np.repeat([1.0, 0.0], [15, 5]))
    many = accuracy_interval(np.repeat([1.0, 0.0], [1500, 500]))
    assert few[0] < many[0] < 0.75 < many[1] < few[1]
    # The normal approximation: 1.96 * sqrt(0.75 * 0.25 / 2000) = 0.019.
    assert many == pytest.approx((0.731, 0.769), abs=0.003)
    assert accuracy_interval(np.ones(10)) == (1, 1)


def test_the_interval_of_an_accuracy_is_that_of_its_groups():
    # 20 speakers of 50 sounds, 15 of whom are always understood: what counts is 20, not 1,000.
    right = np.repeat([1.0, 0.0], [750, 250])
    speakers = np.repeat(np.arange(20), 50)
    low, high = accuracy_interval(right, groups=speakers)
    assert (low, high) == pytest.approx(accuracy_interval(np.repeat([1.0, 0.0], [15, 5])), abs=0.06)
    assert high - low > 4 * np.ptp(accuracy_interval(right))
    # Groups that differ in size: one is right, two small ones are wrong; any mix of them is drawn.
    low, high = accuracy_interval(
        np.array([1.0, 1, 1, 1, 0, 0]), groups=np.array([4, 4, 4, 4, 7, 9])
    )
    assert (low, high) == (0, 1)
    assert accuracy_interval(np.ones(9), groups=np.zeros(9, np.int64)) == (0, 1)


def test_a_comparison_takes_sounds_of_one_group_together(tmp_path):
    esc50_layout(tmp_path / "data", each=4)
    # Of one recording all clips are mislabelled, and so never right.
    table = tmp_path / "data" / "meta" / "esc50.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    lines = [
        line.replace(",2,noise,", ",0,low,") if line.startswith("1-21-") else line for line in lines
    ]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = compare(
        read_sounds(tmp_path / "data"), ["linear-lite"], tmp_path / "out", cache=tmp_path / "cache"
    )
    (result,) = found.results
    right = round(36 * result.accuracy)
    assert 24 <= right <= 32
    single = accuracy_interval(np.repeat([1.0, 0.0], [right, 36 - right]))
    assert np.ptp(result.interval) > 1.3 * np.ptp(single), "they are 9 recordings, not 36"


def test_progress_over_several_features_never_goes_back(tmp_path):
    esc50_layout(tmp_path / "data")
    read = []
    compare(
        read_sounds(tmp_path / "data"),
        ["linear-lite", "transfer"],
        tmp_path / "out",
        cache=tmp_path / "cache",
        on_sound=lambda done, total: read.append((done, total)),
    )
    sounds = len(read_sounds(tmp_path / "data").sounds)
    assert read[-1] == (2 * sounds, 2 * sounds)
    shares = [done / total for done, total in read]
    assert shares == sorted(shares)


def test_models_are_compared_on_the_makers_folds(tmp_path):
    esc50_layout(tmp_path / "data")
    (tmp_path / "data" / "audio" / "1-01-0-0.wav").write_bytes(b"no sound" * 50)
    seen = []
    found = compare(
        read_sounds(tmp_path / "data"),
        ["mlp-lite", "linear-lite"],
        tmp_path / "out",
        config=LabConfig(epochs=6, batch_size=4, learning_rate=5e-3),
        seeds=(0, 1),
        cache=tmp_path / "cache",
        on_fold=lambda model, fold: seen.append((model, fold.seed, fold.split)),
    )
    folds = [f"fold {number}" for number in (1, 2, 3)]
    assert seen == [
        (model, seed, fold)
        # What is fitted at once comes first.
        for model, seeds in (("linear-lite", (0,)), ("mlp-lite", (0, 1)))
        for seed in seeds
        for fold in folds
    ]
    written = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert (written["split"], written["optimistic"], written["sounds"]) == ("folds", False, 17)
    by_name = {each["model"]: each for each in written["models"]}
    linear = by_name["linear-lite"]
    assert linear["seed_accuracies"] == [linear["accuracy"]], "it does not depend on the seed"
    assert len(by_name["mlp-lite"]["seed_accuracies"]) == 2
    assert all(each["score_ms"] > 0 for each in written["models"])
    assert linear["accuracy"] > 0.9
    assert np.sum(linear["measures"]["confusion"]) == 17
    weights = [6 / 17, 6 / 17, 5 / 17]
    tested = {fold["split"]: fold["accuracy"] for fold in linear["folds"][:3]}
    sizes = dict(zip(["fold 2", "fold 3", "fold 1"], weights, strict=True))
    mean = sum(tested[name] * sizes[name] for name in tested)
    assert linear["accuracy"] == pytest.approx(mean, abs=1e-5)
    assert [len(fold["epochs"]) for fold in by_name["mlp-lite"]["folds"]] == [6] * 6
    assert linear["layers"][-1]["output"] == [3]
    assert found.advice in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_advice_weighs_what_is_better_against_what_it_costs(tmp_path):
    sounds = labelled([("a",)] * 100 + [("b",)] * 100)

    def result(name: str, wrong: range, seconds: float) -> ModelResult:
        right = np.ones(200)
        right[list(wrong)] = 0
        scores = sounds.targets().astype(np.float32)
        measures = measure(sounds.targets(), scores, sounds)
        rest = ([], 0.0, seconds, 0.1, 10, [], [UsageSample(1.0, 1.0, 1.0)], scores, right)
        accuracy = float(right.mean())
        return ModelResult(name, measures, accuracy, accuracy_interval(right), [accuracy], *rest)

    def compared(*results: ModelResult) -> Comparison:
        plan = SplitPlan("folds", False, "2 folds.", ())
        return Comparison(tmp_path, sounds, plan, (0,), results, np.arange(200))

    best = result("best", range(20), 600)
    # It errs on the same sounds and 8 more: the intervals overlap, and yet it is worse.
    worse = result("worse", range(28), 1)
    assert worse.accuracy > best.interval[0]
    low, high = compared(best, worse).behind(worse)
    assert 0.01 < low < 0.04 < high < 0.08
    assert compared(best, worse).advice == "Take best: it is the most accurate here (90.0%)."
    # One that errs on nearly the same, and one sound more, may be as good.
    equal = result("equal", range(1, 22), 30)
    assert compared(best, equal).behind(equal)[0] < 0
    advice = compared(best, equal, worse).advice
    assert advice.startswith("Take equal (89.5%)")
    assert "20 times as long" in advice
    # One that errs on quite others may be as good, and may be much worse.
    assert compared(best, result("other", range(100, 121), 30)).advice.startswith("Take best")
    # Of few groups nothing can be told: one, or two that agree by chance.
    bad = result("bad", range(200), 1)
    for groups in (np.zeros(200, np.int64), np.arange(200) // 100):
        told = replace(compared(result("good", range(0), 600), bad), groups=groups)
        assert told.advice.startswith("Take good")
    # To save 9 seconds, nobody takes what may be worse.
    quick = replace(best, train_seconds=10.0)
    assert "Take best" in compared(quick, replace(equal, train_seconds=1.0)).advice


def test_what_was_tested_is_kept_when_the_next_model_is_interrupted(tmp_path):
    esc50_layout(tmp_path / "data")

    def stop(model, fold):
        if model == "linear-lite":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(
            read_sounds(tmp_path / "data"),
            ["prototypes", "linear-lite", "transfer"],
            tmp_path / "out",
            cache=tmp_path / "cache",
            on_fold=stop,
        )
    written = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [each["model"] for each in written["models"]] == ["prototypes"]
    assert written["untested"] == ["linear-lite", "transfer"]


def test_what_a_later_feature_cannot_be_computed_of_is_left_out_for_all(tmp_path, monkeypatch):
    esc50_layout(tmp_path / "data")
    lite = get_feature("lite")
    broken = []

    def refuse(waveform):
        if not broken:
            broken.append(1)
            raise AudioError("one.wav", "it has a hole.")
        return lite.compute(waveform)

    odd = type(lite)("odd", "odd", refuse)
    monkeypatch.setattr(
        "audiosearch.lab.comparison.get_feature",
        lambda name: lite if name == "lite" else odd,
    )
    found = compare(
        read_sounds(tmp_path / "data"),
        ["linear-lite", "prototypes"],
        tmp_path / "out",
        cache=tmp_path / "cache",
    )
    assert [each.measures.sounds for each in found.results] == [17, 17]
    assert len(found.sounds.skipped) == 1


def test_a_report_says_that_it_is_optimistic_and_bears_any_label(tmp_path, invoke):
    class_folders(tmp_path / "data", kinds=("low", "noise"), n=4)
    odd = "<b>$\\frac{1}{$ & 'x'"
    (tmp_path / "data" / "low").rename(tmp_path / "data" / odd.replace("/", ""))
    lines = ["path,label,group"]
    for path in sorted((tmp_path / "data").rglob("*.wav")):
        label = '"' + path.parent.name.replace('"', '""') + '"'
        file = '"' + str(path).replace('"', '""') + '"'
        lines.append(f"{file},{label},{int(path.stem) // 2}")
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    common = ["lab", "compare", tmp_path / "list.csv", "--models", "linear-lite", "--folds", "2"]
    common += ["--cache", tmp_path / "cache", "--split", "random"]
    refused = invoke(*common, "--out", tmp_path / "no")
    assert refused.code == 1
    assert "--optimistic" in refused.err
    done = invoke(*common, "--optimistic", "--out", tmp_path / "out")
    assert done.code == 0
    assert "OPTIMISTIC" in done.out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Optimistic" in page
    assert "<b>" not in page
    assert "&lt;b&gt;$\\frac{1}{$ &amp; &#x27;x&#x27;" in page
    assert not re.search(r'(src|href)="(?!#|data:)', page), "the page needs nothing else"
    again = invoke(*common, "--optimistic", "--out", tmp_path / "out")
    assert "exists already" in again.err


def test_what_cannot_be_compared_is_refused(tmp_path):
    sounds = read_sounds(class_folders(tmp_path / "data", n=2))
    with pytest.raises(InvalidArgumentError, match="no model 'owl'"):
        compare(sounds, ["owl"], tmp_path / "out")
    with pytest.raises(InvalidArgumentError, match="at least one"):
        compare(sounds, [], tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StorageError, match="exists already"):
        compare(sounds, ["linear-lite"], tmp_path / "full")


def test_use_of_the_machine_is_sampled_over_time():
    from audiosearch.lab.usage import Usage

    with Usage(every=0.02) as usage:
        began = time.perf_counter()
        busy = time.process_time() + 0.4
        while time.process_time() < busy - 0.3:
            pass
        held = np.ones(20_000_000)  # 160 MB; to fill them is work too
        while time.process_time() < busy:
            pass
        asleep = time.perf_counter() - began
        time.sleep(0.4)
    assert held[0] == 1
    ends = [each.seconds for each in usage.samples]
    assert ends == sorted(ends)
    spent = np.array([each.cores for each in usage.samples]) * np.diff([0.0, *ends])
    before = np.array(ends) <= asleep
    assert spent[before].sum() > 2 * spent[~before].sum(), "busy first, then asleep"
    assert spent.sum() == pytest.approx(0.5, abs=0.2)
    grown = usage.samples[-1].memory_mb - usage.samples[0].memory_mb
    assert grown == pytest.approx(160, abs=40)


def test_long_runs_keep_few_samples():
    from audiosearch.lab.usage import Usage

    with Usage(every=0.0005) as usage:
        time.sleep(1.0)
    assert 20 < len(usage.samples) <= 241
    assert usage.samples[-1].seconds >= 1.0
