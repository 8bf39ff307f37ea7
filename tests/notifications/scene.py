"""Alerts, and a vendor that does what a test tells it to."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent.alerting import Alert, AlertState
from agent.faults import Permanent, PermanentReason, Transient, TransientReason
from agent.notifications import Kind, Notification, Receipt
from agent.runbook import ChannelKind

START = datetime(2026, 3, 5, 8, 10, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Killed(BaseException):
    """``kill -9`` at this point."""


def alert(
    rule: str = "ErrorRateCritical",
    *,
    severity: str = "critical",
    metric: str = "error_rate",
    matrix: str = "",
    condition: str = "",
    value: float = 0.082,
    since: datetime = START,
    state: AlertState = AlertState.FIRING,
    blind: str = "",
    trace_id: str = "",
    summary: str = "",
    **labels: str,
) -> Alert:
    """An alert of a threshold rule, or of a matrix rule if ``matrix`` is given."""
    kind = {"matrix": matrix} if matrix else {"metric": metric}
    about = {"severity": severity, **kind, "condition": condition or matrix or metric, **labels}
    return Alert(
        fingerprint=f"{rule}{sorted(about.items())}",
        rule=rule,
        labels=about,
        annotations={
            "summary": summary,
            "runbook_url": f"https://docs.example.com/runbook#{about['condition'].replace('_', '-')}",
        },
        state=state,
        value=value,
        active_since=since,
        fired_at=since,
        resolved_at=None,
        trace_id=trace_id,
        blind=blind,
    )


@dataclass
class FakeChannel:
    """A vendor.

    Args:
        plan: what the next attempts come to: an error to raise, ``Killed`` to die in after the vendor has taken the
            notification, or None for a plain success; successes once it is used up.
    """

    kind: ChannelKind
    taken: list[Notification] = field(default_factory=list)
    plan: deque[BaseException | None] = field(default_factory=deque)
    attempts: int = 0

    @property
    def target(self) -> str:
        return f"{self.kind} people"

    def deliver(self, notification: Notification) -> Receipt:
        self.attempts += 1
        failure = self.plan.popleft() if self.plan else None
        if isinstance(failure, Killed):
            self.taken.append(notification)
            raise failure
        if failure is not None:
            raise failure
        self.taken.append(notification)
        return Receipt(reference=f"receipt-{notification.id}")

    @property
    def kinds(self) -> list[Kind]:
        """What arrived, in order."""
        return [notification.kind for notification in self.taken]

    @property
    def titles(self) -> list[str]:
        return [notification.message.title for notification in self.taken]


def unavailable(retry_after: float | None = None) -> Transient:
    return Transient(TransientReason.UNAVAILABLE, "the vendor answered 503", retry_after=retry_after)


def refused() -> Permanent:
    return Permanent(PermanentReason.INVALID, "the vendor answered 400: invalid event")
