"""Backtests: a recorded history put through rules, notices and the decision matrix.

What would have fired, who would have been paged, and which migration would have been rolled back, by the daemon's own
code. After a decision to roll back the history goes on as it was recorded: nobody knows how it would have.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.alerting import Alert, AlertState, Health, RuleSet, TickResult
from agent.alerting.recordings import EVERYTHING, Recording, fill
from agent.clock import ManualClock
from agent.decisions import Decision
from agent.notifications import Kind
from agent.rehearsal.stage import Notice, Stage
from agent.rehearsal.world import World
from agent.runbook import ChannelKind, Policy
from agent.samples import METRIC_NAME, Sample
from agent.telemetry.catalogue import BASELINE_LATENCY, MIGRATION_ACTIVE

_LOOK_EVERY = 60


@dataclass(frozen=True, kw_only=True)
class Fired:
    """One time that an alert would have fired.

    Args:
        pages: it is meant for people.
        action: what the decision matrix has for it; "" if it is no alert of the matrix.
    """

    rule: str
    labels: Mapping[str, str]
    fired_at: datetime
    resolved_at: datetime | None
    value: float
    pages: bool
    action: str


@dataclass(frozen=True, kw_only=True)
class Paged:
    """One time that somebody would have been called.

    Args:
        kind: ``trigger``, ``update`` or ``resolve``.
    """

    at: datetime
    channel: str
    kind: str
    condition: str
    severity: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Decided:
    """One decision that would have been taken.

    Args:
        rolls_back: it is a rollback, by itself.
        run: the migration run it is bound to, "" if none was under watch.
    """

    at: datetime
    row: str
    verdict: str
    rolls_back: bool
    run: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """What would have been.

    Args:
        unseen: alert rules that had no data whenever they were looked at: the history does not speak of them.
    """

    start: datetime
    end: datetime
    fired: tuple[Fired, ...]
    paged: tuple[Paged, ...]
    decided: tuple[Decided, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Migration:
    """A migration that a person says there was; ``ended`` is ``None`` where it ran to the history's end."""

    started: datetime
    ended: datetime | None = None


def backtest(
    rules: RuleSet,
    recording: Recording,
    policy: Policy,
    *,
    thresholds: Sequence[Sample] = (),
    migration: Migration | None = None,
    start: datetime | None = None,
    step: float = 1.0,
) -> Backtest:
    """Put ``recording`` through ``rules`` and the matrix of ``policy``, a look every ``step`` seconds.

    Args:
        thresholds: the page's figures as series; those that the recording has go before.
        migration: the run under watch; by default the one that the recording's own series tells of.
        start: of the looks; what is earlier only fills windows.
    """
    made = frozenset({"ALERTS", "ALERTS_FOR_STATE", *(rule.name for rule in rules.recordings)})
    begin = start or datetime.fromtimestamp(recording.start, UTC)
    migration = migration or _recorded_migration(recording)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(
            folder=Path(folder),
            rules=rules,
            policy=policy,
            world=World(
                started=migration.started if migration else None,
                finished=migration.ended if migration else None,
                run_id="the recorded run",
                baseline=BASELINE_LATENCY.prometheus_name in recording.metrics,
            ),
            clock=ManualClock(begin),
            thresholds=[each for each in thresholds if dict(each.labels)[METRIC_NAME] not in recording.metrics],
            channels=tuple(ChannelKind),
            keep=EVERYTHING,
            save=False,
        )
        try:
            fill(stage.store, recording, without=made)
            return _played(stage, begin, datetime.fromtimestamp(recording.end, UTC), step, policy)
        finally:
            stage.stop(killed=True)


def _played(stage: Stage, begin: datetime, end: datetime, step: float, policy: Policy) -> Backtest:
    actions = {row.condition: str(row.action) for row in policy.matrix if not row.manual}
    fired: dict[tuple[str, datetime], Fired] = {}
    seen: set[str] = set()
    looks = int((end - begin).total_seconds() / step) + 1
    for number in range(max(looks, 1)):
        for alert in _fired(stage.tick()):
            assert alert.fired_at is not None
            fired[(alert.fingerprint, alert.fired_at)] = Fired(
                rule=alert.rule,
                labels=alert.labels,
                fired_at=alert.fired_at,
                resolved_at=alert.resolved_at,
                value=alert.value,
                pages=alert.calls,
                action=actions.get(alert.labels.get("matrix", ""), ""),
            )
        if number % _LOOK_EVERY == 0 or number == looks - 1:
            seen |= _seeing(stage)
        stage.clock.advance(step)
    return Backtest(
        start=begin,
        end=end,
        fired=tuple(sorted(fired.values(), key=lambda each: each.fired_at)),
        paged=tuple(_paged(notice) for notice in stage.notices if notice.notification.kind is not Kind.CHANGE),
        decided=tuple(_decided(decision) for decision in stage.decided),
        unseen=tuple(sorted({rule.name for rule in stage.rules.alerts} - seen)),
    )


def _fired(result: TickResult) -> list[Alert]:
    return [
        alert
        for alert in result.changes
        if alert.fired_at is not None and alert.state in (AlertState.FIRING, AlertState.RESOLVED)
    ]


def _seeing(stage: Stage) -> set[str]:
    statuses = [status for group in stage.evaluator.groups() for status in group.rules]
    return {status.rule.name for status in statuses if status.health is Health.OK}


def _paged(notice: Notice) -> Paged:
    notification = notice.notification
    return Paged(
        at=notice.at,
        channel=str(notification.channel),
        kind=str(notification.kind),
        condition=notification.condition,
        severity=str(notification.message.severity),
        title=notification.message.title,
    )


def _decided(decision: Decision) -> Decided:
    return Decided(
        at=decision.decided_at,
        row=decision.condition,
        verdict=str(decision.verdict),
        rolls_back=decision.pace is not None and str(decision.verdict) == "rollback",
        run=decision.run_id,
        reasons=decision.reasons,
    )


def _recorded_migration(recording: Recording) -> Migration | None:
    """The newest stretch in which the recording says that a run was under watch."""
    name = MIGRATION_ACTIVE.prometheus_name
    started: float | None = None
    for labels, samples in recording.series.items():
        if dict(labels).get(METRIC_NAME) != name:
            continue
        before = 0.0
        for at, value in samples:
            if value and not before:
                started = max(at, started or at)
            before = value
    return None if started is None else Migration(started=datetime.fromtimestamp(started, UTC))
