"""What is to be packed: TFRecord shards, or sounds from folders, files and CSV tables."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audiosearch.datasets.clip_table import read_clip_table
from audiosearch.datasets.tfrecord import TFRECORD_SUFFIXES
from audiosearch.errors import (
    AudioDecodeError,
    AudioError,
    AudioNotFoundError,
    InvalidArgumentError,
    printable,
)
from audiosearch.library.sources import PACKED_SUFFIXES, absolute, find, is_below

__all__ = ["PackItem", "PackPlan", "find_items"]

_TABLE_SUFFIXES = (".csv",)


@dataclass(frozen=True, slots=True)
class PackItem:
    """A shard, a sound, or a part of a sound.

    Attributes
    ----------
    name : str
        What stands in ``video_id_list``, and in the list of what was skipped.
    path : str
        The file.
    size, mtime_ns : int
        Of the file; -1 where it cannot be looked at.
    start : float
        Where the sound begins in the file, in seconds.
    end : float or None
        Where it ends; None for the end of the file.
    labels : tuple of int or None
        Its classes, where they are known.
    """

    name: str
    path: str
    size: int
    mtime_ns: int
    start: float = 0.0
    end: float | None = None
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PackPlan:
    """Everything that is to be packed, in the order of the rows.

    Attributes
    ----------
    items : list of PackItem
        What to pack.
    released : bool
        Whether they are shards of AudioSet's release; else they are sounds.
    labelled : bool
        Whether the classes are known.
    unreadable : list of AudioError
        Folders that may not be looked at.
    """

    items: list[PackItem]
    released: bool
    labelled: bool
    unreadable: list[AudioError] = field(default_factory=list)

    def fingerprint(self, origin: str) -> str:
        """Return 64 hexadecimal digits that change when an item does, or `origin`."""
        digest = hashlib.sha256(json.dumps([origin, self.released, self.labelled]).encode())
        for item in self.items:
            facts = [item.name, item.size, item.mtime_ns, item.start, item.end, item.labels]
            digest.update(json.dumps(facts).encode())
        return digest.hexdigest()


def find_items(sources: Sequence[Path]) -> PackPlan:
    """Look for what is to be packed.

    Shards and sounds are sorted by their paths; the lines of a table keep their order, and come
    after what was found in folders.

    Raises
    ------
    AudioNotFoundError
        When a source does not exist, or there is nothing to pack.
    DataError
        When a table is not as it must be.
    InvalidArgumentError
        When shards and sounds, or sounds with and without labels, would be mixed.
    """
    shards: dict[bytes, Path] = {}
    tables: list[Path] = []
    sounds: list[Path] = []
    for source in sources:
        suffix = source.suffix.lower()
        if source.is_dir():
            inside = sorted(_shards_below(source))
            shards.update((absolute(path), path) for path in inside)
            if not inside:
                sounds.append(source)
        elif suffix in TFRECORD_SUFFIXES and source.is_file():
            shards[absolute(source)] = source
        elif suffix in _TABLE_SUFFIXES and source.is_file():
            tables.append(source)
        elif suffix in PACKED_SUFFIXES and source.is_file():
            raise InvalidArgumentError(f"{printable(str(source))} is a packed file already.")
        else:
            sounds.append(source)
    found = find(sounds)  # refuses what does not exist
    if shards and (tables or sounds):
        raise InvalidArgumentError(
            "TFRecords and sounds cannot be packed into one file: their embeddings have different "
            "origins. Pack them into two files; training takes several."
        )
    if shards:
        ordered = [path for _, path in sorted(shards.items())]
        items = [_item(_relative(path, sources), path) for path in ordered]
        return PackPlan(items, released=True, labelled=True)
    items = [
        PackItem(_relative(path, sources), os.fsdecode(path), file.size, file.mtime_ns)
        for path, file in found.files.items()
    ]
    listed = [item for table in tables for item in _table_items(table)]
    labelled = {item.labels is not None for item in [*items, *listed]}
    if len(labelled) > 1:
        raise InvalidArgumentError(
            "Some of these sounds have labels and some have none. Pack them into two files, or "
            "list all of them in tables with a column 'labels'."
        )
    if not labelled:
        if found.unreadable:
            raise AudioDecodeError(found.unreadable[0].path, found.unreadable[0].reason)
        raise AudioNotFoundError(
            os.fspath(sources[0]),
            "There is nothing to pack in it. Name TFRecord files, a folder of them, a folder with "
            "audio files, or a CSV that lists some.",
        )
    return PackPlan(items + listed, False, True in labelled, found.unreadable)


def _shards_below(folder: Path) -> Iterable[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in TFRECORD_SUFFIXES and path.is_file():
            yield path


def _table_items(table: Path) -> Iterable[PackItem]:
    known: dict[str, tuple[int, int]] = {}
    for row in read_clip_table(table):
        path = os.fspath(table.parent / row.path)
        if path not in known:
            known[path] = _status(path)
        yield PackItem(row.path, path, *known[path], row.start, row.end, row.labels)


def _item(name: str, path: Path) -> PackItem:
    return PackItem(name, os.fspath(path), *_status(os.fspath(path)))


def _status(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - Path.stat refuses what a table may hold
    except (OSError, ValueError):
        return -1, -1  # its turn comes, and then it is skipped with the reason
    return status.st_size, status.st_mtime_ns


def _relative(path: Path | bytes, sources: Sequence[Path]) -> str:
    """Return a path below the source that it was found in, with forward slashes."""
    whole = path if isinstance(path, bytes) else absolute(path)
    roots = [absolute(source if source.is_dir() else source.parent) for source in sources]
    root = max((root for root in roots if is_below(whole, root)), key=len)
    return Path(os.fsdecode(whole)).relative_to(os.fsdecode(root)).as_posix()
