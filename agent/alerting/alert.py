"""An alert as the other rooms see it: what fires, since when, and whether we still see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class AlertState(StrEnum):
    """Where an alert is in its life."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RECOVERING = "recovering"
    RESOLVED = "resolved"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One element of a rule's result, over time.

    Args:
        fingerprint: stable hash of the labels.
        value: of the rule's expression, in base units.
        active_since: when the condition began to hold.
        trace_id: exemplar of an operation that shows it, may be ``""``.
        blind: ``""``, or why the state is kept instead of known: ``no_data: ...``, ``blind: ...``, ``error: ...``.
    """

    fingerprint: str
    rule: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    state: AlertState
    value: float
    active_since: datetime
    fired_at: datetime | None = None
    resolved_at: datetime | None = None
    trace_id: str = ""
    blind: str = ""

    @property
    def summary(self) -> str:
        """What it says in a line; its rule's name where the rule says nothing."""
        return self.annotations.get("summary") or self.rule

    @property
    def calls(self) -> bool:
        """Whether it is meant for people. ``severity: none`` is Prometheus's way of saying that it is not: the
        watchdog fires always, and is news only when it stops."""
        return self.labels.get("severity") != "none"
