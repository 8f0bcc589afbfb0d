"""What can be done with the tags besides the output: into the files, beside them, cut out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiosearch.errors import AudioDecodeError, AudioError, StorageError, printable
from audiosearch.jobs import Chore, Entry, WorkerPool
from audiosearch.storage import write_json
from audiosearch.tagging.cuts import Cuts
from audiosearch.tagging.file_tags import FileTags
from audiosearch.tagging.formats import decode_rows, row_dict
from audiosearch.tagging.rules import ClassKey, name_of

__all__ = ["Extra", "cut_extra", "sidecar_extra", "tags_extra"]

_TICK = 60.0


@dataclass(frozen=True)
class Extra:
    """One more thing to do with each result.

    Attributes
    ----------
    name : str
        Under which the journal notes that it was done.
    failure : str
        How a reason begins when it was not possible.
    make : callable
        Gives the work on one result, None where there is none to do.
    is_chore : bool
        Whether it is done in a worker process.
    """

    name: str
    failure: str
    make: Callable[[Entry], Any]
    is_chore: bool = True

    def run(
        self, entries: Iterable[Entry], pool: WorkerPool | None
    ) -> Iterator[tuple[Entry, tuple[int, int] | AudioError | None]]:
        """Do it; yield each entry with its file's new size and mtime, an error, or None."""
        if not self.is_chore:
            for entry in entries:
                try:
                    self.make(entry)
                except StorageError as error:
                    yield entry, AudioDecodeError(entry.item.name, str(error))
                else:
                    yield entry, None
            return
        assert pool is not None
        running: dict[int, Entry] = {}
        nothing: list[Entry] = []

        def chores() -> Iterator[Chore]:
            for entry in entries:
                chore = self.make(entry)
                if chore is None:
                    nothing.append(entry)
                else:
                    running[id(chore)] = entry
                    yield chore

        for found in pool.unordered(chores(), tick=_TICK):
            if found is not None:
                chore, result = found
                yield running.pop(id(chore)), result
            while nothing:
                yield nothing.pop(), None
        while nothing:
            yield nothing.pop(), None


def tags_extra() -> Extra:
    """Write the tags into the sound files."""

    def make(entry: Entry) -> Chore | None:
        item = entry.item
        best: dict[ClassKey, float] = {}
        for _, _, tags in decode_rows(entry.result):
            for index, score in tags:
                best[index] = max(score, best.get(index, 0.0))
        if not best or item.start or item.end is not None:
            return None
        order = sorted(best, key=lambda key: (-best[key], isinstance(key, str), key))
        names = dict.fromkeys(name_of(key)[0] for key in order)
        return FileTags(item.name, tuple(names))

    return Extra("tags", "Its tags were not written into it.", make)


def sidecar_extra(models: dict[str, Any]) -> Extra:
    """Write ``FILE.json`` beside each sound file."""

    def make(entry: Entry) -> None:
        item = entry.item
        name = os.path.basename(item.name)  # noqa: PTH119 - the file may move with its folder
        rows = [row_dict(printable(name), row) for row in decode_rows(entry.result)]
        for row in rows:
            del row["path"]
        ending = ".json"
        if item.start or item.end is not None:
            stop = "end" if item.end is None else f"{item.end:.3f}"
            ending = f".{item.start:.3f}-{stop}.json"
        write_json(
            item.name + ending,
            {
                "schema": "audiosearch-tags/1",
                "path": printable(name),
                "seconds": round(entry.seconds, 3),
                "rows": rows,
                **models,
            },
        )

    return Extra("sidecar", "Its sidecar was not written.", make, is_chore=False)


def cut_extra(folder: Path) -> Extra:
    """Write the rows' stretches of sound as files."""
    where = os.path.abspath(folder)  # noqa: PTH100
    name = f"cut-{hashlib.sha256(os.fsencode(where)).hexdigest()[:16]}"

    def make(entry: Entry) -> Chore | None:
        parts = tuple(
            (start, end, name_of(tags[0][0])[0])
            for start, end, tags in decode_rows(entry.result)
            if tags and end > start
        )
        return Cuts(entry.item.name, where, parts) if parts else None

    return Extra(name, "It was not cut.", make)
