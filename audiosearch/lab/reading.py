"""Reading labelled sounds from the layouts that people keep them in.

================ ================================================================================
``folders``      a folder of folders: the first folder's name is the class of all sounds below it
``pattern``      files whose names hold the labels, as a pattern says (`audiosearch.lab.patterns`)
``table``        a CSV or TSV file (`audiosearch.lab.tables`)
``corrections``  a CSV file that ``audiosearch export`` wrote of a library's confirmed labels
``esc50``        ESC-50: ``meta/esc50.csv`` and ``audio/``; five official folds, groups ``src_file``
``urbansound8k`` UrbanSound8K: ``metadata/UrbanSound8K.csv`` and ``audio/foldN/``; ten official
                 folds, groups ``fsID``
``fsdd``         Free Spoken Digit Dataset: ``{digit}_{speaker}_{n}.wav``; groups are the speakers
================ ================================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from audiosearch.audio import find_audio
from audiosearch.errors import DataError, InvalidArgumentError, printable
from audiosearch.lab.patterns import NamePattern
from audiosearch.lab.sounds import LabelledSound, SoundSet, class_name
from audiosearch.lab.tables import TableColumns, read_rows, read_table
from audiosearch.labels import name_problem

__all__ = ["LAYOUTS", "read_sounds"]

LAYOUTS = ("folders", "pattern", "table", "corrections", "esc50", "urbansound8k", "fsdd")
_FSDD = "{label}_{group}_{}"
_FSDD_NAME = re.compile(r"\d_[A-Za-z]+_\d+")


def read_sounds(
    source: str | os.PathLike[str],
    *,
    layout: str | None = None,
    pattern: str | None = None,
    columns: TableColumns | None = None,
    classes: Iterable[str] = (),
) -> SoundSet:
    """Read labelled sounds; the sounds themselves are not opened yet.

    Parameters
    ----------
    source : path-like
        A folder, or a CSV or TSV file.
    layout : str, optional
        One of `LAYOUTS`; found out where None.
    pattern : str, optional
        For the layout ``pattern``, which it implies: where in a file's name its label stands, and
        its group or fold, as in ``{label}_{group}_{}``.
    columns : TableColumns, optional
        For a table: what its columns are called, where they have other names than the usual.
    classes : iterable of str
        Take these classes alone; all where empty.

    Returns
    -------
    SoundSet
        Sounds are sorted by path and start, classes by name.

    Raises
    ------
    DataError
        When the source does not exist, is not laid out so, holds no sounds, or has classes that
        queries could not tell apart.
    InvalidArgumentError
        When there is no such layout, or options contradict each other.
    """
    path = Path(source)
    name = printable(os.fspath(path))
    if pattern is not None and layout not in (None, "pattern"):
        raise InvalidArgumentError(f"A pattern goes with the layout 'pattern', not '{layout}'.")
    if not path.exists():
        raise DataError(f"{name}: there is no such file or folder.")
    if layout is None:
        layout = "pattern" if pattern is not None else _found_layout(path)
    if layout not in LAYOUTS:
        raise InvalidArgumentError(f"layout must be one of {', '.join(LAYOUTS)}, not '{layout}'.")
    if layout == "pattern" and pattern is None:
        raise InvalidArgumentError("The layout 'pattern' needs a pattern, such as {label}_{}.")
    if columns is not None and layout != "table":
        raise InvalidArgumentError(f"Names of columns go with a table, not with '{layout}'.")
    wanted = set(map(class_name, classes))
    is_file = layout in ("table", "corrections")
    if is_file != path.is_file():
        kind = "a file" if is_file else "a folder"
        raise DataError(f"{name}: the layout '{layout}' is {kind}.")
    if layout == "pattern":
        assert pattern is not None
        sounds, skipped = _by_name(path, NamePattern(pattern))
    elif layout == "table":
        sounds, skipped = read_table(path, columns or TableColumns()), []
    elif layout in _LISTED:
        sounds, skipped = _located(path, _LISTED[layout](path), wanted)
    else:
        sounds, skipped = _READERS[layout](path)
    return _collected(name, layout, sounds, skipped, wanted)


def _found_layout(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
            raise DataError(f"{printable(str(path))} is neither a folder nor a table (.csv, .tsv).")
        header = set(read_rows(path).header)
        return "corrections" if {"verdict", "content", "label"} <= header else "table"
    if (path / "meta" / "esc50.csv").is_file():
        return "esc50"
    if (path / "metadata" / "UrbanSound8K.csv").is_file():
        return "urbansound8k"
    place = path / "recordings" if (path / "recordings").is_dir() else path
    stems = [each.stem for each in place.glob("*.wav")]
    if stems and all(_FSDD_NAME.fullmatch(stem) for stem in stems):
        return "fsdd"
    return "folders"


_Read = tuple[list[LabelledSound], list[tuple[str, str]]]


def _folders(path: Path) -> _Read:
    sounds, skipped = [], []
    for file in find_audio(path):
        parts = file.relative_to(path).parts
        if len(parts) == 1:
            skipped.append((str(file), "It lies in no class's folder."))
        else:
            sounds.append(LabelledSound(str(file), (class_name(parts[0]),)))
    empty = [
        each
        for each in sorted(path.iterdir())
        if each.is_dir() and not each.name.startswith(".") and not find_audio(each)
    ]
    skipped += [(str(each), "The folder of this class holds no sounds.") for each in empty]
    return sounds, skipped


def _by_name(path: Path, pattern: NamePattern) -> _Read:
    sounds, skipped = [], []
    for file in find_audio(path):
        found = pattern.read(file.stem)
        if found is None:
            skipped.append((str(file), f"Its name does not fit the pattern {pattern.text}."))
        else:
            labels = tuple(filter(None, map(class_name, found.labels)))
            sounds.append(LabelledSound(str(file), labels, fold=found.fold, group=found.group))
    return sounds, skipped


def _fsdd(path: Path) -> _Read:
    place = path / "recordings" if (path / "recordings").is_dir() else path
    return _by_name(place, NamePattern(_FSDD))


_Rows = list[tuple[str, str, str, str]]


def _esc50(path: Path) -> _Rows:
    """Return file, label, fold and group of each row of the table."""
    table = read_rows(path / "meta" / "esc50.csv")
    table.require("filename", "fold", "category", "src_file")
    return [
        (f"audio/{row['filename']}", row["category"], row["fold"], row["src_file"])
        for _, row in table.rows
    ]


def _urbansound8k(path: Path) -> _Rows:
    """Return file, label, fold and group of each row of the table."""
    table = read_rows(path / "metadata" / "UrbanSound8K.csv")
    label = "class_name" if "class_name" in table.header else "class"
    table.require("slice_file_name", "fold", "fsID", label)
    return [
        (
            f"audio/fold{row['fold']}/{row['slice_file_name']}",
            row[label],
            row["fold"],
            row["fsID"],
        )
        for _, row in table.rows
    ]


def _located(path: Path, rows: _Rows, wanted: set[str]) -> _Read:
    """Return the sounds of rows, in whatever format the files are kept.

    Files that are not there are told of the wanted classes; of all where none is named.
    """
    sounds, skipped = [], []
    listed: dict[Path, dict[str, Path]] = {}
    for name, label, fold, group in rows:
        file = path / name
        # The same clips are passed on as wav, ogg or flac.
        if file.parent not in listed:
            found = find_audio(file.parent) if file.parent.is_dir() else []
            listed[file.parent] = {each.stem: each for each in found}
        there = file if file.is_file() else listed[file.parent].get(file.stem)
        if there is None and wanted and class_name(label) not in wanted:
            continue
        if there is None:
            skipped.append((str(file), "The file is listed and not there."))
        else:
            sounds.append(
                LabelledSound(
                    str(there), (class_name(label),), fold=fold.strip(), group=group.strip()
                )
            )
    return sounds, skipped


def _corrections(path: Path) -> _Read:
    """Return what a library's user confirmed; sounds with rejected labels alone have none."""
    table = read_rows(path)
    table.require("path", "start", "end", "label", "verdict")
    labels: dict[tuple[str, float, float | None, str], list[str]] = {}
    for line, row in table.rows:
        place = table.place(line, row)
        # Copies have one content; a recording never stands on both sides of a split.
        key = (*place, row.get("content") or place[0])
        confirmed = labels.setdefault(key, [])
        if row["verdict"] == "confirmed":
            confirmed.append(class_name(row["label"]))
        elif row["verdict"] != "rejected":
            raise table.broken(line, f"'{row['verdict']}' is neither confirmed nor rejected")
    return [
        LabelledSound(file, tuple(dict.fromkeys(names)), start, end, group=group)
        for (file, start, end, group), names in labels.items()
    ], []


_READERS: dict[str, Callable[[Path], _Read]] = {
    "folders": _folders,
    "corrections": _corrections,
    "fsdd": _fsdd,
}
_LISTED: dict[str, Callable[[Path], _Rows]] = {"esc50": _esc50, "urbansound8k": _urbansound8k}


def _collected(
    name: str,
    layout: str,
    sounds: list[LabelledSound],
    skipped: list[tuple[str, str]],
    wanted: set[str],
) -> SoundSet:
    """Return the sounds as a set: sorted, of the wanted classes, each listed once."""
    known = {label for sound in sounds for label in sound.labels}
    if problem := name_problem(sorted(wanted or known)):
        raise DataError(f"{name}: {problem}.")
    missing = sorted(wanted - known)
    if missing:
        raise DataError(
            f"{name} has no class '{printable(missing[0])}'. It has: {', '.join(sorted(known))}."
        )
    several = any(len(sound.labels) > 1 for sound in sounds)
    unlabelled = [sound for sound in sounds if not sound.labels]
    notes = []
    if several:
        notes.append("Some sounds have several classes: each class is learned for itself.")
    elif unlabelled:
        skipped = skipped + [(sound.name, "It has no label.") for sound in unlabelled]
        sounds = [sound for sound in sounds if sound.labels]
    if wanted:
        sounds = [sound for sound in sounds if not sound.labels or wanted & {*sound.labels}]
    kept: dict[tuple[str, float, float | None], LabelledSound] = {}
    for sound in sorted(sounds, key=lambda each: (each.path, each.start, each.end or 0.0)):
        labels = tuple(label for label in sound.labels if not wanted or label in wanted)
        one = LabelledSound(sound.path, labels, sound.start, sound.end, sound.fold, sound.group)
        key = (one.path, one.start, one.end)
        if key in kept and kept[key] != one:
            skipped.append(
                (one.name, "It is listed twice, with different facts; the first counts.")
            )
        kept.setdefault(key, one)
    if not kept:
        raise DataError(
            f"{name} holds no labelled sounds. What is looked for: a folder for each class, a "
            "CSV or TSV table, or names with the label in them (--pattern)."
        )
    return SoundSet(
        name,
        layout,
        tuple(kept.values()),
        tuple(sorted({label for sound in kept.values() for label in sound.labels})),
        multi_label=several,
        skipped=tuple((printable(path), reason) for path, reason in skipped),
        notes=tuple(notes),
    )
