"""What the engine remarks on a query, and where: Prometheus's annotations."""

from __future__ import annotations

from typing import Any

import pytest

from agent.promql import compile_expression
from agent.promql.remarks import short

Scene = Any

NOT_A_COUNTER = "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket"
NO_QUANTILE = "PromQL warning: quantile value should be between 0 and 1, got"
NO_BOUND = 'PromQL warning: bucket label "le" is missing or has a malformed value of'
NOT_RISING = (
    "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see "
    "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
)
UNSORTED = "PromQL warning: sort is ineffective for range queries since results are always ordered by labels"


@pytest.fixture
def seen(scene: Scene) -> Scene:
    for name in ("load", "x_total", "x_sum", "x_count", "x_bucket"):
        scene.series(name, [float(number) for number in range(100)])
    for bound, count in (("0.1", 10.0), ("0.5", 8.0), ("+Inf", 20.0)):
        scene.series("falling_bucket", [count] * 100, le=bound)
    for bound, count in (("0.1", 10.0), ("0.5", 10.0 * (1 - 1e-13)), ("+Inf", 20.0)):
        scene.series("rounded_bucket", [count] * 100, le=bound)
    scene.series("odd_bucket", [1.0] * 100, le="much")
    return scene


@pytest.mark.parametrize(
    ("text", "remarks"),
    [
        ("rate(load[10s])", [f'{NOT_A_COUNTER}: "load" (1:6)']),
        ("sum(\n  increase(load[10s] offset 5s)\n)", [f'{NOT_A_COUNTER}: "load" (2:12)']),
        ("rate(load[10s]) + rate(load[10s])", [f'{NOT_A_COUNTER}: "load" (1:6)', f'{NOT_A_COUNTER}: "load" (1:24)']),
        ('sum({a="é"}) or rate(load[10s])', [f'{NOT_A_COUNTER}: "load" (1:23)']),
        ("rate((load * 2)[10s:1s])", []),
        ("rate(load[10s:1s])", [f'{NOT_A_COUNTER}: "load" (1:6)']),
        ("rate(load[1s])", []),
        ("irate(load[10s]) + delta(load[10s])", []),
        ("rate(x_total[10s]) + rate(x_sum[10s]) + rate(x_count[10s]) + rate(x_bucket[10s])", []),
        ("max_over_time(rate(load[10s])[20s:5s])", [f'{NOT_A_COUNTER}: "load" (1:20)']),
        ("quantile(1.5, load)", [f"{NO_QUANTILE} 1.5 (1:10)"]),
        ("quantile by (a) ( # why\n NaN, load)", [f"{NO_QUANTILE} NaN (2:2)"]),
        ("quantile_over_time(-1, load[10s])", [f"{NO_QUANTILE} -1 (1:20)"]),
        ("quantile_over_time(-1, nothing[10s])", []),
        ("quantile(0, load) + quantile(1, load)", []),
        (
            "histogram_quantile(1e9, x_bucket)",
            [f"{NO_QUANTILE} 1e+09 (1:20)", f'{NO_BOUND} "" for metric name "x_bucket" (1:25)'],
        ),
        ("histogram_quantile(0.5, odd_bucket)", [f'{NO_BOUND} "much" for metric name "odd_bucket" (1:25)']),
        ("histogram_fraction(0, 1, odd_bucket)", [f'{NO_BOUND} "much" for metric name "odd_bucket" (1:26)']),
        ("histogram_quantile(0.5, falling_bucket)", [f"{NOT_RISING} (1:25)"]),
        ("histogram_quantile(0.5, sum by (le) (falling_bucket))", [f"{NOT_RISING} (1:25)"]),
        ("histogram_quantile(0.5, rounded_bucket)", []),
        ("histogram_fraction(0, 1, falling_bucket)", []),
        ("sort(load)", []),
    ],
)  # fmt: skip
def test_a_remark_has_its_words_and_its_place(seen: Scene, text: str, remarks: list[str]) -> None:
    """As Prometheus 3 words them, ``line:column`` being where the argument it is about begins."""
    answer = seen.engine.query(compile_expression(text), 50)
    assert [*answer.warnings, *answer.infos] == remarks


def test_sorting_a_range_is_remarked_upon(seen: Scene) -> None:
    """It has no effect there."""
    answer = seen.engine.query_range(compile_expression("1 + sort_desc(load)"), 10, 20, 5)
    assert answer.warnings == (f"{UNSORTED} (1:5)",)
    assert seen.engine.query_range(compile_expression("1 + sort_desc(load)"), 10, 10, 5).warnings == ()


def test_rules_that_share_a_node_each_have_its_remark(seen: Scene) -> None:
    """It is computed once a tick, and said where it stands in each."""
    evaluation = seen.engine.at(50)
    for text, place in (("rate(load[10s]) > 1", "1:6"), ("2 < rate(load[10s])", "1:10")):
        plan = compile_expression(text)
        assert evaluation.answer(plan, evaluation.value(plan)).infos == (f'{NOT_A_COUNTER}: "load" ({place})',)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (2.0, "2"),
        (1e6, "1e+06"),
        (999_999.0, "999999"),
        (1e-5, "1e-05"),
        (-1.5, "-1.5"),
        (1e-4, "0.0001"),
    ],
)
def test_numbers_in_remarks_are_gos(value: float, text: str) -> None:
    """``%g``."""
    assert short(value) == text
