"""The model card: what a classifier is, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiosearch.errors import printable
from audiosearch.storage import atomic_path

__all__ = ["CARD_NAME", "write_card"]

CARD_NAME = "MODEL_CARD.md"
_LIMITS = (
    "It knows the classes above and nothing else: a sound of none of them gets a class all the "
    "same, unless sounds may have several or none. Scores are no probabilities. Other "
    "microphones, rooms and distances than those of the training make it worse."
)


def write_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Write ``MODEL_CARD.md`` beside a classifier.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    with atomic_path(folder / CARD_NAME) as temporary:
        temporary.write_text(_text(folder.name, manifest), encoding="utf-8")


def _text(name: str, manifest: dict[str, Any]) -> str:
    data, length = manifest["trained_on"], manifest["length"]
    counts = data["classes"]
    lines = [
        f"# {printable(name)}",
        "",
        (
            f"A classifier of {len(counts)} classes of sounds, made with audiosearch "
            f"{manifest['audiosearch']}: model `{manifest['model']}`, {manifest['parameters']:,} "
            f"parameters, on the feature `{manifest['feature']['name']}`."
        ),
        "",
        f"It hears clips of {length['seconds']:g} s. Shorter sounds are "
        + ("repeated" if length["short"] == "repeat" else "followed by silence")
        + "; longer ones are heard in consecutive windows, whose scores are averaged.",
        "",
        "## Trained on",
        "",
        f"{manifest['train_sounds']:,} sounds of `{_cell(data['name'])}`"
        + (f", {data['skipped']:,} were left out" if data["skipped"] else "")
        + ".",
        "",
        "| class | sounds | F1 on held-out sounds |",
        "|---|---|---|",
    ]
    found = manifest["validation"]
    for label, count in counts.items():
        score = "" if found is None else f"{found['f1'][label]:.2f}"
        lines.append(f"| {_cell(label)} | {count:,} | {score} |")
    lines.append("")
    if found is None:
        lines.append("No sounds were held out: how good it is was not measured.")
    else:
        figures = f"accuracy {found['accuracy']:.3f}, macro F1 {found['macro_f1']:.3f}"
        lines.append(
            f"On {found['sounds']:,} sounds that were held out: {figures}. They also chose the "
            "best epoch of a network, which makes these figures somewhat too good; "
            "`audiosearch lab compare` tests on sounds that play no part."
        )
    lines += ["", "## Limits", "", _LIMITS, ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Return a text that cannot break a table."""
    return printable(text).replace("|", "\\|").replace("`", "'")
