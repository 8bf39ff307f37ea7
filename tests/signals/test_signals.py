"""The agent's own instruments, the page's figures and probes as samples."""

from __future__ import annotations

from pathlib import Path

from agent.clock import ManualClock
from agent.faults import Transient, TransientReason
from agent.runbook import load_runbook
from agent.samples import Matcher, MatchOperator, SeriesStore
from agent.signals import Freshness, InstrumentSource, Probe, ProbeRunner, observe_policy
from agent.telemetry import Telemetry, quiet_telemetry
from agent.telemetry.catalogue import DOCUMENTS_WRITTEN

PAGE = Path(__file__).parents[2] / "runbooks" / "firestore-operations.md"


def _gauges(telemetry: Telemetry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in telemetry.families()
        for sample in family.samples
        if sample.name == name
    }


def test_every_figure_of_the_page_is_a_series_in_base_units() -> None:
    """Thresholds, decision thresholds, query targets and budgets: seconds, ratios, counts."""
    telemetry = quiet_telemetry()
    policy = load_runbook(PAGE)
    observe_policy(lambda: policy, telemetry)
    thresholds = _gauges(telemetry, "runbook_threshold")
    assert thresholds["query_latency_p95", "warning"] == 0.2
    assert thresholds["query_latency_p95", "critical"] == 0.5
    assert thresholds["error_rate", "warning"] == 0.005
    assert thresholds["document_write_rate", "critical"] == 2000
    assert thresholds["backup_failure", "critical"] == 2
    assert thresholds["storage_usage", "critical"] == 0.9
    decisions = _gauges(telemetry, "runbook_decision_threshold")
    assert decisions["error_rate",] == 0.05
    assert decisions["performance_degradation",] == 0.5
    assert decisions["data_corruption",] == 0
    assert ("ui_issues",) not in decisions
    assert _gauges(telemetry, "runbook_query_target_seconds")["user_lookup",] == 0.05
    assert _gauges(telemetry, "runbook_time_budget_seconds")["error_rate",] == 300


def test_instruments_reach_the_store_under_the_agents_job() -> None:
    """The rule loop reads the same labels here as in a Prometheus that scrapes /metrics."""
    telemetry, store, clock = quiet_telemetry(), SeriesStore(), ManualClock()
    freshness = Freshness(clock=clock, telemetry=telemetry)
    telemetry.add(DOCUMENTS_WRITTEN, 3, {"origin": "migration"})
    InstrumentSource(telemetry=telemetry, store=store, freshness=freshness, clock=clock).collect()
    (labels,) = store.series(
        [Matcher(operator=MatchOperator.EQUAL, name="__name__", value="firestore_documents_written_total")]
    )
    assert dict(labels)["job"] == "runbookd"
    clock.advance(7)
    assert freshness.ages() == {"instruments": 7.0}


def test_a_probe_that_fails_says_what_is_wrong_and_one_with_a_bug_too() -> None:
    """check() names the probes that failed; the others are fine."""

    def unreachable() -> None:
        raise Transient(TransientReason.UNAVAILABLE, "no answer")

    def bug() -> None:
        raise ZeroDivisionError("oops")

    telemetry, clock = quiet_telemetry(), ManualClock()
    runner = ProbeRunner(
        [Probe(name="good", run=lambda: None), Probe(name="bad", run=unreachable), Probe(name="bug", run=bug)],
        interval=1.0,
        clock=clock,
        telemetry=telemetry,
        freshness=Freshness(clock=clock, telemetry=telemetry),
    )
    problems = runner.check()
    assert set(problems) == {"bad", "bug"}
    assert problems["bad"] == "no answer"
    assert _gauges(telemetry, "runbookd_probe_success") == {("good",): 1.0, ("bad",): 0.0, ("bug",): 0.0}
