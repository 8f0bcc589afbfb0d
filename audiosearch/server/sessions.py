"""Who is signed in: sessions in the server's memory, each known to a browser by a random cookie.

They end when the user signs out, when they were not used for a week, after a month in any case,
and with the server. The server keeps a hash of the cookie only.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["LIFETIME", "Session", "Sessions"]

LIFETIME = 30 * 24 * 3600
"""Seconds after which a session ends in any case."""

_IDLE = 7 * 24 * 3600
_MOST = 10_000


@dataclass(frozen=True)
class Session:
    """One browser that signed in.

    Attributes
    ----------
    user : str or None
        Who; None for one who showed the server's token.
    proof : str
        What the user signed in with, hashed: a session ends when that is no longer so.
    started, used : float
        When, in seconds of the clock of `Sessions`.
    """

    user: str | None
    proof: str
    started: float
    used: float


class Sessions:
    """The sessions of one server; safe to use from several threads.

    Parameters
    ----------
    clock : callable
        Gives seconds that never go back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Session] = OrderedDict()

    def start(self, user: str | None, proof: str) -> str:
        """Begin a session and return its secret, which the browser keeps as a cookie."""
        secret = secrets.token_urlsafe(32)
        now = self._clock()
        with self._lock:
            self._known[_hashed(secret)] = Session(user, proof, now, now)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        return secret

    def find(self, secret: str) -> Session | None:
        """Return the session of a cookie, and note that it was used; None where there is none."""
        key, now = _hashed(secret), self._clock()
        with self._lock:
            found = self._known.get(key)
            if found is None:
                return None
            if now - found.used > _IDLE or now - found.started > LIFETIME:
                del self._known[key]
                return None
            self._known[key] = replace(found, used=now)
            self._known.move_to_end(key)
            return found

    def end(self, secret: str) -> None:
        """End the session of a cookie, where there is one."""
        with self._lock:
            self._known.pop(_hashed(secret), None)


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
