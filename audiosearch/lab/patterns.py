"""Labels in file names: a pattern says where they stand.

A pattern is the file's name without its ending, with fields in braces: ``{label}`` (needed),
``{group}``, ``{fold}``, and ``{}`` for what does not matter. ``{label}_{group}_{}`` reads
``7_jackson_32.wav`` as label 7 of the group jackson. A field takes as little as it can, so that
what stands between the fields separates them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from audiosearch.errors import InvalidArgumentError

__all__ = ["NameFields", "NamePattern"]

_FIELDS = ("label", "group", "fold")


@dataclass(frozen=True)
class NameFields:
    """What a name says; `labels` are several where the label's part holds plus signs."""

    labels: tuple[str, ...]
    group: str | None
    fold: str | None


class NamePattern:
    """A pattern of file names.

    Parameters
    ----------
    text : str
        The pattern; see the module's text.

    Raises
    ------
    InvalidArgumentError
        When it is none.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        parts = re.split(r"\{([^{}]*)\}", text)
        names = parts[1::2]
        if "label" not in names:
            raise InvalidArgumentError(f"The pattern '{text}' has no field {{label}}.")
        for name in names:
            if name and (name not in _FIELDS or names.count(name) > 1):
                raise InvalidArgumentError(
                    f"The pattern '{text}' may have {{label}}, {{group}} and {{fold}} once each, "
                    f"and {{}} for the rest; it has {{{name}}}."
                )
        if any(not between for between in parts[2:-1:2]):
            raise InvalidArgumentError(
                f"Two fields of the pattern '{text}' stand side by side: put what separates them "
                "in between."
            )
        pieces = [
            re.escape(part) if place % 2 == 0 else f"(?P<{part}>.+?)" if part else ".*?"
            for place, part in enumerate(parts)
        ]
        self._expression = re.compile("".join(pieces), re.DOTALL)

    def read(self, stem: str) -> NameFields | None:
        """Read a file's name without its ending; None where it does not fit."""
        found = self._expression.fullmatch(stem)
        if found is None:
            return None
        values = found.groupdict()
        labels = tuple(values["label"].split("+"))
        return NameFields(labels, values.get("group"), values.get("fold"))
