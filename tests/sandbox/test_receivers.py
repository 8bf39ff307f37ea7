"""The receivers, spoken to by the real client libraries."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import httpx
import pagerduty
import pytest
from slack_sdk.webhook import WebhookClient

from agent.clock import ManualClock
from agent.faults import Transient, TransientReason
from agent.sandbox.mail import MailReceiver
from agent.sandbox.receivers import Fate, PagerDutyReceiver, SlackReceiver

ROUTING_KEY = "0123456789abcdef0123456789abcdef"
STAMP = datetime(2026, 3, 5, 8, 0, tzinfo=UTC)


class LoopbackClient(pagerduty.EventsApiV2Client):
    """The official client, but for its insistence on https, which a loopback receiver does not speak."""

    url = ""


@pytest.fixture
def pages() -> Iterator[PagerDutyReceiver]:
    with PagerDutyReceiver(clock=ManualClock(STAMP)) as receiver:
        yield receiver


@pytest.fixture
def client(pages: PagerDutyReceiver) -> Iterator[Any]:
    client = LoopbackClient(ROUTING_KEY, base_url=pages.base_url)
    yield client
    client.close()


@pytest.fixture
def slack() -> Iterator[SlackReceiver]:
    with SlackReceiver() as receiver:
        yield receiver


@pytest.fixture
def mail() -> Iterator[MailReceiver]:
    with MailReceiver() as receiver:
        yield receiver


def event(**changes: Any) -> dict[str, Any]:
    payload = {"summary": "error rate 8 %", "source": "runbookd", "severity": "critical"}
    return {"routing_key": ROUTING_KEY, "event_action": "trigger", "dedup_key": "k", "payload": payload, **changes}


def payload(**changes: Any) -> dict[str, Any]:
    return event(payload={**event()["payload"], **changes})


def enqueue(receiver: PagerDutyReceiver, body: Any, path: str = "/v2/enqueue") -> httpx.Response:
    return httpx.post(receiver.base_url + path, json=body, trust_env=False)


@pytest.mark.parametrize("receiver", [PagerDutyReceiver, SlackReceiver, MailReceiver])
def test_a_receiver_that_was_never_started_stops(receiver: Any) -> None:
    """Whoever clears up after a failed start needn't know how far it got."""
    receiver().stop()


# --- PagerDuty ----------------------------------------------------------------------------------------------------


def test_the_official_client_triggers_acknowledges_and_resolves(pages: PagerDutyReceiver, client: Any) -> None:
    """One alert from its page to its resolve, under one dedup key, as the pagerduty package sends it."""
    assert client.trigger("error rate 8 %", "runbookd", dedup_key="k1", custom_details={"trace_id": "ab"}) == "k1"
    assert pages.open_alerts == {"k1": "triggered"}
    client.acknowledge("k1")
    assert pages.open_alerts == {"k1": "acknowledged"}
    client.resolve("k1")
    assert pages.open_alerts == {}
    assert [(e.action, e.dedup_key, e.fate) for e in pages.received] == [
        ("trigger", "k1", Fate.ACCEPTED),
        ("acknowledge", "k1", Fate.ACCEPTED),
        ("resolve", "k1", Fate.ACCEPTED),
    ]
    assert pages.received[0].summary == "error rate 8 %"
    assert pages.received[0].received_at == STAMP


def test_a_trigger_without_a_key_gets_one(pages: PagerDutyReceiver, client: Any) -> None:
    """PagerDuty makes up a dedup key and returns it."""
    assert client.trigger("summary", "source") == pages.received[0].dedup_key != ""


def test_a_change_event_is_kept_apart(pages: PagerDutyReceiver, client: Any) -> None:
    """Change events notify nobody and open no alert."""
    client.submit("migration 0001 started", source="runbookd", timestamp="2026-03-05T08:00:00Z")
    assert [(e.action, e.summary) for e in pages.received] == [("change", "migration 0001 started")]
    assert pages.open_alerts == {}


def test_a_resolve_of_nothing_is_answered_and_dropped(pages: PagerDutyReceiver, client: Any) -> None:
    """As with the real one, 202 doesn't mean that anything happened: unknown keys and other routing keys do nothing."""
    client.resolve("never-triggered")
    assert pages.received[0].fate is Fate.DROPPED
    assert pages.received[0].status == 202
    client.trigger("summary", "source", dedup_key="k")
    answer = enqueue(pages, event(event_action="resolve", routing_key="f" * 32))
    assert (answer.status_code, pages.received[-1].fate) == (202, Fate.DROPPED)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (event(routing_key="short"), "Length of 'routing_key'"),
        (event(routing_key=None), "'routing_key' is missing"),
        (event(event_action="page"), "'event_action'"),
        (event(dedup_key="k" * 256), "'dedup_key' is longer"),
        (event(dedup_key=7), "'dedup_key' must be a string"),
        (event(event_action="resolve", dedup_key=None), "'dedup_key' is missing"),
        (event(payload=None), "'payload' is missing"),
        (payload(summary="x" * 1025), "'payload.summary' is longer"),
        (payload(summary=""), "'payload.summary' is missing"),
        (payload(source=None), "'payload.source' is missing"),
        (payload(severity="high"), "'payload.severity'"),
        (payload(timestamp="yesterday"), "'payload.timestamp'"),
        (payload(component=3), "'payload.component'"),
        (payload(custom_details={"log": "x" * 600_000}), "larger than 524288 bytes"),
        (event(links=[{"text": "no href"}]), "'links'"),
        ([1, 2], "not a JSON object"),
    ],
)
def test_what_pagerduty_refuses_is_refused(pages: PagerDutyReceiver, body: Any, complaint: str) -> None:
    """Each limit of the Events API answers 400 with the reason in ``errors``."""
    answer = enqueue(pages, body)
    assert answer.status_code == 400
    assert answer.json()["status"] == "invalid event"
    assert any(complaint in error for error in answer.json()["errors"])
    assert pages.received[0].fate is Fate.REFUSED


def test_failures_on_demand_come_first_and_are_recorded(pages: PagerDutyReceiver) -> None:
    """429 and 500 as often as asked for; then the same event is accepted."""
    pages.fail_next(429, retry_after=3)
    pages.fail_next(500, times=2)
    answers = [enqueue(pages, event()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 500, 500, 202]
    assert answers[0].headers["Retry-After"] == "3"
    assert [e.fate for e in pages.received].count(Fate.REFUSED) == 3


def test_waiting_finds_what_came_and_says_when_nothing_does(pages: PagerDutyReceiver, client: Any) -> None:
    """``wait_for`` looks at the past first and gives up after its time-out."""
    client.trigger("summary", "source", dedup_key="k")
    assert pages.wait_for(lambda e: e.action == "trigger").dedup_key == "k"
    with pytest.raises(Transient) as caught:
        pages.wait_for(lambda e: e.action == "resolve", timeout=0.01)
    assert caught.value.reason is TransientReason.DEADLINE_EXCEEDED


def test_there_is_nothing_else_at_pagerduty(pages: PagerDutyReceiver) -> None:
    """A wrong path is 404, not a quiet success."""
    assert enqueue(pages, event(), "/v1/enqueue").status_code == 404


# --- Slack --------------------------------------------------------------------------------------------------------


def section(text: str = "*error rate* 8 %") -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def test_the_official_webhook_client_posts(slack: SlackReceiver) -> None:
    """Text and blocks as slack_sdk sends them are answered with ``ok``."""
    blocks = [
        {"type": "header", "text": {"type": "plain_text", "text": "Error rate"}},
        section(),
        {"type": "divider"},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "runbookd"}]},
    ]
    answer = WebhookClient(slack.url).send(text="error rate 8 %", blocks=blocks)
    assert (answer.status_code, answer.body) == (200, "ok")
    assert slack.received[0].text == "error rate 8 %"
    assert slack.received[0].fate is Fate.ACCEPTED


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"text": ""}, "no_text"),
        ({"text": ["a"]}, "invalid_payload"),
        ({"text": "x" * 40_001}, "msg_too_long"),
        ({"blocks": [section()] * 51}, "invalid_blocks"),
        ({"blocks": [section("x" * 3001)]}, "invalid_blocks"),
        ({"blocks": [section("")]}, "invalid_blocks"),
        ({"blocks": [{"type": "section"}]}, "invalid_blocks"),
        ({"blocks": [{"type": "paragraph"}]}, "invalid_blocks"),
        ({"blocks": [{"type": "header", "text": {"type": "mrkdwn", "text": "t"}}]}, "invalid_blocks"),
        ({"blocks": [{"type": "context", "elements": []}]}, "invalid_blocks"),
        ({"blocks": [{"type": "actions", "elements": [{"type": "button"}]}]}, "invalid_blocks"),
        ({"attachments": [{"blocks": [{"type": "section"}]}]}, "invalid_blocks"),
        ({"blocks": "text"}, "invalid_blocks_format"),
    ],
)
def test_what_slack_refuses_is_refused(slack: SlackReceiver, body: dict[str, Any], word: str) -> None:
    """Each limit of messages and blocks answers 400 with Slack's word for it."""
    answer = WebhookClient(slack.url).send_dict(body)
    assert (answer.status_code, answer.body) == (400, word)
    assert slack.received[0].error.startswith(word)


def test_slack_asks_to_come_back_later(slack: SlackReceiver) -> None:
    """429 with Retry-After, on demand."""
    slack.fail_next(429, retry_after=30)
    client = WebhookClient(slack.url)
    refused = client.send(text="one")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "30")
    assert client.send(text="one").status_code == 200


def test_a_webhook_that_does_not_exist(slack: SlackReceiver) -> None:
    """A URL of the wrong form is 404."""
    assert WebhookClient(slack.base_url + "/services/T0").send(text="x").status_code == 404


# --- mail ---------------------------------------------------------------------------------------------------------


def message(**headers: str) -> EmailMessage:
    mail = EmailMessage()
    for name, value in {
        "From": "runbookd@example.org",
        "To": "sre@example.org",
        "Subject": "Backup failed — zweimal",
        "Date": "Thu, 05 Mar 2026 08:00:00 +0000",
        **headers,
    }.items():
        if value:
            mail[name] = value
    mail.set_content("two in a row\n.hidden dot\nこんにちは\n")
    return mail


def test_smtplib_delivers_a_message(mail: MailReceiver) -> None:
    """Envelope, encoded subject, non-ASCII body and a line that begins with a dot arrive as they were meant."""
    with smtplib.SMTP(mail.host, mail.port, timeout=10) as client:
        client.send_message(message())
    received = mail.wait_for(lambda _: True)
    assert received.sender == "runbookd@example.org"
    assert received.recipients == ("sre@example.org",)
    assert received.subject == "Backup failed — zweimal"
    assert received.text.splitlines() == ["two in a row", ".hidden dot", "こんにちは"]


def test_two_messages_in_one_session(mail: MailReceiver) -> None:
    """The envelope is forgotten between messages."""
    with smtplib.SMTP(mail.host, mail.port, timeout=10) as client:
        client.send_message(message())
        client.send_message(message(To="manager@example.org"))
    assert [m.recipients for m in mail.received] == [("sre@example.org",), ("manager@example.org",)]


def test_a_message_without_a_date_is_refused(mail: MailReceiver) -> None:
    """RFC 5322 requires From and Date; strict servers insist."""
    with smtplib.SMTP(mail.host, mail.port, timeout=10) as client, pytest.raises(smtplib.SMTPDataError) as caught:
        client.send_message(message(Date=""))
    assert caught.value.smtp_code == 550
    assert mail.received == []


def test_try_again_later(mail: MailReceiver) -> None:
    """A 451 on demand, then the same message is accepted."""
    mail.fail_next(451)
    with smtplib.SMTP(mail.host, mail.port, timeout=10) as client:
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.send_message(message())
        client.send_message(message())
    assert caught.value.smtp_code == 451
    assert len(mail.received) == 1


def test_commands_out_of_order_are_refused(mail: MailReceiver) -> None:
    """RCPT before MAIL, DATA before RCPT, a second MAIL, an address without angle brackets, an unknown verb."""
    with smtplib.SMTP(mail.host, mail.port, timeout=10) as client:
        client.ehlo()
        codes = [
            client.docmd("RCPT", "TO:<a@b>")[0],
            client.docmd("DATA")[0],
            client.docmd("MAIL", "FROM: a@b")[0],
            client.docmd("MAIL", "FROM:<a@b>")[0],
            client.docmd("MAIL", "FROM:<a@b>")[0],
            client.docmd("RCPT", "TO:<nobody>")[0],
            client.docmd("MAKE", "COFFEE")[0],
        ]
    assert codes == [503, 503, 501, 250, 503, 501, 500]


def test_a_client_that_hangs_up_harms_nobody(mail: MailReceiver) -> None:
    """The next client is served, and nothing of the broken message is kept."""
    client = smtplib.SMTP(mail.host, mail.port, timeout=10)
    client.docmd("MAIL", "FROM:<a@b>")
    client.close()
    started = time.monotonic()
    with smtplib.SMTP(mail.host, mail.port, timeout=10) as second:
        second.send_message(message())
    assert time.monotonic() - started < 5
    assert len(mail.received) == 1
