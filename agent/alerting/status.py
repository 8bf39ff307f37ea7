"""What the rule loop tells: how each rule and group fared, and what a pass over them changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from agent.alerting.alert import Alert, AlertState
from agent.alerting.rules import Rule, RuleGroup
from agent.alerting.sight import Lack


class Health(StrEnum):
    """How a rule's last evaluation went."""

    UNKNOWN = "unknown"
    OK = "ok"
    NO_DATA = "no_data"
    BLIND = "blind"
    ERROR = "err"


@dataclass(frozen=True, kw_only=True)
class RuleStatus:
    """A rule and its last evaluation, for the API.

    Args:
        lack: why the rule did not see, where it did not.
    """

    rule: Rule
    health: Health = Health.UNKNOWN
    error: str = ""
    lack: Lack | None = None
    last_evaluation: datetime | None = None
    seconds: float = 0.0
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GroupStatus:
    """A group and its rules, for the API."""

    group: RuleGroup
    rules: tuple[RuleStatus, ...]
    last_evaluation: datetime | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TickResult:
    """What one pass over the rules did.

    Args:
        changes: alerts whose state changed, durably written; after a crash the last ones come once more.
        active: all alerts that are pending, firing or recovering.
        sight_changes: active alerts that became blind, or see again; ``Alert.blind`` says which.
        evaluated: groups that were due.
        failures: by rule name, the errors of this pass.
        missed: evaluations of groups that were skipped because this pass came too late.
        seconds: how long the pass took.
    """

    at: datetime
    changes: tuple[Alert, ...]
    active: tuple[Alert, ...]
    sight_changes: tuple[Alert, ...]
    evaluated: tuple[str, ...]
    failures: Mapping[str, str]
    missed: int
    seconds: float

    @property
    def watched(self) -> bool:
        """Whether an alert that is meant to fire always does: the whole way from samples to alerts works."""
        return any(not alert.calls and alert.state is AlertState.FIRING for alert in self.active)

    def calling(self) -> TickResult:
        """The same without alerts that are not meant for people."""
        return replace(
            self,
            changes=tuple(alert for alert in self.changes if alert.calls),
            active=tuple(alert for alert in self.active if alert.calls),
            sight_changes=tuple(alert for alert in self.sight_changes if alert.calls),
        )
