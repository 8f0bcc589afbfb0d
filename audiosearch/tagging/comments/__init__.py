"""The comment inside a sound file, changed without touching anything else in the file.

Each container has a module that gives the changed file as pieces: new bytes, and spans of the old
file that are copied as they are. So the sound, pictures and all other tags stay, byte for byte.
FFmpeg's muxers could copy files too, but they write headers of their own: players then cut another
number of samples from an mp3 that had no such header, and tags that FFmpeg does not know are lost.
The libraries that do better (TagLib, Mutagen) have licences with more conditions than this
package's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from audiosearch.tagging.comments import flac, mp3, mp4, ogg, riff
from audiosearch.tagging.comments.pieces import Piece, UntouchableError, copy_pieces

__all__ = ["ENDINGS", "UntouchableError", "write_commented"]

_CONTAINERS: dict[str, Callable[[BinaryIO, Callable[[str], str]], Iterator[Piece]]] = {
    ".wav": riff.pieces,
    ".wave": riff.pieces,
    ".flac": flac.pieces,
    ".mp3": mp3.pieces,
    ".ogg": ogg.pieces,
    ".oga": ogg.pieces,
    ".opus": ogg.pieces,
    ".m4a": mp4.pieces,
}
ENDINGS = tuple(_CONTAINERS)
"""Of the files whose comment can be changed, in lower case."""


def write_commented(path: Path, target: Path, change: Callable[[str], str]) -> None:
    """Write a copy of a sound file with another comment.

    Parameters
    ----------
    path : Path
        The file; its ending is one of `ENDINGS`.
    target : Path
        Where the copy goes.
    change : callable
        Gives the new comment for the old one, which is empty where there is none.

    Raises
    ------
    UntouchableError
        When the file is not built as it should be, or in a way that is not known here.
    """
    pieces = _CONTAINERS[path.suffix.lower()]
    with path.open("rb") as source, target.open("wb") as result:
        copy_pieces(source, result, pieces(source, change))
