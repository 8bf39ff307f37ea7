"""Quantities: what people write, in base units, and back."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.faults import Misconfigured
from agent.runbook.quantities import (
    Comparator,
    Quantity,
    Unit,
    find_quantities,
    is_absent,
    parse_count,
    parse_duration,
    parse_quantity,
    render_quantity,
)


@pytest.mark.parametrize(
    ("text", "comparator", "value", "unit"),
    [
        (">200ms", Comparator.ABOVE, 0.2, Unit.SECONDS),
        (">0.5%", Comparator.ABOVE, 0.005, Unit.RATIO),
        (">1000/s", Comparator.ABOVE, 1000.0, Unit.PER_SECOND),
        ("120/min", Comparator.NONE, 2.0, Unit.PER_SECOND),
        ("1 missed", Comparator.NONE, 1.0, Unit.COUNT),
        ("<5 min", Comparator.BELOW, 300.0, Unit.SECONDS),
        ("<5 minutes", Comparator.BELOW, 300.0, Unit.SECONDS),
        ("~11 minutes", Comparator.ABOUT, 660.0, Unit.SECONDS),
        ("30 days", Comparator.NONE, 2_592_000.0, Unit.SECONDS),
        ("24 hours", Comparator.NONE, 86_400.0, Unit.SECONDS),
        ("306,725", Comparator.NONE, 306_725.0, Unit.COUNT),
        ("8 primary", Comparator.NONE, 8.0, Unit.COUNT),
        ("311 MB", Comparator.NONE, 311e6, Unit.BYTES),
        ("311MB", Comparator.NONE, 311e6, Unit.BYTES),
        ("4 GiB", Comparator.NONE, 4.0 * 2**30, Unit.BYTES),
        ("≥ 1,000.5 ms", Comparator.AT_LEAST, 1.0005, Unit.SECONDS),
        ("<= 3 weeks", Comparator.AT_MOST, 1_814_400.0, Unit.SECONDS),
        ("=0", Comparator.EQUAL, 0.0, Unit.COUNT),
        ("0.7%", Comparator.NONE, 0.007, Unit.RATIO),
    ],
)
def test_every_spelling_comes_out_in_base_units(text: str, comparator: Comparator, value: float, unit: Unit) -> None:
    """Each way of writing a figure on the page gives one exact value."""
    quantity = parse_quantity(text)
    assert (quantity.comparator, quantity.value, quantity.unit) == (comparator, value, unit)
    assert quantity.text == text


def test_consecutive_events_are_told_from_single_ones() -> None:
    """ "2 consecutive" is a count of events in a row, "2 missed" a plain count."""
    assert parse_quantity("2 consecutive").consecutive
    assert parse_quantity("2 in a row") == parse_quantity("2 consecutive")
    assert not parse_quantity("2 missed").consecutive


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (">200 parsecs", "unknown unit 'parsecs'"),
        ("5 m", "unknown unit 'm'"),
        ("5 Mb", "unknown unit 'Mb'"),
        ("fast", "'fast' is not a quantity"),
        ("", "'' is not a quantity"),
        (">>5", "is not a quantity"),
        ("1,00", "unknown unit ',00'"),
        ("-5%", "is not a quantity"),
        ("1.2.3 s", "unknown unit '.3 s'"),
        ("5 min 30 s", "unknown unit"),
        (">", "is not a quantity"),
        ("200 years", "unknown unit 'years'"),
        ("40,000 days", "too large to be meant"),
        ("1" + "0" * 400, "too large to be meant"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, says: str) -> None:
    """A figure that could be meant in two ways, or in none, is an error that quotes it."""
    with pytest.raises(Misconfigured, match=r"unknown unit|is not a quantity|too large") as raised:
        parse_quantity(text)
    assert says in raised.value.message


def test_a_duration_is_a_time_or_immediate() -> None:
    """Response times may be "Immediate"; a share is no time."""
    assert parse_duration("Immediate").duration == timedelta()
    assert parse_duration("<15 minutes").duration == parse_duration("15m").duration == timedelta(minutes=15)
    with pytest.raises(Misconfigured, match="is not a time"):
        parse_duration("5%")


def test_a_count_is_whole_and_plain() -> None:
    """A number of documents has neither a fraction nor a comparator."""
    assert parse_count("5,234 docs") == 5234
    for text in ("1.5", ">5", "3 s"):
        with pytest.raises(Misconfigured, match="is not a whole number"):
            parse_count(text)


def test_absent_values_are_said_in_few_ways() -> None:
    """N/A and dashes are "no value"; anything else is a value."""
    assert all(is_absent(text) for text in ("N/A", "n/a", "-", "\u2014", " "))
    assert not is_absent("0")


def test_prose_is_searched_for_times_and_shares_only() -> None:
    """A p95, a year or a plain number in running text is no quantity."""
    found = find_quantities("p95 of 3 queries in 2025 above 50% for >5 minutes, 2 hours and 30s")
    assert [quantity.value for quantity in found] == [0.5, 300.0, 7200.0, 30.0]


_values = st.floats(min_value=0, max_value=1e15, allow_nan=False).filter(lambda value: value == 0 or value > 1e-9)


@st.composite
def _quantities(draw: st.DrawFn) -> Quantity:
    unit = draw(st.sampled_from(Unit))
    return Quantity(
        comparator=draw(st.sampled_from(Comparator)),
        value=draw(st.one_of(_values, st.integers(0, 10**9).map(float))) / (10**6 if unit is Unit.SECONDS else 1),
        unit=unit,
        consecutive=unit is Unit.COUNT and draw(st.booleans()),
    )


@given(_quantities())
def test_what_is_rendered_parses_to_the_same(quantity: Quantity) -> None:
    """Rendering and parsing are inverse for every quantity, to the last bit."""
    assert parse_quantity(render_quantity(quantity)) == quantity


@pytest.mark.parametrize("text", [">200ms", ">0.5%", ">1000/s", "2 consecutive", "<5 min", "30 days", "311 MB"])
def test_rendering_reads_as_the_page_does(text: str) -> None:
    """Messages show a threshold as its author wrote it."""
    assert render_quantity(parse_quantity(text)) == text


@given(st.text())
def test_no_text_does_more_than_refuse(text: str) -> None:
    """Whatever a cell holds, parsing gives a finite value or the page's error."""
    try:
        quantity = parse_quantity(text)
    except Misconfigured:
        return
    assert math.isfinite(quantity.value)
    assert quantity.value >= 0
