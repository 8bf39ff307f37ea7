"""What was sent to whom and when it arrived: the outbox as people read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.notifications.channel import Kind, Urgency
from agent.notifications.outbox import DeliveryState, OutboxEntry
from agent.runbook import ChannelKind


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One notification and what became of it, for the timeline, the status page and reports.

    Args:
        target: who is reached through ``channel``.
        latency: from being written down to the vendor's receipt; None while there is none.
    """

    incident: int
    condition: str
    dedup_key: str
    sequence: int
    kind: Kind
    severity: Urgency
    channel: ChannelKind
    target: str
    title: str
    action: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    delivered_at: datetime | None
    receipt: str
    error: str

    @property
    def latency(self) -> timedelta | None:
        return None if self.delivered_at is None else self.delivered_at - self.created_at


def delivery_of(entry: OutboxEntry, target: str) -> Delivery:
    """``entry`` with the name of who is reached."""
    notification = entry.notification
    return Delivery(
        incident=notification.incident,
        condition=notification.condition,
        dedup_key=notification.dedup_key,
        sequence=notification.sequence,
        kind=notification.kind,
        severity=notification.message.severity,
        channel=notification.channel,
        target=target,
        title=notification.message.title,
        action=notification.message.action,
        state=entry.state,
        attempts=entry.attempts,
        created_at=notification.created_at,
        delivered_at=entry.delivered_at,
        receipt=entry.receipt,
        error=entry.error,
    )
