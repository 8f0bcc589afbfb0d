"""Tables of clips: CSV, JSON lines and Parquet, a row a clip.

Every row says which recording the clip is of and where, its scores (a column a class; in JSON lines
one object), what made it, and, in the last columns, its search vector and its embedding frames:
base64 in text, bytes in Parquet. A score below the threshold of an export is left empty, and is 0
when it is read (`audiosearch.library.table_reading`). `audiosearch.library.own_columns` has what is
added where a library has own classes.
"""

from __future__ import annotations

import base64
import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import MissingDependencyError, printable
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.bundles import Bundle, Makers
from audiosearch.library.columns import score_codes
from audiosearch.library.own_columns import (
    OWN_CLASSIFIERS,
    OWN_FRAMES,
    OWN_SCORES,
    makers_text,
    own_column,
)
from audiosearch.library.recordings import Origin
from audiosearch.library.scoring import Maker

__all__ = ["COLUMNS", "Row", "arrow", "origin_fields", "write_table"]

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


def write_table(
    path: Path,
    suffix: str,
    bundles: Iterable[Bundle],
    makers: Makers,
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
    makers : Makers
        What made it.
    least : int
        Score codes below this are left empty.

    Raises
    ------
    MissingDependencyError
        When Parquet is asked for and pyarrow is not installed.
    """
    said = {
        "embedder": " + ".join(map(_maker_text, makers.embedders)),
        "classifier": _maker_text(makers.classifier),
    }
    own = makers.own_names
    about = [OWN_CLASSIFIERS, OWN_FRAMES] if own else []
    if own:
        said[OWN_CLASSIFIERS] = makers_text(makers.own)
    if suffix == ".parquet":
        _write_parquet(path, bundles, said, own, least)
        return
    names = load_labels().names
    texts = [f"{score:.6g}" for score in score_codes().tolist()]
    numbers = [float(text) for text in texts]
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        out = csv.writer(file)
        if suffix == ".csv":
            columns = [*COLUMNS, *names, *map(own_column, own)]
            out.writerow([*columns, "vector", "frames", *about])
        for bundle in bundles:
            for clip in _rows(bundle, said):
                vector, frames, own_frames = (
                    base64.b64encode(data).decode()
                    for data in (clip.vector, clip.frames, clip.own_frames)
                )
                last = [vector, frames]
                # Own codes are 0 where nothing was heard.
                heard = [(code, max(least, 1)) for code in clip.own]
                if suffix == ".csv":
                    pairs = [*((code, least) for code in clip.codes), *heard]
                    scores = [texts[code] if code >= low else "" for code, low in pairs]
                    values = ["" if clip.row[n] is None else clip.row[n] for n in COLUMNS]
                    if own:
                        last += [said[OWN_CLASSIFIERS], own_frames]
                    out.writerow([*values, *scores, *last])
                else:
                    row = clip.row | {
                        "scores": _above(names, clip.codes, numbers, least),
                        "vector": vector,
                        "frames": frames,
                    }
                    if own:
                        row[OWN_SCORES] = _above(own, clip.own, numbers, max(least, 1))
                        row[OWN_CLASSIFIERS] = json.loads(said[OWN_CLASSIFIERS])
                        row[OWN_FRAMES] = own_frames
                    # Escapes keep file names that are no valid text.
                    file.write(json.dumps(row) + "\n")


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


class _Clip(NamedTuple):
    """A clip: its columns, its codes, its vector and its frames, and the same of own classes."""

    row: Row
    codes: list[int]
    own: list[int]
    vector: bytes
    frames: bytes
    own_frames: bytes


def _above(
    names: Sequence[str], codes: Sequence[int], numbers: Sequence[float], least: int
) -> dict[str, float]:
    return {name: numbers[code] for name, code in zip(names, codes, strict=True) if code >= least}


def _rows(bundle: Bundle, said: Row) -> Iterator[_Clip]:
    ends = np.cumsum(bundle.frame_counts, dtype=np.int64).tolist()
    codes, own = bundle.codes.tolist(), bundle.own.clips.tolist()
    begin = 0
    for place, (origin, number, start, end) in enumerate(bundle.times()):
        fields = origin_fields(origin) | {"clip": number, "start": start, "end": end} | said
        row = {name: fields[name] for name in COLUMNS}
        frames = bundle.frames[begin : ends[place]].tobytes()
        begin = ends[place]
        vector, heard = bundle.vectors[place].tobytes(), bundle.own.frames[place].tobytes()
        yield _Clip(row, codes[place], own[place], vector, frames, heard)


def _write_parquet(
    path: Path, bundles: Iterable[Bundle], said: Row, own: Sequence[str], least: int
) -> None:
    pa, pq = arrow("Writing Parquet")
    names = load_labels().names
    kinds = {name: pa.string() for name in COLUMNS}
    kinds |= {name: pa.int64() for name in _NUMBERS} | {name: pa.float64() for name in _SECONDS}
    kinds |= {name: pa.float32() for name in (*names, *map(own_column, own))}
    kinds |= {"vector": pa.binary(EMBEDDING_SIZE), "frames": pa.binary()}
    if own:
        kinds |= {OWN_CLASSIFIERS: pa.string(), OWN_FRAMES: pa.binary()}
    schema = pa.schema(list(kinds.items()))
    values = score_codes()

    def flush(rows: list[_Clip]) -> None:
        columns = {name: [_valid(clip.row[name]) for clip in rows] for name in COLUMNS}
        codes = np.array([clip.codes + clip.own for clip in rows], np.uint8)
        codes = codes.reshape(-1, CLASS_COUNT + len(own))
        arrays = [pa.array(columns[name], kinds[name]) for name in COLUMNS]
        for number in range(codes.shape[1]):
            low = least if number < CLASS_COUNT else max(least, 1)
            arrays.append(pa.array(values[codes[:, number]], mask=codes[:, number] < low))
        arrays.append(pa.array([clip.vector for clip in rows], kinds["vector"]))
        arrays.append(pa.array([clip.frames for clip in rows], kinds["frames"]))
        if own:
            arrays.append(pa.array([said[OWN_CLASSIFIERS]] * len(rows), pa.string()))
            arrays.append(pa.array([clip.own_frames for clip in rows], pa.binary()))
        out.write_table(pa.Table.from_arrays(arrays, schema=schema))

    with pq.ParquetWriter(path, schema, compression="zstd") as out:
        held: list[_Clip] = []
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


def arrow(purpose: str) -> tuple[Any, Any]:
    """Return pyarrow and its module of Parquet; tell where they are missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", extra="parquet", purpose=purpose) from error
    return pyarrow, pyarrow.parquet
