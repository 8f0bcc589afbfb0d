"""How often a client may do something: token buckets, one a client, in bounded memory."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from audiosearch.errors import InvalidArgumentError

__all__ = ["Throttle", "network_of", "whole_seconds"]

_MOST_CLIENTS = 10_000


class Throttle:
    """Lets every client do something `count` times at once, and `count` times in `seconds`.

    It serves one process. Of more clients than are remembered the ones that were quiet longest are
    forgotten, and may begin again.

    Parameters
    ----------
    count : int
        How often.
    seconds : float
        In which time.
    clock : callable
        Gives seconds that never go back.

    Raises
    ------
    InvalidArgumentError
        When one of them is not above 0.
    """

    def __init__(
        self, count: int, seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if count < 1 or not seconds > 0:
            raise InvalidArgumentError(
                f"A limit is at least 1 in more than 0 seconds, not {count} in {seconds}."
            )
        self.count, self.seconds = count, seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Count one time; return 0, or how many seconds to wait where it may not be."""
        with self._lock:
            left, now = self._now(client)
            if left < 1:
                return (1 - left) * self.seconds / self.count
            self._left[client] = left - 1, now
            self._left.move_to_end(client)
            if len(self._left) > _MOST_CLIENTS:
                self._left.popitem(last=False)
            return 0.0

    def wait(self, client: str) -> float:
        """Return how many seconds `take` would make it wait, without counting."""
        with self._lock:
            left, _ = self._now(client)
            return 0.0 if left >= 1 else (1 - left) * self.seconds / self.count

    def _now(self, client: str) -> tuple[float, float]:
        now = self._clock()
        left, then = self._left.get(client, (float(self.count), now))
        return min(float(self.count), left + (now - then) * self.count / self.seconds), now


def network_of(address: str | None) -> str:
    """Return whom an address belongs to: of IPv6 a network of 64 bits, which one client has."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def whole_seconds(wait: float) -> str:
    """Return a time to wait as the header ``Retry-After`` gives it."""
    return str(max(1, math.ceil(wait)))
