"""Aggregation operators: groups of rows to one row each, or, for ``topk`` and ``bottomk``, to their extremes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.promql.budget import Budget
from agent.promql.summing import means, sums
from agent.promql.tables import Block, Bools, Floats, Indices, SeriesTable, empty, failed
from agent.promql.values import format_value
from agent.promql.windows import quantile, sorted_with_nan_first
from agent.samples import METRIC_NAME, Labels


@dataclass(frozen=True, slots=True)
class Grouping:
    """Rows of a table in group order, and where each group starts in that order."""

    table: SeriesTable
    order: Indices
    starts: Indices

    def members(self) -> list[Indices]:
        return list(np.split(self.order, self.starts[1:]))


def grouping(table: SeriesTable, labels: tuple[str, ...], without: bool) -> Grouping:
    """The groups of ``table`` by (or without) ``labels``."""
    return table.derive(("grouping", labels, without), lambda: _group(table, frozenset(labels), without))


def _group(table: SeriesTable, labels: frozenset[str], without: bool) -> Grouping:
    groups: dict[Labels, list[int]] = {}
    for row, each in enumerate(table.labels):
        groups.setdefault(group_key(each, labels, without), []).append(row)
    sizes = [len(rows) for rows in groups.values()]
    return Grouping(
        SeriesTable(tuple(groups)),
        np.array([row for rows in groups.values() for row in rows], dtype=np.intp),
        np.cumsum([0, *sizes[:-1]], dtype=np.intp),
    )


def group_key(each: Labels, labels: frozenset[str], without: bool) -> Labels:
    """What the members of a group have in common."""
    if without:
        return tuple(pair for pair in each if pair[0] not in labels and pair[0] != METRIC_NAME)
    return tuple(pair for pair in each if pair[0] in labels)


def aggregate(
    operator: str, block: Block, groups: Grouping, parameter: Floats | None, tick: Callable[[], None]
) -> Block:
    """``operator`` of every group at every step.

    Args:
        parameter: one value a step.
        tick: called as it goes on; may raise.

    Raises:
        Permanent: ``topk`` or ``bottomk`` of a number that is none.
    """
    if operator in ("topk", "bottomk"):
        assert parameter is not None
        _check_count(parameter)
    if not len(block.table):
        return block
    if operator in ("topk", "bottomk"):
        assert parameter is not None
        return _extremes(block, groups, parameter, tick, largest=operator == "topk")
    values, present = block.values[groups.order], block.present[groups.order]
    there = np.logical_or.reduceat(present, groups.starts, axis=0)
    if operator == "quantile":
        assert parameter is not None
        return Block(groups.table, _quantiles(values, present, groups.starts, parameter, tick), there)
    return Block(groups.table, _REDUCTIONS[operator](values, present, groups.starts), there)


Reduction = Callable[[Floats, Bools, Indices], Floats]


def _sum(values: Floats, present: Bools, starts: Indices) -> Floats:
    return sums(np.where(present, values, 0.0), starts)


def _count(values: Floats, present: Bools, starts: Indices) -> Floats:
    del values
    count: Floats = np.add.reduceat(present, starts, axis=0, dtype=np.float64)
    return count


def _average(values: Floats, present: Bools, starts: Indices) -> Floats:
    return means(np.where(present, values, 0.0), starts, _count(values, present, starts))


def _variance(values: Floats, present: Bools, starts: Indices) -> Floats:
    sizes = np.diff([*starts, len(values)])
    with np.errstate(invalid="ignore"):
        # Around the smallest, so that equal values have a variance of exactly zero.
        around = values - np.repeat(_smallest(values, present, starts), sizes, axis=0)
        mean = np.repeat(_average(around, present, starts), sizes, axis=0)
        return _average((around - mean) ** 2, present, starts)


def _smallest(values: Floats, present: Bools, starts: Indices) -> Floats:
    smallest: Floats = np.fmin.reduceat(np.where(present, values, np.nan), starts, axis=0)
    return smallest


def _largest(values: Floats, present: Bools, starts: Indices) -> Floats:
    largest: Floats = np.fmax.reduceat(np.where(present, values, np.nan), starts, axis=0)
    return largest


def _one(values: Floats, present: Bools, starts: Indices) -> Floats:
    del present
    return np.ones((len(starts), values.shape[1]))


_REDUCTIONS: dict[str, Reduction] = {
    "sum": _sum,
    "avg": _average,
    "count": _count,
    "min": _smallest,
    "max": _largest,
    "group": _one,
    "stdvar": _variance,
    "stddev": lambda values, present, starts: np.sqrt(_variance(values, present, starts)),
}
OPERATORS = frozenset([*_REDUCTIONS, "topk", "bottomk", "quantile", "count_values"])


def count_values(block: Block, labels: tuple[str, ...], without: bool, into: str, budget: Budget) -> Block:
    """How many elements of each group have each value, the value written as the label ``into``.

    Raises:
        Refused, Transient: as :class:`Budget`: every value is a series of its own.
    """
    steps = block.values.shape[1]
    rows: dict[Labels, Floats] = {}
    chosen = frozenset(labels) | (frozenset() if without else {into})
    for row, step in zip(*np.nonzero(block.present), strict=True):
        pairs = {**dict(block.table.labels[row]), into: format_value(float(block.values[row, step]))}
        key = group_key(tuple(sorted(pairs.items())), chosen, without)
        if key not in rows:
            budget.spend(steps)
            rows[key] = np.zeros(steps)
        rows[key][step] += 1
    if not rows:
        return empty(steps)
    counts = np.array(list(rows.values()))
    return Block(SeriesTable(tuple(rows)), counts, counts > 0)


def _quantiles(values: Floats, present: Bools, starts: Indices, shares: Floats, tick: Callable[[], None]) -> Floats:
    found = np.zeros((len(starts), values.shape[1]))
    ends = [*starts[1:], len(values)]
    for group, (start, end) in enumerate(zip(starts, ends, strict=True)):
        tick()
        for step in range(values.shape[1]):
            members = values[start:end, step][present[start:end, step]]
            found[group, step] = quantile(float(shares[step]), sorted_with_nan_first(members))
    return found


def _check_count(parameter: Floats) -> None:
    if np.isnan(parameter).any():
        raise failed("Parameter value is NaN", "topk and bottomk want a whole number")
    wide = parameter[np.abs(parameter) >= 2.0**63]
    if len(wide):
        side = "over" if wide[0] > 0 else "under"
        raise failed(f"Scalar value {format_value(float(wide[0]))} {side}flows int64", "use a smaller number")


def _extremes(block: Block, groups: Grouping, parameter: Floats, tick: Callable[[], None], *, largest: bool) -> Block:
    """Keep the ``k`` largest or smallest of every group; NaN is the last to be kept."""
    kept = np.zeros_like(block.present)
    for members in groups.members():
        tick()
        for step in range(block.values.shape[1]):
            here = members[block.present[members, step]]
            wanted = parameter[step]
            count = 0 if not wanted >= 1 else min(int(wanted), len(here))
            values = block.values[here, step]
            keys = np.where(np.isnan(values), np.inf, -values if largest else values)
            order = np.lexsort((keys, np.isnan(values)))
            kept[here[order[:count]], step] = True
    return Block(block.table, block.values, kept)
