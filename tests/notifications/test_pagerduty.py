"""PagerDuty's page, through its real client, against a receiver that checks Events API v2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from agent.clock import ManualClock
from agent.faults import Misconfigured, Permanent, Transient, TransientReason
from agent.notifications import Composer, Kind, Message, Notification, PagerDutyChannel, Urgency
from agent.runbook import ChannelKind, Policy
from agent.sandbox.receivers import PagerDutyReceiver
from tests.notifications.conftest import MakeNotifier
from tests.notifications.scene import START, TRACE, alert

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def receiver() -> Iterator[PagerDutyReceiver]:
    with PagerDutyReceiver() as server:
        yield server


@pytest.fixture
def channel(receiver: PagerDutyReceiver) -> PagerDutyChannel:
    return PagerDutyChannel(
        routing_key=KEY,
        service="database-oncall",
        url=receiver.base_url,
        status_url="https://runbookd.example.com",
        timeout=5,
    )


@pytest.fixture
def notification(policy: Policy) -> Notification:
    composer = Composer(policy=policy, source="moshimoshi-prod", trace_url="https://traces.example.com/{trace_id}")
    firing = alert(matrix="error_rate", trace_id=TRACE)
    return Notification(
        id="n1",
        dedup_key="runbookd/moshimoshi-prod/(default)/error_rate",
        incident=3,
        sequence=1,
        channel=ChannelKind.PAGERDUTY,
        kind=Kind.TRIGGER,
        condition="error_rate",
        source="moshimoshi-prod",
        created_at=START,
        message=composer.firing((firing,), START + timedelta(seconds=2)),
    )


def test_a_trigger_is_accepted_with_all_that_the_person_needs(
    channel: PagerDutyChannel, receiver: PagerDutyReceiver, notification: Notification
) -> None:
    """Summary, severity, details and links arrive in the form that Events API v2 asks for."""
    receipt = channel.deliver(notification)
    [event] = receiver.received
    assert (event.status, event.action, event.errors) == (202, "trigger", ())
    assert receipt.reference == event.dedup_key == notification.dedup_key
    payload = event.body["payload"]
    assert payload["summary"] == "Error rate 8.2%, above 5% on moshimoshi-prod"
    assert payload["severity"] == "critical"
    assert payload["source"] == "moshimoshi-prod"
    assert payload["timestamp"] == "2026-03-05T08:10:00Z"
    assert payload["class"] == "error_rate"
    details = payload["custom_details"]
    assert details["Time budget"] == "5m"
    assert details["Runbook"] == "https://docs.example.com/runbook#error-rate"
    assert "Engineering Manager (within 15m)" in details["Escalation"]
    assert details["Trace"] == TRACE
    assert event.body["client_url"] == "https://runbookd.example.com"
    assert {link["text"]: link["href"] for link in event.body["links"]} == {
        "Runbook": "https://docs.example.com/runbook#error-rate",
        "Trace": f"https://traces.example.com/{TRACE}",
        "Status page": "https://status.moshimoshi.com",
    }


def test_trigger_update_and_resolve_are_one_alert(
    channel: PagerDutyChannel, receiver: PagerDutyReceiver, notification: Notification
) -> None:
    """Update goes out as another trigger under the key, and the resolve closes what the trigger opened."""
    channel.deliver(notification)
    channel.deliver(replace(notification, kind=Kind.UPDATE, sequence=2))
    assert receiver.open_alerts == {notification.dedup_key: "triggered"}
    channel.deliver(replace(notification, kind=Kind.RESOLVE, sequence=3))
    assert receiver.open_alerts == {}
    assert [event.fate for event in receiver.received] == ["accepted"] * 3


def test_a_change_is_a_change_event(
    channel: PagerDutyChannel, receiver: PagerDutyReceiver, notification: Notification
) -> None:
    """A migration's start goes to the endpoint that pages nobody."""
    message = Message(title="Migration r1 has started", action="", severity=Urgency.INFO, facts=(("Run", "r1"),))
    channel.deliver(replace(notification, kind=Kind.CHANGE, incident=0, sequence=0, message=message))
    [event] = receiver.received
    assert (event.action, event.status, event.summary) == ("change", 202, "Migration r1 has started")
    assert receiver.open_alerts == {}


@pytest.mark.parametrize(("status", "retry_after"), [(429, 17), (500, None), (503, 3)])
def test_busy_is_transient_and_says_when_to_come_back(
    channel: PagerDutyChannel,
    receiver: PagerDutyReceiver,
    notification: Notification,
    status: int,
    retry_after: int | None,
) -> None:
    """The client's own retrying, minutes long, is off: one request, one answer, Retry-After passed on."""
    receiver.fail_next(status, times=1, retry_after=retry_after)
    with pytest.raises(Transient) as raised:
        channel.deliver(notification)
    assert raised.value.retry_after == retry_after
    assert (raised.value.reason is TransientReason.RATE_LIMITED) == (status == 429)
    assert len(receiver.received) == 1


@pytest.mark.parametrize(("status", "error"), [(400, Permanent), (403, Misconfigured), (404, Misconfigured)])
def test_a_refusal_is_not_worth_another_try(
    channel: PagerDutyChannel,
    receiver: PagerDutyReceiver,
    notification: Notification,
    status: int,
    error: type[Exception],
) -> None:
    """4xx: the event or the key has to change."""
    receiver.fail_next(status)
    with pytest.raises(error, match=str(status)):
        channel.deliver(notification)


def test_a_routing_key_of_the_wrong_length_is_refused_with_the_vendors_words(
    receiver: PagerDutyReceiver, notification: Notification
) -> None:
    """What the vendor says about a bad request reaches the log and the other channel."""
    with pytest.raises(Permanent, match="routing_key"):
        PagerDutyChannel(routing_key="short", url=receiver.base_url).deliver(notification)


def test_a_vendor_that_is_not_there_is_transient(notification: Notification) -> None:
    """Connection refused is worth another try, and the client's own retries don't hold the worker up."""
    with PagerDutyReceiver() as gone:
        url = gone.base_url
    with pytest.raises(Transient, match="can't be reached"):
        PagerDutyChannel(routing_key=KEY, url=url).deliver(notification)


def test_plain_http_is_for_loopback_only() -> None:
    """A routing key doesn't travel in clear text."""
    with pytest.raises(Misconfigured, match="not https"):
        PagerDutyChannel(routing_key=KEY, url="http://events.example.com")


def test_a_very_long_message_still_arrives(
    channel: PagerDutyChannel, receiver: PagerDutyReceiver, notification: Notification
) -> None:
    """Limits of the API are kept by cutting, not by losing the page."""
    long = replace(notification.message, title="x" * 5000, facts=tuple((f"fact {n}", "y" * 50_000) for n in range(30)))
    channel.deliver(replace(notification, message=long, dedup_key="k" * 400))
    assert receiver.received[0].errors == ()


def test_from_alert_to_closed_page_over_the_wire(
    make: MakeNotifier, channel: PagerDutyChannel, receiver: PagerDutyReceiver, clock: ManualClock
) -> None:
    """The whole room against the wire: trigger, a 429, and the resolve, in order and under one key."""
    notifier = make(channel)
    notifier.alerts_changed((), (alert(),), clock.now())
    notifier.deliver_due()
    receiver.fail_next(429, retry_after=5)
    clock.advance(30)
    notifier.alerts_changed((), (), clock.now())
    notifier.deliver_due()
    assert list(receiver.open_alerts.values()) == ["triggered"]
    clock.advance(5)
    notifier.deliver_due()
    assert receiver.open_alerts == {}
    assert [event.action for event in receiver.received] == ["trigger", "resolve", "resolve"]
