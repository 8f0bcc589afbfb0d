"""The comparison's report: one HTML file that needs nothing else."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiosearch import frontend
from audiosearch.audio import SAMPLE_RATE
from audiosearch.classifier.plots import import_figure
from audiosearch.errors import AudioError
from audiosearch.lab.models import get_model
from audiosearch.lab.waveforms import load_clip
from audiosearch.own.features import channels_of
from audiosearch.own.waveforms import ClipLength
from audiosearch.storage import atomic_path

if TYPE_CHECKING:
    from audiosearch.lab.comparison import Comparison
    from audiosearch.lab.epoch_times import EpochTimes
    from audiosearch.lab.results import ModelResult

__all__ = ["write_report"]

_SHOWN_SECONDS = 5.0
_MOST_CLASSES = 50  # with a picture of their own
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid #ccc }
th:first-child, td:first-child { text-align: left }
.warning { background: #fff3cd; border-left: .4rem solid #b58105; padding: .5rem 1rem }
svg { max-width: 100%; height: auto }
"""


def write_report(found: Comparison) -> Path:
    """Write ``report.html`` into the comparison's folder.

    Raises
    ------
    MissingDependencyError
        When matplotlib is not installed.
    StorageError
        When it cannot be written.
    """
    path = found.folder / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(_page(found), encoding="utf-8", errors="backslashreplace")
    return path


def _page(found: Comparison) -> str:
    title = f"Models compared on {_text(Path(found.sounds.name).name)}"
    counts = found.sounds.counts()
    how = (
        f"{len(found.sounds):,} sounds of {len(counts)} classes. Split: "
        f"{_text(found.plan.description)} Seeds: {', '.join(map(str, found.seeds))}. Networks are "
        "trained for a fixed number of epochs; nothing was chosen on what was tested."
    )
    advice = f"<p><strong>{_text(found.advice)}</strong></p>"
    parts = [f"<h1>{title}</h1>", advice, f"<p>{how}</p>"]
    if found.plan.optimistic:
        parts.append(
            '<p class="warning">Optimistic: sounds that belong together stand on both sides of '
            "the split. On new recordings, results will be worse.</p>"
        )
    parts += ["<h2>Results</h2>", _results(found), _accuracy_chart(found)]
    if found.epoch_times is not None:
        parts += ["<h2>Time per epoch</h2>", _epoch_times(found.epoch_times)]
    parts += ["<h2>F1 of each class</h2>", _classes(found)]
    curved = [each for each in found.results if each.folds[0].epochs]
    if curved:
        parts.append("<h2>Loss and accuracy by epoch</h2>")
        parts += [_curves(each) for each in curved]
    parts += [
        "<h2>Processor and memory in training</h2>",
        *(_usage(each) for each in found.results),
    ]
    if not found.sounds.multi_label:
        parts.append("<h2>Confusions</h2>")
        parts += [_confusion(each, found.sounds.classes) for each in found.results]
    parts += ["<h2>Layers</h2>", *(_layers(each) for each in found.results)]
    parts += ["<h2>A sound of each class</h2>", _examples(found)]
    if found.sounds.skipped:
        rows = [[_text(path), _text(reason)] for path, reason in found.sounds.skipped]
        parts += ["<h2>Left out</h2>", _table(["file", "reason"], rows)]
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _results(found: Comparison) -> str:
    header = [
        "model",
        "accuracy",
        "95 % interval",
        "behind the best",
        "by seed",
        "macro F1",
        "mAP",
        "features",
        "training",
        "scoring a clip",
        "parameters",
        "cores",
        "peak memory",
    ]
    rows = [
        [
            _text(each.model),
            f"{each.accuracy:.1%}",
            f"{each.interval[0]:.1%} to {each.interval[1]:.1%}",
            _behind(found, each),
            ", ".join(f"{value:.1%}" for value in each.seed_accuracies),
            f"{each.measures.macro_f1:.3f}",
            f"{each.measures.mAP:.3f}",
            f"{each.feature_seconds:,.0f} s",
            f"{each.train_seconds:,.0f} s",
            "" if each.score_ms is None else f"{each.score_ms:.2f} ms",
            f"{each.parameters:,}",
            f"{each.cores:.1f}",
            f"{each.peak_mb:,.0f} MB",
        ]
        for each in found.results
    ]
    note = (
        "<p>Features: time for those that were not kept from before. Training: all folds and "
        "seeds, added up; several may have run at once. Behind the best: by so many of the sounds "
        "it is less accurate, 95 % interval of the difference sound by sound. Scoring: without the "
        "features. Cores: how many were busy in training, on average. "
        "Memory: of the processes that train, which keep what models before have loaded.</p>"
    )
    return _table(header, rows) + note


def _behind(found: Comparison, result: ModelResult) -> str:
    if result is found.results[0]:
        return ""
    low, high = found.behind(result)
    return f"{low:.1%} to {high:.1%}"


def _epoch_times(times: EpochTimes) -> str:
    ratios = {model: times.ratio(model) for model in times.seconds}
    header = ["model", *times.devices, "cpu / gpu"]
    rows = [
        [
            _text(model),
            *(f"{seconds[device]:.3g} s" for device in times.devices),
            "" if ratios[model] is None else f"{ratios[model]:.2f}",
        ]
        for model, seconds in times.seconds.items()
    ]
    how = "The median of three epochs on the sounds that the first split trains on."
    table = f"{_table(header, rows)}<p>{how}</p>" if rows and times.devices else ""
    return table + (f"<p>{_text(times.note)}</p>" if times.note else "")


def _classes(found: Comparison) -> str:
    header = ["class", "sounds", *(_text(each.model) for each in found.results)]
    rows = [
        [
            _text(label),
            f"{count:,}",
            *(f"{each.measures.f1[label]:.2f}" for each in found.results),
        ]
        for label, count in found.sounds.counts().items()
    ]
    return _table(header, rows)


def _layers(result: ModelResult) -> str:
    rows = [
        [
            _text(layer["layer"]),
            layer["kind"],
            " x ".join(map(str, layer["output"])),
            f"{layer['parameters']:,}",
        ]
        for layer in result.layers
    ]
    table = _table(["layer", "kind", "output", "parameters"], rows)
    return f"<details><summary>{_text(result.model)}</summary>{table}</details>"


def _accuracy_chart(found: Comparison) -> str:
    figure = import_figure()(figsize=(7, 0.5 + 0.4 * len(found.results)), layout="constrained")
    axes = figure.subplots()
    shown = found.results[::-1]
    values = np.array([each.accuracy for each in shown])
    bounds = np.array([each.interval for each in shown]).T
    axes.barh(range(len(shown)), values, color="#7aa6d6")
    errors = np.abs(bounds - values)
    axes.errorbar(values, range(len(shown)), xerr=errors, fmt="none", color="black", capsize=3)
    axes.set_yticks(range(len(shown)), [each.model for each in shown])
    axes.set(xlim=(0, 1), xlabel="accuracy")
    return _svg(figure, "accuracy of each model with its 95 % interval")


def _curves(result: ModelResult) -> str:
    """Draw the mean over folds and seeds."""
    figure = import_figure()(figsize=(9, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = ("loss", "validation_loss", "validation_accuracy")
    values = {
        name: np.mean([[epoch[name] for epoch in fold.epochs] for fold in result.folds], axis=0)
        for name in names
    }
    epochs = np.arange(1, len(values["loss"]) + 1)
    left.plot(epochs, values["loss"], label="training")
    left.plot(epochs, values["validation_loss"], label="tested fold")
    left.set(xlabel="epoch", title=f"{result.model}: loss")
    left.legend()
    right.plot(epochs, values["validation_accuracy"], color="C1")
    right.set(xlabel="epoch", title="accuracy on the tested fold", ylim=(0, 1))
    return _svg(figure, f"loss and accuracy of {result.model} by epoch")


def _usage(result: ModelResult) -> str:
    """Draw the cores and the memory that were taken, over time."""
    figure = import_figure()(figsize=(9, 2.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    seconds = [0.0, *(each.seconds for each in result.usage)]
    cores = [each.cores for each in result.usage]
    left.stairs(cores, seconds, fill=True)
    left.set(xlabel="seconds", title=f"{result.model}: busy cores", ylim=(0, None))
    right.plot(seconds[1:], [each.memory_mb for each in result.usage], marker=".")
    right.set(xlabel="seconds", title="memory, MB", ylim=(0, None))
    return _svg(figure, f"processor and memory of {result.model} over time")


def _confusion(result: ModelResult, classes: Sequence[str]) -> str:
    table = np.array(result.measures.confusion)
    size = 1.5 + 0.3 * min(len(classes), 40)
    figure = import_figure()(figsize=(size + 1.5, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(table / np.maximum(table.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0)
    places = range(len(classes))
    axes.set_xticks(places, list(map(_plain, classes)), rotation=90, fontsize="small")
    axes.set_yticks(places, list(map(_plain, classes)), fontsize="small")
    axes.set(xlabel="scored best", ylabel="true", title=result.model)
    if len(classes) <= 20:
        for (row, column), number in np.ndenumerate(table):
            if number:
                axes.text(column, row, str(number), ha="center", va="center", fontsize=7)
    return _svg(figure, f"confusions of {result.model}")


def _examples(found: Comparison) -> str:
    parts = []
    # Left and right where a model hears them.
    channels = max(channels_of(get_model(each.model).feature) for each in found.results)
    names = ("",) if channels == 1 else (", left", ", right")
    for label in found.sounds.classes[:_MOST_CLASSES]:
        sound = next((each for each in found.sounds.sounds if label in each.labels), None)
        if sound is None:
            continue
        try:
            wave = load_clip(sound, ClipLength(_SHOWN_SECONDS, "pad"), channels=channels)
        except AudioError:
            continue
        waves = wave.reshape(len(wave), channels).T
        mels = [frontend.log_mel(each) for each in waves]
        figure = import_figure()(figsize=(9, 1.8 * channels), layout="constrained")
        rows = figure.subplots(channels, 2, squeeze=False, sharey="col")
        for (left, right), each, mel, name in zip(rows, waves, mels, names, strict=True):
            left.plot(np.arange(len(each))[::8] / SAMPLE_RATE, each[::8], linewidth=0.4)
            left.set(ylabel=_plain(label) + name, xlim=(0, _SHOWN_SECONDS))
            right.imshow(
                mel.T,
                origin="lower",
                aspect="auto",
                extent=(0, _SHOWN_SECONDS, 0, frontend.MEL_BANDS),
                vmin=min(map(np.min, mels)),
                vmax=max(map(np.max, mels)),
            )
            right.set(ylabel="mel band")
        what = "waveform and spectrogram" + (", left and right," if channels == 2 else "")
        parts.append(_svg(figure, f"{what} of {label}"))
    return "".join(parts)


def _svg(figure: Any, description: str) -> str:
    """Return a figure as text of the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg")
    picture = text.getvalue()
    picture = picture[picture.index("<svg") :]
    label = f'<svg role="img" aria-label="{_text(description)}"'
    return f"<div>{picture.replace('<svg', label, 1)}</div>"


def _table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    head = "".join(f"<th>{cell}</th>" for cell in header)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _text(value: str) -> str:
    return html.escape(value)


def _plain(label: str) -> str:
    """Return a label that matplotlib does not read as a formula."""
    return label.replace("$", r"\$")
