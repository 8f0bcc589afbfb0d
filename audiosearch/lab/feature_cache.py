"""Features of sounds on disk, found by the content of the sound.

One SQLite file holds them, so that many small values are written quickly and several processes can
share it. Everything in it can be computed again: a damaged file is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.errors import AudioError, StorageError, printable
from audiosearch.lab.sounds import LabelledSound, SoundSet
from audiosearch.lab.waveforms import load_clip
from audiosearch.own.features import Feature, feature_key
from audiosearch.own.waveforms import ClipLength
from audiosearch.storage import Closing, sha256_file, storage_errors

__all__ = ["IN_MEMORY", "FeatureCache", "FeatureSet", "default_cache"]

IN_MEMORY = 2 << 30
"""Bytes of features that are held in memory where nothing else is said; more stay on the disk."""

Floats = npt.NDArray[np.float32]

CACHE_VARIABLE = "AUDIOSEARCH_CACHE"
# How long to wait for another process that writes, in seconds.
_PATIENCE = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, sha256 TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS features (key TEXT PRIMARY KEY, shape TEXT, data BLOB);
"""


def default_cache() -> Path:
    """Return the folder that features are kept in.

    It is the one that the environment variable ``AUDIOSEARCH_CACHE`` names, else a folder in the
    place where the system keeps a user's caches.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("audiosearch", appauthor=False))


class FeatureCache(Closing):
    """The features of a cache folder.

    Parameters
    ----------
    folder : path-like, optional
        Its place; `default_cache` where None.

    Raises
    ------
    StorageError
        When it cannot be opened or written.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(folder or default_cache()) / "features.sqlite"
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise self._broken(error) from error
            with storage_errors(self.path):
                self.path.unlink()
            self._database = self._open()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def features(
        self,
        sounds: SoundSet,
        feature: Feature,
        length: ClipLength,
        *,
        on_sound: Callable[[int, int], None] | None = None,
    ) -> FeatureSet:
        """Return the features of a set, computing those that are not there.

        Parameters are those of `fill`, and so are the errors.
        """
        return FeatureSet(self, *self.fill(sounds, feature, length, on_sound=on_sound))

    def fill(
        self,
        sounds: SoundSet,
        feature: Feature,
        length: ClipLength,
        *,
        on_sound: Callable[[int, int], None] | None = None,
    ) -> tuple[SoundSet, list[str]]:
        """Compute the features of a set that are not there.

        A sound that cannot be read is left out of the set that comes back, with the reason.

        Parameters
        ----------
        sounds : SoundSet
            The set.
        feature : Feature
            What to compute.
        length : ClipLength
            The length that the sounds are brought to.
        on_sound : callable, optional
            Called with how many sounds are done, and how many there are.

        Returns
        -------
        sounds : SoundSet
            The set, without what could not be read.
        keys : list of str
            Of each of these sounds, what `read` finds its feature by.

        Raises
        ------
        StorageError
            When the disk is full, or another process does not stop writing.
        """
        what = feature_key(feature, length)
        keys: list[str] = []
        unreadable: list[tuple[int, str]] = []
        with self._errors():
            for row, sound in enumerate(sounds.sounds):
                try:
                    key = f"{self._content(sound)} {sound.start} {sound.end} {what}"
                    if not self._has(key):
                        clip = load_clip(sound, length, channels=feature.channels)
                        self._store(key, feature.compute(clip))
                except AudioError as error:
                    unreadable.append((row, error.reason))
                else:
                    keys.append(key)
                if on_sound:
                    on_sound(row + 1, len(sounds))
        return sounds.without(unreadable), keys

    def read(self, key: str) -> Floats:
        """Return one stored value."""
        with self._errors():
            found = self._database.execute(
                "SELECT shape, data FROM features WHERE key = ?", [key]
            ).fetchone()
        if found is None:
            raise StorageError(
                f"{printable(str(self.path))} was changed meanwhile. Run the same command again."
            )
        shape = [int(size) for size in found[0].split()]
        return np.frombuffer(found[1], "<f4").reshape(shape)

    def _open(self) -> sqlite3.Connection:
        # Every statement is a transaction: no lock is held while a sound is computed.
        database = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        try:
            # Nor does it wait for the disk: what a power cut destroys can be computed again.
            database.execute("PRAGMA synchronous = OFF")
            database.executescript(_SCHEMA)
        except BaseException:
            database.close()
            raise
        return database

    def _has(self, key: str) -> bool:
        query = "SELECT 1 FROM features WHERE key = ?"
        return self._database.execute(query, [key]).fetchone() is not None

    def _store(self, key: str, values: Floats) -> None:
        shape = " ".join(map(str, values.shape))
        data = np.ascontiguousarray(values, "<f4").tobytes()
        # Another process may have been faster.
        self._database.execute(
            "INSERT OR IGNORE INTO features VALUES (?, ?, ?)", [key, shape, data]
        )

    def _content(self, sound: LabelledSound) -> str:
        """Return the SHA-256 of a file; what is known of a file that did not change is taken."""
        path = os.fsencode(sound.path)
        try:
            state = os.stat(path)  # noqa: PTH116
            query = "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime = ?"
            facts = [os.path.abspath(path), state.st_size, state.st_mtime_ns]  # noqa: PTH100
            found = self._database.execute(query, facts).fetchone()
            if found is None:
                found = (sha256_file(sound.path),)
                self._database.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", [*facts, *found]
                )
            return str(found[0])
        except OSError:
            # Decoding says, in its own words, why the file cannot be read.
            load_clip(sound, ClipLength(1.0))
            raise

    @contextlib.contextmanager
    def _errors(self):  # type: ignore[no-untyped-def]
        try:
            yield
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> StorageError:
        name = printable(str(self.path))
        full_code = getattr(error, "sqlite_errorcode", 0)
        code = full_code & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StorageError(
                f"{name} is being written by another process. Run the same command again when that "
                "is done, or name another folder with --cache."
            )
        # A quota, or a limit on the size of a file, is no full disk to SQLite.
        if code == sqlite3.SQLITE_FULL or full_code == sqlite3.SQLITE_IOERR_WRITE:
            return StorageError(
                f"The disk is full: {name} could not be written. Free some space, or keep features "
                "elsewhere with --cache, and run the same command again."
            )
        return StorageError(
            f"{name} could not be used: {error}. Delete it, or name another folder with --cache."
        )


class FeatureSet:
    """Features of a set of sounds, in memory where they fit, else read when they are needed.

    Parameters
    ----------
    cache : FeatureCache
        Where they are; it stays open as long as this is used.
    sounds : SoundSet
        The set.
    keys : list of str
        As `FeatureCache.fill` returns them.
    memory : int
        Bytes of them that are held in memory.

    Attributes
    ----------
    sounds : SoundSet
        The set, without what could not be read.
    shape : tuple of int
        Shape of one sound's feature; () where there is none.
    """

    def __init__(
        self, cache: FeatureCache, sounds: SoundSet, keys: list[str], *, memory: int = IN_MEMORY
    ) -> None:
        self.sounds = sounds
        self._cache, self._keys = cache, keys
        first = cache.read(keys[0]) if keys else np.empty(0, np.float32)
        self.shape = first.shape if keys else ()
        self._held: Floats | None = None
        if first.nbytes * len(keys) <= memory:
            self._held = np.empty((len(keys), *first.shape), np.float32)
            for row, key in enumerate(keys):
                self._held[row] = cache.read(key)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def identity(self) -> str:
        """A hash of the sounds' content and labels, in their order."""
        facts = [
            [key, sound.labels] for key, sound in zip(self._keys, self.sounds.sounds, strict=True)
        ]
        text = json.dumps([self.sounds.classes, facts])
        return hashlib.sha256(text.encode()).hexdigest()

    def take(self, rows: npt.NDArray[np.int64]) -> Floats:
        """Return the features of these rows, float32 (rows, *shape)."""
        if self._held is not None:
            return self._held[rows]
        return np.stack([self._cache.read(self._keys[row]) for row in rows])
