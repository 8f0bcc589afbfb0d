"""Tables of clips: CSV, JSON lines and Parquet, a row a clip, written and read again.

Every row says which recording the clip is of and where, its scores (a column a class; in JSON lines
one object), what made it, and, in the last columns, its search vector and its embedding frames:
base64 in text, bytes in Parquet. A score below the threshold of an export is left empty, and is 0
when it is read.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import DataError, MissingDependencyError, printable
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.bundles import Bundle
from audiosearch.library.columns import encode_scores, score_codes
from audiosearch.library.recordings import Origin
from audiosearch.library.scoring import Maker
from audiosearch.storage import storage_errors

__all__ = ["COLUMNS", "Source", "origin_fields", "origin_of", "read_table", "write_table"]

COLUMNS = (
    *("recording", "start", "end", "source", "root", "clip", "clips", "recording_start"),
    *("duration", "size", "mtime_ns", "packed_file", "packed_row", "labels"),
    *("embedder", "classifier"),
)
"""The columns before the scores; behind these stand ``vector`` and ``frames``."""

_NUMBERS = ("clip", "clips", "size", "mtime_ns", "packed_row")
_SECONDS = ("start", "end", "recording_start", "duration")
_ROWS_AT_ONCE = 10_000

Row = dict[str, Any]
Source = tuple[list[Maker], Maker, Iterator[Bundle]]
"""Embedders, classifier, and what they made."""


def write_table(
    path: Path,
    suffix: str,
    bundles: Iterable[Bundle],
    makers: tuple[list[Maker], Maker],
    least: int,
) -> None:
    """Write a table; the kind of it is told by `suffix`.

    Parameters
    ----------
    path : Path
        The file.
    suffix : str
        ``".csv"``, ``".jsonl"`` or ``".parquet"``.
    bundles : iterable of Bundle
        What to write.
    makers : (embedders, classifier)
        What made it.
    least : int
        Score codes below this are left empty.

    Raises
    ------
    MissingDependencyError
        When Parquet is asked for and pyarrow is not installed.
    """
    said = {
        "embedder": " + ".join(map(_maker_text, makers[0])),
        "classifier": _maker_text(makers[1]),
    }
    if suffix == ".parquet":
        _write_parquet(path, bundles, said, least)
        return
    names = load_labels().names
    texts = [f"{score:.6g}" for score in score_codes().tolist()]
    numbers = [float(text) for text in texts]
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        out = csv.writer(file)
        if suffix == ".csv":
            out.writerow([*COLUMNS, *names, "vector", "frames"])
        for bundle in bundles:
            for row, codes, vector, frames in _rows(bundle, said):
                last = [base64.b64encode(data).decode() for data in (vector, frames)]
                if suffix == ".csv":
                    scores = [texts[code] if code >= least else "" for code in codes]
                    values = ["" if row[name] is None else row[name] for name in COLUMNS]
                    out.writerow([*values, *scores, *last])
                else:
                    found = {n: numbers[c] for n, c in zip(names, codes, strict=True) if c >= least}
                    row |= {"scores": found, "vector": last[0], "frames": last[1]}
                    # Escapes keep file names that are no valid text.
                    file.write(json.dumps(row) + "\n")


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
    return embedders, _maker(str(first["classifier"])), _bundles(path, number, first, rows)


def origin_fields(origin: Origin) -> Row:
    """Return what is known of a recording, as columns."""
    path = origin.path
    packed = origin.packed_file
    names = None
    if origin.labels is not None:
        names = "; ".join(load_labels()[index].name for index in origin.labels)
    return {
        "recording": os.fsdecode(origin.name if path is None else path),
        "source": origin.source,
        "root": None if origin.root is None else os.fsdecode(origin.root),
        "clips": origin.clips,
        "recording_start": origin.start,
        "duration": origin.duration,
        "size": packed[1] if packed else origin.size,
        "mtime_ns": packed[2] if packed else origin.mtime_ns,
        "packed_file": None if packed is None else os.fsdecode(packed[0]),
        "packed_row": origin.packed_row,
        "labels": names,
    }


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


# Writing


def _rows(bundle: Bundle, said: Row) -> Iterator[tuple[Row, list[int], bytes, bytes]]:
    """Give for each clip its columns, its codes, its vector and its frames."""
    ends = np.cumsum(bundle.frame_counts, dtype=np.int64).tolist()
    codes = bundle.codes.tolist()
    begin = 0
    for place, (origin, number, start, end) in enumerate(bundle.times()):
        fields = origin_fields(origin) | {"clip": number, "start": start, "end": end} | said
        row = {name: fields[name] for name in COLUMNS}
        frames = bundle.frames[begin : ends[place]].tobytes()
        begin = ends[place]
        yield row, codes[place], bundle.vectors[place].tobytes(), frames


def _write_parquet(path: Path, bundles: Iterable[Bundle], said: Row, least: int) -> None:
    pa, pq = _arrow("Writing Parquet")
    names = load_labels().names
    kinds = {name: pa.string() for name in COLUMNS}
    kinds |= {name: pa.int64() for name in _NUMBERS} | {name: pa.float64() for name in _SECONDS}
    kinds |= {name: pa.float32() for name in names}
    kinds |= {"vector": pa.binary(EMBEDDING_SIZE), "frames": pa.binary()}
    schema = pa.schema(list(kinds.items()))
    values = score_codes()

    def flush(rows: list[tuple[Row, list[int], bytes, bytes]]) -> None:
        columns = {name: [_valid(row[name]) for row, *_ in rows] for name in COLUMNS}
        codes = np.array([codes for _, codes, *_ in rows], np.uint8).reshape(-1, CLASS_COUNT)
        arrays = [pa.array(columns[name], kinds[name]) for name in COLUMNS]
        arrays += [
            pa.array(values[codes[:, n]], mask=codes[:, n] < least) for n in range(CLASS_COUNT)
        ]
        arrays.append(pa.array([vector for _, _, vector, _ in rows], kinds["vector"]))
        arrays.append(pa.array([frames for *_, frames in rows], kinds["frames"]))
        out.write_table(pa.Table.from_arrays(arrays, schema=schema))

    with pq.ParquetWriter(path, schema, compression="zstd") as out:
        held: list[tuple[Row, list[int], bytes, bytes]] = []
        for bundle in bundles:
            held.extend(_rows(bundle, said))
            if len(held) >= _ROWS_AT_ONCE:
                flush(held)
                held = []
        flush(held)


def _valid(value: Any) -> Any:
    """Parquet's texts are valid UTF-8; a file name that is not is shown escaped."""
    return printable(value) if isinstance(value, str) else value


def _maker_text(maker: Maker) -> str:
    return maker[0] if maker[1] is None else f"{maker[0]}@{maker[1]}"


def _maker(text: str) -> Maker:
    name, _, digest = text.partition("@")
    return name, digest or None


# Reading


def _csv(path: Path) -> Iterator[Row]:
    names = load_labels().names
    csv.field_size_limit(1 << 20)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            result: Row = {name: row.get(name) or None for name in COLUMNS}
            result["scores"] = {name: row[name] for name in names if row.get(name)}
            yield result | {key: _decoded(row[key]) for key in ("vector", "frames")}


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                yield row | {key: _decoded(row[key]) for key in ("vector", "frames")}


def _parquet(path: Path) -> Iterator[Row]:
    _, pq = _arrow("Reading Parquet")
    names = load_labels().names
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1000):
            for row in batch.to_pylist():
                row["scores"] = {n: row[n] for n in names if row.get(n) is not None}
                yield row


def _arrow(purpose: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", extra="parquet", purpose=purpose) from error
    return pyarrow, pyarrow.parquet


def _decoded(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)


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
    path: Path, number: int, first: Row, rows: Iterator[tuple[int, Row]]
) -> Iterator[Bundle]:
    """Give the recordings of checked rows, some at a time."""
    makers = (first["embedder"], first["classifier"])
    held: list[Row] = []
    origins: list[Origin] = []
    missing = 0  # clips of the last recording

    def pairs() -> Iterator[tuple[int, Row]]:
        yield number, first
        yield from rows

    for place, row in pairs():
        try:
            if (row["embedder"], row["classifier"]) != makers:
                raise ValueError("another embedder or classifier than in the first row")
            if not missing:
                if len(held) >= _ROWS_AT_ONCE // 10:
                    yield _bundle(held, origins)
                    held, origins = [], []
                origins.append(origin_of(row))
                missing = origins[-1].clips
            expected = origins[-1].clips - missing
            if _whole(row["clip"]) != expected or origin_fields(origins[-1])["recording"] != str(
                row["recording"]
            ):
                raise ValueError(f"clip {expected} of {origins[-1].clips} should stand here")
            _check_values(row)
        except (ValueError, TypeError, KeyError, AttributeError, LookupError) as error:
            raise _broken(path, place, error) from error
        missing -= 1
        held.append(row)
    if missing:
        raise _broken(path, place + 1, ValueError("the last recording lacks clips"))
    yield _bundle(held, origins)


def _check_values(row: Row) -> None:
    scores = {name: float(value) for name, value in row["scores"].items()}
    if not all(0 <= score <= 1 for score in scores.values()):  # NaN is not
        raise ValueError("a score is not from 0 to 1")
    row["scores"] = scores
    if len(row["vector"]) != EMBEDDING_SIZE:
        raise ValueError(f"a vector has {EMBEDDING_SIZE} values")
    if len(row["frames"]) % EMBEDDING_SIZE or len(row["frames"]) > CLIP_FRAMES * EMBEDDING_SIZE:
        raise ValueError(f"a clip has up to {CLIP_FRAMES} frames of {EMBEDDING_SIZE} values")


def _bundle(rows: list[Row], origins: list[Origin]) -> Bundle:
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
