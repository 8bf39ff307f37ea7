"""Functions of instant vectors and scalars that work element by element, or make one from the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.promql.tables import UNLABELLED, Block, Bools, Floats, without_name

Moments = NDArray[np.datetime64]
Elementwise = Callable[[Floats, tuple[Floats, ...]], Floats]


@dataclass(frozen=True, slots=True)
class Mapped:
    """A function that maps a vector's values, given the scalar arguments after it.

    Args:
        narrow: which elements remain, given the scalar arguments; ``None`` for all.
    """

    compute: Elementwise
    narrow: Callable[[tuple[Floats, ...]], Bools] | None = None


def map_values(mapped: Mapped, block: Block, scalars: tuple[Floats, ...]) -> Block:
    """``mapped`` of every element, the metric's name dropped."""
    with np.errstate(all="ignore"):
        values = mapped.compute(block.values, scalars)
    present = block.present
    if mapped.narrow is not None:
        present = present & mapped.narrow(scalars)
    return without_name(Block(block.table, values, present))


def to_scalar(block: Block) -> Floats:
    """The value of the only element, NaN at steps with none or several."""
    count = np.count_nonzero(block.present, axis=0)
    total = np.where(block.present, block.values, 0.0).sum(axis=0)
    return np.where(count == 1, total, np.nan)


def to_vector(values: Floats) -> Block:
    """One element without labels."""
    return Block(UNLABELLED, values[None, :], np.ones((1, len(values)), dtype=np.bool_))


def _plain(function: Callable[[Floats], Floats]) -> Mapped:
    return Mapped(lambda values, _: function(values))


def _round(values: Floats, scalars: tuple[Floats, ...]) -> Floats:
    # Halves go up, towards +Inf; by the inverse, because 1/0.1 is exact where multiples of 0.1 are not.
    inverse = 1.0 / (scalars[0] if scalars else np.ones(values.shape[1]))
    return np.floor(values * inverse + 0.5) / inverse


def _smaller(one: Floats, other: Floats) -> Floats:
    """As in Go, NaN wins over all numbers, and minus infinity over NaN."""
    return np.where((one == -np.inf) | (other == -np.inf), -np.inf, np.minimum(one, other))


def _larger(one: Floats, other: Floats) -> Floats:
    return np.where((one == np.inf) | (other == np.inf), np.inf, np.maximum(one, other))


def _clamp(values: Floats, scalars: tuple[Floats, ...]) -> Floats:
    low, high = scalars
    return _larger(low, _smaller(high, values))


def _not_crossed(scalars: tuple[Floats, ...]) -> Bools:
    low, high = scalars
    return ~(low > high)


def _calendar(part: Callable[[Moments], NDArray[Any]]) -> Mapped:
    """A function of the UTC calendar; its vector holds unix seconds."""

    def compute(values: Floats, _: tuple[Floats, ...]) -> Floats:
        finite = np.isfinite(values)
        seconds = np.where(finite, np.trunc(values), 0.0).astype(np.int64)
        return np.where(finite, part(seconds.astype("datetime64[s]")).astype(np.float64), np.nan)

    return Mapped(compute)


def _since(fine: str, coarse: str) -> Mapped:
    """How many whole ``fine`` units since the ``coarse`` one began."""
    return _calendar(
        lambda moment: (moment.astype(f"datetime64[{fine}]") - moment.astype(f"datetime64[{coarse}]")).astype(np.int64)
    )


def _days_in_month(moment: Moments) -> NDArray[Any]:
    month = moment.astype("datetime64[M]")
    days: NDArray[Any] = (month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")
    return days


FUNCTIONS: dict[str, Mapped] = {
    "abs": _plain(np.abs),
    "ceil": _plain(np.ceil),
    "floor": _plain(np.floor),
    "exp": _plain(np.exp),
    "sqrt": _plain(np.sqrt),
    "ln": _plain(np.log),
    "log2": _plain(np.log2),
    "log10": _plain(np.log10),
    "sgn": _plain(lambda values: np.where(values == 0, values, np.sign(values))),  # which forgets the sign of -0
    "sin": _plain(np.sin),
    "cos": _plain(np.cos),
    "tan": _plain(np.tan),
    "asin": _plain(np.arcsin),
    "acos": _plain(np.arccos),
    "atan": _plain(np.arctan),
    "sinh": _plain(np.sinh),
    "cosh": _plain(np.cosh),
    "tanh": _plain(np.tanh),
    "asinh": _plain(np.arcsinh),
    "acosh": _plain(np.arccosh),
    "atanh": _plain(np.arctanh),
    "deg": _plain(lambda values: values * 180 / math.pi),
    "rad": _plain(lambda values: values * math.pi / 180),
    "round": Mapped(_round),
    "clamp": Mapped(_clamp, _not_crossed),
    "clamp_min": Mapped(lambda values, scalars: _larger(scalars[0], values)),
    "clamp_max": Mapped(lambda values, scalars: _smaller(scalars[0], values)),
    "minute": _since("m", "h"),
    "hour": _since("h", "D"),
    "day_of_month": _calendar(
        lambda moment: (moment.astype("datetime64[D]") - moment.astype("datetime64[M]")).astype(np.int64) + 1
    ),
    "day_of_year": _calendar(
        lambda moment: (moment.astype("datetime64[D]") - moment.astype("datetime64[Y]")).astype(np.int64) + 1
    ),
    # 1970-01-01 was a Thursday; Sunday is 0.
    "day_of_week": _calendar(lambda moment: (moment.astype("datetime64[D]").astype(np.int64) + 4) % 7),
    "days_in_month": _calendar(_days_in_month),
    "month": _calendar(lambda moment: moment.astype("datetime64[M]").astype(np.int64) % 12 + 1),
    "year": _calendar(lambda moment: moment.astype("datetime64[Y]").astype(np.int64) + 1970),
}
# Functions that take the evaluation time where no vector is given.
DEFAULT_TO_NOW = frozenset(
    {"minute", "hour", "day_of_month", "day_of_year", "day_of_week", "days_in_month", "month", "year"}
)
