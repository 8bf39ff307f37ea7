"""Slack's page, through slack_sdk, against a receiver that checks Block Kit's limits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from agent.faults import Misconfigured, Permanent, Transient
from agent.notifications import Composer, Kind, Message, Notification, SlackChannel, Urgency
from agent.runbook import ChannelKind, Policy
from agent.sandbox.receivers import SlackReceiver
from tests.notifications.scene import START, alert


@pytest.fixture
def receiver() -> Iterator[SlackReceiver]:
    with SlackReceiver() as server:
        yield server


@pytest.fixture
def channel(receiver: SlackReceiver) -> SlackChannel:
    return SlackChannel(webhook_url=receiver.url, channel="#deployment-war-room", timeout=5)


@pytest.fixture
def notification(policy: Policy) -> Notification:
    composer = Composer(policy=policy, source="moshimoshi-prod")
    return Notification(
        id="n1",
        dedup_key="runbookd/moshimoshi-prod/(default)/error_rate",
        incident=3,
        sequence=1,
        channel=ChannelKind.SLACK,
        kind=Kind.TRIGGER,
        condition="error_rate",
        source="moshimoshi-prod",
        created_at=START,
        message=composer.firing((alert(matrix="error_rate"),), START + timedelta(seconds=2)),
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.TRIGGER, "CRITICAL: Error rate 8.2%, above 5% on moshimoshi-prod"),
        (Kind.UPDATE, "UPDATE (critical): Error rate 8.2%, above 5% on moshimoshi-prod"),
        (Kind.RESOLVE, "RESOLVED: Error rate 8.2%, above 5% on moshimoshi-prod"),
        (Kind.CHANGE, "Error rate 8.2%, above 5% on moshimoshi-prod"),
    ],
)
def test_each_kind_is_posted_with_its_headline(
    channel: SlackChannel, receiver: SlackReceiver, notification: Notification, kind: Kind, text: str
) -> None:
    """The text that a phone shows says at once what it is."""
    channel.deliver(replace(notification, kind=kind))
    [post] = receiver.received
    assert (post.status, post.error, post.text) == (200, "", text)


def test_the_blocks_show_action_figures_and_links(
    channel: SlackChannel, receiver: SlackReceiver, notification: Notification
) -> None:
    """Header, what happens now, the facts, and where to look, with Slack's special characters escaped."""
    channel.deliver(notification)
    header, action, facts, context = receiver.received[0].body["blocks"]
    assert header["text"]["text"].startswith("CRITICAL: Error rate")
    assert "rolls the migration under watch back within 5m" in action["text"]["text"]
    assert "*Runbook's limit:* &gt;5%" in facts["text"]["text"]
    assert "<https://docs.example.com/runbook#error-rate|Runbook>" in context["elements"][0]["text"]
    assert "incident 3, message 1" in context["elements"][0]["text"]


def test_markup_in_a_message_stays_text(
    channel: SlackChannel, receiver: SlackReceiver, notification: Notification
) -> None:
    """Nobody is mentioned by a document's name that happens to read <!channel>."""
    message = Message(title="<!channel> & co", action="a < b", severity=Urgency.INFO)
    channel.deliver(replace(notification, message=message))
    body = receiver.received[0].body
    assert body["text"] == "INFO: &lt;!channel&gt; &amp; co"
    assert body["blocks"][1]["text"]["text"] == "a &lt; b"


def test_a_very_long_message_is_cut_to_slacks_limits(
    channel: SlackChannel, receiver: SlackReceiver, notification: Notification
) -> None:
    """Too long is cut, not refused."""
    message = Message(
        title="<" * 5000,
        action="&" * 5000,
        severity=Urgency.CRITICAL,
        facts=tuple((f"fact {n}", "y" * 5000) for n in range(60)),
        links=tuple((f"link {n}", "https://example.com/" + "z" * 200) for n in range(60)),
    )
    channel.deliver(replace(notification, message=message))
    assert receiver.received[0].error == ""


def test_busy_and_refused_are_told_apart(
    channel: SlackChannel, receiver: SlackReceiver, notification: Notification
) -> None:
    """429 with its Retry-After, 5xx, 400 and 404, one request each."""
    receiver.fail_next(429, retry_after=11)
    with pytest.raises(Transient) as busy:
        channel.deliver(notification)
    assert busy.value.retry_after == 11
    receiver.fail_next(502)
    with pytest.raises(Transient):
        channel.deliver(notification)
    receiver.fail_next(400)
    with pytest.raises(Permanent):
        channel.deliver(notification)
    receiver.fail_next(404)
    with pytest.raises(Misconfigured):
        channel.deliver(notification)
    assert len(receiver.received) == 4


def test_nobody_there_is_transient_and_the_webhook_stays_secret(
    notification: Notification, caplog: pytest.LogCaptureFixture
) -> None:
    """The address is the credential: it is neither in the error nor in any log, not even at DEBUG."""
    with SlackReceiver() as gone:
        url = gone.url
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Transient) as raised:
        SlackChannel(webhook_url=url, timeout=2).deliver(notification)
    assert "services/T00000000" not in str(raised.value)
    assert "services/T00000000" not in caplog.text


def test_an_address_without_tls_is_refused() -> None:
    """Neither http nor something that is no address."""
    for url in ("http://hooks.example.com/services/T/B/X", "hooks"):
        with pytest.raises(Misconfigured, match="webhook_url"):
            SlackChannel(webhook_url=url)
