"""A bad migration as the shipped rules see it: from the first failing reads, through maintenance, to the all-clear."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.alerting import Alert, RuleEvaluator, StoredExemplars, TickResult, load_rules
from agent.clock import ManualClock
from agent.promql import Engine
from agent.samples import Exemplar, Sample, SeriesStore, labels_of
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

RULES = Path(__file__).parents[2] / "rules"
START = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = "db_client_operation_duration_seconds_count"
BUCKET = "db_client_operation_duration_seconds_bucket"


class Drama:
    """An application at 50 operations a second, a share of which fails; the daemon that watches may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock(START)
        self.succeeded = 0.0
        self.failed = 0.0
        self.state = StateFile(folder / "state.db")
        self.store = SeriesStore()
        self.evaluator = self._start()

    def _start(self) -> RuleEvaluator:
        return RuleEvaluator(
            rules=load_rules([RULES]),
            engine=Engine(self.store),
            store=self.store,
            state=self.state,
            clock=self.clock,
            telemetry=quiet_telemetry(),
            exemplars=StoredExemplars(self.store),
        )

    def kill_and_restart(self) -> None:
        self.state.close()
        self.state = StateFile(self.folder / "state.db")
        self.store = SeriesStore()
        self.evaluator = self._start()

    def seconds(self, count: int, *, failing: float = 0.0, traffic: float = 50.0) -> Iterator[TickResult]:
        for _ in range(count):
            self.succeeded += traffic * (1 - failing)
            self.failed += traffic * failing
            self._deliver()
            yield self.evaluator.tick(self.clock.now()).calling()
            self.clock.advance(1)

    def _deliver(self) -> None:
        at = self.clock.now().timestamp()
        query = {"job": "application", "db_query_summary": "user_lookup"}
        broken = {**query, "error_type": "unavailable"}
        samples = [
            Sample(labels_of(COUNT, query), self.succeeded),
            # What the agent does by itself goes on all the time, and well: it must not stand for the application.
            Sample(labels_of(COUNT, {"job": "runbookd"}), 500 * self.second),
            Sample(labels_of("runbook_decision_threshold", {"condition": "error_rate"}), 0.05),
            Sample(labels_of("runbook_threshold", {"metric": "error_rate", "level": "warning"}), 0.005),
            Sample(labels_of("runbook_threshold", {"metric": "error_rate", "level": "critical"}), 0.01),
        ]
        if self.failed:
            samples += [
                Sample(labels_of(COUNT, broken), self.failed),
                Sample(labels_of(BUCKET, {**broken, "le": "1"}), self.failed, Exemplar("feedface", 0.4, at)),
            ]
        self.store.ingest("application", at, samples)

    @property
    def second(self) -> float:
        return (self.clock.now() - START).total_seconds()

    def matrix(self) -> Alert | None:
        found = [alert for alert in self.evaluator.active() if alert.labels.get("matrix") == "error_rate"]
        return found[0] if found else None


@pytest.fixture
def drama(tmp_path: Path) -> Iterator[Drama]:
    made = Drama(tmp_path)
    yield made
    with closing(made.state):
        pass


def test_errors_page_within_seconds_and_clear_only_when_reads_succeed(drama: Drama) -> None:
    """At 1m 60 % fail: fires by 1m17s, with a trace; survives a kill and a silent maintenance; clears on success."""
    assert not [alert for tick in drama.seconds(60) for alert in tick.changes]

    fired = [
        (tick.at - START, alert)
        for tick in drama.seconds(20, failing=0.6)
        for alert in tick.changes
        if alert.labels.get("matrix") == "error_rate" and alert.state == "firing"
    ]
    assert len(fired) == 1
    assert 72 <= fired[0][0].total_seconds() <= 77
    assert fired[0][1].trace_id == "feedface"
    assert fired[0][1].labels["condition"] == "error_rate"

    drama.kill_and_restart()
    ticks = list(drama.seconds(40, traffic=0.0))
    assert not [alert for tick in ticks for alert in tick.changes if alert.state == "resolved"]
    alert = drama.matrix()
    assert alert is not None
    assert alert.fired_at == fired[0][1].fired_at
    assert alert.blind == "no_data: the expression has no result"

    resolved = [
        alert
        for tick in drama.seconds(60)
        for alert in tick.changes
        if alert.labels.get("matrix") == "error_rate" and alert.state == "resolved"
    ]
    assert [alert.fingerprint for alert in resolved] == [fired[0][1].fingerprint]
    assert drama.matrix() is None


def test_ten_minutes_of_health_fire_nothing(drama: Drama) -> None:
    """A failure in a thousand is no alert, not even a pending one."""
    for tick in drama.seconds(600, failing=0.001):
        assert tick.failures == {}
        assert [alert.rule for alert in tick.active] == []


def test_two_seconds_of_failure_roll_nothing_back(drama: Drama) -> None:
    """A stall is over before the patience of the matrix rule is: it may be pending, it never fires."""
    list(drama.seconds(60))
    list(drama.seconds(2, failing=1.0))
    for tick in drama.seconds(90):
        assert [alert.rule for alert in tick.active if alert.state == "firing"] == []
