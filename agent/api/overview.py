"""What the status page shows, gathered: one look at everything, each part for itself.

A part that can't be looked at says why, and the others stay: this page is read when things are broken. Called by
:mod:`agent.api.status`; the templates put it into words and boxes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import PurePath
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from agent.alerting import Alert, AlertState
from agent.api.sources import Body, Sources
from agent.decisions import blindness, duration, figure
from agent.promql import Vector, compile_expression
from agent.runbook import Policy, Quantity
from agent.telemetry.catalogue import OUTBOX_PENDING, SIGNAL_AGE

_log = logging.getLogger(__name__)

_OUTBOX = compile_expression(f"max by (channel) ({OUTBOX_PENDING.prometheus_name})")
_SIGNALS = compile_expression(f"max by (source) ({SIGNAL_AGE.prometheus_name})")
# Ids of problems that mean "we don't see", against "we see something wrong".
_BLINDING = ("rules", "signal ")

T = TypeVar("T")


class State(StrEnum):
    """How things are, the worst first."""

    STUCK = "stuck"
    ROLLING_BACK = "rolling-back"
    FIRING = "firing"
    BLIND = "blind"
    TROUBLED = "troubled"
    PENDING = "pending"
    STARTING = "starting"
    WELL = "well"


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The one line to read at 3 a.m., and what stands below it."""

    state: State
    title: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part(Generic[T]):
    """What is known of something, or why nothing is."""

    known: T | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class AlertLine:
    """An alert as a person reads it.

    Args:
        ending: its condition is over, and it fires on for as long as its rule says.
        value, threshold: as the page writes such figures; empty where there is none.
        link: address of the runbook's section; empty where there is none.
        blind: why the state is kept instead of known; empty where we see.
    """

    name: str
    summary: str
    severity: str
    firing: bool
    ending: bool
    value: str
    threshold: str
    since: datetime
    link: str
    blind: str
    trace_id: str


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything on the page."""

    now: datetime
    started_at: datetime
    headline: Headline
    alerts: Part[tuple[AlertLine, ...]]
    policy: Part[Policy]
    health: Part[Body]
    migration: Part[Body]
    backups: Part[Body]
    metrics: Part[Body]
    automation: Part[Body]
    recent: Part[Sequence[Body]]
    schedule: Part[Mapping[str, datetime]]
    problems: Part[Mapping[str, str]]
    outbox: Part[Mapping[str, float]]
    signals: Part[Mapping[str, float]]
    last_look: datetime | None

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Names of the parts that could not be looked at."""
        return tuple(name for name, value in vars(self).items() if isinstance(value, Part) and value.problem)


def overview(sources: Sources) -> Overview:
    """Look at everything; never raises for what a part does."""
    now = sources.clock.now()
    policy = _look("policy", sources.policy)
    alerts = _look("alerts", lambda: _alert_lines(sources, policy.known))
    looks = _look("rules", lambda: [group.last_evaluation for group in sources.rules.groups()])
    seen = [moment for moment in looks.known or () if moment is not None]
    gathered: dict[str, Any] = {
        "policy": policy,
        "alerts": alerts,
        "health": _look("health", sources.database_health),
        "migration": _look("migration", sources.migration_status),
        "backups": _look("backups", sources.backup_status),
        "metrics": _look("metrics", sources.metrics),
        "automation": _look("automation", sources.automation),
        "recent": _look("recent", sources.recent),
        "schedule": _look("schedule", sources.schedule),
        "problems": _look("problems", sources.problems),
        "outbox": _look("outbox", lambda: _by_label(sources, now, "channel")),
        "signals": _look("signals", lambda: _by_label(sources, now, "source")),
        "last_look": max(seen, default=None),
    }
    draft = Overview(
        now=now, started_at=sources.started_at, headline=Headline(state=State.STARTING, title=""), **gathered
    )
    headline = _headline(draft, alive=bool(_look("loop", sources.alive).known))
    return Overview(now=now, started_at=sources.started_at, headline=headline, **gathered)


def runbook_link(url: str, policy: Policy | None) -> str:
    """Where an alert's ``runbook_url`` leads from the status page: to our own copy of the page, or elsewhere."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        return url
    if policy is not None and not parts.scheme and PurePath(parts.path).name == PurePath(policy.source).name:
        return f"runbook#{parts.fragment}" if parts.fragment else "runbook"
    return ""


def _look(name: str, ask: Callable[[], T]) -> Part[T]:
    try:
        return Part(ask())
    except Exception as error:  # noqa: BLE001 - whatever breaks one part must not take the page away
        _log.warning("a part of the status page can't be shown", extra={"part": name, "why": repr(error)})
        return Part(problem=str(error) or type(error).__name__)


def _by_label(sources: Sources, now: datetime, label: str) -> Mapping[str, float]:
    plan = _OUTBOX if label == "channel" else _SIGNALS
    value = sources.engine.instant(plan, now.timestamp())
    if not isinstance(value, Vector):
        return {}
    return {dict(element.labels).get(label, ""): element.value for element in value.elements}


# --- alerts ---------------------------------------------------------------------------------------------------------


def _alert_lines(sources: Sources, policy: Policy | None) -> tuple[AlertLine, ...]:
    """What fires, what ends, what is pending; critical before the rest, the oldest first."""
    lines = [_alert_line(alert, policy) for alert in sources.rules.active() if alert.calls]
    return tuple(
        sorted(lines, key=lambda line: (not line.firing, line.ending, line.severity != "critical", line.since))
    )


def _alert_line(alert: Alert, policy: Policy | None) -> AlertLine:
    threshold = _threshold(alert, policy)
    value = figure(alert.value, threshold.unit) if threshold is not None else f"{alert.value:g}"
    return AlertLine(
        name=alert.rule,
        summary=alert.summary,
        severity=alert.labels.get("severity", ""),
        firing=alert.state is not AlertState.PENDING,
        ending=alert.state is AlertState.RECOVERING,
        value=value,
        threshold=threshold.text if threshold is not None else "",
        since=alert.fired_at
        if alert.fired_at is not None and alert.state is not AlertState.PENDING
        else alert.active_since,
        link=runbook_link(alert.annotations.get("runbook_url", ""), policy),
        blind=blindness(alert.blind) if alert.blind else "",
        trace_id=alert.trace_id,
    )


def _threshold(alert: Alert, policy: Policy | None) -> Quantity | None:
    """The figure of the page that the alert's rule compares with."""
    if policy is None:
        return None
    threshold = policy.threshold(alert.labels.get("metric", ""))
    if threshold is not None:
        return threshold.critical if alert.labels.get("severity") == "critical" else threshold.warning
    row = policy.row(alert.labels.get("matrix", ""))
    return row.threshold if row is not None else None


# --- the headline ---------------------------------------------------------------------------------------------------


def _headline(view: Overview, *, alive: bool) -> Headline:
    """One state for everything; what else is wrong goes below it."""
    asides = [*_blindness(view, alive=alive), *_asides(view)]
    recovery = _inner(view.migration, "recovery")
    if recovery.get("state") == "stuck":
        problem = str(recovery.get("problem", "")) or "a step failed past its retries"
        return _said(State.STUCK, "The rollback is stuck", [f"{problem}. Maintenance mode stays on.", *asides])
    if recovery.get("state") == "running":
        return _said(State.ROLLING_BACK, "Rolling back", [_progress(recovery, view.now), *asides])
    alerts = view.alerts.known or ()
    firing = [line for line in alerts if line.firing and not line.ending]
    if firing:
        shown = [line.summary for line in firing[:3]]
        more = [f"and {len(firing) - 3} more"] if len(firing) > 3 else []
        return _said(State.FIRING, _counted(len(firing), "alert") + " firing", [*shown, *more, *asides])
    blind = _blindness(view, alive=alive)
    if blind:
        return _said(State.BLIND, "Blind", asides)
    troubles = [f"{name}: {what}" for name, what in _troubles(view)]
    if troubles:
        return _said(State.TROUBLED, "Something is wrong", asides)
    if alerts:
        pending = [line for line in alerts if not line.firing] or alerts
        word = " ending" if pending[0].ending else " pending"
        return _said(State.PENDING, _counted(len(pending), "alert") + word, [pending[0].summary, *asides])
    if view.last_look is None:
        return _said(State.STARTING, "Starting", ["Nothing has been looked at yet.", *asides])
    return _said(State.WELL, "All well", asides)


def _said(state: State, title: str, details: Sequence[str]) -> Headline:
    return Headline(state=state, title=title, details=tuple(details))


def _blindness(view: Overview, *, alive: bool) -> list[str]:
    """Why we may not see what there is to see."""
    found = [] if alive else ["The rule loop has stalled: nothing is judged."]
    for name, what in (view.problems.known or {}).items():
        if name.startswith(_BLINDING) and not (name == "rules" and not alive):
            found.append(f"{name}: {what}")
    found += [f"{line.name} keeps its state: {line.blind}" for line in view.alerts.known or () if line.blind]
    if view.unreadable:
        found.append(f"Not readable: {', '.join(view.unreadable)}.")
    return found


def _troubles(view: Overview) -> list[tuple[str, str]]:
    return [(name, what) for name, what in (view.problems.known or {}).items() if not name.startswith(_BLINDING)]


def _asides(view: Overview) -> list[str]:
    """What is to be known whatever the state is."""
    found = [f"{name}: {what}" for name, what in _troubles(view)]
    waiting = (view.automation.known or {}).get("waiting", ())
    if waiting:
        found.append(f"{_counted(len(waiting), 'decision')} waiting for an approval.")
    hold = _inner(view.automation, "hold")
    if hold:
        found.append(f"The automation is held by {hold.get('owner')}: it does nothing by itself.")
    if _inner(view.health, "maintenance").get("enabled"):
        found.append("Maintenance mode is on.")
    return found


def _progress(recovery: Body, now: datetime) -> str:
    steps = recovery.get("steps", ())
    done = sum(step.get("state") == "done" for step in steps)
    at = next((step for step in steps if step.get("state") != "done"), None)
    text = f"Step {min(done + 1, len(steps))} of {len(steps)}" + (f": {at.get('title')}" if at else "")
    started = recovery.get("started_at")
    if started:
        text += f", {duration(now - datetime.fromisoformat(started))}"
        budget = recovery.get("budget_seconds")
        text += f" of {duration(timedelta(seconds=budget))}" if budget else ""
    return text


def _inner(part: Part[Body], name: str) -> Body:
    """A body within a body; empty where there is none."""
    found = (part.known or {}).get(name)
    return found if isinstance(found, Mapping) else {}


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
