"""Every name of the language, as Prometheus's documentation lists them: evaluated, or refused with a reason."""

from __future__ import annotations

import pytest

from agent.faults import Refused, RefusedReason
from agent.promql import compile_expression
from agent.promql.support import AGGREGATIONS, FUNCTIONS

VECTOR = [
    "abs", "absent", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "day_of_month",
    "day_of_week", "day_of_year", "days_in_month", "deg", "exp", "floor", "hour", "ln", "log10", "log2", "minute",
    "month", "rad", "round", "scalar", "sgn", "sin", "sinh", "sort", "sort_desc", "sqrt", "tan", "tanh",
    "timestamp", "year",
]  # fmt: skip
WINDOW = [
    "absent_over_time", "avg_over_time", "changes", "count_over_time", "delta", "deriv", "idelta", "increase",
    "irate", "last_over_time", "max_over_time", "min_over_time", "present_over_time", "rate", "resets",
    "stddev_over_time", "stdvar_over_time", "sum_over_time",
]  # fmt: skip
OTHERS = {
    "clamp": "x, 1, 2", "clamp_max": "x, 1", "clamp_min": "x, 1", "histogram_fraction": "0, 1, x_bucket",
    "histogram_quantile": "0.5, x_bucket", "label_join": "x, 'a', '-', 'b', 'c'", "pi": "", "time": "", "vector": "1",
    "label_replace": "x, 'a', '$1', 'b', '(.*)'", "predict_linear": "x[5m], 60", "quantile_over_time": "0.5, x[5m]",
}  # fmt: skip
EXPERIMENTAL = {
    "double_exponential_smoothing": "x[5m], 0.5, 0.5", "first_over_time": "x[5m]", "info": "x",
    "mad_over_time": "x[5m]",
    "sort_by_label": "x, 'a'", "sort_by_label_desc": "x, 'a'", "ts_of_first_over_time": "x[5m]", "max_of": "1, 2",
    "ts_of_last_over_time": "x[5m]", "ts_of_max_over_time": "x[5m]", "ts_of_min_over_time": "x[5m]", "min_of": "1, 2",
    "histogram_quantiles": "x, 'q', 0.5, 0.9", "integral": "x[5m]", "start": "", "end": "", "step": "", "range": "",
    "limitk": "1, x", "limit_ratio": "0.5, x",
}  # fmt: skip
NATIVE = ["histogram_avg", "histogram_count", "histogram_sum", "histogram_stddev", "histogram_stdvar"]
OPERATORS = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]


def test_every_function_is_evaluated() -> None:
    """All that need no feature flag and no native histogram, with the arguments that they take; and no other."""
    for name in VECTOR:
        compile_expression(f"{name}(x)")
    for name in WINDOW:
        compile_expression(f"{name}(x[5m])")
        compile_expression(f"{name}(x[5m:1m])")
    for name, arguments in OTHERS.items():
        compile_expression(f"{name}({arguments})")
    for name in ("minute", "hour", "day_of_month", "day_of_week", "day_of_year", "days_in_month", "month", "year"):
        compile_expression(f"{name}()")
    assert {*VECTOR, *WINDOW, *OTHERS} == FUNCTIONS


def test_every_aggregation_is_evaluated() -> None:
    """In both spellings of its grouping."""
    for name in OPERATORS:
        compile_expression(f"{name} by (a) (x)")
        compile_expression(f"{name}(x) without (a)")
    for name, parameter in (("topk", "2"), ("bottomk", "2"), ("quantile", "0.5"), ("count_values", "'v'")):
        compile_expression(f"{name} without (a) ({parameter}, x)")
    assert {*OPERATORS, "topk", "bottomk", "quantile", "count_values"} == AGGREGATIONS


@pytest.mark.parametrize("name", [*EXPERIMENTAL, *NATIVE])
def test_the_others_are_refused_when_they_load(name: str) -> None:
    """With the place and the reason: they are experimental, or read native histograms."""
    with pytest.raises(Refused) as caught:
        compile_expression(f"1 +\n  {name}({EXPERIMENTAL.get(name, 'x')})")
    assert caught.value.reason is RefusedReason.UNSUPPORTED_EXPRESSION
    assert caught.value.message == f"2:3: {name}() is not supported"
    assert ("experimental" in caught.value.hint) is (name in EXPERIMENTAL)
    assert ("native" in caught.value.hint) is (name in NATIVE)
