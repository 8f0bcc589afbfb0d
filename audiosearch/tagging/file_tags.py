"""Tags inside sound files: the names of the classes, in the file's comment.

A file's comment keeps what it said; the classes stand behind it as ``[audiosearch: Dog; Bark]``,
and replace those of an earlier run. Nothing else in the file changes, see
`audiosearch.tagging.comments`. Before the new file takes the old one's place, both are read: the
packets of all streams must be the same, byte for byte, and what is decoded must be, sample for
sample.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiosearch import audio
from audiosearch.errors import AudioDecodeError, AudioError, StorageError
from audiosearch.storage import atomic_path
from audiosearch.tagging.comments import ENDINGS, UntouchableError, write_commented

__all__ = ["FileTags", "with_classes"]

_OURS = re.compile(r"\s*\[audiosearch: [^\]]*\]")


@dataclass(frozen=True)
class FileTags:
    """A chore: write the names of classes into a file's comment.

    Attributes
    ----------
    path : str
        The sound file.
    labels : tuple of str
        Names of classes, best first.
    """

    path: str
    labels: tuple[str, ...]

    def perform(self) -> tuple[int, int]:
        """Write them; return the file's new size and modification time in nanoseconds.

        Raises
        ------
        AudioDecodeError
            When the file cannot carry them, or cannot be written. It is left as it was.
        """
        # A link stays a link.
        target = Path(os.path.realpath(self.path))
        if target.suffix.lower() not in ENDINGS:
            raise AudioDecodeError(
                self.path, "Tags can be written into wav, flac, mp3, ogg, opus and m4a."
            )
        mode = target.stat().st_mode
        try:
            with contextlib.suppress(_AlreadyThereError), atomic_path(target) as temporary:
                write_commented(target, temporary, self._changed)
                if _sound(target) != _sound(temporary):
                    raise UntouchableError(
                        "With tags it would be decoded to another sound, so it is not touched."
                    )
            target.chmod(mode)
        except (StorageError, UntouchableError) as error:
            raise AudioDecodeError(self.path, str(error)) from error
        found = target.stat()
        return found.st_size, found.st_mtime_ns

    def _changed(self, comment: str) -> str:
        new = with_classes(comment, self.labels)
        if new == comment:
            raise _AlreadyThereError
        return new


class _AlreadyThereError(Exception):
    """The comment says this already: a file that has two names, or was written before a stop."""


def with_classes(comment: str, labels: tuple[str, ...]) -> str:
    """Return a comment with the names of classes behind it, in place of earlier ones."""
    return f"{_OURS.sub('', comment)} [audiosearch: {'; '.join(labels)}]".lstrip()


def _sound(path: Path) -> tuple[Any, ...]:
    """Return digests of the packets of each stream, and of what is decoded."""
    decoded = hashlib.sha256()
    try:
        for block in audio.stream(path):
            decoded.update(block.tobytes())
    except AudioError as error:
        raise UntouchableError(f"A copy of it could not be read. {error.reason}") from error
    return decoded.digest(), *_packets(path)


def _packets(path: Path) -> tuple[Any, ...]:
    import av

    found: dict[int, Any] = {}
    # What FFmpeg does not read, such as an odd first block of FLAC, is compared decoded only.
    with (
        contextlib.suppress(av.FFmpegError),
        av.open(os.fspath(path), metadata_errors="replace") as file,
    ):
        for packet in file.demux():
            if packet.size:
                found.setdefault(packet.stream_index, hashlib.sha256()).update(bytes(packet))
    return tuple((index, digest.digest()) for index, digest in sorted(found.items()))
