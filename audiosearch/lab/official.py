"""The official data sets by name: fetched where they are first asked for, and then kept.

============================== ================================================================
``AUDIOSEARCH_DATASETS``       the folder; by default a folder in the user's cache
``AUDIOSEARCH_OFFLINE``        1: nothing is downloaded
``AUDIOSEARCH_DATASET_MIRRORS``  addresses of folders that hold copies, separated by spaces; they
                               are asked first, in order, and then the publisher
============================== ================================================================

Of ESC-50 only the clips of the wanted classes come, one file each, by its table. The others are
archives: what is wanted of them is unpacked, and the archive deleted.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from audiosearch.downloads import DownloadProgress, download
from audiosearch.errors import DataError, DownloadError, InvalidArgumentError, printable
from audiosearch.lab.reading import read_sounds
from audiosearch.lab.sounds import SoundSet, class_name
from audiosearch.lab.tables import read_rows
from audiosearch.model_cache import OFFLINE_VARIABLE, is_offline, locked, mirrors
from audiosearch.storage import atomic_path, read_json, write_json

__all__ = ["OFFICIAL_SETS", "dataset_root", "read_official"]

DATASETS_VARIABLE = "AUDIOSEARCH_DATASETS"
MIRRORS_VARIABLE = "AUDIOSEARCH_DATASET_MIRRORS"

OFFICIAL_SETS = ("esc10", "esc50", "urbansound8k", "fsdd")
"""The names that `read_official` takes."""

_ESC50 = "https://raw.githubusercontent.com/karolpiczak/ESC-50/master"
_UNPACKED = "unpacked.json"


@dataclass(frozen=True)
class _Archive:
    """A data set that is published as one file.

    `wanted` fits the end of the names of what is taken from it; its first group is the name here.
    """

    file: str
    urls: tuple[str, ...]
    wanted: re.Pattern[str]
    md5: str | None = None


_ARCHIVES = {
    "urbansound8k": _Archive(
        "UrbanSound8K.tar.gz",
        ("https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",),
        re.compile(r"/((?:metadata/UrbanSound8K\.csv|audio/fold\d{1,2}/[\w-]+\.wav))"),
        md5="9aa69802bbf37fb986f71ec1483a196e",
    ),
    "fsdd": _Archive(
        "free-spoken-digit-dataset-1.0.10.tar.gz",
        ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.tar.gz",),
        re.compile(r"/(recordings/\d_[A-Za-z]+_\d+\.wav)"),
    ),
}


def dataset_root() -> Path:
    """Return the folder of fetched data sets; it need not exist."""
    named = os.environ.get(DATASETS_VARIABLE)
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("audiosearch", appauthor=False)) / "datasets"


def read_official(
    name: str,
    *,
    classes: Iterable[str] = (),
    on_file: Callable[[int, int], None] | None = None,
    on_progress: Callable[[DownloadProgress], None] | None = None,
) -> SoundSet:
    """Read an official data set, fetched as far as it is not here yet.

    Parameters
    ----------
    name : str
        One of `OFFICIAL_SETS`.
    classes : iterable of str
        Take these classes alone; all where empty. Of ESC-50, only their clips are fetched.
    on_file : callable, optional
        For ESC-50: called with how many clips are here, and how many are wanted.
    on_progress : callable, optional
        For archives: called with a `DownloadProgress`.

    Raises
    ------
    DataError
        When there is no such class, or what came is not laid out as it should be.
    DownloadError
        When something is missing and cannot be downloaded, or may not.
    InvalidArgumentError
        When there is no such data set.
    StorageError
        When the folder cannot be written, or has too little room.
    """
    if name not in OFFICIAL_SETS:
        raise InvalidArgumentError(
            f"There is no data set '{printable(name)}'. There is: {', '.join(OFFICIAL_SETS)}."
        )
    wanted = list(classes)
    folder = dataset_root() / ("esc50" if name == "esc10" else name)
    if name in _ARCHIVES:
        _fetch_archive(_ARCHIVES[name], folder, on_progress)
        return read_sounds(folder, layout=name, classes=wanted)
    chosen = _fetch_esc50(folder, wanted, esc10=name == "esc10", on_file=on_file)
    return read_sounds(folder, layout="esc50", classes=chosen)


def _fetch_esc50(
    folder: Path, classes: list[str], *, esc10: bool, on_file: Callable[[int, int], None] | None
) -> list[str]:
    """Bring the table, and the clips of the wanted classes; return these classes."""
    table = folder / "meta" / "esc50.csv"
    _fetch_part(folder, "meta/esc50.csv", b"filename,")
    rows = read_rows(table)
    rows.require("filename", "fold", "category", "esc10", "src_file")
    listed = [row for _, row in rows.rows if not esc10 or row["esc10"].lower() == "true"]
    known = sorted({class_name(row["category"]) for row in listed})
    wanted = set(map(class_name, classes)) or set(known)
    if missing := sorted(wanted - set(known)):
        raise DataError(
            f"{'ESC-10' if esc10 else 'ESC-50'} has no class '{printable(missing[0])}'. It has: "
            f"{', '.join(known)}."
        )
    clips = [row["filename"] for row in listed if class_name(row["category"]) in wanted]
    for clip in clips:
        if not re.fullmatch(r"[\w-]+\.wav", clip):
            raise DataError(f"{printable(str(table))} lists '{printable(clip)}', which is no clip.")
    for done, clip in enumerate(clips):
        if on_file:
            on_file(done, len(clips))
        _fetch_part(folder, f"audio/{clip}", b"RIFF")
    return sorted(wanted)


def _fetch_part(folder: Path, name: str, begins: bytes) -> None:
    target = folder / name
    if target.is_file():
        return
    _refuse_offline(target)
    bases = (*(f"{url}/esc50" for url in mirrors(MIRRORS_VARIABLE)), _ESC50)
    with locked(folder):
        if not target.is_file():  # else another process has brought it meanwhile
            download([f"{base}/{name}" for base in bases], target, begins=begins)


def _fetch_archive(
    archive: _Archive, folder: Path, on_progress: Callable[[DownloadProgress], None] | None
) -> None:
    if _is_unpacked(folder):
        return
    _refuse_offline(folder / archive.file)
    urls = (*(f"{url}/{archive.file}" for url in mirrors(MIRRORS_VARIABLE)), *archive.urls)
    with locked(folder):
        if _is_unpacked(folder):
            return
        path = folder / archive.file
        found = download(urls, path, begins=b"\x1f\x8b", on_progress=on_progress)
        if archive.md5 is not None and (md5 := _md5(path)) != archive.md5:
            path.unlink()
            raise DownloadError(
                f"{archive.file} from {printable(found.url)} is another file than was published: "
                f"its MD5 is {md5}, not {archive.md5}. It was deleted; run the same command again."
            )
        count = _unpack(path, folder, archive.wanted)
        if not count:
            path.unlink()
            raise DataError(
                f"{archive.file} from {printable(found.url)} holds no sounds of this data set. "
                "It was deleted; run the same command again."
            )
        write_json(folder / _UNPACKED, {"url": found.url, "sha256": found.sha256, "files": count})
        path.unlink()


def _unpack(path: Path, folder: Path, wanted: re.Pattern[str]) -> int:
    """Unpack what is wanted, each file atomically under a name of its own; return how many."""
    count = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = wanted.search(member.name)
                data = archive.extractfile(member) if member.isfile() else None
                if data is None or name is None or name.end() != len(member.name):
                    continue
                target = folder / name[1]
                target.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(target) as temporary, temporary.open("wb") as file:
                    shutil.copyfileobj(data, file, 1 << 20)
                count += 1
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{printable(str(path))} cannot be unpacked ({error}). Delete it and run the same "
            "command again."
        ) from error
    return count


def _is_unpacked(folder: Path) -> bool:
    try:
        return bool(read_json(folder / _UNPACKED)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _refuse_offline(target: Path) -> None:
    if is_offline():
        raise DownloadError(
            f"{printable(str(target))} is not here, and {OFFLINE_VARIABLE} forbids downloads. "
            "Unset it, or put the file there."
        )
