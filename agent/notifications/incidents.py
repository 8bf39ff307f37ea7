"""Incidents: the alerts of one condition, as one thing that happens to a person.

Pure. The notifier calls :func:`needs_update` after every pass over the rules with what fires now, not with what
changed: a change that was missed because the process died is made good at the next pass. Modelled on Alertmanager's
deduplication stage, which decides from the last notification sent and returns its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from agent.alerting import Alert, AlertState
from agent.decisions import duration
from agent.notifications.channel import Urgency, urgency_of
from agent.runbook import ChannelKind

_FIRING = (AlertState.FIRING, AlertState.RECOVERING)


class Action(StrEnum):
    """What an incident needs now."""

    NONE = "none"
    TRIGGER = "trigger"
    UPDATE = "update"
    RESOLVE = "resolve"


@dataclass(frozen=True, kw_only=True)
class Incident:
    """An open incident, as last announced.

    Args:
        number: counts incidents of this installation; a condition that comes back has a new number and its old key.
        severity: the highest announced. It doesn't fall: an incident that eases and worsens again is no new page.
        rules: names of the rules that have been announced.
        blind: it has been announced that data is missing.
        last_sent_at: when the last trigger or update was written down; reminders count from here.
        sequence: of the last notification.
        channels: those that got a trigger and are owed a resolve.
        pins: what keeps it open besides its alerts, e.g. a recovery that is stuck.
        cure: what ended the trouble, in words, once known.
    """

    number: int
    condition: str
    dedup_key: str
    opened_at: datetime
    severity: Urgency
    title: str
    rules: frozenset[str] = frozenset()
    blind: bool = False
    last_sent_at: datetime
    sequence: int = 0
    channels: tuple[ChannelKind, ...] = ()
    pins: tuple[str, ...] = ()
    cure: str = ""
    trace_id: str = ""


def condition_of(alert: Alert) -> str:
    """The incident that ``alert`` belongs to."""
    return alert.labels.get("condition") or alert.labels.get("metric") or alert.rule


def by_condition(alerts: Iterable[Alert]) -> Mapping[str, tuple[Alert, ...]]:
    """The firing ones among ``alerts``, by condition. A recovering alert still fires; a pending one doesn't yet.

    Alerts that are not meant for people (``severity: none``) make no incident.
    """
    groups: dict[str, list[Alert]] = {}
    for alert in alerts:
        if alert.state in _FIRING and alert.calls:
            groups.setdefault(condition_of(alert), []).append(alert)
    return {condition: tuple(members) for condition, members in groups.items()}


def unsettled_conditions(alerts: Iterable[Alert]) -> frozenset[str]:
    """Conditions with a pending alert that sees: a blind one may stay pending for good and must hold nothing back."""
    return frozenset(
        condition_of(alert) for alert in alerts if alert.state is AlertState.PENDING and not alert.blind and alert.calls
    )


def severity_of(alerts: Iterable[Alert]) -> Urgency:
    """The highest severity of ``alerts``; of none, INFO."""
    return max((urgency_of(alert.labels.get("severity", "")) for alert in alerts), key=_rank, default=Urgency.INFO)


def audible(alerts: Sequence[Alert]) -> tuple[Alert, ...]:
    """Those of one condition that are not inhibited: a warning is silent while a critical one fires."""
    highest = severity_of(alerts)
    return tuple(alert for alert in alerts if urgency_of(alert.labels.get("severity", "")) is highest)


def needs_update(
    incident: Incident | None,
    firing: Sequence[Alert],
    now: datetime,
    *,
    repeat: timedelta,
    unsettled: bool = False,
    silenced: frozenset[str] = frozenset(),
    acknowledged: frozenset[str] = frozenset(),
) -> tuple[Action, str]:
    """What is to be sent about one condition, and why.

    Args:
        incident: the open incident, None if there is none.
        firing: alerts of the condition that fire now, silenced ones included: they keep an incident open, because
            its resolve is owed when they end.
        repeat: time after which an incident that goes on is mentioned again.
        unsettled: an alert of the condition is pending: what ended may begin again, and "over" would be said too soon.
        silenced: fingerprints of alerts that must not cause a notification.
        acknowledged: fingerprints of alerts that somebody has in hand: no reminders, but news are still news.
    """
    heard = audible([alert for alert in firing if alert.fingerprint not in silenced])
    if incident is None:
        return _opening(firing, heard)
    if not firing:
        if incident.pins:
            return Action.NONE, f"the alerts have ended; open because of {', '.join(incident.pins)}"
        if unsettled:
            return Action.NONE, "the alerts have ended, another of the condition is pending"
        return Action.RESOLVE, "all alerts have ended"
    if not heard:
        return Action.NONE, "every alert is silenced"
    severity = severity_of(heard)
    if severity.rank > incident.severity.rank:
        return Action.TRIGGER, f"severity rose from {incident.severity} to {severity}"
    added = sorted({alert.rule for alert in heard if severity is incident.severity} - incident.rules)
    if added:
        return Action.UPDATE, f"{', '.join(added)} fires too"
    if not incident.blind and any(alert.blind for alert in heard):
        return Action.UPDATE, "there is no data any more; the last state is kept"
    if heard and all(alert.fingerprint in acknowledged for alert in heard):
        return Action.NONE, "somebody has it in hand"
    if now - incident.last_sent_at >= repeat:
        return Action.UPDATE, f"still firing after {duration(now - incident.opened_at)}"
    return Action.NONE, "nothing new"


def _opening(firing: Sequence[Alert], heard: Sequence[Alert]) -> tuple[Action, str]:
    if heard:
        return Action.TRIGGER, "first alert of this condition"
    return Action.NONE, "every alert is silenced" if firing else "nothing fires"


def _rank(urgency: Urgency) -> int:
    return urgency.rank
