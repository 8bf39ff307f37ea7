"""What PromQL means here: staleness, windows, names, matches, NaN; one engine for instants and ranges."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agent.faults import Permanent, Refused, RefusedReason
from agent.promql import Matrix, Scalar, Vector, compile_expression, format_value
from agent.samples import Sample, describe, labels_of

Scene = Any


def vector(scene: Scene, text: str, at: float) -> dict[str, float]:
    value = scene.engine.instant(compile_expression(text), at)
    assert isinstance(value, Vector)
    return {describe(element.labels): element.value for element in value.elements}


def scalar(scene: Scene, text: str, at: float) -> float:
    value = scene.engine.instant(compile_expression(text), at)
    assert isinstance(value, Scalar)
    return value.value


def test_a_sample_stands_for_its_series_for_five_minutes(scene: Scene) -> None:
    """The lookback is open at its start: a sample exactly five minutes old is gone."""
    scene.series("x", [7.0])
    assert vector(scene, "x", 299.999) == {"x": 7.0}
    assert vector(scene, "x", 300) == {}


def test_a_stale_series_is_gone_at_once(scene: Scene) -> None:
    """Staleness ends the lookback."""
    scene.store.ingest("app", 1, [Sample(labels_of("x", {}), 7)])
    scene.store.stale("app", 2)
    assert vector(scene, "x", 1.5) == {"x": 7.0}
    assert vector(scene, "x", 2) == {}


def test_a_window_is_open_at_its_start(scene: Scene) -> None:
    """Prometheus 3: a sample exactly at the start is outside, one at the end is inside."""
    scene.series("x", [1.0] * 100)
    assert vector(scene, "count_over_time(x[10s])", 50) == {"{}": 10.0}
    assert vector(scene, "count_over_time(x[10s] offset 20s)", 50) == {"{}": 10.0}


def test_rate_survives_a_reset(scene: Scene) -> None:
    """A fall of a counter is a restart from zero, and the fall itself is not counted."""
    scene.series("x_total", [100.0, 110, 120, 5, 15, 25], every=10)
    # Seen: 110 to 120, restart, 5, 15, 25: 10 + 5 + 10 + 10 = 35 over 40 s, extended by 1 s to the edge.
    assert vector(scene, "increase(x_total[45s])", 51)["{}"] == pytest.approx(35 * (40 + 4 + 1) / 40)


def test_one_sample_is_no_rate(scene: Scene) -> None:
    """A rate needs two samples in its window."""
    scene.series("x_total", [1.0, 2.0], every=60)
    assert vector(scene, "rate(x_total[30s])", 61) == {}


def test_the_shortcut_for_steady_counters_changes_nothing(scene: Scene) -> None:
    """A counter read off two samples has the rate that the sum of its steps has."""
    steady = [100.0 + 3 * second for second in range(600)]
    scene.series("a_total", steady)
    scene.series("b_total", [0.0, -1.0, *steady[2:]])
    direct = vector(scene, "rate(a_total[5m])", 599)["{}"]
    stepwise = vector(scene, "rate(b_total[5m])", 599)["{}"]
    assert direct == pytest.approx(stepwise, rel=1e-12)


def test_functions_drop_the_name_and_filters_keep_it(scene: Scene) -> None:
    """What changes a value's meaning takes the metric's name away."""
    scene.series("x", [2.0], job="a")
    assert vector(scene, "x * 2", 1) == {'{job="a"}': 4.0}
    assert vector(scene, "abs(x)", 1) == {'{job="a"}': 2.0}
    assert vector(scene, "x > 1", 1) == {'x{job="a"}': 2.0}
    assert vector(scene, "x > bool 1", 1) == {'{job="a"}': 1.0}
    assert vector(scene, "last_over_time(x[10s])", 1) == {'x{job="a"}': 2.0}


def test_elements_that_lose_what_told_them_apart_are_an_error(scene: Scene) -> None:
    """Two metrics with equal labels can't both lose their names."""
    scene.series("a_total", [1.0, 2.0])
    scene.series("b_total", [1.0, 2.0])
    with pytest.raises(Permanent, match="cannot contain metrics with the same labelset"):
        vector(scene, 'rate({__name__=~"[ab]_total"}[10s])', 1.5)


def test_a_series_and_its_successor_are_one_after_relabelling(scene: Scene) -> None:
    """What is distinct at every moment may share labels over time."""
    for second, name in enumerate(("a", "a", "b", "b")):
        scene.store.ingest("app", second, [Sample(labels_of("x", {"version": name}), second)])
    plan = compile_expression('label_replace(x, "version", "", "version", ".*")')
    found = scene.engine.range(plan, 0, 3, 1)
    assert [list(series.values) for series in found.series] == [[0.0, 1.0, 2.0, 3.0]]


def test_many_to_one_must_be_said(scene: Scene) -> None:
    """An operator between vectors finds one partner each, or says what to add."""
    scene.series("used", [1.0], job="a", disk="1")
    scene.series("used", [3.0], job="a", disk="2")
    scene.series("size", [4.0], job="a", zone="z")
    with pytest.raises(Permanent, match="many-to-one matching must be explicit"):
        vector(scene, "used / on (job) size", 0.5)
    with pytest.raises(Permanent, match="found duplicate series for the match group"):
        vector(scene, "size / on (job) used", 0.5)
    assert vector(scene, "used / on (job) group_left (zone) size", 0.5) == {
        '{disk="1", job="a", zone="z"}': 0.25,
        '{disk="2", job="a", zone="z"}': 0.75,
    }


def test_nan_is_never_true(scene: Scene) -> None:
    """No traffic divides zero by zero: no comparison holds, and no element is left."""
    scene.series("failed", [0.0])
    scene.series("asked", [0.0])
    assert math.isnan(vector(scene, "failed / asked", 0.5)["{}"])
    assert vector(scene, "failed / asked > 0.05", 0.5) == {}
    assert vector(scene, "failed / asked <= 0.05", 0.5) == {}


def test_a_threshold_that_is_missing_is_nan(scene: Scene) -> None:
    """``scalar`` of nothing, or of several, compares with nothing."""
    scene.series("x", [1.0])
    assert math.isnan(scalar(scene, "scalar(nothing)", 0.5))
    assert vector(scene, "x > scalar(nothing)", 0.5) == {}


def test_set_operators_match_by_labels(scene: Scene) -> None:
    """``and``, ``unless`` and ``or`` look at who is there, not at values."""
    scene.series("x", [1.0], job="a")
    scene.series("x", [2.0], job="b")
    scene.series("y", [9.0], job="b")
    scene.series("y", [8.0], job="c")
    assert vector(scene, "x and on (job) y", 0.5) == {'x{job="b"}': 2.0}
    assert vector(scene, "x unless on (job) y", 0.5) == {'x{job="a"}': 1.0}
    assert set(vector(scene, "x or on (job) y", 0.5)) == {'x{job="a"}', 'x{job="b"}', 'y{job="c"}'}


def test_absent_knows_the_labels_it_was_asked_for(scene: Scene) -> None:
    """Only what equality demands is known of a series that is not there."""
    scene.series("x", [1.0])
    assert vector(scene, 'absent(nothing{job="a", zone=~"z"})', 0.5) == {'{job="a"}': 1.0}
    assert vector(scene, "absent(x)", 0.5) == {}
    assert vector(scene, "absent_over_time(x[5s])", 100) == {"{}": 1.0}


def test_histogram_quantile_interpolates_in_its_bucket(scene: Scene) -> None:
    """Linear within the bucket, the second highest bound above it, NaN without observations."""
    for bound, count in (("0.1", 10.0), ("0.5", 20.0), ("+Inf", 20.0)):
        scene.series("h_bucket", [count], le=bound)
        scene.series("idle_bucket", [0.0], le=bound)
    assert vector(scene, "histogram_quantile(0.75, h_bucket)", 0.5)["{}"] == pytest.approx(0.3)
    assert math.isnan(vector(scene, "histogram_quantile(0.75, idle_bucket)", 0.5)["{}"])


def test_sorting_and_topk_order_their_elements(scene: Scene) -> None:
    """Only these keep an order of their own; all else comes in label order."""
    for job, value in (("a", 2.0), ("b", 3.0), ("c", 1.0)):
        scene.series("x", [value], job=job)
    assert list(vector(scene, "sort_desc(x)", 0.5).values()) == [3.0, 2.0, 1.0]
    assert list(vector(scene, "topk(2, x)", 0.5).values()) == [3.0, 2.0]
    assert list(vector(scene, "x", 0.5).values()) == [2.0, 3.0, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "x_total",
        "rate(x_total[7s])",
        "sum by (job) (rate(x_total[9s])) > 2",
        "x_total > 40 or gauge",
        "avg_over_time(gauge[5s]) + on (job) group_left gauge",
        "topk(1, x_total)",
        "scalar(gauge) + time()",
        "histogram_quantile(0.9, rate(h_bucket[10s]))",
    ],
)
def test_a_range_is_its_instants(scene: Scene, text: str) -> None:
    """Evaluating many steps at once gives what evaluating each gives."""
    scene.series("x_total", [float(3 * second % 50) for second in range(60)], job="a")
    scene.series("x_total", [float(second) if second % 7 else None for second in range(60)], job="b")
    scene.series("gauge", [float(second % 5) for second in range(40)], job="a")
    for bound, factor in (("1", 1.0), ("2", 2.0), ("+Inf", 3.0)):
        scene.series("h_bucket", [factor * second for second in range(60)], le=bound)
    plan = compile_expression(text)
    matrix = scene.engine.range(plan, 2.5, 58, 3.25)
    assert isinstance(matrix, Matrix)
    points = {
        (describe(series.labels), float(at)): float(value)
        for series in matrix.series
        for at, value in zip(series.timestamps, series.values, strict=True)
    }
    expected = {}
    for number in range(18):
        at = 2.5 + number * 3.25
        if at <= 58:
            value = scene.engine.instant(plan, at)
            if isinstance(value, Scalar):
                expected[("{}", at)] = value.value
            else:
                expected.update({(describe(each.labels), at): each.value for each in value.elements})
    assert points.keys() == expected.keys()
    assert all(points[key] == pytest.approx(expected[key], nan_ok=True) for key in points)


def test_a_tick_sees_what_its_own_rules_recorded(scene: Scene) -> None:
    """What was memoised from a metric is forgotten when the metric gets a sample at the same moment."""
    scene.series("x", [1.0])
    evaluation = scene.engine.at(0.5)
    before = evaluation.value(compile_expression("recorded + 1"))
    scene.store.ingest("rule", 0.5, [Sample(labels_of("recorded", {}), 4)])
    evaluation.forget(frozenset({"recorded"}))
    after = evaluation.value(compile_expression("recorded + 1"))
    assert isinstance(before, Vector)
    assert isinstance(after, Vector)
    assert before.elements == ()
    assert [element.value for element in after.elements] == [5.0]


def test_a_query_beyond_the_limits_is_refused(scene: Scene) -> None:
    """Steps and samples are bounded, so that one query can't take the process."""
    scene.series("x", [1.0])
    plan = compile_expression("x")
    with pytest.raises(Refused) as caught:
        scene.engine.range(plan, 0, 100_000, 1)
    assert caught.value.reason is RefusedReason.LIMIT
    with pytest.raises(Refused):
        scene.engine.range(plan, 10, 0, 1)


@pytest.mark.parametrize(
    ("text", "data", "witnessed"),
    [
        ("x > 5", True, True),
        ("x > 5", False, False),
        ("x > scalar(nothing)", True, False),
        ("count(x > 5) > 2", True, True),
        ("x / (x > 5) > 1", True, False),
        ("x > 0 and on () x > 5", True, True),
        ("x > 5 unless on () x", True, True),
        ("absent(x)", True, True),
    ],
)
def test_a_witness_tells_false_from_no_data(scene: Scene, text: str, data: bool, witnessed: bool) -> None:
    """An element that the filters removed is witnessed; one that was never there is not."""
    if data:
        scene.series("x", [1.0])
    plan = compile_expression(text)
    assert vector(scene, text, 0.5) == {}
    if text == "absent(x)":
        return
    elements = scene.engine.at(0.5).elements(plan.witness)
    assert bool(elements) is witnessed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.1, "0.1"),
        (-0.0, "-0"),
        (1e21, "1000000000000000000000"),
        (1.5e-7, "0.00000015"),
        (123456789.125, "123456789.125"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_are_written_as_prometheus_writes_them(value: float, text: str) -> None:
    """Shortest digits, no exponent."""
    assert format_value(value) == text


def test_at_fixes_a_selector_in_time(scene: Scene) -> None:
    """A moment, or an end of the query's range; an offset counts from there."""
    scene.series("x", [float(number) for number in range(100)])
    assert vector(scene, "x @ 10", 90) == {"x": 10.0}
    assert vector(scene, "x @ 10 offset 4s", 90) == {"x": 6.0}
    assert vector(scene, "x @ start()", 90) == vector(scene, "x @ end()", 90) == {"x": 90.0}
    matrix = scene.engine.range(compile_expression("x - x @ start() + 100 * x @ end()"), 10, 20, 5)
    assert list(matrix.series[0].values) == [2000.0, 2005.0, 2010.0]


def test_the_end_is_the_one_asked_for(scene: Scene) -> None:
    """Not the last step, which may come before it."""
    scene.series("x", [float(number) for number in range(100)])
    matrix = scene.engine.range(compile_expression("x @ end() + 0 * max_over_time((x @ end())[10s:5s])"), 10, 24, 5)
    assert list(matrix.series[0].values) == [24.0, 24.0, 24.0]


def test_a_subquery_looks_at_multiples_of_its_step(scene: Scene) -> None:
    """Whatever the evaluation time: open at its start, closed at its end; without a step, the engine's own."""
    scene.series("x", [float(number) for number in range(200)])
    value = scene.engine.instant(compile_expression("(x * 2)[30s:10s]"), 95)
    assert list(value.series[0].timestamps) == [70.0, 80.0, 90.0]
    assert list(value.series[0].values) == [140.0, 160.0, 180.0]
    assert vector(scene, "count_over_time(x[30s:10s])", 90) == {"{}": 3.0}
    assert vector(scene, "max_over_time(x[2m:])", 185) == {"{}": 180.0}
    assert vector(scene, "max_over_time(x[30s:10s] offset 20s)", 95) == {"{}": 70.0}
    assert vector(scene, "max_over_time(x[5s:1m])", 90) == {}
    assert vector(scene, "sum_over_time(vector(2)[30s:10s])", 95) == {"{}": 6.0}


def test_the_ends_of_a_range_are_the_same_inside_a_subquery(scene: Scene) -> None:
    """``start()`` means the query's, not the subquery's."""
    scene.series("x", [float(number) for number in range(100)])
    matrix = scene.engine.range(compile_expression("min_over_time((x @ start())[30s:10s])"), 50, 60, 10)
    assert list(matrix.series[0].values) == [50.0, 50.0]


def test_a_subquery_over_a_range_is_what_it_is_at_each_step(scene: Scene) -> None:
    """One pass over all points gives what each instant gives by itself."""
    scene.series("x", [float(number * number % 37) for number in range(300)])
    plan = compile_expression("avg_over_time(rate(x[20s])[1m:7s])")
    matrix = scene.engine.range(plan, 100, 250, 30)
    alone = [next(iter(vector(scene, plan.text, at).values())) for at in range(100, 251, 30)]
    assert list(matrix.series[0].values) == pytest.approx(alone)


def test_a_subquery_of_too_many_points_is_refused(scene: Scene) -> None:
    """Before it is evaluated."""
    with pytest.raises(Refused) as caught:
        scene.engine.instant(compile_expression("max_over_time(vector(1)[1y:1s])"), 100)
    assert caught.value.reason is RefusedReason.LIMIT


def test_a_prediction_starts_from_the_evaluation_time(scene: Scene) -> None:
    """Also where the samples are from another time."""
    scene.series("x", [float(number) for number in range(100)])
    assert vector(scene, "predict_linear(x[10s] offset 50s, 0)", 90)["{}"] == pytest.approx(90)


def test_values_are_counted_into_a_label(scene: Scene) -> None:
    """Each value of a group is an element of its own, written as the API writes it."""
    for instance, value in (("a", 1.0), ("b", 1.0), ("c", 2.5)):
        scene.series("x", [value], instance=instance)
    assert vector(scene, 'count_values("v", x)', 0) == {'{v="1"}': 2.0, '{v="2.5"}': 1.0}
    assert vector(scene, 'count_values without (instance) ("v", x)', 0) == {'{v="1"}': 2.0, '{v="2.5"}': 1.0}
    assert vector(scene, 'count_values by (instance) ("v", x == 2.5)', 0) == {'{instance="c", v="2.5"}': 1.0}


def test_what_an_absence_over_time_counts_may_share_its_labels(scene: Scene) -> None:
    """Only whether anything is there matters."""
    scene.series("a_total", [1.0], job="x")
    scene.series("b_total", [1.0], job="x")
    assert vector(scene, 'absent_over_time({__name__=~".*_total"}[1m])', 10) == {}
    assert vector(scene, 'absent_over_time({__name__=~".*_nothing",job="x"}[1m])', 10) == {'{job="x"}': 1.0}


def test_powers_are_those_of_floating_point(scene: Scene) -> None:
    """An exponent of one half is no square root: they differ for minus infinity."""
    scene.series("x", [-math.inf])
    assert vector(scene, "x ^ 0.5", 0) == {"{}": math.inf}
