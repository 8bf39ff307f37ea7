"""E-mail's page, over a real SMTP conversation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.faults import Misconfigured, Permanent, Transient
from agent.notifications import EmailChannel, Kind, Message, Notification, Urgency
from agent.runbook import ChannelKind
from agent.sandbox.mail import MailReceiver
from tests.notifications.scene import START

NOTIFICATION = Notification(
    id="5f1e0c",
    dedup_key="runbookd/moshimoshi-prod/(default)/backup_failure",
    incident=7,
    sequence=1,
    channel=ChannelKind.EMAIL,
    kind=Kind.TRIGGER,
    condition="backup_failure",
    source="moshimoshi-prod",
    created_at=START,
    message=Message(
        title="Backup failure: 2 (limit 2 consecutive) on moshimoshi-prod",
        action="Follow the runbook.",
        severity=Urgency.CRITICAL,
        facts=(("Measured", "2"), ("Since", "08:10:00 UTC")),
        links=(("Runbook", "https://docs.example.com/runbook#backups"),),
    ),
)


@pytest.fixture
def receiver() -> Iterator[MailReceiver]:
    with MailReceiver() as server:
        yield server


@pytest.fixture
def channel(receiver: MailReceiver) -> EmailChannel:
    return EmailChannel(
        host="127.0.0.1",
        port=receiver.port,
        sender="runbookd@example.com",
        recipients=("dba@example.com", "sre@example.com"),
        timeout=5,
    )


def test_a_mail_says_it_in_its_subject_and_body(channel: EmailChannel, receiver: MailReceiver) -> None:
    """Subject, second line, figures, link, and both recipients on the envelope."""
    receipt = channel.deliver(NOTIFICATION)
    [mail] = receiver.received
    assert mail.subject == "CRITICAL: Backup failure: 2 (limit 2 consecutive) on moshimoshi-prod"
    assert mail.recipients == ("dba@example.com", "sre@example.com")
    assert "Follow the runbook.\n\nMeasured: 2\nSince: 08:10:00 UTC" in mail.text.replace("\r\n", "\n")
    assert mail.message["Auto-Submitted"] == "auto-generated"
    assert receipt.reference == mail.message["Message-ID"] == "<5f1e0c@example.com>"


def test_a_duplicate_is_recognisable_and_an_incident_is_one_thread(
    channel: EmailChannel, receiver: MailReceiver
) -> None:
    """The same row has the same Message-ID; trigger and resolve refer to the same thread."""
    channel.deliver(NOTIFICATION)
    channel.deliver(NOTIFICATION)
    channel.deliver(replace(NOTIFICATION, id="99aa", kind=Kind.RESOLVE, sequence=2))
    first, again, resolve = (mail.message for mail in receiver.received)
    assert first["Message-ID"] == again["Message-ID"] != resolve["Message-ID"]
    assert first["References"] == resolve["References"]


def test_a_title_with_line_breaks_cannot_forge_headers(channel: EmailChannel, receiver: MailReceiver) -> None:
    """Whatever a label contains, the subject is one line."""
    message = replace(NOTIFICATION.message, title="Oops\r\nBcc: everyone@example.com")
    channel.deliver(replace(NOTIFICATION, message=message))
    assert receiver.received[0].subject == "CRITICAL: Oops Bcc: everyone@example.com"
    assert receiver.received[0].message["Bcc"] is None


def test_long_and_foreign_text_arrives_whole(channel: EmailChannel, receiver: MailReceiver) -> None:
    """Lines beyond SMTP's limit and characters beyond ASCII are encoded, not cut."""
    message = replace(NOTIFICATION.message, title="Größe über 90 %", action="ü" * 3000)
    channel.deliver(replace(NOTIFICATION, message=message))
    [mail] = receiver.received
    assert mail.subject == "CRITICAL: Größe über 90 %"
    assert "ü" * 3000 in mail.text


def test_later_and_never_are_told_apart(channel: EmailChannel, receiver: MailReceiver) -> None:
    """4xx is worth another try, 5xx is not."""
    receiver.fail_next(451, "try again later")
    with pytest.raises(Transient, match="451 try again later"):
        channel.deliver(NOTIFICATION)
    receiver.fail_next(554, "no")
    with pytest.raises(Permanent, match="554 no"):
        channel.deliver(NOTIFICATION)


def test_tls_and_login_that_the_server_lacks_are_settings_to_change(receiver: MailReceiver) -> None:
    """STARTTLS is insisted on, never skipped; so is the login."""
    for options in ({"starttls": True}, {"username": "u", "password": "p"}):
        channel = EmailChannel(
            host="127.0.0.1", port=receiver.port, sender="a@example.com", recipients=("b@example.com",), **options
        )
        with pytest.raises(Misconfigured):
            channel.deliver(NOTIFICATION)
    assert receiver.received == []


def test_no_server_is_transient_and_nobody_to_mail_is_a_setting() -> None:
    """Nobody listens on the port; the list of recipients is empty."""
    with MailReceiver() as gone:
        port = gone.port
    channel = EmailChannel(
        host="127.0.0.1", port=port, sender="a@example.com", recipients=("b@example.com",), timeout=2
    )
    with pytest.raises(Transient, match="can't be reached"):
        channel.deliver(NOTIFICATION)
    with pytest.raises(Misconfigured, match="names nobody"):
        EmailChannel(host="127.0.0.1", sender="a@example.com", recipients=())
