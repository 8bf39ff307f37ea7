"""Seeded expressions over seeded series, compared with what Prometheus's own engine computes.

Where the two may differ, the generator does not go:

- promtool 2.42 has closed range windows where Prometheus 3 has half-open ones: windows are 3 ms longer than a multiple
  of the samples' interval, so that none begins on a sample or on a subquery's point;
- how a window's start is extrapolated near a counter's zero changed in 3.0: counters start high, and ``rate`` of a
  subquery is taken of counters;
- the last bit of a variance is a matter of the order of additions: ``changes`` and ``resets`` look at rounded values;
- which of two equal elements ``topk`` keeps is unspecified: it is applied to counters that differ;
- Prometheus makes an arbitrary date of NaN, we make NaN: date functions are applied to counters;
- the deviation of a single NaN was 0 before 2.54: it is taken of rates of counters;
- a line through the computed points of a subquery whose points are equal has a slope of exactly 0 only since 2.46:
  subqueries are not put through deriv and predict_linear;
- ``atan2`` keeps the metric's name in 2.42: it is applied to what has none;
- inside a subquery, 2.42 moves what ``@`` fixed along with the subquery's points, where it is the window of
  ``predict_linear`` or of another subquery: there they have no ``@``;
- a bucket that is NaN ends the search for what has to be levelled only since 2.46: of a histogram's buckets only the
  highest is NaN;
- sums are compensated since 2.50, averages since 3.0: what is summed has one order of magnitude, or an infinity;
- ``sgn(-0)`` is 0 or -0 by the platform's compiler: equal numbers are equal here;
- the last bit of a power or an exponential is the library's own, and ``%`` of it makes everything of it: they don't
  meet in one expression;
- fractions of classic buckets, text as names, numbers as durations, remarks and the time limit are 3.0's own: they have
  tests of their own, from its documentation and source.

Everything else that a person may write is in: every function and aggregation that is evaluated at all, every operator
with every kind of matching, unbracketed chains of operators, windows and subqueries with offset and ``@``, escapes,
literals, comments, infinities, NaN, holes, stale series, resets, label sets that collide (both must refuse).
"""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.faults import RunbookdError
from agent.promql import Engine, Scalar, Vector, compile_expression
from agent.samples import Labels, Sample, SeriesStore, labels_of

pytestmark = pytest.mark.prometheus

INTERVAL = 10
SAMPLES = 40
TIMES = (95.5, 203.3, 391.7)
ERROR = "error"

Values = list[float | str | None]
Outcome = dict[Labels, float] | str


@dataclass(frozen=True)
class Input:
    """A series in both notations: ``None`` is a hole, ``"stale"`` an end."""

    name: str
    labels: dict[str, str]
    values: Values


def make_series(random_: random.Random) -> list[Input]:
    found = []
    for name in ("requests_total", "errors_total"):
        for job in ("api", "web"):
            for instance in ("0", "1"):
                found.append(Input(name, {"job": job, "instance": instance}, counter(random_)))
    for job in ("api", "web"):
        for instance in ("0", "1"):
            labels = {"job": job, "instance": instance}
            found.append(Input("load", labels, gauge(random_)))
        found.append(Input("limit", {"job": job, "zone": f"z-{job}"}, [random_.uniform(0, 3)] * SAMPLES))
    for job in ("api", "web"):
        total: list[float] = [1e6] * SAMPLES
        for bound in ("0.1", "0.5", "1", "+Inf"):
            grown = counter(random_, holes=False)
            total = [a + float(b or 0) for a, b in zip(total, grown, strict=True)]
            values: Values = list(total)
            found.append(Input("latency_seconds_bucket", {"job": job, "le": bound}, values))
    for bound in ("-1", "0", "1.0", "1", "2e1", "+Inf"):
        odd: Values = [random_.choice((0.0, 5.0, random_.uniform(0, 30))) for _ in range(SAMPLES)]
        if bound == "+Inf":
            odd = [random_.choice((value, float("nan"))) for value in odd]
        found.append(Input("odd_bucket", {"le": bound}, with_holes(random_, odd)))
    found.append(Input("odd_bucket", {"le": "much"}, [1.0] * SAMPLES))
    found.append(Input("low_bucket", {"le": "-3"}, [1.0] * SAMPLES))
    found.append(Input("low_bucket", {"le": "+Inf"}, [3.0] * SAMPLES))
    found.append(Input("open_bucket", {"le": "1"}, [1.0] * SAMPLES))
    return found


def counter(random_: random.Random, *, holes: bool = True) -> Values:
    value = 100_000.0 + random_.random()
    found: Values = []
    for _ in range(SAMPLES):
        value += random_.choice((0, 1, 5, random_.uniform(0, 20)))
        if holes and random_.random() < 0.03:
            value = random_.uniform(5_000.0, 6_000.0)
        found.append(value)
    return with_holes(random_, found) if holes else found


def gauge(random_: random.Random) -> Values:
    common = (random_.uniform(-5, 5), 1.0, 0.0, float("nan"), float("inf"), float("-inf"))
    weights = (6, 4, 4, 4, 1, 1)
    found: Values = [
        random_.choice((random_.uniform(-5, 5), random_.choices(common, weights)[0])) for _ in range(SAMPLES)
    ]
    return with_holes(random_, found)


def with_holes(random_: random.Random, values: Values) -> Values:
    for position in range(1, len(values)):
        draw = random_.random()
        if draw < 0.05:
            values[position] = None
        elif draw < 0.08:
            values[position] = "stale"
    return values


def make_expression(random_: random.Random, depth: int = 3) -> str:
    """A random instant vector."""
    if depth == 0:
        return f"{selector(random_)}{when(random_)}"
    makers = [
        over_window, over_window, over_window, over_subquery, counted, aggregated, aggregated, extremes, with_number,
        between, between, function, function, of_buckets, chain, dated, collision, scalar_arithmetic,
    ]  # fmt: skip
    made = random_.choice(makers)(random_, depth)
    if "%" in made and ("^" in made or "exp(" in made):
        return make_expression(random_, depth)
    return f"{made} # a ) comment\n" if random_.random() < 0.02 else made


def counted(random_: random.Random, depth: int) -> str:
    value = random_.choice(["requests_total", f"round({make_expression(random_, depth - 1)}, 10)", "load"])
    clause = random_.choice(["", " by (job)", " without (instance)", " by (value)", " without (value)"])
    return f'count_values{clause} ("{random_.choice(["value", "job"])}", {value})'


def aggregated(random_: random.Random, depth: int) -> str:
    operator = random_.choice(["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "quantile", "SUM"])
    clause = random_.choice(["", "by (job)", "by (job, instance)", "without (instance)", "without ()", "by (job,)"])
    inner = make_expression(random_, depth - 1)
    if operator in ("stddev", "stdvar"):
        inner = "rate(requests_total[2m30s3ms])"
    if operator == "quantile":
        inner = f"{random_.choice(['0.3', '0.95', '2', '-1', 'NaN', 'scalar(limit) / 5', '1', '0'])}, {inner}"
    return f"{operator} {clause} ({inner})" if random_.random() < 0.7 else f"{operator}({inner}) {clause}"


def extremes(random_: random.Random, depth: int) -> str:
    del depth
    count = random_.choice(["1", "2", "3", "1.9", "0", "-1", "NaN", "1e30", "scalar(nothing)", "count(up) or 2"])
    clause = random_.choice(["", " by (job)", " without (instance)"])
    return (
        f"{random_.choice(['topk', 'bottomk'])}{clause} ({count}, {random_.choice(['requests_total', 'errors_total'])})"
    )


def with_number(random_: random.Random, depth: int) -> str:
    operator = random_.choice(["+", "-", "*", "/", "%", "^", ">", "<=", "!=", "== bool", "> bool", "<", ">=", "=="])
    number = random_.choice(["2", "0.5", "-1", "0", "0x1F", "1e3", ".5", "Inf", "NaN", "-inf", "(7 % 4)", "+3"])
    inner = make_expression(random_, depth - 1)
    return f"({inner}) {operator} {number}" if random_.random() < 0.6 else f"{number} {operator} ({inner})"


def between(random_: random.Random, depth: int) -> str:
    operator = random_.choice(
        ["+", "-", "*", "/", "%", "^", ">", "<", "==", "!=", ">= bool", "== bool", "and", "or", "unless"]
    )
    clause = random_.choice(
        ["", "on (job)", "ignoring (instance)", "on (job, instance)", "on ()", "ignoring (zone, le)"]
    )
    if operator not in ("and", "or", "unless") and clause and random_.random() < 0.6:
        clause += random_.choice(
            [" group_left ()", " group_right ()", " group_left (zone)", " group_right (zone)", " group_left (zone, le)"]
        )
    return f"({make_expression(random_, depth - 1)}) {operator} {clause} ({make_expression(random_, depth - 1)})"


def chain(random_: random.Random, depth: int) -> str:
    """Operators of all levels without brackets, over vectors that match one to one."""
    del depth
    operands = ["requests_total", "errors_total", "-errors_total", "2", "0.5", "3", "-1", "rate(requests_total[1m3ms])"]
    operators = ["+", "-", "*", "/", "%", "^", "> bool", "== bool", "<= bool"]
    parts = ["errors_total"]
    for _ in range(random_.randrange(2, 6)):
        parts += [random_.choice(operators), random_.choice(operands)]
    text = " ".join(parts)
    if random_.random() < 0.5:
        sets = ["and", "or", "unless"]
        others = [f"{random_.choice(sets)} {random_.choice(['load', 'limit', 'requests_total > 1'])}" for _ in range(2)]
        return f"{text} {' '.join(others)}"
    return text


def dated(random_: random.Random, depth: int) -> str:
    del depth
    parts = ["hour", "day_of_week", "minute", "day_of_month", "month", "year", "days_in_month", "day_of_year"]
    argument = random_.choice(["requests_total * 1", "requests_total * 777.7", "requests_total * -33333", ""])
    return f"{random_.choice(parts)}({argument})"


def collision(random_: random.Random, depth: int) -> str:
    """What may leave two elements with the same labels."""
    inner = make_expression(random_, depth - 1)
    template = random_.choice(
        [
            'label_replace({}, "instance", "", "instance", ".*")',
            'label_replace({}, "job", "x", "instance", "0")',
            'label_replace({}, "__name__", "same", "job", ".+")',
            'label_join({}, "job", "-", "nothing")',
            "rate({{__name__=~'requests_total|errors_total'}}[1m3ms]) + ({})",
            "-{{__name__=~'(requests|errors)_total'}} or ({})",
            "sum by (job) ({{__name__=~'.*_total'}}) / ({})",
        ]
    )
    return template.format(inner)


def scalar_arithmetic(random_: random.Random, depth: int) -> str:
    del depth
    return random_.choice(
        [
            "1 + 2 * 3 ^ 2 ^ 0.5 - 4 % 3", "-2 ^ 2", "1 < bool 2", "time() - 3 == bool 5", "scalar(limit{job='api'})",
            "scalar(load) + 1", "pi() / 2", "0 / 0", "1 / 0 > bool 1", "vector(1) == 1", "vector(time()) > 99",
            "-7 % 3", "scalar(vector(3)) ^ -1", "(2 atan2 -1) * 1", "Inf - Inf", "0 ^ 0", "-1 ^ 0.5", "--1", "7 % -3",
            "- -1 - +1",
        ]
    )  # fmt: skip


def function(random_: random.Random, depth: int) -> str:
    template = random_.choice(
        [
            "abs({})", "ceil({})", "floor({})", "round({}, 0.5)", "sqrt({})", "sgn({})", "-({})", "ln({})",
            "clamp({}, 1, 50)", "clamp({}, 5, 1)", "exp(-abs({}))", "log2({})", "log10({})", "clamp({}, -Inf, NaN)",
            "deg({})", "rad({})", "sin({} % 7)", "cos({} % 7)", "tan({} % 1)", "asin({} % 1)", "acos({} % 1)",
            "atan({})", "sinh({} % 3)", "cosh({} % 3)", "tanh({})", "asinh({})", "acosh({})", "atanh({} % 1)",
            "round({})", "sort_desc({})", "abs({}) atan2 on () group_left () vector(2)", "({}) * pi()", "round({}, 0)",
            "({}) + time() - time()", "clamp_min({}, 0)", "clamp_max({}, 1e5)", "sort({})", "absent({})",
            "vector(scalar({}))", "timestamp({})", 'label_replace({}, "to", "$1-x", "job", "(a.*)")', "round({}, -3)",
            'label_join({}, "both", "/", "job", "instance")', "exp({})",
            'label_replace({}, "job", "${{n}}$$", "job", "(?P<n>.).*")',
            'label_replace({}, "to", "$1$2x$1_", "job", "(w)?(a)?.*")', "absent(({}))", "clamp_max({}, NaN)",
            'label_replace({}, "to", "y", "nothing", "")', "vector(scalar({}) > bool 1)", "+({})",
            "timestamp(timestamp({}))",
        ]
    )  # fmt: skip
    return template.format(make_expression(random_, depth - 1))


def of_buckets(random_: random.Random, depth: int) -> str:
    del depth
    share = random_.choice(["0.5", "0.95", "1.5", "0", "1", "-0.1", "NaN", "scalar(limit) / 5", "0.999"])
    inner = random_.choice(
        [
            "rate(latency_seconds_bucket[1m3ms])",
            "sum by (le) (rate(latency_seconds_bucket[2m3ms]))",
            "sum by (le, job) (increase(latency_seconds_bucket[45s3ms]))",
            "latency_seconds_bucket",
            "odd_bucket",
            "odd_bucket offset 31s",
            'odd_bucket{le!="0"}',
            "sum by (le) (odd_bucket)",
            "low_bucket",
            "open_bucket",
            '{__name__=~"low_bucket|open_bucket"}',
            "avg_over_time(odd_bucket[1m3ms])",
            "requests_total",
        ]
    )
    return f"histogram_quantile({share}, {inner})"


def over_window(random_: random.Random, depth: int) -> str:
    del depth
    function = random_.choice([*SLOPES, *OVER_TIME, "deriv", "predict_linear", "quantile_over_time"])
    series = selector(random_)
    if function in ("rate", "increase"):
        series = series.replace("load", "requests_total")
    window = f"{series}[{random_.choice(WINDOWS)}]{when(random_)}"
    if function == "predict_linear":
        window = window.split(" @")[0]
        return f"predict_linear({window}, {random_.choice(['60', '-30', '0'])})"
    if function == "quantile_over_time":
        return f"quantile_over_time({random_.choice(['0.5', '0.99', '-1'])}, {window})"
    return f"{function}({window})"


def over_subquery(random_: random.Random, depth: int) -> str:
    function = random_.choice([*SLOPES, *OVER_TIME, "quantile_over_time"])
    inner = make_expression(random_, depth - 1)
    if function in ("rate", "increase"):
        inner = random_.choice(["sum by (job) (requests_total)", "errors_total", "max (requests_total) + 7"])
    elif function in ("changes", "resets"):
        inner = f"round({inner}, 0.001)"
    span = f"[{random_.choice(WINDOWS)}:{random_.choice(['10s', '7s', '20s', ''])}]"
    place = when(random_)
    if depth < 3:
        place = place.split(" @")[0]
    window = f"({inner}){span}{place}"
    return f"quantile_over_time(0.9, {window})" if function == "quantile_over_time" else f"{function}({window})"


WINDOWS = ("35s3ms", "1m3ms", "2m3ms")
SLOPES = ("rate", "increase", "irate", "delta", "idelta", "changes", "resets")
OVER_TIME = tuple(
    f"{each}_over_time"
    for each in ("avg", "min", "max", "sum", "count", "last", "present", "stddev", "stdvar", "absent")
)


def when(random_: random.Random) -> str:
    """Where a selector looks, if not at the evaluation time."""
    if random_.random() < 0.7:
        return ""
    places = [" offset 33s", " offset -21s", " @ 200.4", " @ start()", " @ end()", " @ 250.4 offset 31s"]
    return random_.choice(places)


def selector(random_: random.Random) -> str:
    """An instant selector, or, where a window follows, its series."""
    name = random_.choice(["requests_total", "errors_total", "load", "limit", "nothing"])
    matchers = random_.choice(
        [
            "",
            '{job="api"}',
            '{job!="api"}',
            '{job=~"a.*"}',
            '{instance!~"1|2"}',
            '{zone=""}',
            '{job=~"api|web",instance="0"}',
            "{job='\\x61pi'}",
            "{job=~`a\\w+`}",
            '{job=~"(?i)API", instance!=""}',
            '{job=~"^a.i$|"}',
            "{instance=~'[0-1]',}",
            '{job!~".+x|web"}',
        ]
    )
    if random_.random() < 0.05:
        name, matchers = "", '{__name__=~".*_total",job="api"}'
    return f"{name}{matchers}"


def ours(store: SeriesStore, expression: str, at: float) -> Outcome:
    try:
        value = Engine(store, subquery_step=1.0).instant(compile_expression(expression), at)
    except RunbookdError as error:
        return f"{ERROR}: {error}"
    if isinstance(value, Scalar):
        return {(): value.value}
    assert isinstance(value, Vector)
    return {element.labels: element.value for element in value.elements}


def theirs(
    promtool: str, folder: Path, inputs: list[Input], cases: list[tuple[str, float]]
) -> dict[tuple[str, float], Outcome]:
    """What promtool computes: every test expects nothing, and the failures say what was got."""
    script = {
        "rule_files": [],
        "evaluation_interval": "1s",
        "tests": [
            {
                "interval": f"{INTERVAL}s",
                "input_series": [
                    {"series": notation(each), "values": " ".join(cell(value) for value in each.values)}
                    for each in inputs
                ],
                "promql_expr_test": [
                    {"expr": expression, "eval_time": f"{round(at * 1000)}ms", "exp_samples": []}
                    for expression, at in cases
                ],
            }
        ],
    }
    path = folder / "script.yaml"
    path.write_text(json.dumps(script))
    done = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    found: dict[tuple[str, float], Outcome] = {case: {} for case in cases}
    heads = re.compile(r'^    expr: ("(?:[^"\\]|\\.)*"), time: (\S+?),(?: err: (.*))?$', re.MULTILINE)
    matches = list(heads.finditer(output))
    for match, following in zip(matches, [*matches[1:], None], strict=True):
        body = output[match.end() : following.start() if following else len(output)]
        case = (json.loads(match[1]), seconds(match[2]))
        got = re.search(r"got: (.*)", body)
        found[case] = f"{ERROR}: {match[3]}" if match[3] else parse_samples(got[1] if got else "")
    return found


def notation(series: Input) -> str:
    return series.name + "{" + ",".join(f'{name}="{value}"' for name, value in series.labels.items()) + "}"


def cell(value: float | str | None) -> str:
    if value is None:
        return "_"
    if isinstance(value, str):
        return value
    return "NaN" if math.isnan(value) else repr(value).replace("inf", "Inf")


def seconds(text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    total = sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", text))
    return round(total, 3)


def parse_samples(text: str) -> dict[Labels, float]:
    found = {}
    for labels, value in re.findall(r"(\{.*?\}) (\S+?)(?:,|$)", text):
        pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)
        found[tuple(sorted(pairs))] = float(value)
    return found


def same(one: Outcome, other: Outcome) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str)
    return one.keys() == other.keys() and all(
        math.isclose(one[key], other[key], rel_tol=1e-9, abs_tol=1e-9)
        or (math.isnan(one[key]) and math.isnan(other[key]))
        for key in one
    )


def compare(promtool: str, folder: Path, seed: int, count: int) -> list[str]:
    """Differences between the engines, as text; none expected."""
    random_ = random.Random(seed)
    inputs = make_series(random_)
    cases = [(make_expression(random_), random_.choice(TIMES)) for _ in range(count)]
    store = SeriesStore()
    for each in inputs:
        identity = labels_of(each.name, each.labels)
        for number, value in enumerate(each.values):
            if isinstance(value, str):
                store.stale(str(identity), number * INTERVAL)
            elif value is not None:
                store.ingest(str(identity), number * INTERVAL, [Sample(identity, value)])
    expected = theirs(promtool, folder, inputs, cases)
    return [
        f"seed {seed}: {expression} at {at}: ours {result}, Prometheus's {expected[(expression, at)]}"
        for expression, at in dict.fromkeys(cases)
        if not same(result := ours(store, expression, at), expected[(expression, at)])
    ]


@pytest.mark.parametrize("seed", range(5))
def test_random_expressions_agree_with_prometheus(promtool: str, tmp_path: Path, seed: int) -> None:
    """A hundred random expressions a seed have the value, or the failure, that they have in Prometheus."""
    assert compare(promtool, tmp_path, seed, 100) == []


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_long_run_agrees_with_prometheus(promtool: str, tmp_path: Path) -> None:
    """20,000 pairs of series and expression, 100 expressions to a set of series."""
    assert [line for seed in range(1_000, 1_200) for line in compare(promtool, tmp_path, seed, 100)] == []


def test_the_oracle_is_heard(promtool: str, tmp_path: Path) -> None:
    """The comparison would notice: promtool's answers are read, and they differ from a wrong one."""
    inputs = [Input("load", {"job": "api"}, [1.0, 2.0, 3.0])]
    found = theirs(promtool, tmp_path, inputs, [("load * 2", 15.5), ("load + on () group_left load == 99", 15.5)])
    assert found[("load * 2", 15.5)] == {(("job", "api"),): 4.0}
    assert not same(found[("load * 2", 15.5)], {(("job", "api"),): 5.0})
