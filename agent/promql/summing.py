"""Sums that don't lose what is small beside what is large, as Prometheus's compensated ones don't.

Prometheus adds with Kahan's and Neumaier's correction, one number after the other. That can't be done in numpy's terms,
so each number is split, at a power of two that its group has in common, into a high part, of which sums are exact, and
a low part (Rump, Ogita and Oishi: Accurate floating-point summation, 2008). The low parts are split once more where
the high ones cancel out. That gives what the correction gives: ``1 + 1e100 + 1 - 1e100`` is 2, ten times 0.1 is 1.

Few numbers are added exactly by the standard library. Where none is negative nothing cancels out, and the eleven bits
more of an extended float do.
"""

from __future__ import annotations

import math

import numpy as np

from agent.promql.tables import Floats, Indices

_WHOLE = np.zeros(1, dtype=np.intp)
# So few numbers of one moment, a rule's usual sum, are added sooner than ten arrays are made for them.
_FEW = 500
_EXTENDED = np.finfo(np.longdouble).nmant >= 63  # not everywhere is it wider than a double


def sums(values: Floats, starts: Indices) -> Floats:
    """Sums of groups of rows, (groups x columns); group ``i`` begins with row ``starts[i]``."""
    if len(starts) == len(values):
        return values.copy()
    if values.shape[1] == 1 and len(values) <= _FEW:
        try:
            return _exact(values[:, 0].tolist(), starts.tolist())
        except (OverflowError, ValueError):
            pass  # infinities that meet, or a sum beyond the largest number
    with np.errstate(all="ignore"):
        if _EXTENDED and values.min(initial=0.0) >= 0:  # not so with NaN among them
            return np.add.reduceat(values.astype(np.longdouble), starts, axis=0).astype(np.float64)
        sizes = np.diff(starts, append=len(values))
        high, low, common = _split(values, starts, sizes)
        precise = high
        if low.any():
            precise = high + np.add.reduceat(low, starts, axis=0)
            lost = sizes[:, None].astype(np.float64) ** 2 * np.finfo(np.float64).eps * common
            if (np.abs(precise) < lost).any():
                second, rest, _ = _split(low, starts, sizes)
                precise = high + (second + np.add.reduceat(rest, starts, axis=0))
        # Infinities and NaN are what they are, and what overflows does so in one go.
        return np.where(np.isfinite(precise), precise, np.add.reduceat(values, starts, axis=0))


def _exact(values: list[float], starts: list[int]) -> Floats:
    ends = [*starts[1:], len(values)]
    return np.array([[math.fsum(values[start:end])] for start, end in zip(starts, ends, strict=True)])


def _split(values: Floats, starts: Indices, sizes: Indices) -> tuple[Floats, Floats, Floats]:
    """Exact sums of the high parts of each group, the low parts, and the power of two that tells them apart."""
    _, exponents = np.frexp(np.maximum.reduceat(np.abs(values), starts, axis=0))
    headroom = np.ceil(np.log2(sizes)).astype(np.int64)[:, None] + 1
    common = np.ldexp(1.0, exponents + headroom)
    spread = np.repeat(common, sizes, axis=0)
    high = (spread + values) - spread
    return np.add.reduceat(high, starts, axis=0), values - high, common


def means(values: Floats, starts: Indices, counts: Floats) -> Floats:
    """Sums of groups divided by their ``counts``, also where the sum itself would overflow."""
    with np.errstate(all="ignore"):
        found = sums(values, starts) / counts
        if not np.isinf(found).any():
            return found
        sizes = np.diff(starts, append=len(values))
        return np.where(np.isinf(found), sums(values / np.repeat(counts, sizes, axis=0), starts), found)


def column_sums(values: Floats) -> Floats:
    """The sum of each column."""
    return sums(values, _WHOLE)[0] if len(values) else np.zeros(values.shape[1])


def column_means(values: Floats, counts: Floats) -> Floats:
    """The sum of each column divided by its count."""
    return means(values, _WHOLE, counts[None, :])[0] if len(values) else np.full(values.shape[1], np.nan)
