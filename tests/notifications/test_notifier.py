"""Journeys: what people hear, when, and what they never hear."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from agent.alerting import Alert, AlertState
from agent.clock import ManualClock
from agent.notifications import RECOVERY, Kind, Notifier, Urgency
from agent.runbook import ChannelKind
from tests.notifications.conftest import MakeNotifier
from tests.notifications.scene import START, TRACE, FakeChannel, alert

WARNING = alert("ErrorRateWarning", severity="warning", value=0.007)
CRITICAL = alert("ErrorRateCritical", value=0.03)
MATRIX = alert("MatrixErrorRate", matrix="error_rate", value=0.082, trace_id=TRACE)


def tick(notifier: Notifier, clock: ManualClock, *active: Alert, changes: tuple[Alert, ...] = ()) -> None:
    notifier.alerts_changed(changes, active, clock.now())
    notifier.deliver_due()


def test_a_bad_migration_from_the_first_warning_to_the_resolve(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel, slack: FakeChannel, mail: FakeChannel
) -> None:
    """At 0s a warning pages; at 5s it is critical; at 10s the matrix row fires and Slack joins; at 11s the rollback
    starts; at 52s it is done; at 60s all is over: one key, one resolve a channel, and e-mail, which the page doesn't
    name for error rates, hears nothing."""
    tick(notifier, clock, WARNING)
    clock.advance(5)
    tick(notifier, clock, WARNING, CRITICAL)
    clock.advance(5)
    tick(notifier, clock, WARNING, CRITICAL, MATRIX)
    clock.advance(1)
    notifier.recovery_started("rec-1", "Rollback of run r1 has started", {"budget": "5m"}, condition="error_rate")
    clock.advance(41)
    notifier.recovery_ended(
        "rec-1", "Rollback of run r1 is done: 18,210 documents undone in 41s", condition="error_rate"
    )
    clock.advance(8)
    tick(notifier, clock)
    page = [item for item in pager.taken if item.kind is not Kind.CHANGE]
    assert [item.kind for item in page] == [
        Kind.TRIGGER,
        Kind.TRIGGER,
        Kind.UPDATE,
        Kind.UPDATE,
        Kind.UPDATE,
        Kind.RESOLVE,
    ]
    assert [item.message.title for item in pager.taken if item.kind is Kind.CHANGE] == [
        "Rollback of run r1 has started",
        "Rollback of run r1 is done: 18,210 documents undone in 41s",
    ]
    assert slack.kinds == [Kind.TRIGGER, Kind.UPDATE, Kind.UPDATE, Kind.RESOLVE]
    assert mail.taken == []
    assert {item.dedup_key for item in page + slack.taken} == {"runbookd/moshimoshi-prod/(default)/error_rate"}
    assert [item.message.severity for item in page][:2] == [Urgency.WARNING, Urgency.CRITICAL]
    end = pager.taken[-1].message
    assert end.title.endswith("over after 1m")
    assert end.action == "Rollback of run r1 is done: 18,210 documents undone in 41s"
    assert notifier.incidents() == ()


def test_an_incident_that_eases_and_worsens_again_is_no_new_page(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """Critical, warning, critical: one trigger, no noise between."""
    for active in ((CRITICAL,), (WARNING,), (CRITICAL,), (WARNING, CRITICAL)):
        tick(notifier, clock, *active)
        clock.advance(30)
    assert pager.kinds == [Kind.TRIGGER]


def test_pass_after_pass_nothing_is_repeated_until_it_is_due(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """Every second for a while, then once more after four hours, with how long it has been going on."""
    for _ in range(60):
        tick(notifier, clock, CRITICAL)
        clock.advance(1)
    assert pager.kinds == [Kind.TRIGGER]
    clock.advance(4 * 3600 - 60)
    tick(notifier, clock, CRITICAL)
    assert pager.kinds == [Kind.TRIGGER, Kind.UPDATE]
    assert pager.taken[-1].message.action.startswith("Still firing after 4h.")


def test_a_condition_that_comes_back_is_a_new_incident_under_the_old_key(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """PagerDuty opens a new incident for a trigger after a resolve; the number tells them apart for people."""
    for active in ((CRITICAL,), (), (CRITICAL,)):
        tick(notifier, clock, *active)
        clock.advance(60)
    assert [(item.kind, item.incident) for item in pager.taken] == [
        (Kind.TRIGGER, 1),
        (Kind.RESOLVE, 1),
        (Kind.TRIGGER, 2),
    ]
    assert len({item.dedup_key for item in pager.taken}) == 1


def test_silenced_after_the_page_the_resolve_still_comes(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel, silenced: set[str]
) -> None:
    """Nobody is left with a page that stays open for ever because somebody pressed silence."""
    tick(notifier, clock, CRITICAL)
    silenced.add(CRITICAL.fingerprint)
    clock.advance(5 * 3600)
    tick(notifier, clock, CRITICAL)
    assert pager.kinds == [Kind.TRIGGER]
    tick(notifier, clock)
    assert pager.kinds == [Kind.TRIGGER, Kind.RESOLVE]


def test_silenced_from_the_start_nobody_is_told(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel, silenced: set[str]
) -> None:
    """No trigger, no resolve; when the silence ends while it still fires, the trigger comes."""
    silenced.add(CRITICAL.fingerprint)
    tick(notifier, clock, CRITICAL)
    assert pager.taken == []
    silenced.clear()
    tick(notifier, clock, CRITICAL)
    assert pager.kinds == [Kind.TRIGGER]


def test_the_rule_vanished_while_the_process_was_down(
    make: MakeNotifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """Paged, killed, restarted with rules that no longer have it: the resolve is sent at the first pass."""
    tick(make(), clock, CRITICAL)
    clock.advance(60)
    tick(make(), clock)
    assert pager.kinds == [Kind.TRIGGER, Kind.RESOLVE]


def test_a_restart_neither_pages_again_nor_forgets(make: MakeNotifier, clock: ManualClock, pager: FakeChannel) -> None:
    """What people were told is on disk: the same alert after a restart is nothing new."""
    tick(make(), clock, CRITICAL)
    clock.advance(60)
    after = make()
    tick(after, clock, CRITICAL)
    assert pager.kinds == [Kind.TRIGGER]
    assert after.incidents()[0].opened_at == START


def test_the_resolve_says_when_the_alert_really_ended(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """The alert's own end counts, not the pass that saw it."""
    tick(notifier, clock, CRITICAL)
    ended = START + timedelta(seconds=90)
    clock.advance(95)
    gone = replace(CRITICAL, state=AlertState.RESOLVED, resolved_at=ended)
    tick(notifier, clock, changes=(gone,))
    assert pager.taken[-1].message.title.endswith("over after 1m30s")
    assert pager.taken[-1].message.action == "It went away without runbookd changing anything."


def test_blindness_of_a_firing_alert_is_told_and_resolves_nothing(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """No data any more: an update says so, once, and the incident stays open."""
    tick(notifier, clock, CRITICAL)
    for _ in range(3):
        clock.advance(10)
        tick(notifier, clock, replace(CRITICAL, blind="no_data"))
    assert pager.kinds == [Kind.TRIGGER, Kind.UPDATE]
    assert ("Blind", "ErrorRateCritical has no data; its last state is kept") in pager.taken[-1].message.facts


def test_a_note_louder_than_its_incident_pages_again(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """A critical decision on a warning incident is a trigger."""
    tick(notifier, clock, WARNING)
    notifier.note("error_rate", "No automatic rollback: a person has to decide", "critical", {"why": "little traffic"})
    notifier.deliver_due()
    assert pager.kinds == [Kind.TRIGGER, Kind.TRIGGER]
    assert pager.taken[-1].message.severity is Urgency.CRITICAL
    assert ("Why", "little traffic") in pager.taken[-1].message.facts


def test_a_note_without_an_incident_is_a_change_that_calls_nobody(
    notifier: Notifier, pager: FakeChannel, slack: FakeChannel, mail: FakeChannel
) -> None:
    """A migration started: PagerDuty gets a change event, Slack a line, nobody a page."""
    notifier.change("r1", "Migration 0001_schema_v2 has started", {"run": "r1"})
    notifier.note("error_rate", "Rollback of run r1 was started by ana")
    notifier.deliver_due()
    assert pager.kinds == slack.kinds == [Kind.CHANGE, Kind.CHANGE]
    assert mail.taken == []


def test_a_stuck_recovery_has_a_page_of_its_own_until_it_ends(
    make: MakeNotifier, clock: ManualClock, pager: FakeChannel, slack: FakeChannel
) -> None:
    """At 0s the alert pages; at 60s the recovery is stuck and pages under its own key, though the first may be
    acknowledged; the alert ending doesn't close it, nor does a restart; at 300s the recovery ends and it closes."""
    notifier = make()
    tick(notifier, clock, MATRIX)
    clock.advance(60)
    for _ in range(3):
        notifier.recovery_stuck(
            "rec-1", "Rollback of run r1 is stuck at 'maintenance off'", {"error": "x"}, condition="error_rate"
        )
    tick(notifier, clock, MATRIX)
    stuck = [item for item in pager.taken if item.condition == RECOVERY]
    assert [item.kind for item in stuck] == [Kind.TRIGGER]
    assert stuck[0].dedup_key == "runbookd/moshimoshi-prod/(default)/recovery"
    assert "Maintenance mode stays on" in stuck[0].message.action
    assert [item.kind for item in pager.taken if item.condition == "error_rate"] == [Kind.TRIGGER, Kind.UPDATE]
    clock.advance(60)
    tick(notifier, clock)
    restarted = make()
    tick(restarted, clock)
    assert [incident.condition for incident in restarted.incidents()] == [RECOVERY]
    clock.advance(180)
    restarted.recovery_ended("rec-1", "Rollback of run r1 was finished by mei", condition="error_rate")
    restarted.deliver_due()
    stuck = [item for item in pager.taken if item.condition == RECOVERY]
    assert [item.kind for item in stuck] == [Kind.TRIGGER, Kind.RESOLVE]
    assert stuck[-1].message.action == "Rollback of run r1 was finished by mei"
    assert [item.kind for item in slack.taken if item.condition == RECOVERY] == [Kind.TRIGGER, Kind.RESOLVE]


@pytest.mark.parametrize("cured", [True, False])
def test_the_cure_is_named_only_if_it_was_one(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel, cured: bool
) -> None:
    """A failed recovery doesn't take credit for an incident that went away by itself."""
    tick(notifier, clock, MATRIX)
    notifier.recovery_ended("rec-1", "Rollback of run r1 gave up", condition="error_rate", cured=cured)
    tick(notifier, clock)
    assert (pager.taken[-1].message.action == "Rollback of run r1 gave up") is cured


def test_a_page_for_a_channel_that_nobody_configured_goes_to_those_there_are(
    make: MakeNotifier, clock: ManualClock, mail: FakeChannel
) -> None:
    """Error rates go to PagerDuty; without it e-mail gets the page, says so, and the gap is on record."""
    notifier = make(mail)
    tick(notifier, clock, CRITICAL)
    tick(notifier, clock)
    assert mail.kinds == [Kind.TRIGGER, Kind.RESOLVE]
    assert ("Not reached", "pagerduty: not configured") in mail.taken[0].message.facts
    [missed] = [item for item in notifier.deliveries() if item.channel is ChannelKind.PAGERDUTY]
    assert (missed.state, missed.error, missed.target) == (
        "failed",
        "this channel is not configured",
        "not configured",
    )


def test_conditions_are_told_apart(notifier: Notifier, clock: ManualClock, slack: FakeChannel) -> None:
    """Latency of a threshold and of the matrix are one incident; errors are another."""
    latency = alert("Latency", metric="query_latency_p95", condition="query_latency", value=0.64)
    slow = alert("MatrixSlow", matrix="performance_degradation", condition="query_latency", value=0.7)
    tick(notifier, clock, latency, slow, MATRIX)
    assert sorted(incident.condition for incident in notifier.incidents()) == ["error_rate", "query_latency"]
    assert len({item.dedup_key for item in slack.taken}) == 2


def test_an_acknowledged_alert_is_not_repeated_but_ends_aloud(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel, acknowledged: set[str]
) -> None:
    """At 1s somebody takes the warning in hand; after a day there was no reminder, a worse alert pages, and the end
    is told."""
    tick(notifier, clock, WARNING)
    clock.advance(1)
    acknowledged.add(WARNING.fingerprint)
    clock.advance(24 * 3600)
    tick(notifier, clock, WARNING)
    assert pager.kinds == [Kind.TRIGGER]
    tick(notifier, clock, WARNING, CRITICAL)
    assert pager.kinds == [Kind.TRIGGER, Kind.TRIGGER]
    tick(notifier, clock)
    assert pager.kinds == [Kind.TRIGGER, Kind.TRIGGER, Kind.RESOLVE]
