"""E-mail: SMTP, with STARTTLS and a login where they are configured.

The Message-ID is made from the outbox row, so that a mail sent twice after a crash is recognised as one by whoever
keeps it, and all mails of an incident form one thread.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime

from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason, Transient, TransientReason
from agent.notifications.channel import Notification, Receipt
from agent.notifications.message import headline
from agent.runbook import ChannelKind

_TIMEOUT = 15.0
_SUBJECT = 250


class EmailChannel:
    """Mails a list of people.

    Args:
        host, port: the mail server.
        sender: envelope sender and From.
        recipients: at least one address.
        username, password: for AUTH; None for a server that doesn't want it.
        starttls: insist on TLS before anything else is said.

    Raises:
        Misconfigured: there is no recipient.
    """

    kind = ChannelKind.EMAIL

    def __init__(
        self,
        *,
        host: str,
        port: int = 25,
        sender: str,
        recipients: Sequence[str],
        username: str | None = None,
        password: str | None = None,
        starttls: bool = False,
        timeout: float = _TIMEOUT,
    ) -> None:
        if not recipients:
            raise Misconfigured(
                MisconfiguredReason.SETTINGS, "notifications.email.to names nobody", hint="give at least one address"
            )
        self.target = ", ".join(recipients)
        self._host, self._port, self._timeout = host, port, timeout
        self._sender, self._recipients = sender, tuple(recipients)
        self._username, self._password = username, password
        self._starttls = starttls

    def deliver(self, notification: Notification) -> Receipt:
        mail = compose(notification, self._sender, self._recipients)
        try:
            refused = self._send(mail)
        except smtplib.SMTPAuthenticationError as error:
            raise Misconfigured(
                MisconfiguredReason.CREDENTIALS,
                f"the mail server {self._host} refuses the login ({_said(error)})",
                hint="check notifications.email.username and .password",
            ) from error
        except smtplib.SMTPNotSupportedError as error:
            raise Misconfigured(
                MisconfiguredReason.SETTINGS,
                f"the mail server {self._host} can't do what is asked of it ({error})",
                hint="check notifications.email.starttls and .username",
            ) from error
        except smtplib.SMTPRecipientsRefused as error:
            raise self._translated(max(error.recipients.values(), default=(550, b""))) from error
        except smtplib.SMTPResponseException as error:
            raise self._translated((error.smtp_code, error.smtp_error)) from error
        except (smtplib.SMTPException, OSError) as error:
            raise Transient(
                TransientReason.UNAVAILABLE, f"the mail server {self._host}:{self._port} can't be reached ({error})"
            ) from error
        left_out = f"refused for {', '.join(sorted(refused))}" if refused else ""
        return Receipt(reference=str(mail["Message-ID"]), remark=left_out)

    def _send(self, mail: EmailMessage) -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP(self._host, self._port, timeout=self._timeout) as server:
            if self._starttls:
                server.starttls(context=ssl.create_default_context())
            if self._username:
                server.login(self._username, self._password or "")
            return server.send_message(mail, self._sender, self._recipients)

    def _translated(self, answer: tuple[int, bytes | str]) -> Transient | Permanent:
        code, text = answer
        said = f"the mail server {self._host} answered {code} {_text(text)}"
        if 400 <= code < 500 or code < 0:
            return Transient(TransientReason.UNAVAILABLE, said)
        return Permanent(PermanentReason.INVALID, said)


def compose(notification: Notification, sender: str, recipients: Sequence[str]) -> EmailMessage:
    """``notification`` as a plain-text mail."""
    message = notification.message
    domain = sender.rpartition("@")[2].strip("> ") or "localhost"
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    # A line break in a subject would start a new header.
    mail["Subject"] = " ".join(headline(notification).split())[:_SUBJECT]
    mail["Date"] = format_datetime(notification.created_at)
    mail["Message-ID"] = f"<{notification.id}@{domain}>"
    if notification.incident:
        thread = f"<runbookd.{notification.incident}.{_token(notification.dedup_key)}@{domain}>"
        mail["References"] = thread
        mail["In-Reply-To"] = thread
    mail["Auto-Submitted"] = "auto-generated"
    if message.severity == "critical" and notification.kind == "trigger":
        mail["Importance"] = "high"
    paragraphs = [
        message.title,
        message.action,
        "\n".join(f"{name}: {value}" for name, value in message.facts),
        "\n".join(f"{text}: {href}" for text, href in message.links),
        f"-- \nrunbookd, {notification.source}",
    ]
    mail.set_content("\n\n".join(part for part in paragraphs if part) + "\n")
    return mail


def _token(key: str) -> str:
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in key)


def _said(error: smtplib.SMTPResponseException) -> str:
    return f"{error.smtp_code} {_text(error.smtp_error)}"


def _text(answer: bytes | str) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
