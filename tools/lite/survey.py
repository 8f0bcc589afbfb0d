"""What sounds a package holds, and under which licence: how the committed lists were made."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from audiosearch import audio
from audiosearch.errors import AudioError
from tools.lite.archives import is_sound, read_package
from tools.lite.catalogue import WINDOW_SECONDS, WINDOWS, Package, Sound
from tools.lite.collection import SoundStore, fetch

__all__ = ["Surveyed", "licence_in", "survey", "window_count"]

_SHORTEST_SECONDS = 0.05
_SHORTEST_REST = 1.0  # seconds of a last window that would hold less
_QUIETEST = 1e-3  # peak level below which a file is taken for silence
_LONGEST_LICENCE = 160
_KNOWN = {
    "CC0": r"\bCC0\b|Creative Commons Zero",
    "CC-BY-SA": r"CC[- ]BY[- ]SA|Attribution[- ]Share[- ]?Alike",
    "CC-BY": r"CC[- ]BY(?![- ]\w)|Creative Commons Attribution(?![- ]Share)",
    "GPL": r"GNU General Public License|\bGPL",
    "LGPL": r"Lesser General Public|\bLGPL",
    "Artistic": r"Artistic License",
    "MIT": r"\bMIT\b|Permission is hereby granted, free of charge",
    "BSD": r"\bBSD\b|Redistribution and use in source and binary forms",
    "public domain": r"public domain",
}


@dataclass(frozen=True)
class Surveyed:
    """What one package holds: itself with its licence, and its sounds that can be decoded."""

    package: Package
    sounds: list[Sound]


def survey(
    package: Package,
    store: SoundStore,
    *,
    mirror: str | None = None,
    clones: Path | None = None,
) -> Surveyed:
    """Download a package and take its sounds into the store.

    A file that occurs twice in it is listed once.

    Raises
    ------
    DataError
        When the package cannot be had or is damaged.
    """
    found: dict[str, str] = {}
    licence = package.licence
    with tempfile.TemporaryDirectory(dir=store.folder.parent) as scratch:
        archive = fetch(package, Path(scratch), mirror=mirror, clones=clones)
        for name, data in read_package(archive):
            if is_sound(name):
                found.setdefault(store.add(name, data), name)
            else:
                licence = licence or licence_in(name, data.decode("utf-8", "replace"))
    sounds = []
    for sha1, name in found.items():
        path = store.find(sha1)
        count = window_count(path) if path else 0
        if count:
            sounds.append(Sound(package.package, name, sha1, count))
    return Surveyed(replace(package, licence=licence), sounds)


def window_count(path: Path) -> int:
    """Return how many windows of 10 s a file gives; 0 where it is silent or cannot be decoded."""
    try:
        sound = audio.load(path, end=float(WINDOW_SECONDS * WINDOWS))
    except AudioError:
        return 0
    if len(sound) < _SHORTEST_SECONDS * audio.SAMPLE_RATE or abs(sound).max() < _QUIETEST:
        return 0
    size = WINDOW_SECONDS * audio.SAMPLE_RATE
    whole, rest = divmod(len(sound), size)
    return min(WINDOWS, max(1, whole + (rest >= _SHORTEST_REST * audio.SAMPLE_RATE)))


def licence_in(name: str, text: str) -> str:
    """Return in one line which licences a package states; empty where none is recognised.

    Parameters
    ----------
    name : str
        Path of the file: Debian's ``copyright``, npm's ``package.json`` or Python's ``METADATA``.
    text : str
        What it holds.
    """
    if name.endswith("package.json"):
        try:
            stated = json.loads(text).get("license", "")
        except ValueError:
            return ""
        return stated if isinstance(stated, str) else ""
    found = dict.fromkeys(
        line.strip() for line in re.findall(r"^License(?:-Expression)?:[ \t]*(\S.*)$", text, re.M)
    )
    names = list(found) or [short for short, form in _KNOWN.items() if re.search(form, text, re.I)]
    line = "; ".join(names)
    return line if len(line) <= _LONGEST_LICENCE else line[: _LONGEST_LICENCE - 3] + "..."
