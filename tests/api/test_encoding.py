"""The shortcut for large answers writes the same JSON as the plain way."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.api.answers import of_value
from agent.api.encoding import JsonResponse, data_of_value, stamp
from agent.promql import Element, Matrix, Scalar, Series, Value, Vector
from agent.samples import labels_of

ODD = (0.0, -0.0, 1e-5, 9.999e-6, 1e-6, 9e-7, 1e15, 1e16, 1e21, 5e-324, float("nan"), float("inf"), float("-inf"))
TEXTS = ("", "plain", 'quote " and \\', "ü\u2028\x7f%b")
numbers = st.one_of(st.sampled_from(ODD), st.floats(), st.integers(-(10**18), 10**18).map(float))
moments = st.integers(0, 4_102_444_800_000).map(lambda millis: millis / 1000.0)


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    """Series that share their moments, or have some of them, as an evaluation leaves them."""
    steps = sorted(draw(st.sets(moments, min_size=1, max_size=6)))
    found = []
    for number in range(draw(st.integers(0, 5))):
        kept = draw(st.sets(st.sampled_from(steps), min_size=1))
        times = np.array(sorted(kept))
        values = np.array(draw(st.lists(numbers, min_size=len(times), max_size=len(times))))
        found.append(Series(labels_of("m", {"n": str(number), "odd": draw(st.sampled_from(TEXTS))}), times, values))
    return Matrix(tuple(found))


def three_digits(moment: str) -> str:
    """A moment with a fraction in Prometheus's writing; a whole one has none."""
    return f"{Decimal(moment):.3f}"


def written(value: Value, limit: int) -> Any:
    data, cut = data_of_value(value, 0.0, limit)
    return json.loads(bytes(JsonResponse(data).body), parse_float=str, parse_int=str), cut


@settings(deadline=None)
@given(matrices(), st.integers(0, 4))
def test_a_matrix_is_written_as_the_plain_way_writes_it(value: Matrix, limit: int) -> None:
    """Digits, exponents, order and truncation are the same for any numbers."""
    data, cut = of_value(value, 0.0, limit)
    plain = json.loads(json.dumps(data), parse_float=three_digits, parse_int=str)
    assert written(value, limit) == (plain, cut)


def test_more_series_than_are_written_at_once() -> None:
    """No series is lost or doubled where one batch ends and the next begins, and odd numbers stay in place."""
    times = np.array([1.0, 2.5])
    series = [Series(labels_of("m", {"n": f"{n:04}"}), times, np.array([n, n + 0.5])) for n in range(600)]
    series[255].values[1] = float("nan")
    series[256].values[0] = 1e30
    data, _ = of_value(Matrix(tuple(series)), 0.0, 0)
    assert written(Matrix(tuple(series)), 0)[0] == json.loads(json.dumps(data), parse_float=three_digits, parse_int=str)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0.0, b"0"),
        (1.5, b"1.500"),
        (0.05, b"0.050"),
        (1795746446.007, b"1795746446.007"),
        (2.9996, b"3"),
        (-0.0001, b"0"),
        (-1.25, b"-1.250"),
    ],
)
def test_a_moment_has_three_digits_or_none(moment: float, text: bytes) -> None:
    """As Prometheus writes it: readers that compare answers as text find them equal."""
    assert bytes(JsonResponse(stamp(moment)).body) == text
    vector, _ = data_of_value(Vector((Element(labels_of("m", {}), 1.0),)), moment, 0)
    assert b'"value":[%b,"1"]' % text in bytes(JsonResponse(vector).body)


def test_a_scalar_has_the_digits_that_it_needs() -> None:
    """Prometheus writes its moment as any number, and so do we."""
    scalar, _ = data_of_value(Scalar(1.0), 1.5, 0)
    assert bytes(JsonResponse(scalar).body) == b'{"resultType":"scalar","result":[1.5,"1"]}'
