"""What an incident needs: the pure table."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from agent.alerting import Alert, AlertState
from agent.notifications import Action, Incident, Urgency, needs_update
from agent.notifications.incidents import audible, by_condition, unsettled_conditions
from agent.runbook import ChannelKind
from tests.notifications.scene import START, alert

REPEAT = timedelta(hours=4)
CRITICAL = alert()
WARNING = alert("ErrorRateWarning", severity="warning")
MATRIX = alert("MatrixErrorRate", matrix="error_rate")
OPEN = Incident(
    number=1,
    condition="error_rate",
    dedup_key="runbookd/p/(default)/error_rate",
    opened_at=START,
    severity=Urgency.CRITICAL,
    title="Error rate",
    rules=frozenset({"ErrorRateCritical", "ErrorRateWarning"}),
    last_sent_at=START,
    sequence=1,
    channels=(ChannelKind.PAGERDUTY,),
)
MILD = replace(OPEN, severity=Urgency.WARNING, rules=frozenset({"ErrorRateWarning"}))
BLIND = alert(blind="no_data")


@pytest.mark.parametrize(
    ("incident", "firing", "later", "action", "reason"),
    [
        (None, (), 0, Action.NONE, "nothing fires"),
        (None, (CRITICAL,), 0, Action.TRIGGER, "first alert of this condition"),
        (MILD, (WARNING,), 60, Action.NONE, "nothing new"),
        (MILD, (WARNING, CRITICAL), 60, Action.TRIGGER, "severity rose from warning to critical"),
        (OPEN, (CRITICAL, WARNING), 60, Action.NONE, "nothing new"),
        (OPEN, (WARNING,), 60, Action.NONE, "nothing new"),
        (OPEN, (CRITICAL, MATRIX), 60, Action.UPDATE, "MatrixErrorRate fires too"),
        (OPEN, (BLIND,), 60, Action.UPDATE, "there is no data any more; the last state is kept"),
        (replace(OPEN, blind=True), (BLIND,), 60, Action.NONE, "nothing new"),
        (OPEN, (CRITICAL,), 4 * 3600 - 1, Action.NONE, "nothing new"),
        (OPEN, (CRITICAL,), 4 * 3600, Action.UPDATE, "still firing after 4h"),
        (OPEN, (), 60, Action.RESOLVE, "all alerts have ended"),
        (replace(OPEN, pins=("recovery x",)), (), 60, Action.NONE, "the alerts have ended; open because of recovery x"),
    ],
)
def test_what_an_incident_needs(
    incident: Incident | None, firing: tuple[Alert, ...], later: int, action: Action, reason: str
) -> None:
    """One row for each thing that can be new."""
    assert needs_update(incident, firing, START + timedelta(seconds=later), repeat=REPEAT) == (action, reason)


def test_a_warning_is_silent_while_its_critical_fires() -> None:
    """Inhibition: only the loudest alerts of a condition are heard."""
    assert audible((WARNING, CRITICAL, MATRIX)) == (CRITICAL, MATRIX)
    assert audible((WARNING,)) == (WARNING,)


def test_a_silenced_alert_opens_nothing_but_keeps_open_what_is_open() -> None:
    """Silencing stops notices; the resolve stays owed until the alert really ends."""
    hush = frozenset({CRITICAL.fingerprint})
    now = START + timedelta(days=1)
    assert needs_update(None, (CRITICAL,), now, repeat=REPEAT, silenced=hush)[0] is Action.NONE
    assert needs_update(OPEN, (CRITICAL,), now, repeat=REPEAT, silenced=hush)[0] is Action.NONE
    assert needs_update(OPEN, (), now, repeat=REPEAT, silenced=hush)[0] is Action.RESOLVE


def test_a_silenced_critical_lets_its_warning_speak() -> None:
    """What is silenced inhibits nothing."""
    hush = frozenset({CRITICAL.fingerprint})
    assert needs_update(None, (CRITICAL, WARNING), START, repeat=REPEAT, silenced=hush)[0] is Action.TRIGGER


def test_pending_alerts_are_no_incident_and_recovering_ones_still_are() -> None:
    """``for`` and ``keep_firing_for`` are respected: grouping takes firing and recovering alerts only."""
    states = {state: replace(CRITICAL, state=state, fingerprint=state) for state in AlertState}
    [group] = by_condition(states.values()).values()
    assert {member.state for member in group} == {AlertState.FIRING, AlertState.RECOVERING}


def test_the_end_waits_for_a_sibling_that_is_pending() -> None:
    """Over is not said while another alert of the condition is on its way; a blind one holds nothing back."""
    now = START + timedelta(minutes=5)
    assert needs_update(OPEN, (), now, repeat=REPEAT, unsettled=True)[0] is Action.NONE
    pending = replace(WARNING, state=AlertState.PENDING)
    assert unsettled_conditions([pending, CRITICAL]) == {"error_rate"}
    assert unsettled_conditions([replace(pending, blind="no_data"), CRITICAL]) == frozenset()
