"""Functions of range vectors: ``rate`` and ``*_over_time``.

Each is computed for all series of a source at once. A window is ``(t - length, t]``. Counters whose samples in
sight have neither gaps nor resets (nearly all, nearly always) are read off their first and last sample; the store
keeps track of who qualifies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.promql.summing import column_means, column_sums
from agent.promql.tables import Bools, Floats, Indices
from agent.samples import ColumnView
from agent.samples.columns import present as present_cells

Millis = NDArray[np.int64]

# Prometheus extrapolates to the window's edge if a sample is no further from it than this share of the mean gap.
_CLOSE_ENOUGH = 1.1


@dataclass(frozen=True, slots=True)
class Frame:
    """The samples of some series in one window.

    Args:
        times: ms, ascending; one axis for all series.
        values: (times x series).
        mask: which cells are samples.
        start: the window's open start, ms.
        end: its closed end, ms.
        now: the moment of evaluation, ms; not ``end`` if the selector has an offset.
        parameters: further scalar arguments of the function.
    """

    times: Millis
    values: Floats
    mask: Bools
    start: int
    end: int
    now: int
    parameters: tuple[float, ...]

    @property
    def count(self) -> NDArray[np.intp]:
        count: NDArray[np.intp] = np.count_nonzero(self.mask, axis=0)
        return count

    @property
    def first(self) -> Indices:
        rows: Indices = self.mask.argmax(axis=0)
        return rows

    @property
    def last(self) -> Indices:
        rows: Indices = len(self.times) - 1 - self.mask[::-1].argmax(axis=0)
        return rows

    def at(self, rows: Indices) -> Floats:
        """The cell of each series in its own row."""
        cells: Floats = self.values[rows, np.arange(self.values.shape[1])]
        return cells


Outcome = tuple[Floats, Bools]
WindowFunction = Callable[[Frame], Outcome]


@dataclass(frozen=True, slots=True)
class WindowKind:
    """A function and what it does to names.

    Args:
        counter: how ``rate`` and its kin differ, for the shortcut; ``None`` for other functions.
        range_at: which argument is the range vector.
    """

    compute: WindowFunction
    keeps_name: bool = False
    counter: Slope | None = None
    range_at: int = 0


@dataclass(frozen=True, slots=True)
class Slope:
    """``rate`` is per second and corrects resets, ``increase`` is a total, ``delta`` corrects nothing."""

    resets: bool
    per_second: bool


def evaluate(
    kind: WindowKind,
    view: ColumnView,
    columns: Indices,
    steps: Millis,
    length: int,
    parameters: NDArray[np.float64],
    *,
    now: Millis,
    tick: Callable[[], None],
) -> Outcome:
    """``kind`` of the series in ``columns`` at every step.

    Args:
        view: rows that cover all windows.
        steps: where the windows end, ms.
        length: of the window, ms.
        parameters: (parameters x steps).
        now: when each step is evaluated, ms.
        tick: called as it goes on; may raise.

    Returns:
        values and presence, both (series x steps).
    """
    lows = np.searchsorted(view.times, steps - length, "right")
    highs = np.searchsorted(view.times, steps, "right")
    values = np.zeros((len(columns), len(steps)))
    found = np.zeros((len(columns), len(steps)), dtype=np.bool_)
    pending = np.arange(len(columns))
    if kind.counter is not None:
        steady = view.steady(columns)
        if steady.any():
            quick = np.flatnonzero(steady)
            values[quick], found[quick] = steady_slope(kind.counter, view, columns[quick], steps, length, (lows, highs))
            pending = np.flatnonzero(~steady)
    if not len(pending):
        return values, found
    for step in np.flatnonzero(highs > lows):
        tick()
        low, high = int(lows[step]), int(highs[step])
        cells = view.block(low, high, columns[pending])
        frame = Frame(
            view.times[low:high],
            cells,
            present_cells(cells),
            int(steps[step]) - length,
            int(steps[step]),
            int(now[step]),
            tuple(parameters[:, step]),
        )
        outcome, there = kind.compute(frame)
        values[pending, step] = outcome
        found[pending, step] = there & frame.mask.any(axis=0)
    return values, found


def steady_slope(
    slope: Slope, view: ColumnView, columns: Indices, steps: Millis, length: int, bounds: tuple[Indices, Indices]
) -> Outcome:
    """``slope`` of series without gaps and resets in every window, read off its first and last sample.

    Args:
        bounds: the first row of each window and the one after its last.
    """
    lows, highs = bounds
    enough = np.flatnonzero(highs - lows > 1)
    values = np.zeros((len(columns), len(steps)))
    found = np.zeros((len(columns), len(steps)), dtype=np.bool_)
    if not len(enough):
        return values, found
    firsts, lasts = lows[enough], highs[enough] - 1
    first, last = view.rows(firsts, columns), view.rows(lasts, columns)
    values[:, enough] = extrapolated(
        slope,
        gain=last - first,
        first=first,
        times=(view.times[firsts][:, None], view.times[lasts][:, None]),
        gaps=(lasts - firsts)[:, None],
        window=((steps[enough] - length)[:, None], steps[enough][:, None]),
    ).T
    found[:, enough] = True
    return values, found


def extrapolated(
    slope: Slope,
    *,
    gain: Floats,
    first: Floats,
    times: tuple[Millis, Millis],
    gaps: NDArray[np.intp],
    window: tuple[Millis | int, Millis | int],
) -> Floats:
    """The gain between a window's first and last sample, extended to the window's edges as Prometheus 3 does.

    Args:
        gain: last minus first, resets corrected.
        first: the first sample, from which a counter's zero point is estimated.
        times: of the first and the last sample, ms.
        gaps: number of samples less one.
        window: start and end, ms.
    """
    sampled = (times[1] - times[0]) / 1000.0
    mean_gap = sampled / gaps
    near = mean_gap * _CLOSE_ENOUGH
    to_start = (times[0] - window[0]) / 1000.0
    to_end = (window[1] - times[1]) / 1000.0
    to_start = np.where(to_start >= near, mean_gap / 2, to_start)
    if slope.resets:
        # A counter was never below zero: don't extend it past the moment it would have been.
        with np.errstate(divide="ignore", invalid="ignore"):
            to_zero = np.where((gain > 0) & (first >= 0), sampled * (first / gain), to_start)
        to_start = np.minimum(to_start, to_zero)
    to_end = np.where(to_end >= near, mean_gap / 2, to_end)
    factor = (sampled + to_start + to_end) / sampled
    if slope.per_second:
        factor = factor / ((window[1] - window[0]) / 1000.0)
    return gain * factor


def _slope(slope: Slope) -> WindowFunction:
    def compute(frame: Frame) -> Outcome:
        first, last = frame.first, frame.last
        gain = frame.at(last) - frame.at(first)
        if slope.resets:
            before, after, both = _neighbours(frame)
            gain = gain + np.where(both & (after < before), before, 0.0).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = extrapolated(
                slope,
                gain=gain,
                first=frame.at(first),
                times=(frame.times[first], frame.times[last]),
                gaps=frame.count - 1,
                window=(frame.start, frame.end),
            )
        return values, frame.count > 1

    return compute


def _neighbours(frame: Frame) -> tuple[Floats, Floats, Bools]:
    """Each sample and the one before it in the same series; the mask says where both exist."""
    if frame.mask.all():
        return frame.values[:-1], frame.values[1:], frame.mask[1:]
    rows = np.where(frame.mask, np.arange(len(frame.times))[:, None], -1)
    latest = np.maximum.accumulate(rows, axis=0)[:-1]
    before = np.take_along_axis(frame.values, np.maximum(latest, 0), axis=0)
    return before, frame.values[1:], frame.mask[1:] & (latest >= 0)


def _last_two(per_second: bool, resets: bool) -> WindowFunction:
    """``irate`` and ``idelta``."""

    def compute(frame: Frame) -> Outcome:
        last = frame.last
        earlier = frame.mask.copy()
        earlier[last, np.arange(earlier.shape[1])] = False
        previous = len(frame.times) - 1 - earlier[::-1].argmax(axis=0)
        newer, older = frame.at(last), frame.at(previous)
        change = newer - older
        if resets:
            change = np.where(newer < older, newer, change)
        if per_second:
            with np.errstate(divide="ignore", invalid="ignore"):
                change = change / ((frame.times[last] - frame.times[previous]) / 1000.0)
        return change, frame.count > 1

    return compute


def _all(frame: Frame) -> Bools:
    return np.ones(frame.values.shape[1], dtype=np.bool_)


def _sum(frame: Frame) -> Floats:
    return column_sums(np.where(frame.mask, frame.values, 0.0))


def _average(frame: Frame) -> Outcome:
    return column_means(np.where(frame.mask, frame.values, 0.0), frame.count.astype(np.float64)), _all(frame)


def _smallest(frame: Frame) -> Outcome:
    return np.fmin.reduce(np.where(frame.mask, frame.values, np.nan), axis=0), _all(frame)


def _largest(frame: Frame) -> Outcome:
    return np.fmax.reduce(np.where(frame.mask, frame.values, np.nan), axis=0), _all(frame)


def _variance(frame: Frame) -> Outcome:
    with np.errstate(divide="ignore", invalid="ignore"):
        # Around the first sample, so that what never changes has a variance of exactly zero.
        around = np.where(frame.mask, frame.values - frame.at(frame.first), 0.0)
        mean = around.sum(axis=0) / frame.count
        squares = np.where(frame.mask, (around - mean) ** 2, 0.0)
        return squares.sum(axis=0) / frame.count, _all(frame)


def _deviation(frame: Frame) -> Outcome:
    variance, there = _variance(frame)
    return np.sqrt(variance), there


def _changes(frame: Frame) -> Outcome:
    before, after, both = _neighbours(frame)
    changed = both & (before != after) & ~(np.isnan(before) & np.isnan(after))
    return np.count_nonzero(changed, axis=0).astype(np.float64), _all(frame)


def _resets(frame: Frame) -> Outcome:
    before, after, both = _neighbours(frame)
    return np.count_nonzero(both & (after < before), axis=0).astype(np.float64), _all(frame)


def quantile(share: float, ascending: Floats) -> float:
    """The ``share``-quantile of sorted values, interpolated between neighbours."""
    if np.isnan(share) or not len(ascending):
        return float("nan")
    if share < 0 or share > 1:
        return float("-inf") if share < 0 else float("inf")
    rank = share * (len(ascending) - 1)
    low = int(np.floor(rank))
    high = min(low + 1, len(ascending) - 1)
    weight = rank - low
    with np.errstate(invalid="ignore"):
        return float(ascending[low] * (1 - weight) + ascending[high] * weight)


def sorted_with_nan_first(values: Floats) -> Floats:
    """Ascending, with NaN before everything, as Prometheus orders values for quantiles."""
    missing = np.isnan(values)
    return np.concatenate([values[missing], np.sort(values[~missing])])


def _quantile(frame: Frame) -> Outcome:
    share = frame.parameters[0]
    columns = range(frame.values.shape[1])
    values = [quantile(share, sorted_with_nan_first(frame.values[frame.mask[:, each], each])) for each in columns]
    return np.array(values, dtype=np.float64), _all(frame)


def _regression(frame: Frame, origin: int) -> tuple[Floats, Floats]:
    """Slope per second and value at ``origin`` (ms) of the least-squares line through each series."""
    seconds = ((frame.times - origin) / 1000.0)[:, None]
    count = frame.count
    with np.errstate(divide="ignore", invalid="ignore"):
        # Values relative to the first sample: constant series then have a slope of exactly zero.
        base = frame.at(frame.first)
        values = np.where(frame.mask, frame.values - base, 0.0)
        times = np.where(frame.mask, seconds, 0.0)
        sum_x, sum_y = times.sum(axis=0), values.sum(axis=0)
        cov = (times * values).sum(axis=0) - sum_x * sum_y / count
        var = (times * times).sum(axis=0) - sum_x * sum_x / count
        slope = cov / var
        return slope, sum_y / count - slope * sum_x / count + base


def _derivative(frame: Frame) -> Outcome:
    first = int(frame.times[0])
    return _regression(frame, first)[0], frame.count > 1


def _prediction(frame: Frame) -> Outcome:
    slope, level = _regression(frame, frame.now)
    return slope * frame.parameters[0] + level, frame.count > 1


def _counter(resets: bool, per_second: bool) -> WindowKind:
    slope = Slope(resets, per_second)
    return WindowKind(_slope(slope), counter=slope)


FUNCTIONS: dict[str, WindowKind] = {
    "rate": _counter(resets=True, per_second=True),
    "increase": _counter(resets=True, per_second=False),
    "delta": _counter(resets=False, per_second=False),
    "irate": WindowKind(_last_two(per_second=True, resets=True)),
    "idelta": WindowKind(_last_two(per_second=False, resets=False)),
    "deriv": WindowKind(_derivative),
    "predict_linear": WindowKind(_prediction),
    "avg_over_time": WindowKind(_average),
    "min_over_time": WindowKind(_smallest),
    "max_over_time": WindowKind(_largest),
    "sum_over_time": WindowKind(lambda frame: (_sum(frame), _all(frame))),
    "count_over_time": WindowKind(lambda frame: (frame.count.astype(np.float64), _all(frame))),
    "stdvar_over_time": WindowKind(_variance),
    "stddev_over_time": WindowKind(_deviation),
    "last_over_time": WindowKind(lambda frame: (frame.at(frame.last), _all(frame)), keeps_name=True),
    "present_over_time": WindowKind(lambda frame: (np.ones(frame.values.shape[1]), _all(frame))),
    "quantile_over_time": WindowKind(_quantile, range_at=1),
    "changes": WindowKind(_changes),
    "resets": WindowKind(_resets),
}
