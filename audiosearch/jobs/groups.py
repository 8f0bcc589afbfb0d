"""Results of a job are committed in groups: a commit waits for the disk, and a file need not."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["GROUP_FILES", "GROUP_SECONDS", "Groups"]

T = TypeVar("T")

GROUP_FILES = 200
"""A group of results is committed when it has this many files, or is this old:"""
GROUP_SECONDS = 1.0


class Groups(Generic[T]):
    """Collects results and hands them on in groups.

    Parameters
    ----------
    commit : callable
        Takes a list of results; what it returns from is safe.

    Use it as a context manager: leaving it commits what is left, also after Ctrl-C.
    """

    def __init__(self, commit: Callable[[list[T]], None]) -> None:
        self._commit = commit
        self._pending: list[T] = []
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()

    def put(self, result: T) -> None:
        """Take a result; commit the group when it is full or old."""
        self._pending.append(result)
        self.tick()

    def tick(self) -> None:
        """Commit the group when it is full or old; to be called now and then."""
        late = time.monotonic() - self._last >= GROUP_SECONDS
        if late or len(self._pending) >= GROUP_FILES:
            self.flush()

    def flush(self) -> None:
        """Commit what there is."""
        # Taken out first: what could not be committed is not tried twice.
        pending, self._pending = self._pending, []
        if pending:
            self._commit(pending)
        self._last = time.monotonic()
