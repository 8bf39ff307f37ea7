"""The outbox: order, patience, and what a crash leaves behind."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from agent.clock import ManualClock
from agent.faults import Misconfigured, MisconfiguredReason
from agent.notifications import DeliveryState, Kind, Notifier, Outbox, RetryPlan
from agent.runbook import ChannelKind
from agent.state import StateFile
from tests.notifications.conftest import MakeNotifier
from tests.notifications.scene import START, FakeChannel, Killed, alert, refused, unavailable


def fire(notifier: Notifier, clock: ManualClock) -> None:
    notifier.alerts_changed((), (alert(),), clock.now())


def clear(notifier: Notifier, clock: ManualClock) -> None:
    notifier.alerts_changed((), (), clock.now())


def test_killed_after_the_vendor_took_it_it_is_sent_again_with_the_same_key(
    make: MakeNotifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """At least once: a crash before the receipt repeats the very same notification, id and all."""
    first = make()
    fire(first, clock)
    pager.plan.append(Killed())
    with pytest.raises(Killed):
        first.deliver_due()
    second = make()
    assert second.pending() == {ChannelKind.PAGERDUTY: 1}
    second.deliver_due()
    assert len(pager.taken) == 2
    assert pager.taken[0] == pager.taken[1]
    assert second.pending() == {}


def test_killed_before_anything_was_sent_nothing_is_lost(
    make: MakeNotifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """The page is on disk before it goes out: the next process sends it."""
    fire(make(), clock)
    make().deliver_due()
    assert pager.kinds == [Kind.TRIGGER]


def test_killed_while_writing_neither_the_incident_nor_its_page_is_there(
    make: MakeNotifier, state: StateFile, clock: ManualClock, pager: FakeChannel
) -> None:
    """Incident and page share a transaction; what didn't commit is opened anew at the next pass, once."""
    dying = make(file=state)
    with pytest.raises(Killed), state.transaction():
        fire(dying, clock)
        raise Killed
    after = make()
    assert (after.incidents(), dict(after.pending())) == ((), {})
    fire(after, clock)
    after.deliver_due()
    assert pager.kinds == [Kind.TRIGGER]


def test_a_failed_transaction_leaves_memory_as_the_disk_is(
    make: MakeNotifier, state: StateFile, clock: ManualClock
) -> None:
    """The process that survives a failed write (a full disk) tries again at the next pass."""
    notifier = make(file=state)
    state.query("SELECT 1")
    with state.transaction() as tx:
        tx.execute("CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(Exception, match="disk full"):
        fire(notifier, clock)
    assert notifier.incidents() == ()
    with state.transaction() as tx:
        tx.execute("DROP TRIGGER full")
    fire(notifier, clock)
    assert len(notifier.incidents()) == 1


def test_a_resolve_waits_behind_its_trigger(notifier: Notifier, clock: ManualClock, pager: FakeChannel) -> None:
    """While the trigger is being retried the resolve is not even tried; then both go out in order."""
    pager.plan.extend([unavailable()] * 3)
    fire(notifier, clock)
    notifier.deliver_due()
    clock.advance(0.1)
    clear(notifier, clock)
    notifier.deliver_due()
    assert pager.attempts == 1
    for _ in range(5):
        clock.advance(10)
        notifier.deliver_due()
    assert pager.kinds == [Kind.TRIGGER, Kind.RESOLVE]


def test_the_next_incident_waits_behind_the_resolve_of_the_one_before(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """One key for a condition: a late resolve of the first incident must not close the second."""
    fire(notifier, clock)
    notifier.deliver_due()
    pager.plan.append(unavailable(retry_after=60))
    clear(notifier, clock)
    notifier.deliver_due()
    clock.advance(5)
    fire(notifier, clock)
    notifier.deliver_due()
    assert pager.kinds == [Kind.TRIGGER]
    clock.advance(60)
    notifier.deliver_due()
    assert pager.kinds == [Kind.TRIGGER, Kind.RESOLVE, Kind.TRIGGER]
    assert [item.incident for item in pager.taken] == [1, 1, 2]
    assert len({item.dedup_key for item in pager.taken}) == 1


def test_one_condition_in_trouble_does_not_hold_up_another(
    notifier: Notifier, clock: ManualClock, slack: FakeChannel
) -> None:
    """Order is kept within a key, not across keys."""
    slack.plan.append(unavailable())
    rate = alert("WriteRate", metric="document_write_rate", value=2100)
    notifier.alerts_changed((), (rate,), clock.now())
    notifier.deliver_due()
    latency = alert("Latency", metric="query_latency_p95", condition="query_latency", value=0.64)
    notifier.alerts_changed((), (rate, latency), clock.now())
    notifier.deliver_due()
    assert [item.condition for item in slack.taken] == ["query_latency"]


def test_retry_after_is_honoured(notifier: Notifier, clock: ManualClock, pager: FakeChannel) -> None:
    """A vendor that asks for 30 seconds is left alone for 30 seconds."""
    pager.plan.append(unavailable(retry_after=30))
    fire(notifier, clock)
    notifier.deliver_due()
    clock.advance(29)
    notifier.deliver_due()
    assert pager.attempts == 1
    clock.advance(1)
    notifier.deliver_due()
    assert pager.attempts == 2


def test_waits_double_up_to_a_limit_and_are_uneven() -> None:
    """1, 2, 4 ... 300 seconds, each shortened by up to half; Retry-After counts up to a quarter of an hour."""
    plan, chance = RetryPlan(), random.Random(7)
    for attempt in range(1, 71):
        full = min(2 ** (attempt - 1), 300)
        waits = [plan.wait(attempt, None, chance).total_seconds() for _ in range(20)]
        assert full / 2 <= min(waits) < max(waits) <= full
    assert plan.wait(1, 120, chance) == timedelta(seconds=120)
    assert plan.wait(1, 1e9, chance) == timedelta(minutes=15)


def test_a_permanent_refusal_is_recorded_and_told_elsewhere(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel, slack: FakeChannel, mail: FakeChannel
) -> None:
    """PagerDuty says 400: not tried again; the others hear that nobody was paged, and get their resolve later."""
    pager.plan.append(refused())
    fire(notifier, clock)
    notifier.deliver_due()
    assert pager.attempts == 1
    [failed] = [item for item in notifier.deliveries() if item.channel is ChannelKind.PAGERDUTY]
    assert (failed.state, failed.attempts) == (DeliveryState.FAILED, 1)
    assert "400" in failed.error
    assert slack.kinds == mail.kinds == [Kind.TRIGGER]
    assert slack.titles[0].startswith("pagerduty (pagerduty people) could not be told: Error rate 8.2%")
    clock.advance(30)
    clear(notifier, clock)
    notifier.deliver_due()
    assert slack.kinds == [Kind.TRIGGER, Kind.RESOLVE]


def test_a_wrong_key_is_not_retried(notifier: Notifier, clock: ManualClock, pager: FakeChannel) -> None:
    """Misconfigured is permanent until somebody changes it."""
    pager.plan.append(Misconfigured(MisconfiguredReason.CREDENTIALS, "PagerDuty answered 403"))
    fire(notifier, clock)
    clock.advance(3600)
    notifier.deliver_due()
    assert pager.attempts == 1


def test_a_vendor_that_stays_away_is_reported_early_and_given_up_late(
    make: MakeNotifier, clock: ManualClock, pager: FakeChannel, slack: FakeChannel
) -> None:
    """After 3 attempts others are told, within the minute; after 6 it is recorded as failed and told again."""
    notifier = make(pager, slack, plan=RetryPlan(attempts=6, report_after=3))
    pager.plan.extend([unavailable()] * 100)
    fire(notifier, clock)
    for _ in range(10):
        notifier.deliver_due()
        clock.advance(2)
    assert [title.partition(":")[0] for title in slack.titles] == [
        "pagerduty (pagerduty people) has not been reached so far"
    ]
    for _ in range(200):
        notifier.deliver_due()
        clock.advance(10)
    assert pager.attempts == 6
    told = [title.partition(":")[0] for title in slack.titles]
    assert told[1:] == ["pagerduty (pagerduty people) could not be told"]


def test_a_report_that_fails_is_not_reported(
    make: MakeNotifier, clock: ManualClock, pager: FakeChannel, slack: FakeChannel
) -> None:
    """With every vendor down the channels don't talk about each other for ever."""
    notifier = make(pager, slack)
    pager.plan.extend([refused()] * 50)
    slack.plan.extend([refused()] * 50)
    fire(notifier, clock)
    notifier.deliver_due()
    assert (pager.attempts, slack.attempts) == (1, 1)


def test_an_unknown_error_of_a_vendors_package_costs_one_attempt(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """A bug in a library neither kills the worker nor loses the page."""
    pager.plan.append(ZeroDivisionError("in somebody's parser"))
    fire(notifier, clock)
    notifier.deliver_due()
    clock.advance(5)
    notifier.deliver_due()
    assert pager.kinds == [Kind.TRIGGER]


def test_a_wall_clock_set_back_by_a_day_does_not_hold_pages_back(
    notifier: Notifier, clock: ManualClock, pager: FakeChannel
) -> None:
    """A retry scheduled by a clock that was a day ahead is due at once."""
    clock.jump(86_400)
    pager.plan.append(unavailable())
    fire(notifier, clock)
    notifier.deliver_due()
    clock.jump(-86_400)
    notifier.deliver_due()
    assert pager.kinds == [Kind.TRIGGER]


def test_what_waited_for_a_channel_that_is_gone_is_told_to_the_others(
    make: MakeNotifier, clock: ManualClock, pager: FakeChannel, slack: FakeChannel
) -> None:
    """The routing key was removed from the settings while a page waited."""
    pager.plan.append(unavailable())
    before = make(pager, slack)
    fire(before, clock)
    before.deliver_due()
    after = make(slack)
    assert ChannelKind.PAGERDUTY not in after.pending()
    after.deliver_due()
    assert "could not be told" in slack.titles[0]


def test_old_deliveries_are_forgotten_and_waiting_ones_never(
    make: MakeNotifier, state: StateFile, clock: ManualClock, pager: FakeChannel
) -> None:
    """After 90 days receipts go; a page that still waits stays."""
    notifier = make()
    fire(notifier, clock)
    notifier.deliver_due()
    pager.plan.append(unavailable(retry_after=900))
    clear(notifier, clock)
    notifier.deliver_due()
    clock.advance(91 * 86_400)
    assert [entry.state for entry in Outbox(state).entries()] == [DeliveryState.DELIVERED, DeliveryState.PENDING]
    make()
    assert [entry.state for entry in Outbox(state).entries()] == [DeliveryState.PENDING]


def test_every_delivery_says_when_it_arrived(notifier: Notifier, clock: ManualClock) -> None:
    """The timeline gets written, delivered and latency for each channel."""
    fire(notifier, clock)
    clock.advance(1.5)
    notifier.deliver_due()
    [page] = notifier.deliveries()
    assert (page.created_at, page.delivered_at) == (START, START + timedelta(seconds=1.5))
    assert page.latency == timedelta(seconds=1.5)
    assert page.target == "pagerduty people"
    assert page.receipt.startswith("receipt-")
