"""What the daemon tells a running migration, by the product's own rules on samples of a test's making."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.alerting import RuleEvaluator, StoredExemplars, load_rules
from agent.clock import ManualClock
from agent.daemon.assembly import load_limits_of
from agent.daemon.judged import Judged
from agent.migration import Band, Load, LoadLimits
from agent.promql import Engine
from agent.runbook import load_runbook
from agent.samples import Sample, SeriesStore, labels_of
from agent.settings import MigrationSettings, Settings
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "runbooks" / "firestore-operations.md"
BASELINE, TARGET = 0.04, 0.05
BOUNDS = (0.01, 0.05, 0.1, 0.25)


class Application:
    """Twenty user lookups a second that take as long as they are told to, under the rules of the decision matrix."""

    def __init__(self, state: StateFile) -> None:
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self._store = SeriesStore()
        self._counts = dict.fromkeys(BOUNDS, 0)
        self._total = 0
        self._refused: int | None = None
        engine = Engine(self._store)
        policy = load_runbook(PAGE)
        self._evaluator = RuleEvaluator(
            rules=load_rules([ROOT / "rules" / "decision-matrix.yaml"]),
            engine=engine,
            store=self._store,
            state=state,
            clock=self.clock,
            telemetry=quiet_telemetry(),
            exemplars=StoredExemplars(self._store),
        )
        self.judged = Judged(rules=self._evaluator, engine=engine, policy=lambda: policy, clock=self.clock)

    def passes(self, seconds: int, *, latency: float, silent: bool = False, refused: int = 0) -> dict[str, str]:
        """Look every second; the states of the alerts at the end."""
        for _ in range(seconds):
            self._total += 20
            for bound in BOUNDS:
                self._counts[bound] += 20 if latency <= bound else 0
            if refused:
                self._refused = (self._refused or 0) + refused
            now = self.clock.now()
            if silent:
                self._store.stale("app", now.timestamp())
            else:
                self._store.ingest("app", now.timestamp(), list(self._samples()))
            self._evaluator.tick(now)
            self.clock.advance(1)
        return {alert.rule: str(alert.state) for alert in self._evaluator.active()}

    def _samples(self) -> Iterator[Sample]:
        lookup = {"db_query_summary": "user_lookup"}
        for bound, count in self._counts.items():
            labels = {**lookup, "le": f"{bound:g}"}
            yield Sample(labels_of("db_client_operation_duration_seconds_bucket", labels), count)
        infinite = {**lookup, "le": "+Inf"}
        yield Sample(labels_of("db_client_operation_duration_seconds_bucket", infinite), self._total)
        yield Sample(labels_of("db_client_operation_duration_seconds_count", lookup), self._total)
        if self._refused is not None:
            refused = {"error_type": "missing_index"}
            yield Sample(labels_of("db_client_operation_duration_seconds_count", refused), self._refused)
        degraded = {"condition": "performance_degradation"}
        yield Sample(labels_of("runbook_decision_threshold", degraded), 0.5)
        yield Sample(labels_of("runbook_decision_threshold", {"condition": "missing_indexes"}), 0)
        yield Sample(labels_of("runbook_query_target_seconds", {"query": "user_lookup"}), TARGET)
        yield Sample(labels_of("runbookd_baseline_query_latency_seconds", {"query": "user_lookup"}), BASELINE)


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    state = StateFile(tmp_path / "state.db")
    yield Application(state)
    state.close()


def test_a_run_hears_of_a_rollback_before_it_is_decided_and_can_avert_it(application: Application) -> None:
    """Told while the alert is pending; if the queries recover at once, it is over before the alert fires."""
    application.passes(20, latency=0.02)
    assert application.judged.load() == Load()
    assert application.passes(3, latency=0.2)["PerformanceDegraded"] == "pending"
    assert application.judged.load() == Load(reversal="user_lookup is slower than before the migration")
    states = {application.passes(1, latency=0.02).get("PerformanceDegraded", "") for _ in range(20)}
    assert states == {"pending", ""}
    assert application.judged.load() == Load()


def test_what_fires_is_told_and_what_is_no_longer_seen_is_not(application: Application) -> None:
    """An alert whose source fell silent keeps its state, but nobody knows whether it holds: blind is not critical."""
    assert application.passes(60, latency=0.2)["PerformanceDegraded"] == "firing"
    assert application.judged.load().reversal
    assert application.passes(30, latency=0.2, silent=True)["PerformanceDegraded"] == "firing"
    assert application.judged.load() == Load()


def test_what_the_page_fixes_forward_stops_no_run(application: Application) -> None:
    """A missing index is in the matrix, too, but nothing is rolled back for it."""
    application.passes(5, latency=0.02)
    assert application.passes(5, latency=0.02, refused=2)["MissingIndex"] == "firing"
    assert application.judged.load() == Load()


def test_what_a_run_minds_is_the_pages_unless_the_settings_say_that_it_minds_nothing() -> None:
    """The rows of the key metrics in base units, and the matrix."""
    policy = load_runbook(PAGE)
    band = Band(warning=0.2, critical=0.5)
    assert load_limits_of(Settings(), policy) == LoadLimits(
        latency=band, errors=Band(warning=0.005, critical=0.01), matrix=True
    )
    unminding = Settings(migration=MigrationSettings(throttle=False))
    assert load_limits_of(unminding, policy) == LoadLimits()
