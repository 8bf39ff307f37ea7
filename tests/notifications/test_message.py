"""What people read: the first line, the second line, the figures."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agent.alerting import Alert
from agent.notifications import Composer
from agent.runbook import Policy
from tests.notifications.scene import START, TRACE, alert

NOW = START + timedelta(seconds=42)


@pytest.fixture(scope="module")
def composer(policy: Policy) -> Composer:
    return Composer(
        policy=policy,
        source="moshimoshi-prod",
        status_url="https://runbookd.example.com",
        trace_url="https://traces.example.com/{trace_id}",
    )


@pytest.mark.parametrize(
    ("firing", "title"),
    [
        (alert(value=0.082), "Error rate 8.2%, above 1% on moshimoshi-prod"),
        (alert(severity="warning", value=0.0071), "Error rate 0.71%, above 0.5% on moshimoshi-prod"),
        (alert(matrix="error_rate", value=0.6), "Error rate 60%, above 5% on moshimoshi-prod"),
        (
            alert(metric="query_latency_p95", condition="query_latency", value=0.64),
            "Query latency (p95) 640ms, above 500ms on moshimoshi-prod",
        ),
        (
            alert(metric="document_write_rate", value=2150.4),
            "Document write rate 2,150/s, above 2000/s on moshimoshi-prod",
        ),
        (
            alert(metric="backup_failure", value=2),
            "Backup failure: 2 (limit 2 consecutive) on moshimoshi-prod",
        ),
        (alert(metric="storage_usage", value=0.913), "Storage usage 91.3%, above 90% on moshimoshi-prod"),
        (
            alert(matrix="data_corruption", value=3, summary="3 documents differ from what was written"),
            "3 documents differ from what was written on moshimoshi-prod",
        ),
        (alert(matrix="data_corruption", value=3), "Data corruption on moshimoshi-prod"),
        (alert("RuleLoopLate", metric="none", condition="agent_health"), "Agent health on moshimoshi-prod"),
    ],
)
def test_the_title_says_what_and_how_bad(composer: Composer, firing: Alert, title: str) -> None:
    """Every row of the page's tables, with its units, and what has no row."""
    assert composer.firing((firing,), NOW).title == title


@pytest.mark.parametrize(
    ("firing", "action"),
    [
        (
            alert(matrix="error_rate"),
            "runbookd rolls the migration under watch back within 5m if the evidence allows it; what it decides is "
            "said here.",
        ),
        (
            alert(matrix="missing_indexes", severity="warning"),
            "The runbook says: fix forward within 15m. runbookd rolls nothing back for this.",
        ),
        (alert(), "runbookd changes nothing at this level; follow the runbook."),
    ],
)
def test_the_second_line_says_what_happens_now(composer: Composer, firing: Alert, action: str) -> None:
    """By the matrix's action, or that nothing is done by itself."""
    assert composer.firing((firing,), NOW).action == action


def test_the_facts_carry_figures_budget_escalation_and_trace(composer: Composer) -> None:
    """Everything the person needs next, in the order in which it is needed."""
    message = composer.firing((alert(matrix="error_rate", trace_id=TRACE, query="user_lookup"),), NOW)
    facts = dict(message.facts)
    assert facts["Measured"] == "8.2%"
    assert facts["Runbook's limit"] == ">5%"
    assert facts["Since"] == "08:10:00 UTC (42s ago)"
    assert facts["About"] == "query=user_lookup"
    assert facts["Time budget"] == "5m"
    assert facts["Runbook"] == "https://docs.example.com/runbook#error-rate"
    assert facts["Escalation"] == (
        "Database Specialist (at once), then DevOps Commander (within 5m), then SRE (within 5m), "
        "then Engineering Manager (within 15m)"
    )
    assert facts["Trace"] == TRACE
    assert message.links == (
        ("Runbook", "https://docs.example.com/runbook#error-rate"),
        ("Trace", f"https://traces.example.com/{TRACE}"),
        ("runbookd", "https://runbookd.example.com"),
        ("Status page", "https://status.moshimoshi.com"),
    )


def test_an_incident_is_told_by_its_matrix_alert(composer: Composer) -> None:
    """Of equally loud alerts the one that something is decided on leads; quieter ones aren't mentioned."""
    threshold, matrix = alert("ErrorRateCritical"), alert("MatrixErrorRate", matrix="error_rate", value=0.1)
    warning = alert("ErrorRateWarning", severity="warning")
    message = composer.firing((warning, threshold, matrix), NOW)
    assert message.title.startswith("Error rate 10%, above 5%")
    assert dict(message.facts)["Also firing"] == "ErrorRateCritical"


def test_messages_stay_calm(composer: Composer) -> None:
    """No shouting, and no sentence that needs a second reading at night."""
    message = composer.firing((alert(matrix="data_corruption"),), NOW)
    text = " ".join((message.title, message.action, *(value for _, value in message.facts)))
    assert "!" not in text
    assert len(message.title) < 100
