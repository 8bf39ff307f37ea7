"""Rule scripts: promtool's unit-test files, run on our own engine and state machine.

``runbookd rules test`` and the tests of the shipped rules call :func:`run_script`. A script gives series in
promtool's notation and says which alerts fire, and what expressions are, at given times.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from agent.alerting.alert import Alert, AlertState
from agent.alerting.durations import parse_duration
from agent.alerting.evaluator import RuleEvaluator
from agent.alerting.files import load_rules
from agent.alerting.rules import RuleSet
from agent.alerting.templates import Surroundings
from agent.clock import ManualClock
from agent.faults import Misconfigured, MisconfiguredReason, RunbookdError
from agent.promql import Engine, Scalar, Vector, compile_expression, format_value
from agent.samples import METRIC_NAME, Labels, Sample, SeriesStore, describe, labels_of
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DEFAULT_INTERVAL = timedelta(minutes=1)
_CLOSE = 1e-6

_STALE = "stale"
_FILE_KEYS = frozenset({"rule_files", "evaluation_interval", "group_eval_order", "tests"})
_TEST_KEYS = frozenset(
    {"name", "interval", "input_series", "alert_rule_test", "promql_expr_test", "external_labels", "external_url"}
)


@dataclass(frozen=True, kw_only=True)
class Assertion:
    """One expectation of a script and what became of it.

    Args:
        at: seconds since the script's beginning.
        expected, got: as text for people; equal in meaning if ``passed``.
    """

    file: str
    test: str
    kind: str
    subject: str
    at: float
    passed: bool
    expected: str
    got: str


def run_script(path: Path) -> tuple[Assertion, ...]:
    """Run all tests of a script; one assertion for each expectation.

    Raises:
        Misconfigured: the script, or a rule file that it names, can't be read.
    """
    script = _read(path)
    rule_files = [path.parent / name for name in script.get("rule_files") or ()]
    interval = duration_of(path, script, "evaluation_interval", _DEFAULT_INTERVAL)
    rules = load_rules(rule_files, default_interval=interval) if rule_files else RuleSet()
    found: list[Assertion] = []
    for number, test in enumerate(script.get("tests") or (), start=1):
        check_keys(path, test, _TEST_KEYS, "a test")
        found.extend(_Run(path, test, str(test.get("name") or f"test {number}"), rules, interval).assertions())
    return tuple(found)


# --- the notation of values ---------------------------------------------------------------------------------------

_NUMBER = r"[-+]?(?:[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?|NaN|Inf)"
_CELL = re.compile(
    rf"(?P<missing>_)(?:x(?P<gap>[0-9]+))?|(?P<stale>stale)|(?P<start>{_NUMBER})"
    rf"(?:(?P<sign>[-+])(?P<step>{_NUMBER}))?(?:x(?P<times>[0-9]+))?"
)


def parse_values(text: str) -> list[float | str | None]:
    """A series' values: ``1+2x3`` is 1 3 5 7, ``5x2`` is 5 5 5, ``_`` a hole (``None``), ``stale`` an end.

    Raises:
        ValueError: a word is none of these.
    """
    values: list[float | str | None] = []
    for word in text.split():
        found = _CELL.fullmatch(word)
        if found is None or (found["step"] and not found["times"]):
            raise ValueError(f"not a value in promtool's notation: {word!r}")
        if found["missing"]:
            values.extend([None] * int(found["gap"] or 1))
        elif found["stale"]:
            values.append(_STALE)
        else:
            step = float(found["step"] or 0) * (-1 if found["sign"] == "-" else 1)
            start = float(found["start"])
            values.extend(start + step * number for number in range(int(found["times"] or 0) + 1))
    return values


_SERIES = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*(?:\{(.*)\})?\s*", re.DOTALL)
_PAIR = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')


def parse_series(text: str) -> Labels:
    """``name{label="value"}`` as labels.

    Raises:
        ValueError: it is no series.
    """
    found = _SERIES.fullmatch(text)
    if found is None:
        raise ValueError(f"not a series: {text!r}")
    pairs: dict[str, str] = {}
    inner = found[2] or ""
    at = 0
    while inner[at:].strip():
        pair = _PAIR.match(inner, at)
        if pair is None:
            raise ValueError(f"not a series: {text!r}")
        pairs[pair[1]] = re.sub(r"\\(.)", lambda escape: {"n": "\n"}.get(escape[1], escape[1]), pair[2])
        at = pair.end()
    return labels_of(found[1] or pairs.pop(METRIC_NAME, ""), pairs)


# --- running ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """One test of a script."""

    path: Path
    test: Mapping[str, Any]
    name: str
    rules: RuleSet
    interval: timedelta

    def assertions(self) -> Iterator[Assertion]:
        alert_tests = sorted(self.test.get("alert_rule_test") or (), key=self._time)
        query_tests = sorted(self.test.get("promql_expr_test") or (), key=self._time)
        moments = sorted({self._time(each) for each in [*alert_tests, *query_tests]})
        if not moments:
            return
        with tempfile.TemporaryDirectory() as folder, closing(StateFile(Path(folder) / "state.db")) as state:
            clock = ManualClock(EPOCH)
            store = SeriesStore()
            engine = Engine(store)
            evaluator = RuleEvaluator(
                rules=self.rules,
                engine=engine,
                store=store,
                state=state,
                clock=clock,
                telemetry=quiet_telemetry(),
                around=self._surroundings(),
            )
            for due in self._play(clock, store, evaluator, moments):
                for each in alert_tests:
                    if self._time(each) == due:
                        yield self._alerts(each, evaluator.active())
                for each in query_tests:
                    if self._time(each) == due:
                        yield self._query(each, engine)

    def _play(
        self, clock: ManualClock, store: SeriesStore, evaluator: RuleEvaluator, moments: Sequence[timedelta]
    ) -> Iterator[timedelta]:
        """Deliver samples and evaluate rules in the order of time; stops at every moment that is asked about."""
        series = given_series(self.path, self.test, self.name)
        step = self._duration("interval", self.interval)
        remaining = list(moments)
        now = timedelta(0)
        sample = 0
        tick = timedelta(0)
        while remaining:
            now = min(sample * step, tick, remaining[0])
            clock.advance(max(0.0, (EPOCH + now - clock.now()).total_seconds()))
            if now == sample * step:
                deliver(store, series, sample, now)
                sample += 1
            if now == tick:
                evaluator.tick(EPOCH + now)
                tick += self.interval
            if now == remaining[0]:
                yield remaining.pop(0)

    def _surroundings(self) -> Surroundings:
        labels = self.test.get("external_labels") or {}
        return Surroundings(
            labels={str(name): str(value) for name, value in labels.items()},
            url=str(self.test.get("external_url") or ""),
        )

    def _alerts(self, each: Mapping[str, Any], active: Sequence[Alert]) -> Assertion:
        name = str(each.get("alertname", ""))
        firing = [
            alert
            for alert in active
            if alert.rule == name and alert.state in (AlertState.FIRING, AlertState.RECOVERING)
        ]
        expected = [
            (
                _pairs({**(alert.get("exp_labels") or {}), "alertname": name}),
                _pairs(alert.get("exp_annotations") or {}),
            )
            for alert in each.get("exp_alerts") or ()
        ]
        got = [(_pairs(alert.labels), _pairs(alert.annotations)) for alert in firing]
        return self._assertion("alert", name, each, sorted(expected) == sorted(got), sorted(expected), sorted(got))

    def _query(self, each: Mapping[str, Any], engine: Engine) -> Assertion:
        text = str(each.get("expr", ""))
        expected = sorted(
            (parse_series(str(sample.get("labels") or "{}")), float(sample["value"]))
            for sample in each.get("exp_samples") or ()
        )
        try:
            value = engine.instant(compile_expression(text), self._time(each).total_seconds())
        except RunbookdError as error:
            return self._assertion("expression", text, each, False, expected, [error])
        got: list[tuple[Labels, float]] = []
        if isinstance(value, Scalar):
            got = [((), value.value)]
        elif isinstance(value, Vector):
            got = sorted((element.labels, element.value) for element in value.elements)
        same = len(got) == len(expected) and all(
            one[0] == other[0] and _same(one[1], other[1]) for one, other in zip(got, expected, strict=True)
        )
        return self._assertion("expression", text, each, same, _samples(expected), _samples(got))

    def _assertion(
        self,
        kind: str,
        subject: str,
        each: Mapping[str, Any],
        passed: bool,
        expected: Sequence[object],
        got: Sequence[object],
    ) -> Assertion:
        return Assertion(
            file=str(self.path),
            test=self.name,
            kind=kind,
            subject=subject,
            at=self._time(each).total_seconds(),
            passed=passed,
            expected=", ".join(map(str, expected)) or "nothing",
            got=", ".join(map(str, got)) or "nothing",
        )

    def _time(self, each: Mapping[str, Any]) -> timedelta:
        return duration_of(self.path, each, "eval_time", timedelta(0))

    def _duration(self, key: str, default: timedelta) -> timedelta:
        return duration_of(self.path, self.test, key, default)


Given = Sequence[tuple[Labels, list[float | str | None]]]
"""Series and their values, one an interval; ``None`` is a hole."""


def given_series(path: Path, test: Mapping[str, Any], name: str) -> Given:
    """The ``input_series`` of a test.

    Raises:
        Misconfigured: one of them is not in promtool's notation.
    """
    found = []
    for each in test.get("input_series") or ():
        try:
            found.append((parse_series(str(each["series"])), parse_values(str(each["values"]))))
        except (ValueError, KeyError) as error:
            raise unreadable(path, f"{name}: input_series: {error}") from error
    return found


def deliver(store: SeriesStore, series: Given, number: int, now: timedelta) -> None:
    """File the values that are due at ``now``, the ``number``-th of each series."""
    at = now.total_seconds()
    for labels, values in series:
        # A source each: a hole in one series is then no end of it, as in promtool.
        source = f"script:{describe(labels)}"
        value = values[number] if number < len(values) else None
        if isinstance(value, str):
            store.stale(source, at)
        elif value is not None:
            store.ingest(source, at, [Sample(labels, value)])


def _same(one: float, other: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=1e-12)


def _pairs(mapping: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(name), str(value)) for name, value in mapping.items()))


def _samples(found: Sequence[tuple[Labels, float]]) -> list[str]:
    return [f"{describe(labels)} {format_value(value)}" for labels, value in found]


def _read(path: Path) -> Mapping[str, Any]:
    script = read_mapping(path)
    check_keys(path, script, _FILE_KEYS, "a script")
    return script


def read_mapping(path: Path) -> Mapping[str, Any]:
    """A YAML file whose scalars stay texts.

    Raises:
        Misconfigured: it can't be read, or is no mapping.
    """
    try:
        # Texts alone: YAML would take the values "0x100" (a hundred and one zeros) for the number 256.
        script = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise unreadable(path, str(error)) from error
    if not isinstance(script, dict):
        raise unreadable(path, "it is no mapping")
    return script


def check_keys(path: Path, mapping: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    """Refuse a misspelt key.

    Raises:
        Misconfigured: one of ``mapping`` is not ``known``.
    """
    for key in mapping:
        if key not in known:
            raise unreadable(path, f"unknown key {key!r} in {what}; known are {', '.join(sorted(known))}")


def duration_of(path: Path, mapping: Mapping[str, Any], key: str, default: timedelta) -> timedelta:
    """A duration of a script.

    Raises:
        Misconfigured: it is none.
    """
    if key not in mapping:
        return default
    try:
        return parse_duration(str(mapping[key]))
    except ValueError as error:
        raise unreadable(path, f"`{key}`: {error}") from error


def unreadable(path: Path, problem: str) -> Misconfigured:
    """What is wrong with a script."""
    return Misconfigured(
        MisconfiguredReason.RULES, f"{path}: {problem}", hint="scripts are written as for `promtool test rules`"
    )
