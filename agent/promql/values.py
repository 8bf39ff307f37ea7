"""What a query returns, and numbers as Prometheus writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from agent.samples import Labels


@dataclass(frozen=True, slots=True)
class Element:
    """One series' value at the moment of evaluation."""

    labels: Labels
    value: float


@dataclass(frozen=True, slots=True)
class Vector:
    """Elements with distinct label sets, in label order unless the expression sorts."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Scalar:
    value: float


@dataclass(frozen=True, slots=True)
class Text:
    value: str


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One series over time; ``timestamps`` in unix seconds."""

    labels: Labels
    timestamps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Series in label order."""

    series: tuple[Series, ...]


Value = Vector | Scalar | Matrix | Text


def format_value(value: float) -> str:
    """A sample's value as Prometheus's API writes it: shortest digits that read back, never an exponent."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def format_exponent(value: float) -> str:
    """The shortest digits with an exponent, as Go's ``%e`` has it: ``5e-01``, ``1.2345e+03``."""
    if not math.isfinite(value):
        return format_value(value)
    sign, digits, power = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(power, int)
    power += len(digits) - 1
    mantissa = "".join(map(str, digits[:1])) + ("." if digits[1:] else "") + "".join(map(str, digits[1:]))
    return f"{'-' if sign else ''}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02}"
