"""Vectors over time: a table of label sets beside a (series x steps) matrix with a presence mask.

What follows from label sets alone (names dropped, groups, join plans) is computed once per table and kept with it;
the engine hands out the same table until the store's set of series changes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.faults import Permanent, PermanentReason
from agent.samples import METRIC_NAME, Labels, describe

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

_MOST_DERIVED = 64

_T = TypeVar("_T")


def failed(problem: str, hint: str = "") -> Permanent:
    """The error for an expression that this data can't be put through."""
    return Permanent(PermanentReason.INVALID, problem, hint=hint)


class SeriesTable:
    """Label sets of a vector's rows, in row order."""

    __slots__ = ("_derived", "labels")

    def __init__(self, labels: Sequence[Labels]) -> None:
        self.labels = tuple(labels)
        self._derived: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def derive(self, key: Hashable, build: Callable[[], _T]) -> _T:
        """What ``build`` makes of this table, made once."""
        known: _T | None = self._derived.get(key)
        if known is None:
            if len(self._derived) >= _MOST_DERIVED:
                self._derived.clear()
            known = self._derived[key] = build()
        return known

    def pick(self, row: int) -> str:
        """A row for a message."""
        return describe(self.labels[row])


@dataclass(frozen=True, slots=True)
class Block:
    """A vector at every step.

    Args:
        values: (series x steps); cells that are not present hold anything.
        present: (series x steps).
    """

    table: SeriesTable
    values: Floats
    present: Bools


NO_SERIES = SeriesTable(())
UNLABELLED = SeriesTable(((),))


def empty(steps: int) -> Block:
    """A vector without elements."""
    return Block(NO_SERIES, np.zeros((0, steps)), np.zeros((0, steps), dtype=np.bool_))


@dataclass(frozen=True, slots=True)
class Merge:
    """Rows of one table that become rows of another; ``target[i]`` is where row ``i`` goes."""

    table: SeriesTable
    target: Indices
    distinct: bool


def merge_by(labels: Sequence[Labels]) -> Merge:
    """The merge that unites rows whose new labels are equal."""
    rows: dict[Labels, int] = {}
    target = np.array([rows.setdefault(each, len(rows)) for each in labels], dtype=np.intp)
    return Merge(SeriesTable(tuple(rows)), target, distinct=len(rows) == len(labels))


def relabel(block: Block, key: Hashable, rename: Callable[[Labels], Labels]) -> Block:
    """``block`` under new labels, derived once a table by ``key``.

    Raises:
        Permanent: two elements of one moment would end up with the same labels.
    """
    merge = block.table.derive(key, lambda: merge_by([rename(each) for each in block.table.labels]))
    return apply(merge, block.values, block.present, _same_labels)


def apply(merge: Merge, values: Floats, present: Bools, clash: Callable[[SeriesTable, int], Permanent]) -> Block:
    """Rows moved as ``merge`` says; ``clash`` makes the error where two present cells meet."""
    if merge.distinct:
        return Block(merge.table, values, present)
    steps = values.shape[1]
    count = np.zeros((len(merge.table), steps), dtype=np.intp)
    np.add.at(count, merge.target, present)
    crowded = np.flatnonzero((count > 1).any(axis=1))
    if len(crowded):
        raise clash(merge.table, int(crowded[0]))
    merged = np.zeros((len(merge.table), steps))
    np.add.at(merged, merge.target, np.where(present, values, 0.0))
    return Block(merge.table, merged, count == 1)


def without_name(block: Block) -> Block:
    """``block`` with the metric's name dropped, as by every function that changes what values mean."""
    return relabel(block, "without_name", drop_name)


def drop_name(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != METRIC_NAME)


def _same_labels(table: SeriesTable, row: int) -> Permanent:
    return failed(
        f"vector cannot contain metrics with the same labelset: {table.pick(row)}",
        "select one metric, or aggregate by the labels that tell the series apart",
    )
