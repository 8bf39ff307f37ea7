"""What is delivered, and the promise that every vendor's page keeps.

The composer makes a :class:`Message`, the notifier addresses it as a :class:`Notification`, the outbox keeps that as
JSON, and a :class:`Channel` delivers it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from agent.clock import rfc3339
from agent.runbook import ChannelKind


class Urgency(StrEnum):
    """How loud, the loudest last; the values of the ``severity`` label of a rule."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Urgency).index(self)


def urgency_of(label: str) -> Urgency:
    """The urgency that a ``severity`` label means; an unknown one is critical, because nobody is paged by silence."""
    try:
        return Urgency(label)
    except ValueError:
        return Urgency.CRITICAL


class Kind(StrEnum):
    """What a notification is to the person who gets it."""

    TRIGGER = "trigger"
    UPDATE = "update"
    RESOLVE = "resolve"
    CHANGE = "change"


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a person reads.

    Args:
        title: what is wrong and how bad, in one line.
        action: what the agent does about it or what the person should do, in one line.
        facts: (name, value) in the order in which they matter.
        links: (text, URL).
        trace_id: trace of an operation that shows the trouble, may be ``""``.
    """

    title: str
    action: str
    severity: Urgency
    facts: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    trace_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Notification:
    """A message on its way to one channel.

    Args:
        id: unique over all state files; the same in every attempt, so that a duplicate can be recognised.
        dedup_key: one key for one condition of one database, the same for trigger, updates and resolve.
        incident: number of the incident, 0 for a change event.
        sequence: position within the incident.
        condition: the ``condition`` label, or the kind of change.
        source: the database, as ``project`` or ``project/database``.
        report: it reports that another channel failed; its own failure is not reported again.
    """

    id: str
    dedup_key: str
    incident: int
    sequence: int
    channel: ChannelKind
    kind: Kind
    condition: str
    source: str
    created_at: datetime
    message: Message
    report: bool = False


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The vendor's word that it has taken a notification.

    Args:
        reference: what the vendor calls it: a dedup_key, a Message-ID.
        remark: what the sender should know although it was taken, e.g. one recipient of three refused.
    """

    reference: str
    remark: str = ""


class Channel(Protocol):
    """One way to reach people."""

    @property
    def kind(self) -> ChannelKind:
        """Which channel of the runbook this is."""

    @property
    def target(self) -> str:
        """Who is reached, for people: a service, a channel's name, addresses. Never a secret."""

    def deliver(self, notification: Notification) -> Receipt:
        """Hand ``notification`` to the vendor once; retrying is the outbox's business.

        Delivering the same notification twice must do no harm beyond a duplicate that shows the same id.

        Raises:
            Transient: the vendor may take it later; ``retry_after`` is set where the vendor said when.
            Permanent: the vendor will never take this one.
            Misconfigured: a key, an address or a password has to be changed first.
        """


def to_json(notification: Notification) -> str:
    """``notification`` as one line of JSON."""
    message = notification.message
    return json.dumps(
        {
            "id": notification.id,
            "dedup_key": notification.dedup_key,
            "incident": notification.incident,
            "sequence": notification.sequence,
            "channel": notification.channel,
            "kind": notification.kind,
            "condition": notification.condition,
            "source": notification.source,
            "created_at": rfc3339(notification.created_at),
            "report": notification.report,
            "message": {
                "title": message.title,
                "action": message.action,
                "severity": message.severity,
                "facts": message.facts,
                "links": message.links,
                "trace_id": message.trace_id,
            },
        },
        ensure_ascii=False,
    )


def from_json(text: str) -> Notification:
    """What :func:`to_json` wrote."""
    body = json.loads(text)
    message = body["message"]
    return Notification(
        id=body["id"],
        dedup_key=body["dedup_key"],
        incident=body["incident"],
        sequence=body["sequence"],
        channel=ChannelKind(body["channel"]),
        kind=Kind(body["kind"]),
        condition=body["condition"],
        source=body["source"],
        created_at=datetime.fromisoformat(body["created_at"]),
        report=body["report"],
        message=Message(
            title=message["title"],
            action=message["action"],
            severity=Urgency(message["severity"]),
            facts=tuple((name, value) for name, value in message["facts"]),
            links=tuple((text, href) for text, href in message["links"]),
            trace_id=message["trace_id"],
        ),
    )
