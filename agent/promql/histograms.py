"""``histogram_quantile`` over classic buckets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agent.promql.tables import Block, Bools, Floats, Indices, SeriesTable, empty
from agent.samples import METRIC_NAME, Labels

FUNCTIONS = frozenset({"histogram_quantile"})

# Counts that differ by less are equal: rounding in rates may make a higher bucket seem the smaller one.
_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class _Layout:
    """Rows of a table by histogram, each histogram's rows with ascending bounds."""

    table: SeriesTable
    rows: tuple[Indices, ...]
    bounds: tuple[Floats, ...]


def histogram_quantile(share: Floats, buckets: Block) -> Block:
    """The ``share[step]``-quantile of every histogram in ``buckets``; series without ``le`` are left out."""
    steps = buckets.values.shape[1]
    layout = buckets.table.derive("histograms", lambda: _lay_out(buckets.table))
    if not layout.rows:
        return empty(steps)
    values = np.zeros((len(layout.table), steps))
    present = np.zeros((len(layout.table), steps), dtype=np.bool_)
    for row, (members, bounds) in enumerate(zip(layout.rows, layout.bounds, strict=True)):
        there = buckets.present[members]
        counts = buckets.values[members]
        present[row] = there.any(axis=0)
        for pattern, at in _patterns(there):
            values[row, at] = _quantiles(share[at], bounds[pattern], counts[np.ix_(pattern, at)])
    return Block(layout.table, values, present)


def _lay_out(table: SeriesTable) -> _Layout:
    groups: dict[Labels, list[tuple[float, int]]] = {}
    for row, labels in enumerate(table.labels):
        bound = _bound(dict(labels).get("le"))
        if bound is not None:
            rest = tuple(pair for pair in labels if pair[0] not in (METRIC_NAME, "le"))
            groups.setdefault(rest, []).append((bound, row))
    ordered = [sorted(members) for members in groups.values()]
    return _Layout(
        SeriesTable(tuple(groups)),
        tuple(np.array([row for _, row in members], dtype=np.intp) for members in ordered),
        tuple(np.array([bound for bound, _ in members]) for members in ordered),
    )


def _bound(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
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


def _quantiles(shares: Floats, bounds: Floats, counts: Floats) -> Floats:
    """Quantiles of one histogram at several steps; ``counts`` is (buckets x steps), cumulative."""
    if not math.isinf(bounds[-1]) or bounds[-1] < 0:
        return _outside(shares, np.full(len(shares), np.nan))
    if len(bounds) > 1 and (bounds[1:] == bounds[:-1]).any():
        starts = np.flatnonzero(np.concatenate([[True], bounds[1:] != bounds[:-1]]))
        bounds, counts = bounds[starts], np.add.reduceat(counts, starts, axis=0)
    if len(bounds) < 2:
        return _outside(shares, np.full(len(shares), np.nan))
    counts = _monotonic(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = counts[-1]
        rank = shares * total
        reached = counts[:-1] >= rank
        bucket = np.where(reached.any(axis=0), reached.argmax(axis=0), len(bounds) - 1)
        column = np.arange(counts.shape[1])
        lower_count = np.where(bucket > 0, counts[np.maximum(bucket - 1, 0), column], 0.0)
        lower_bound = np.where(bucket > 0, bounds[np.maximum(bucket - 1, 0)], 0.0)
        inside = counts[bucket, column] - lower_count
        value = lower_bound + (bounds[bucket] - lower_bound) * ((rank - lower_count) / inside)
        value = np.where((bucket == 0) & (bounds[0] <= 0), bounds[0], value)
        value = np.where(bucket == len(bounds) - 1, bounds[-2], value)
        value = np.where((total == 0) | np.isnan(total), np.nan, value)
    return _outside(shares, value)


def _monotonic(counts: Floats) -> Floats:
    """``counts`` with tiny differences levelled and every decrease removed."""
    fixed = counts.copy()
    level = fixed[0].copy()
    for row in range(1, len(fixed)):
        with np.errstate(divide="ignore", invalid="ignore"):
            close = np.abs(fixed[row] - level) / fixed[row] <= _TOLERANCE
        fixed[row] = np.where(close, level, fixed[row])
        level = fixed[row]
    return np.fmax.accumulate(fixed, axis=0)


def _outside(shares: Floats, values: Floats) -> Floats:
    """What shares below 0, above 1 and NaN yield, whatever the buckets."""
    values = np.where(shares < 0, -np.inf, values)
    values = np.where(shares > 1, np.inf, values)
    return np.where(np.isnan(shares), np.nan, values)
