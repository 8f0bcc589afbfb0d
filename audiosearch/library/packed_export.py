"""A library as a packed HDF5 file, and back.

The file is one of `audiosearch.datasets.packed` (``x``, ``y`` where the true classes of all clips
are known, ``video_id_list``, ``n_frames``, times), which every reader of packed files takes, with
three data sets more:

==================  ==========================================================================
``scores``          (n, 527) float32: what the classifier says
``vectors``         (n, 128) int8: search vectors
``recordings``      (recordings,) JSON texts: where each comes from, and how many ``clips`` (rows)
                    it has
==================  ==========================================================================

and, of a library with classes of the user's own, ``own_scores`` (n, own classes) float32,
``own_frames`` (n, 10, own classes) uint8, the score codes of frames, and the attribute
``own_classifiers`` (see `audiosearch.library.own_columns`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiosearch.classifier.scorer import clip_frames
from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES, PackedFile
from audiosearch.datasets.packed_writer import ClipRows, write_packed_file
from audiosearch.errors import DataError, printable
from audiosearch.labels import CLASS_COUNT
from audiosearch.library.bundles import Bundle, Makers, Source
from audiosearch.library.columns import decode_scores, encode_scores
from audiosearch.library.own_columns import (
    OWN_CLASSIFIERS,
    OWN_FRAMES,
    OWN_SCORES,
    heard_codes,
    makers_of_text,
    makers_text,
)
from audiosearch.library.own_scores import unheard_codes
from audiosearch.library.recordings import Origin
from audiosearch.library.table_reading import origin_of
from audiosearch.library.tables import origin_fields

__all__ = ["read_packed", "write_packed"]

_ROWS_AT_ONCE = 1000
_FORMAT = "audiosearch library export 1"
_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)


def write_packed(
    path: Path,
    bundles: Iterable[Bundle],
    origins: Iterable[Origin],
    makers: Makers,
    least: int,
) -> None:
    """Write the file.

    Parameters
    ----------
    path : Path
        The file; replaced where it exists.
    bundles : iterable of Bundle
        What to write; gone through once.
    origins : iterable of Origin
        The recordings of the bundles.
    makers : Makers
        What made it.
    least : int
        Score codes below this become 0.

    Raises
    ------
    DataError
        When the frames of a packed source are not to be had.
    """
    import h5py

    known = list(origins)
    count = sum(origin.clips for origin in known)
    if not count:
        raise DataError("The library holds no clips, and a packed file cannot be empty.")
    names = [_name(origin) for origin in known]
    scores_of: list[Bundle] = []
    with contextlib.ExitStack() as stack:
        files: dict[bytes, PackedFile] = {}

        def rows() -> Iterator[ClipRows]:
            for bundle in bundles:
                scores_of.append(_without_frames(bundle))
                yield _clip_rows(bundle, files, stack)

        embedder = makers.embedders[0]
        facts = {"embedder": embedder[0]} | (
            {"embedder_sha256": embedder[1]} if embedder[1] else {}
        )
        write_packed_file(
            path,
            rows(),
            count=count,
            name_bytes=max(map(len, names)),
            labelled=all(origin.labels is not None for origin in known),
            facts=facts,
        )
    with h5py.File(path, "r+") as file:
        shape = (min(_ROWS_AT_ONCE, count), CLASS_COUNT)
        scores = file.create_dataset(
            "scores", (count, CLASS_COUNT), np.float32, chunks=shape, compression="gzip"
        )
        vectors = file.create_dataset("vectors", (count, FRAME_VALUES), np.int8)
        if own := len(makers.own_names):
            own_scores = file.create_dataset(OWN_SCORES, (count, own), np.float32)
            own_frames = file.create_dataset(OWN_FRAMES, (count, CLIP_FRAMES, own), np.uint8)
            file.attrs[OWN_CLASSIFIERS] = makers_text(makers.own)
        done = 0
        for part in scores_of:
            stop = done + len(part.codes)
            kept = decode_scores(part.codes)
            kept[part.codes < least] = 0
            scores[done:stop], vectors[done:stop] = kept, part.vectors
            if own:
                heard = part.own.clips >= max(least, 1)
                own_scores[done:stop] = np.where(heard, decode_scores(part.own.clips), 0)
                own_frames[done:stop] = part.own.frames
            done = stop
        texts = [json.dumps(origin_fields(origin)) for part in scores_of for origin in part.origins]
        file.create_dataset("recordings", data=texts, dtype=h5py.string_dtype())
        file.attrs["format"] = _FORMAT
        file.attrs["makers"] = json.dumps([makers.embedders, makers.classifier])


def read_packed(path: Path) -> Source:
    """Return what such a file holds.

    Raises
    ------
    DataError
        When it is no packed file, or one that no library was exported to; also while the bundles
        are read.
    """
    import h5py

    PackedFile(path).close()  # says what is wrong with one that is none
    name = printable(str(path))
    with h5py.File(path, "r") as file:
        if file.attrs.get("format") != _FORMAT:
            raise DataError(
                f"{name} holds embeddings and no scores of a library. Add it with: audiosearch "
                "index FILE.h5"
            )
        try:
            embedders, classifier = json.loads(file.attrs["makers"])
            own = makers_of_text(file.attrs.get(OWN_CLASSIFIERS))
            makers = Makers([(str(n), digest) for n, digest in embedders], (*classifier,), own)
            names = len(makers.own_names)
            origins = [origin_of(json.loads(text)) for text in file["recordings"].asstr()[:]]
            clips = sum(origin.clips for origin in origins)
            shapes = (len(file["x"]), file["scores"].shape, file["vectors"].shape)
            if shapes != (clips, (clips, CLASS_COUNT), (clips, FRAME_VALUES)):
                raise ValueError("data sets of other lengths than the recordings have clips")
            if file["vectors"].dtype != np.int8:
                raise ValueError("vectors of another type")
            own_shapes = ((clips, names), (clips, CLIP_FRAMES, names))
            if names and (file[OWN_SCORES].shape, file[OWN_FRAMES].shape) != own_shapes:
                raise ValueError("scores of own classes of another shape")
        except _ERRORS as error:
            raise _broken(name, error) from error
    return Source(makers, _bundles(path, name, origins, makers))


def _bundles(path: Path, name: str, origins: list[Origin], makers: Makers) -> Iterator[Bundle]:
    import h5py

    with PackedFile(path) as packed, h5py.File(path, "r") as file:
        start, first = 0, 0
        while first < len(origins):
            stop, last = start, first
            while last < len(origins) and (last == first or stop - start < _ROWS_AT_ONCE):
                stop += origins[last].clips
                last += 1
            rows = packed.read(start, stop, labels=False)
            try:
                scores = file["scores"][start:stop]
                vectors = file["vectors"][start:stop]
                heard = unheard_codes(stop - start, 0)
                if makers.own:
                    said = file[OWN_SCORES][start:stop], file[OWN_FRAMES][start:stop]
                    heard = heard_codes(*said, makers.own)
            except _ERRORS as error:
                raise _broken(name, error) from error
            every = [scores, said[0]] if makers.own else [scores]
            if not all(((part >= 0) & (part <= 1)).all() for part in every):  # NaN is not
                raise _broken(name, ValueError("a score is not from 0 to 1"))
            part = origins[first:last]
            # A packed source keeps its frames itself.
            kept = np.repeat([o.packed_file is None for o in part], [o.clips for o in part])
            counts = np.where(kept, rows.n_frames, 0).astype(np.uint8)
            here = np.arange(CLIP_FRAMES) < counts[:, None]
            yield Bundle(part, encode_scores(scores), vectors, counts, rows.x[here], heard)
            start, first = stop, last


def _without_frames(bundle: Bundle) -> Bundle:
    none = np.empty((0, FRAME_VALUES), np.uint8)
    return replace(bundle, frame_counts=np.zeros_like(bundle.frame_counts), frames=none)


def _clip_rows(
    bundle: Bundle, files: dict[bytes, PackedFile], stack: contextlib.ExitStack
) -> ClipRows:
    x, counts, done, place = [], [], 0, 0
    for origin in bundle.origins:
        own = bundle.frame_counts[place : place + origin.clips]
        place += origin.clips
        if origin.packed_file is not None:
            source = origin.packed_file[0]
            if source not in files:
                files[source] = stack.enter_context(PackedFile(os.fsdecode(source)))
            row = origin.packed_row or 0
            clips = files[source].read(row, row + 1, labels=False)
            x.append(clips.x)
            counts.append(clips.n_frames)
        else:
            total = int(own.sum(dtype=np.int64))
            frames, n_frames = clip_frames(bundle.frames[done : done + total])
            done += total
            x.append(frames)
            counts.append(n_frames)
    times = bundle.times()
    return ClipRows(
        np.concatenate(x),
        np.concatenate(counts).astype(np.uint8),
        [_name(origin) for origin, *_ in times],
        np.array([(start, end) for *_, start, end in times], np.float32),
        [origin.labels or () for origin, *_ in times],
    )


def _name(origin: Origin) -> bytes:
    return printable(os.fsdecode(origin.path or origin.name)).encode()


def _broken(name: str, error: Exception) -> DataError:
    return DataError(f"{name} is damaged, or was changed since it was exported: {error}.")
