"""The numbers of a field: ``>30``, ``<=1:30``, ``10..30``."""

from __future__ import annotations

import math
import re

from audiosearch.query.tree import Range

__all__ = ["parse_number", "parse_range", "parse_seconds"]

_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{0,12})?|\.\d{1,12}", re.ASCII)
_SECONDS = re.compile(rf"({_NUMBER.pattern})\s*([a-z]*)", re.ASCII | re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d{1,6}):)?(\d{1,6}):(\d{1,2}(?:\.\d{1,6})?)", re.ASCII)


def parse_number(text: str) -> float | None:
    """Return a plain number of 0 or more, None where it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def parse_seconds(text: str) -> float | None:
    """Return a length of time: ``30``, ``1.5``, ``30s``, ``2m``, ``1h``, ``1:30``, ``1:02:03``."""
    if clock := _CLOCK.fullmatch(text):
        return 3600 * float(clock[1] or 0) + 60 * float(clock[2]) + float(clock[3])
    match = _SECONDS.fullmatch(text)
    if match is None or match[2].lower() not in _UNITS:
        return None
    return float(match[1]) * _UNITS[match[2].lower()]


def parse_range(text: str, *, seconds: bool) -> Range | None:
    """Return the range that a comparison (``>``, ``>=``, ``<``, ``<=``) or ``LOW..HIGH`` means.

    None where it is neither, or where nothing can lie in it.
    """
    parse = parse_seconds if seconds else parse_number
    if comparison := re.fullmatch(r"([<>])(=?)\s*(.*)", text):
        number = parse(comparison[3])
        if number is None:
            return None
        is_open = not comparison[2]
        if comparison[1] == ">":
            return Range(low=number, low_open=is_open)
        return Range(high=number, high_open=is_open)
    low, dots, high = text.partition("..")
    if not dots or not (low or high):
        return None
    ends = (parse(low) if low else -math.inf), (parse(high) if high else math.inf)
    if ends[0] is None or ends[1] is None or ends[0] > ends[1]:
        return None
    return Range(low=ends[0], high=ends[1])
