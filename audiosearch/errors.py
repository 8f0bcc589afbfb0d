"""The exception tree: every error that audiosearch raises on purpose.

::

    AudioSearchError
    ├── InvalidArgumentError      an argument that no input could make valid (also a ValueError)
    ├── MissingDependencyError    an optional package is not installed
    ├── AudioError                one sound file; the message names it
    │   ├── AudioNotFoundError    no such file, or it is a folder
    │   ├── AudioDecodeError      no decoder could read it
    │   └── EmptyAudioError       it decodes to zero samples
    ├── DataError                 a packed data set, a CSV, a label list
    ├── ModelError                weights that are missing, broken or of another kind
    │   └── DownloadError         they could not be downloaded
    ├── OtherProcessError         another process of the same training failed
    ├── StorageError              writing failed: disk full, no permission
    ├── JobError                  a job's journal or output belongs to something else
    ├── LibraryError
    │   ├── LibraryNotFoundError  there is no library in that folder
    │   ├── LibraryVersionError   made by a version that this one cannot read
    │   ├── LibraryMismatchError  another embedder or classifier made it
    │   ├── LibraryBusyError      another process is writing to it
    │   └── LibraryDamagedError   a file of it is missing, truncated or corrupt
    ├── QueryError                a query that cannot be understood, and where
    └── ServerError               the web server cannot start

A message is one or more plain sentences: what happened, to which file, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class AudioSearchError(Exception):
    """Base of all errors that audiosearch raises on purpose."""


class InvalidArgumentError(AudioSearchError, ValueError):
    """An argument is outside what the function accepts."""


class MissingDependencyError(AudioSearchError):
    """An optional dependency is needed and not installed.

    Parameters
    ----------
    package : str
        The package that could not be imported.
    extra : str
        The extra of audiosearch that brings it.
    purpose : str
        What it is needed for, as in "Training needs keras."
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f'Install it with: pip install "audiosearch[{extra}]"'
        )
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[object, tuple[str, str, str]]:
        return _missing, (self.package, self.extra, self.purpose)


def _missing(package: str, extra: str, purpose: str) -> MissingDependencyError:
    """Make the error again in another process."""
    return MissingDependencyError(package, extra=extra, purpose=purpose)


class AudioError(AudioSearchError):
    """One sound file could not be used.

    Parameters
    ----------
    path : str
        The file as the caller named it.
    reason : str
        What happened, without the file's name.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class AudioNotFoundError(AudioError):
    """There is no such file."""


class AudioDecodeError(AudioError):
    """No decoder could read the file."""


class EmptyAudioError(AudioError):
    """The file decodes to zero samples."""


class DataError(AudioSearchError):
    """A data set, CSV or label list is not as it must be."""


class ModelError(AudioSearchError):
    """Model weights are missing, broken, or do not fit."""


class DownloadError(ModelError):
    """A file of a model could not be downloaded."""


class OtherProcessError(AudioSearchError):
    """Another process of the same training failed, so that this one cannot go on either."""


class StorageError(AudioSearchError):
    """A file could not be written."""


class JobError(AudioSearchError):
    """A job cannot go on: its journal is in use or unreadable, or its output is not its own."""


class LibraryError(AudioSearchError):
    """Base of the errors about a library."""


class LibraryNotFoundError(LibraryError):
    """The folder holds no library."""


class LibraryVersionError(LibraryError):
    """The library was made by a version that this one cannot read."""


class LibraryMismatchError(LibraryError):
    """The library was made with another embedder or classifier."""


class LibraryBusyError(LibraryError):
    """Another process is writing to the library."""


class LibraryDamagedError(LibraryError):
    """A file of the library is missing, truncated or corrupt."""


class QueryError(AudioSearchError):
    """A query could not be understood.

    Parameters
    ----------
    message : str
        What is wrong and what would work.
    query : str
        The whole query.
    position : int, optional
        Index of the offending character in `query`.
    suggestions : sequence of str
        Class names that the user may have meant.
    """

    def __init__(
        self,
        message: str,
        *,
        query: str = "",
        position: int | None = None,
        suggestions: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.query = query
        self.position = position
        self.suggestions = tuple(suggestions)


class ServerError(AudioSearchError):
    """The web server cannot start."""


def printable(path: str) -> str:
    """Return a path that any terminal and any UTF-8 file can show.

    File names that are not valid text carry lone surrogates in Python; they are shown escaped.
    """
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode("utf-8")
