"""Who is told: the page's channel column, and what happens where it can't be followed."""

from __future__ import annotations

import pytest

from agent.alerting import Alert
from agent.notifications import Route, problems, route
from agent.runbook import ChannelKind, Policy
from tests.notifications.scene import alert

SLACK, PAGER, MAIL = ChannelKind.SLACK, ChannelKind.PAGERDUTY, ChannelKind.EMAIL
ALL = (SLACK, PAGER, MAIL)


@pytest.mark.parametrize(
    ("firing", "channels"),
    [
        ((alert(metric="query_latency_p95"),), (SLACK, PAGER)),
        ((alert(metric="error_rate", severity="warning"),), (PAGER,)),
        ((alert(metric="document_write_rate"),), (SLACK,)),
        ((alert(metric="backup_failure"),), (SLACK, MAIL)),
        ((alert(metric="storage_usage"),), (MAIL,)),
        ((alert(matrix="error_rate"),), (SLACK, PAGER)),
        ((alert(matrix="data_corruption"),), (SLACK, PAGER)),
        ((alert(matrix="lost_backups", condition="backup_failure"),), ALL),
        ((alert("RuleLoopLate", metric="none"),), (SLACK, PAGER)),
        ((alert(metric="error_rate"), alert(metric="storage_usage")), (PAGER, MAIL)),
    ],
)
def test_the_channel_column_decides(
    policy: Policy, firing: tuple[Alert, ...], channels: tuple[ChannelKind, ...]
) -> None:
    """Thresholds by their row, the matrix and the agent itself to PagerDuty and the war room, several by union."""
    assert set(route(firing, policy, ALL).channels) == set(channels)
    assert route(firing, policy, ALL).missing == ()


def test_what_is_not_configured_is_named_and_replaced(policy: Policy) -> None:
    """A missing channel is reported; if none of the wanted is there, everything that is there is used."""
    latency = (alert(metric="query_latency_p95"),)
    assert route(latency, policy, (SLACK,)) == Route(channels=(SLACK,), missing=(PAGER,))
    errors = (alert(metric="error_rate"),)
    assert route(errors, policy, (SLACK, MAIL)) == Route(channels=(SLACK, MAIL), missing=(PAGER,))
    assert route(errors, policy, ()) == Route(channels=(), missing=(PAGER,))


def test_check_names_every_channel_that_the_page_relies_on(policy: Policy) -> None:
    """``runbookd check`` says which rows would go unheard and which setting is missing."""
    assert problems(policy, ALL) == ()
    found = "\n".join(problems(policy, (SLACK,)))
    assert "Query latency (p95), Error rate, the decision matrix to PagerDuty" in found
    assert "notifications.pagerduty.routing_key" in found
    assert "Backup failure, Storage usage to e-mail" in found
    assert "nobody would be told" in problems(policy, ())[-1]
