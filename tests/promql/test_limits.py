"""What a query may take, and exactness: sums, histograms, parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.faults import Permanent, Refused, RefusedReason, Transient, TransientReason
from agent.promql import Engine, Vector, compile_expression
from agent.promql.aggregation import count_values
from agent.promql.budget import Budget
from agent.promql.summing import means, sums
from agent.promql.tables import Block, SeriesTable
from agent.samples import Sample, SeriesStore, describe, labels_of

Scene = Any


def vector(scene: Scene, text: str, at: float) -> dict[str, float]:
    value = scene.engine.instant(compile_expression(text), at)
    assert isinstance(value, Vector)
    return {describe(element.labels): element.value for element in value.elements}


class Ticking:
    """A clock that goes on by a second whenever it is asked."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1.0
        return self.seconds


@pytest.mark.parametrize(
    "text",
    [
        "sum_over_time(x[1m])",
        "quantile(0.5, x)",
        "topk(1, x)",
        'count_values("v", x)',
        "histogram_quantile(0.5, x)",
        "x + x * x - x / x",
        "max_over_time(abs(x)[5m:1s])",
    ],
)
def test_a_query_that_takes_too_long_ends(text: str) -> None:
    """Asked for between nodes and inside loops; the next plan of the same evaluation has its own time."""
    store = SeriesStore()
    for second in range(30):
        samples = [Sample(labels_of("x", {"i": str(number), "le": str(number)}), number) for number in range(20)]
        store.ingest("app", second, samples)
    clock = Ticking()
    engine = Engine(store, timeout=4.0, monotonic=clock)
    evaluation = engine.at(29)
    with pytest.raises(Transient) as caught:
        engine.range(compile_expression(text), 0, 29, 1)
    assert caught.value.reason is TransientReason.DEADLINE_EXCEEDED
    with pytest.raises(Transient):
        evaluation.value(compile_expression("x + x * 2 - x * 3"))
    assert isinstance(evaluation.value(compile_expression("x")), Vector)
    asked = clock.seconds
    Engine(store, timeout=1e9, monotonic=clock).range(compile_expression(text), 0, 29, 1)
    assert clock.seconds > asked + 4


def test_samples_and_results_are_counted_together() -> None:
    """A budget is spent by either, and renewed by the next query."""
    budget = Budget(timeout=1.0, monotonic=lambda: 0.0, cells=10)
    budget.spend(10)
    with pytest.raises(Refused) as caught:
        budget.spend(1)
    assert caught.value.reason is RefusedReason.LIMIT
    budget.renew()
    budget.spend(10)


def test_values_made_into_labels_are_bounded() -> None:
    """Every distinct value is a series over all steps."""
    values = np.arange(200.0).reshape(2, 100)
    block = Block(SeriesTable(((("i", "0"),), (("i", "1"),))), values, np.ones((2, 100), dtype=np.bool_))
    with pytest.raises(Refused):
        count_values(block, (), False, "v", Budget(timeout=1.0, monotonic=lambda: 0.0, cells=19_900))
    found = count_values(block, (), False, "v", Budget(timeout=1.0, monotonic=lambda: 0.0, cells=20_000))
    assert found.values.shape == (200, 100)


@pytest.mark.parametrize("moment", [1e300, math.inf, math.nan, -1e13])
def test_a_time_that_no_clock_shows_is_refused(scene: Scene, moment: float) -> None:
    """It would not fit in milliseconds."""
    with pytest.raises(Refused):
        scene.engine.instant(compile_expression("1"), moment)
    with pytest.raises(Refused):
        scene.engine.range(compile_expression("1"), moment, moment, 1)


def test_small_addends_are_not_lost(scene: Scene) -> None:
    """As with Prometheus's compensated sums, over series and over time."""
    values = [1.0, 1e100, 1.0, -1e100]
    for number, value in enumerate(values):
        scene.series("x", [value], i=str(number))
        scene.series("tenth", [0.1], i=str(number))
    scene.series("y", list(values), every=1)
    scene.series("huge", [1.7e308, 1.7e308])
    assert vector(scene, "sum(x)", 0) == {"{}": 2.0}
    assert vector(scene, "avg(x)", 0) == {"{}": 0.5}
    assert vector(scene, "sum(tenth or label_replace(tenth, 'b', 'b', '', ''))", 0) == {"{}": 0.8}
    assert vector(scene, "sum_over_time(y[10s])", 4) == {"{}": 2.0}
    assert vector(scene, "avg_over_time(y[10s])", 4) == {"{}": 0.5}
    assert vector(scene, "avg_over_time(huge[10s])", 4) == {"{}": 1.7e308}
    assert vector(scene, "sum_over_time(huge[10s])", 4) == {"{}": math.inf}


@given(
    st.lists(st.floats(-1e15, 1e15) | st.sampled_from([1.0, 3.0, 1e100, -1e100]), min_size=1, max_size=40),
    st.integers(1, 40),
)
def test_sums_are_those_of_exact_arithmetic(values: list[float], cut: int) -> None:
    """Rounded once, in whatever groups."""
    starts = np.array([0, cut] if cut < len(values) else [0], dtype=np.intp)
    column = np.array(values)[:, None]
    groups = [values[:cut], values[cut:]] if cut < len(values) else [values]
    exact = [math.fsum(group) for group in groups]
    assert [float(each) for each in sums(column, starts)[:, 0]] == pytest.approx(exact, rel=1e-15, abs=1e-15)
    counts = np.array([[float(len(group))] for group in groups])
    expected = [total / len(group) for total, group in zip(exact, groups, strict=True)]
    assert [float(each) for each in means(column, starts, counts)[:, 0]] == pytest.approx(
        expected, rel=1e-15, abs=1e-15
    )


@pytest.mark.parametrize("values", [[math.inf, 1.0], [math.inf, -math.inf], [math.nan, 1.0], [-math.inf, -1.0]])
def test_infinities_and_nan_are_summed_as_such(values: list[float]) -> None:
    """The correction must not make NaN of an infinity."""
    found = float(sums(np.array(values)[:, None], np.zeros(1, dtype=np.intp))[0, 0])
    assert repr(found) == repr(sum(values))


@pytest.mark.parametrize(
    ("lower", "upper", "share"),
    [
        ("0", "0.1", 0.25),
        ("0.05", "0.1", 0.125),
        ("-Inf", "+Inf", 1.0),
        ("0.1", "0.3", 0.125),
        ("0.5", "+Inf", 0.5),
        ("0.7", "9", 0.0),  # within the last bucket nothing is known: all of it is taken to lie above
        ("2", "1", 0.0),
        ("NaN", "1", math.nan),
        ("-1", "0", 0.0),
    ],
)
def test_a_fraction_of_classic_buckets(scene: Scene, lower: str, upper: str, share: float) -> None:
    """Interpolated within a bucket, from zero where all bounds are positive; Prometheus takes it since 3.4."""
    for bound, count in (("0.1", 10.0), ("0.5", 20.0), ("+Inf", 40.0)):
        scene.series("h_bucket", [count], le=bound)
    found = vector(scene, f"histogram_fraction({lower}, {upper}, h_bucket)", 0)["{}"]
    assert found == pytest.approx(share, nan_ok=True)


def test_a_fraction_of_buckets_below_zero(scene: Scene) -> None:
    """Below the lowest bound there is no telling where; without observations, or without +Inf, no telling what."""
    for bound, count in (("-1", 10.0), ("1", 30.0), ("+Inf", 40.0)):
        scene.series("h_bucket", [count], le=bound)
        scene.series("idle_bucket", [0.0], le=bound)
    scene.series("open_bucket", [1.0], le="1")
    assert vector(scene, "histogram_fraction(-Inf, -1, h_bucket)", 0) == {"{}": 0.25}
    assert vector(scene, "histogram_fraction(-5, -3, h_bucket)", 0) == {"{}": 0.0}
    assert vector(scene, "histogram_fraction(-1, 0, h_bucket)", 0) == {"{}": 0.25}
    for name in ("idle_bucket", "open_bucket"):
        assert math.isnan(vector(scene, f"histogram_fraction(0, 1, {name})", 0)["{}"])


def test_how_many_must_be_a_number(scene: Scene) -> None:
    """NaN and what no integer holds are errors; a negative count keeps nothing."""
    scene.series("x", [1.0])
    for text in ("topk(NaN, x)", "bottomk(1e30, x)", "topk(-1e30, x)", "topk(scalar(nothing), nothing)"):
        with pytest.raises(Permanent):
            vector(scene, text, 0)
    assert vector(scene, "topk(-3, x)", 0) == {}
    assert vector(scene, "topk(1.9, x)", 0) == {"x": 1.0}


def test_an_infinity_is_clamped_before_nan(scene: Scene) -> None:
    """Of NaN and an infinity on its own side, Go's smaller and larger are the infinity."""
    scene.series("low", [-math.inf])
    scene.series("high", [math.inf])
    assert vector(scene, "clamp_max(low, NaN)", 0) == {"{}": -math.inf}
    assert vector(scene, "clamp_min(high, NaN)", 0) == {"{}": math.inf}
    assert math.isnan(vector(scene, "clamp_max(high, NaN)", 0)["{}"])
    assert math.isnan(vector(scene, "clamp(low, NaN, 1)", 0)["{}"])


def test_the_sign_of_nothing_is_kept(scene: Scene) -> None:
    """``sgn(-0)`` is -0."""
    scene.series("x", [-0.0])
    assert math.copysign(1, vector(scene, "sgn(x)", 0)["{}"]) == -1
