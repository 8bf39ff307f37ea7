"""Backtests: a recorded incident, and what the rules would have said of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.alerting import load_rules
from agent.alerting.backtest import backtest, read_recording, store_of
from agent.faults import Permanent
from agent.promql import Engine, Vector, compile_expression
from agent.samples import Sample, labels_of

START = 1_767_225_600
RULES = """groups:
  - name: one
    interval: 1s
    rules:
      - alert: TooManyErrors
        expr: errors > scalar(limit)
        for: 10s
        labels: {severity: critical, matrix: error_rate}
      - alert: Watchdog
        expr: vector(1)
        labels: {severity: none}
"""


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Five minutes of errors every 5 s, with too many from 1m to 2m."""
    lines = ["# TYPE errors gauge"]
    for second in range(0, 301, 5):
        lines.append(f'errors{{app="a b"}} {8 if 60 <= second < 120 else 1} {START + second}')
    path = tmp_path / "incident.om"
    path.write_text("\n".join([*lines, "# EOF", ""]))
    return path


def moment(second: int) -> datetime:
    return datetime.fromtimestamp(START + second, UTC)


def test_a_recorded_incident_fires_as_it_would_have(recorded: Path, tmp_path: Path) -> None:
    """At 1m the errors rise, at 1m10s the alert fires and the matrix acts; at 2m it ends."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    found = backtest(
        load_rules([rules]),
        read_recording(recorded),
        thresholds=[Sample(labels_of("limit", {}), 5.0)],
        actions={"error_rate": "quick_rollback"},
    )
    watchdog, errors = found
    assert not watchdog.pages
    assert errors.pages
    assert (errors.rule, errors.action) == ("TooManyErrors", "quick_rollback")
    assert (errors.fired_at, errors.resolved_at) == (moment(70), moment(120))


def test_a_recording_answers_queries(recorded: Path) -> None:
    """Years later, with labels, times and values as recorded."""
    engine = Engine(store_of(read_recording(recorded)))
    value = engine.instant(compile_expression("max_over_time(errors[5m])"), START + 300)
    assert isinstance(value, Vector)
    assert [(each.labels, each.value) for each in value.elements] == [((("app", "a b"),), 8.0)]


@pytest.mark.parametrize("text", ["errors 1", "errors one 12", "{ 1 2", "", "errors 1 noon"])
def test_what_is_no_recording_is_said_with_its_line(tmp_path: Path, text: str) -> None:
    """A sample needs a timestamp."""
    path = tmp_path / "bad.om"
    path.write_text(f"{text}\n")
    with pytest.raises(Permanent, match=r"bad\.om:1: "):
        read_recording(path)
