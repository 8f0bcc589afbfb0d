"""Which score columns are stored: one for each class, and one for each group of the ontology.

The column of a group is the noisy-or of its classes (`audiosearch.library.rollup`), clip by clip,
so that a search for "vehicle" reads one column and not forty.
"""

from __future__ import annotations

import functools

from audiosearch.labels import CLASS_COUNT, load_labels

__all__ = ["ScoreColumns", "current_columns"]


class ScoreColumns:
    """The stored columns: number 0 to 526 are the classes, those behind them are groups.

    Parameters
    ----------
    groups : tuple of tuple of int
        The classes of each group, at least two, sorted.
    """

    def __init__(self, groups: tuple[tuple[int, ...], ...]) -> None:
        self.groups = groups
        self._by_classes = {group: CLASS_COUNT + n for n, group in enumerate(groups)}
        # The largest first: a cover by few columns is a fast one.
        self._sets = sorted(
            ((frozenset(group), CLASS_COUNT + n) for n, group in enumerate(groups)),
            key=lambda item: (-len(item[0]), item[1]),
        )
        self._covers: dict[frozenset[int], tuple[int, ...]] = {}

    def __len__(self) -> int:
        return CLASS_COUNT + len(self.groups)

    def classes(self, column: int) -> tuple[int, ...]:
        """Return the classes whose noisy-or a column holds."""
        return (column,) if column < CLASS_COUNT else self.groups[column - CLASS_COUNT]

    def cover(self, classes: tuple[int, ...]) -> tuple[int, ...]:
        """Return few columns that hold exactly these classes, each once."""
        wanted = frozenset(classes)
        known = self._covers.get(wanted)
        if known is not None:
            return known
        exact = self._by_classes.get(tuple(sorted(wanted)))
        columns: list[int] = [] if exact is None else [exact]
        missing = set() if exact is not None else set(wanted)
        for group, column in self._sets if missing else ():
            if group <= missing:
                columns.append(column)
                missing -= group
        columns.extend(sorted(missing))
        self._covers[wanted] = tuple(columns)
        return tuple(columns)


@functools.lru_cache(maxsize=16)
def columns_of(groups: tuple[tuple[int, ...], ...]) -> ScoreColumns:
    """Return the columns of these groups; the same object for the same groups."""
    return ScoreColumns(groups)


@functools.cache
def current_columns() -> ScoreColumns:
    """Return the columns that new segments get: the classes, and the ontology's groups."""
    return columns_of(load_labels().groups())
