"""Answers that take longer than a visitor waits: made once in a thread, kept until they are old."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Background"]

Answer = TypeVar("Answer")

_log = logging.getLogger("audiosearch.server")


class Background(Generic[Answer]):
    """One answer, made in a thread of its own when it is first asked for.

    Parameters
    ----------
    make : callable
        Makes the answer.
    """

    def __init__(self, make: Callable[[], Answer]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._key: str | None = None
        self._answer: Answer | None = None
        self._error: Exception | None = None

    def get(self, key: str, *, wait: float = 0.0) -> Answer | None:
        """Return the answer, or None while the first is being made.

        While a newer one is being made, the last one is the answer.

        Parameters
        ----------
        key : str
            What the answer belongs to; with another key it is made anew.
        wait : float
            How many seconds to wait for it.

        Raises
        ------
        Exception
            What making it raised; the next call tries again.
        """
        until = time.monotonic() + wait
        while True:
            with self._lock:
                if self._key == key:
                    error, self._error = self._error, None
                    if error is not None:
                        self._key = None
                        raise error
                    return self._answer
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, args=(key,), daemon=True)
                    self._thread.start()
                thread = self._thread
            left = until - time.monotonic()
            if left <= 0:
                return self._answer
            # It may be making the answer to an earlier key: that is not all that was waited for.
            thread.join(left)

    def _run(self, key: str) -> None:
        answer, error = None, None
        try:
            answer = self._make()
        except Exception as raised:
            _log.warning("%s", raised)
            error = raised
        with self._lock:
            self._key, self._error = key, error
            self._answer = self._answer if answer is None else answer
