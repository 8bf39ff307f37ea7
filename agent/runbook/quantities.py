"""Quantities as people write them in a runbook, in base units: ``>200ms`` is "above 0.2 seconds".

Pure text to value and back. The section readers call this for every figure of a page and add the place (file, line,
cell) to what it raises; messages to people use :func:`render_quantity`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal, localcontext
from enum import StrEnum

from agent.faults import Misconfigured, MisconfiguredReason


class Comparator(StrEnum):
    """What a quantity says about the value it is compared with; ``NONE`` for a plain figure."""

    ABOVE = ">"
    AT_LEAST = ">="
    BELOW = "<"
    AT_MOST = "<="
    EQUAL = "="
    ABOUT = "~"
    NONE = ""


class Unit(StrEnum):
    """Base units. Everything is kept in one of these, whatever the page wrote."""

    SECONDS = "s"
    RATIO = "ratio"
    PER_SECOND = "per_second"
    COUNT = "count"
    BYTES = "bytes"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One figure of the page.

    Args:
        value: in base units: seconds, a ratio (0.005 for 0.5%), events per second, a count, or bytes.
        consecutive: the count is of events in a row ("2 consecutive").
        text: as the page wrote it; two quantities are equal whatever the wording.
    """

    value: float
    unit: Unit
    comparator: Comparator = Comparator.NONE
    consecutive: bool = False
    text: str = field(default="", compare=False)

    @property
    def duration(self) -> timedelta:
        """The value as a time span; only meaningful where ``unit`` is seconds."""
        return timedelta(seconds=self.value)


_COMPARATORS = {
    ">=": Comparator.AT_LEAST, "≥": Comparator.AT_LEAST, ">": Comparator.ABOVE,
    "<=": Comparator.AT_MOST, "≤": Comparator.AT_MOST, "<": Comparator.BELOW,
    "=": Comparator.EQUAL, "~": Comparator.ABOUT, "≈": Comparator.ABOUT, "": Comparator.NONE,
}  # fmt: skip

_MINUTE, _HOUR, _DAY, _WEEK = Decimal(60), Decimal(3600), Decimal(86_400), Decimal(604_800)
_PERCENT = Decimal("0.01")

# Word on the page -> (base unit, factor to it). Decimal bytes for KB/MB/GB, as SI and cloud bills have them, binary
# for KiB/MiB/GiB. Units are matched without regard to case except where case could carry meaning: it never does here,
# because "Mb" (megabit) and "m" (minute, metre or milli) are left out, so that they are refused, not guessed.
_UNITS: dict[str, tuple[Unit, Decimal]] = {
    "": (Unit.COUNT, Decimal(1)),
    **dict.fromkeys(("us", "µs", "μs"), (Unit.SECONDS, Decimal("0.000001"))),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), (Unit.SECONDS, Decimal("0.001"))),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), (Unit.SECONDS, Decimal(1))),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), (Unit.SECONDS, _MINUTE)),
    **dict.fromkeys(("h", "hour", "hours"), (Unit.SECONDS, _HOUR)),
    **dict.fromkeys(("d", "day", "days"), (Unit.SECONDS, _DAY)),
    **dict.fromkeys(("week", "weeks"), (Unit.SECONDS, _WEEK)),
    **dict.fromkeys(("%", "percent"), (Unit.RATIO, _PERCENT)),
    **dict.fromkeys(("/s", "/sec", "/second", "per second"), (Unit.PER_SECOND, Decimal(1))),
    **dict.fromkeys(("/min", "/minute", "per minute"), (Unit.PER_SECOND, Decimal(1) / _MINUTE)),
    **dict.fromkeys(("b", "byte", "bytes"), (Unit.BYTES, Decimal(1))),
    "kb": (Unit.BYTES, Decimal(10) ** 3),
    "mb": (Unit.BYTES, Decimal(10) ** 6),
    "gb": (Unit.BYTES, Decimal(10) ** 9),
    "tb": (Unit.BYTES, Decimal(10) ** 12),
    "kib": (Unit.BYTES, Decimal(2) ** 10),
    "mib": (Unit.BYTES, Decimal(2) ** 20),
    "gib": (Unit.BYTES, Decimal(2) ** 30),
    "tib": (Unit.BYTES, Decimal(2) ** 40),
    **dict.fromkeys(
        ("missed", "failed", "in a row", "doc", "docs", "document", "documents", "primary", "collection",
         "collections", "time", "times"),
        (Unit.COUNT, Decimal(1)),
    ),
    "consecutive": (Unit.COUNT, Decimal(1)),
}  # fmt: skip
_IN_A_ROW = frozenset({"consecutive", "in a row"})
_CASE_MATTERS = re.compile(r"^[KMGT]b$")  # bits, not bytes

# A century; above it Python's own time spans end. Everything else ends where a float stops counting one by one.
_LARGEST = {Unit.SECONDS: 100 * 365.25 * 86_400}

_QUANTITY = re.compile(
    r"""\s*(?P<comparator>>=|<=|[><=~≥≤≈])?
        \s*(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)
        \s*(?P<unit>[^\d\s].*?)?\s*""",
    re.VERBOSE,
)

# A quantity inside running text. Stricter than a whole cell: a bare number or a number glued to a word ("p95")
# is prose, so a comparator or a unit of time or share is required.
_INLINE = re.compile(
    r"(?<![\w.,])(?P<whole>(?:>=|<=|[><~≥≤≈])?\s*\d[\d,]*(?:\.\d+)?\s*"
    r"(?:%|milliseconds?\b|ms\b|seconds?\b|secs?\b|minutes?\b|mins?\b|hours?\b|days?\b|s\b|h\b))",
    re.IGNORECASE,
)


def parse_quantity(text: str) -> Quantity:
    """The quantity that ``text`` is, whole.

    Raises:
        Misconfigured: (RUNBOOK) not a quantity, or a unit that isn't known; names the offending part.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise _not_understood(f"{text.strip()!r} is not a quantity", hint="write for example >200ms, 0.5% or <5 min")
    written = match["unit"] or ""
    word = " ".join(written.lower().split())
    if word not in _UNITS or _CASE_MATTERS.match(written):
        raise _not_understood(
            f"unknown unit {written!r} in {text.strip()!r}",
            hint="known are ms, s, min, hours, days, weeks, %, /s, /min, B to TB, KiB to TiB, missed, consecutive",
        )
    unit, factor = _UNITS[word]
    with localcontext() as context:
        context.prec = 60  # decimal until the last step, so that 0.7% is 0.007 and not 0.006999999999999999
        value = float(Decimal(match["number"].replace(",", "")) * factor)
    if value > _LARGEST.get(unit, 1e15):
        raise _not_understood(f"{text.strip()!r} is too large to be meant", hint="check its digits and its unit")
    return Quantity(
        comparator=_COMPARATORS[match["comparator"] or ""],
        value=value,
        unit=unit,
        consecutive=word in _IN_A_ROW,
        text=text.strip(),
    )


def parse_duration(text: str) -> Quantity:
    """A quantity of time; ``Immediate`` and ``Immediately`` are 0 seconds, ``30m`` is 30 minutes.

    Raises:
        Misconfigured: (RUNBOOK) not a quantity, or not of time.
    """
    if text.strip().lower() in ("immediate", "immediately"):
        return Quantity(value=0.0, unit=Unit.SECONDS, text=text.strip())
    # Among times "m" can only be minutes, as Prometheus and every shell have it.
    quantity = replace(parse_quantity(re.sub(r"(?<=\d)\s*m\s*$", " min", text)), text=text.strip())
    if quantity.unit is not Unit.SECONDS:
        raise _not_understood(f"{text.strip()!r} is not a time", hint="write for example 30 seconds, <5 min or 7 days")
    return quantity


def parse_count(text: str) -> int:
    """A whole number of things: ``306,725`` or ``8 primary``.

    Raises:
        Misconfigured: (RUNBOOK) not a count, or not whole.
    """
    quantity = parse_quantity(text)
    if quantity.unit is not Unit.COUNT or quantity.comparator is not Comparator.NONE or quantity.value % 1:
        raise _not_understood(f"{text.strip()!r} is not a whole number", hint="write for example 306,725")
    return int(quantity.value)


def is_absent(text: str) -> bool:
    """Whether a cell says that there is no value: ``N/A``, a dash, or nothing."""
    return text.strip().lower() in ("n/a", "none", "-", "\u2013", "\u2014", "")


def find_quantities(text: str) -> tuple[Quantity, ...]:
    """Every time span and share that running text mentions, in order; plain numbers are prose and are left alone."""
    return tuple(parse_quantity(match["whole"]) for match in _INLINE.finditer(text))


def without_quantities(text: str) -> str:
    """``text`` with every quantity that :func:`find_quantities` sees taken out."""
    return _INLINE.sub(" ", text)


# Largest first; the first in which the value is a short exact number is how it is written.
_WRITTEN: dict[Unit, tuple[tuple[str, Decimal], ...]] = {
    Unit.SECONDS: ((" days", _DAY), (" hours", _HOUR), (" min", _MINUTE), ("s", Decimal(1)), ("ms", Decimal("0.001"))),
    Unit.RATIO: (("%", _PERCENT),),
    Unit.PER_SECOND: (("/s", Decimal(1)),),
    Unit.COUNT: (("", Decimal(1)),),
    Unit.BYTES: ((" GB", Decimal(10) ** 9), (" MB", Decimal(10) ** 6), (" KB", Decimal(10) ** 3), (" B", Decimal(1))),
}


def render_quantity(quantity: Quantity) -> str:
    """The quantity as a person would write it; parses back to an equal one.

    ``Quantity(value=0.2, unit=SECONDS, comparator=ABOVE)`` is ``>200ms``.
    """
    exact = Decimal(repr(quantity.value))
    written = _WRITTEN[quantity.unit]
    with localcontext() as context:
        context.prec = 60
        suffix, factor = next(
            ((suffix, factor) for suffix, factor in written if exact and exact % factor == 0), written[-1]
        )
        number = format((exact / factor).normalize(), "f")
    if quantity.consecutive:
        suffix = " consecutive"
    return f"{quantity.comparator}{number}{suffix}"


def _not_understood(message: str, *, hint: str) -> Misconfigured:
    return Misconfigured(MisconfiguredReason.RUNBOOK, message, hint=hint)
