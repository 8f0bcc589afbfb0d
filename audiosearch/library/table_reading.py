"""Reading the tables of clips that `audiosearch.library.tables` writes."""

from __future__ import annotations

import base64
import csv
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import DataError, printable
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.bundles import Bundle, Makers, Source
from audiosearch.library.columns import encode_scores
from audiosearch.library.own_columns import (
    OWN_CLASSIFIERS,
    OWN_FRAMES,
    OWN_SCORES,
    check_own,
    makers_of_text,
    own_of_rows,
    own_values,
)
from audiosearch.library.recordings import Origin
from audiosearch.library.scoring import Maker
from audiosearch.library.tables import COLUMNS, Row, arrow, origin_fields
from audiosearch.storage import storage_errors

__all__ = ["origin_of", "read_table"]

_ROWS_AT_ONCE = 1000


def read_table(path: Path, suffix: str) -> Source:
    """Return what a table holds.

    Raises
    ------
    DataError
        When it is not as `write_table` writes it; the message names the row. Also while the
        bundles are read.
    """
    rows = _checked(path, {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[suffix](path))
    number, first = next(rows, (0, None))
    if first is None:
        raise DataError(f"{printable(str(path))} holds no clips.")
    embedders = [_maker(text) for text in str(first["embedder"]).split(" + ")]
    try:
        own = makers_of_text(first[OWN_CLASSIFIERS])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(path, number, error) from error
    makers = Makers(embedders, _maker(str(first["classifier"])), own)
    return Source(makers, _bundles(path, number, first, rows, makers))


def origin_of(row: Row) -> Origin:
    """Return the recording that columns tell of; raise ``ValueError`` where they make no sense."""
    clips = _whole(row["clips"])
    start, duration = float(row["recording_start"]), float(row["duration"])
    if clips < 1 or not (math.isfinite(start) and math.isfinite(duration)) or duration < 0:
        raise ValueError("a recording of no clips, or no length")
    labels = None
    if row.get("labels") is not None:
        labels = tuple(
            load_labels().by_name(name).index for name in str(row["labels"]).split("; ") if name
        )
    name, size, mtime = os.fsencode(row["recording"]), _whole(row["size"]), _whole(row["mtime_ns"])
    if row.get("packed_file") is not None:
        packed = os.fsencode(row["packed_file"]), size, mtime
        number = _whole(row["packed_row"])
        return Origin(
            *(0, str(row["source"]), None, name, None, None, packed, number),
            *(start, duration, 0, clips, labels),
        )
    root = os.fsencode(row["root"])
    below = os.path.join(root, b"")  # noqa: PTH118 - bytes
    if not name.startswith(below) or name == below:
        raise ValueError(f"{row['recording']} does not lie in {row['root']}")
    return Origin(
        *(0, str(row["source"]), root, name[len(below) :], size, mtime, None, None),
        *(start, duration, 0, clips, labels),
    )


def _csv(path: Path) -> Iterator[Row]:
    names = load_labels().names
    csv.field_size_limit(1 << 20)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            result: Row = {name: row.get(name) or None for name in COLUMNS}
            result["scores"] = {name: row[name] for name in names if row.get(name)}
            result[OWN_CLASSIFIERS], result[OWN_SCORES] = row.get(OWN_CLASSIFIERS), own_values(row)
            yield result | _decoded(row)


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                own = row.get(OWN_CLASSIFIERS)
                row[OWN_CLASSIFIERS] = None if own is None else json.dumps(own)
                row.setdefault(OWN_SCORES, {})
                yield row | _decoded(row)


def _parquet(path: Path) -> Iterator[Row]:
    _, pq = arrow("Reading Parquet")
    names = load_labels().names
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1000):
            for row in batch.to_pylist():
                row["scores"] = {n: row[n] for n in names if row.get(n) is not None}
                row[OWN_SCORES] = own_values(row)
                yield {OWN_CLASSIFIERS: None, OWN_FRAMES: b""} | row


def _decoded(row: Row) -> Row:
    """Return the columns of a row that are bytes, written as base64."""
    texts = {"vector": row["vector"], "frames": row["frames"], OWN_FRAMES: row.get(OWN_FRAMES, "")}
    return {key: base64.b64decode(text, validate=True) for key, text in texts.items()}


def _checked(path: Path, rows: Iterator[Row]) -> Iterator[tuple[int, Row]]:
    """Number the rows; what goes wrong while they are read is an error that names the row."""
    number = 0
    while True:
        number += 1
        try:
            with storage_errors(path):
                row = next(rows)
            if not set(COLUMNS) | {"scores", "vector", "frames"} <= set(row):
                raise ValueError("columns are missing")
        except StopIteration:
            return
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            csv.Error,
            RecursionError,
        ) as error:
            raise _broken(path, number, error) from error
        yield number, row


def _bundles(
    path: Path, number: int, first: Row, rows: Iterator[tuple[int, Row]], makers: Makers
) -> Iterator[Bundle]:
    """Give the recordings of checked rows, some at a time."""
    said = [first[key] for key in ("embedder", "classifier", OWN_CLASSIFIERS)]
    names = makers.own_names
    held: list[Row] = []
    origins: list[Origin] = []
    missing = 0  # clips of the last recording

    def pairs() -> Iterator[tuple[int, Row]]:
        yield number, first
        yield from rows

    for place, row in pairs():
        try:
            if [row[key] for key in ("embedder", "classifier", OWN_CLASSIFIERS)] != said:
                raise ValueError("another embedder or classifier than in the first row")
            if not missing:
                if len(held) >= _ROWS_AT_ONCE:
                    yield _bundle(held, origins, makers)
                    held, origins = [], []
                origins.append(origin_of(row))
                missing = origins[-1].clips
            expected = origins[-1].clips - missing
            if _whole(row["clip"]) != expected or origin_fields(origins[-1])["recording"] != str(
                row["recording"]
            ):
                raise ValueError(f"clip {expected} of {origins[-1].clips} should stand here")
            _check_values(row)
            check_own(row, names)
        except (ValueError, TypeError, KeyError, AttributeError, LookupError) as error:
            raise _broken(path, place, error) from error
        missing -= 1
        held.append(row)
    if missing:
        raise _broken(path, place + 1, ValueError("the last recording lacks clips"))
    yield _bundle(held, origins, makers)


def _check_values(row: Row) -> None:
    scores = {name: float(value) for name, value in row["scores"].items()}
    if not all(0 <= score <= 1 for score in scores.values()):  # NaN is not
        raise ValueError("a score is not from 0 to 1")
    row["scores"] = scores
    if len(row["vector"]) != EMBEDDING_SIZE:
        raise ValueError(f"a vector has {EMBEDDING_SIZE} values")
    if len(row["frames"]) % EMBEDDING_SIZE or len(row["frames"]) > CLIP_FRAMES * EMBEDDING_SIZE:
        raise ValueError(f"a clip has up to {CLIP_FRAMES} frames of {EMBEDDING_SIZE} values")


def _bundle(rows: list[Row], origins: list[Origin], makers: Makers) -> Bundle:
    labels = load_labels()
    places = {name: n for n, name in enumerate(labels.names)}
    scores = np.zeros((len(rows), CLASS_COUNT))
    for place, row in enumerate(rows):
        for name, score in row["scores"].items():
            if name in places:
                scores[place, places[name]] = score
    vectors = np.frombuffer(b"".join(row["vector"] for row in rows), np.int8)
    frames = np.frombuffer(b"".join(row["frames"] for row in rows), np.uint8)
    return Bundle(
        origins,
        encode_scores(scores),
        vectors.reshape(-1, EMBEDDING_SIZE),
        np.array([len(row["frames"]) // EMBEDDING_SIZE for row in rows], np.uint8),
        frames.reshape(-1, EMBEDDING_SIZE),
        own_of_rows(rows, makers.own),
    )


def _whole(value: Any) -> int:
    number = int(value)
    if not 0 <= number < 2**63 or (isinstance(value, float) and number != value):
        raise ValueError(f"{value} is no number of anything")
    return number


def _broken(path: Path, number: int, error: Exception) -> DataError:
    what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    return DataError(
        f"{printable(str(path))}, row {number}: {printable(what)}. Tables to import are those that "
        "`audiosearch export` writes, with all clips of a recording, in order."
    )


def _maker(text: str) -> Maker:
    name, _, digest = text.partition("@")
    return name, digest or None
