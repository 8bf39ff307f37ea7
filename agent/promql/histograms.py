"""``histogram_quantile`` and ``histogram_fraction`` over classic buckets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agent.promql.remarks import FORCED_MONOTONIC, Remark, bad_bounds, bad_quantiles
from agent.promql.tables import Block, Bools, Floats, Indices, SeriesTable, empty, without_name
from agent.samples import METRIC_NAME, Labels

FUNCTIONS = frozenset({"histogram_quantile", "histogram_fraction"})

# Counts that differ by less, relative to both, are equal: rounding in rates may make a higher bucket seem the smaller.
_TOLERANCE = 1e-12
_SMALLEST_NORMAL = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class _Layout:
    """Rows of a table by histogram, each histogram's rows with ascending bounds.

    Args:
        malformed: rows that belong to none, with metric and ``le``.
    """

    table: SeriesTable
    rows: tuple[Indices, ...]
    bounds: tuple[Floats, ...]
    malformed: tuple[tuple[int, str, str], ...]


def evaluate(
    function: str, parameters: Sequence[Floats], buckets: Block, tick: Callable[[], None]
) -> tuple[Block, list[Remark]]:
    """``function`` of every histogram in ``buckets``, and what there is to remark; series without ``le`` are left out.

    Args:
        parameters: the arguments before the buckets, each with one value a step.
        tick: called as it goes on; may raise.

    Raises:
        Permanent: two metrics have a histogram with the same labels.
    """
    steps = buckets.values.shape[1]
    layout = buckets.table.derive("histograms", lambda: _lay_out(buckets.table))
    seen = dict.fromkeys((metric, bound) for row, metric, bound in layout.malformed if buckets.present[row].any())
    remarks = list(bad_bounds(seen, len(parameters)))
    if function == "histogram_quantile":
        remarks += bad_quantiles(parameters[0], 0)
    if not layout.rows:
        return empty(steps), remarks
    values = np.zeros((len(layout.table), steps))
    present = np.zeros((len(layout.table), steps), dtype=np.bool_)
    forced = False
    for row, (members, bounds) in enumerate(zip(layout.rows, layout.bounds, strict=True)):
        tick()
        there = buckets.present[members]
        counts = buckets.values[members]
        present[row] = there.any(axis=0)
        for pattern, at in _patterns(there):
            distinct, summed = _coalesced(bounds[pattern], counts[np.ix_(pattern, at)])
            if function == "histogram_quantile":
                values[row, at], fixed = _quantiles(parameters[0][at], distinct, summed)
                forced |= fixed
            else:
                values[row, at] = _fractions(parameters[0][at], parameters[1][at], distinct, summed)
    found = without_name(Block(layout.table, values, present))
    return found, [*remarks, FORCED_MONOTONIC] if forced else remarks


def _lay_out(table: SeriesTable) -> _Layout:
    groups: dict[Labels, list[tuple[float, int]]] = {}
    malformed = []
    for row, labels in enumerate(table.labels):
        pairs = dict(labels)
        bound = _bound(pairs.get("le", ""))
        if bound is None:
            malformed.append((row, pairs.get(METRIC_NAME, ""), pairs.get("le", "")))
        else:
            rest = tuple(pair for pair in labels if pair[0] != "le")  # two metrics are two histograms
            groups.setdefault(rest, []).append((bound, row))
    ordered = [sorted(members) for members in groups.values()]
    return _Layout(
        SeriesTable(tuple(groups)),
        tuple(np.array([row for _, row in members], dtype=np.intp) for members in ordered),
        tuple(np.array([bound for bound, _ in members]) for members in ordered),
        tuple(malformed),
    )


def _bound(text: str) -> float | None:
    if "_" in text or text != text.strip():
        return None  # Python's float is more lenient than Go's
    try:
        return float(text)
    except ValueError:
        return None


def _patterns(there: Bools) -> list[tuple[Indices, Indices]]:
    """The sets of buckets that occur together, each with the steps at which they do."""
    if there.all():
        return [(np.arange(there.shape[0]), np.arange(there.shape[1]))]
    distinct, which = np.unique(there, axis=1, return_inverse=True)
    found = [
        (np.flatnonzero(distinct[:, number]), np.flatnonzero(which.ravel() == number))
        for number in range(distinct.shape[1])
    ]
    return [(buckets, at) for buckets, at in found if len(buckets)]


def _coalesced(bounds: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Buckets with the same bound, which only differ in how it is written, as one."""
    if len(bounds) < 2 or not (bounds[1:] == bounds[:-1]).any():
        return bounds, counts
    starts = np.flatnonzero(np.concatenate([[True], bounds[1:] != bounds[:-1]]))
    return bounds[starts], np.add.reduceat(counts, starts, axis=0)


def _quantiles(shares: Floats, bounds: Floats, counts: Floats) -> tuple[Floats, bool]:
    """Quantiles of one histogram at several steps, and whether its counts had to be made to rise.

    Args:
        counts: (buckets x steps), cumulative.
    """
    if len(bounds) < 2 or not math.isinf(bounds[-1]) or bounds[-1] < 0:
        return _outside(shares, np.full(len(shares), np.nan)), False
    counts, forced = _monotonic(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = counts[-1]
        rank = shares * total
        bucket = _first_reaching(counts[:-1], rank)
        column = np.arange(counts.shape[1])
        lower_count = np.where(bucket > 0, counts[np.maximum(bucket - 1, 0), column], 0.0)
        lower_bound = np.where(bucket > 0, bounds[np.maximum(bucket - 1, 0)], 0.0)
        inside = counts[bucket, column] - lower_count
        value = lower_bound + (bounds[bucket] - lower_bound) * ((rank - lower_count) / inside)
        value = np.where((bucket == 0) & (bounds[0] <= 0), bounds[0], value)
        value = np.where(bucket == len(bounds) - 1, bounds[-2], value)
        value = np.where(total == 0, np.nan, value)
    used = (shares >= 0) & (shares <= 1) & (total != 0)
    return _outside(shares, value), bool((forced & used).any())


def _first_reaching(counts: Floats, rank: Floats) -> Indices:
    """The first bucket whose count reaches ``rank``, step by step; by bisection, which shows where counts are NaN."""
    low = np.zeros(counts.shape[1], dtype=np.intp)
    high = np.full(counts.shape[1], len(counts), dtype=np.intp)
    while (searching := low < high).any():
        middle = (low + high) // 2
        reached = counts[np.minimum(middle, len(counts) - 1), np.arange(counts.shape[1])] >= rank
        high = np.where(searching & reached, middle, high)
        low = np.where(searching & ~reached, middle + 1, low)
    return low


def _monotonic(counts: Floats) -> tuple[Floats, Bools]:
    """``counts`` with tiny differences levelled and every decrease removed, and the steps that had one."""
    forced = np.zeros(counts.shape[1], dtype=np.bool_)
    below, above = counts[:-1], counts[1:]
    if ((below == above) | ((below < above) & ~_nearly_equal(below, above))).all():
        return counts, forced  # as nearly every histogram is; row by row took twelve times as long
    fixed = counts.copy()
    level = fixed[0]
    for row in range(1, len(fixed)):
        here = fixed[row]
        close = _nearly_equal(level, here)
        falls = ~close & (here < level)
        forced |= falls
        fixed[row] = np.where(close | falls, level, here)
        level = fixed[row]
    return fixed, forced


def _nearly_equal(one: Floats, other: Floats) -> Bools:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        size = np.abs(one) + np.abs(other)
        apart = np.abs(one - other)
        tiny = (one == 0) | (other == 0) | (size < _SMALLEST_NORMAL)
        room = np.where(tiny, _SMALLEST_NORMAL, np.minimum(size, np.finfo(np.float64).max))
        close: Bools = (apart < _TOLERANCE * room) | (one == other)
        return close


def _fractions(lower: Floats, upper: Floats, bounds: Floats, counts: Floats) -> Floats:
    """The share of observations between two values at several steps; ``counts`` as for quantiles, taken as they are."""
    if not math.isinf(bounds[-1]) or bounds[-1] < 0:
        return np.full(len(lower), np.nan)
    below_all = -math.inf if bounds[0] <= 0 else 0.0
    starts = np.concatenate([[below_all], bounds[:-1]])
    total = counts[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (_rank(upper, starts, bounds, counts) - _rank(lower, starts, bounds, counts)) / total
        share = np.where(lower >= upper, 0.0, share)
        return np.where((total == 0) | np.isnan(lower) | np.isnan(upper), np.nan, share)


def _rank(value: Floats, starts: Floats, ends: Floats, counts: Floats) -> Floats:
    """How many observations are up to ``value``, interpolated within its bucket."""
    before = np.zeros(len(value))
    rank, known = np.zeros(len(value)), np.zeros(len(value), dtype=np.bool_)
    for start, end, count in zip(starts, ends, counts, strict=True):
        at_edge = ~known & (start >= value)
        inside = ~known & ~at_edge & (start < value) & (end > value)
        within = count if math.isinf(start) else before + (count - before) * (value - start) / (end - start)
        rank = np.where(at_edge, before, np.where(inside, within, rank))
        known |= at_edge | inside
        before = count
    return np.where(~known | (rank > counts[-1]), counts[-1], rank)


def _outside(shares: Floats, values: Floats) -> Floats:
    """What shares below 0, above 1 and NaN yield, whatever the buckets."""
    values = np.where(shares < 0, -np.inf, values)
    values = np.where(shares > 1, np.inf, values)
    return np.where(np.isnan(shares), np.nan, values)
