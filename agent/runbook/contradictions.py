"""What two parts of a page say against each other.

Section readers see one table; here are the checks that need two. The reader of pages runs them on the parts that it
understood, so that a page's author gets these together with the cells that weren't.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

from agent.runbook.chapter_backup import Emergency
from agent.runbook.facts import retention_said
from agent.runbook.policy import (
    Action,
    BackupPlan,
    ChannelKind,
    Channels,
    Checklist,
    CollectionPlan,
    DeploymentStage,
    EmergencyStep,
    EnvironmentVariable,
    MatrixRow,
    Operation,
    Statistics,
    Threshold,
)
from agent.runbook.problems import Problems


def documents_add_up(statistics: Statistics | None, order: Sequence[CollectionPlan], problems: Problems) -> None:
    """The collections' documents must be the total, transient collections left aside."""
    if statistics is None or not order:
        return
    total = sum(plan.documents or 0 for plan in order)
    if total != statistics.documents:
        problems.add(
            order[0].line,
            f"the collections add up to {total:,} documents, the table 'Database Statistics' says "
            f"{statistics.documents:,}",
            where="migration order",
            hint="correct one of them",
        )


def time_to_traffic(steps: Sequence[EmergencyStep]) -> timedelta:
    """Time from the first step until traffic is back.

    The verification that follows is not part of an outage: users are served again, and what it finds starts a new
    decision. A sequence that never turns maintenance off counts whole.
    """
    ends = [at for at, step in enumerate(steps, start=1) if step.operation is Operation.MAINTENANCE_OFF]
    counted = steps[: ends[-1]] if ends else steps
    return sum((step.budget for step in counted), timedelta())


def emergency_fits(
    emergency: Emergency | None, matrix: Sequence[MatrixRow], statistics: Statistics | None, problems: Problems
) -> None:
    """The sequence must fit into the time that it states, and that time into the matrix's budgets for a rollback."""
    if emergency is None:
        return
    needed = time_to_traffic(emergency.steps)
    if needed > emergency.budget:
        problems.add(
            emergency.line,
            f"the steps add up to {_clock(needed)} until traffic is back, more than the {_clock(emergency.budget)} "
            "stated",
            where="emergency sequence",
            hint="shorten a step or state a longer time",
        )
    for row in matrix:
        if row.action is not Action.IMMEDIATE_ROLLBACK or row.budget is None:
            continue
        where = f"row {row.title!r} of the decision matrix"
        if max(needed, emergency.budget) > row.budget:
            problems.add(
                row.line,
                f"allows {_clock(row.budget)}, the emergency sequence at line {emergency.line} takes "
                f"{_clock(max(needed, emergency.budget))}",
                where=where,
                hint="shorten the sequence or allow more time",
            )
        if statistics and statistics.rollback_time_seconds > row.budget.total_seconds():
            problems.add(
                row.line,
                f"allows {_clock(row.budget)}, the table 'Database Statistics' says that a rollback takes "
                f"{_clock(timedelta(seconds=statistics.rollback_time_seconds))}",
                where=where,
                hint="correct one of them",
            )


def channels_have_addresses(thresholds: Sequence[Threshold], channels: Channels | None, problems: Problems) -> None:
    """A channel that the key-metrics table uses needs an address; e-mail's may stand in the settings instead."""
    if channels is None:
        return
    known = {ChannelKind.SLACK: channels.slack, ChannelKind.PAGERDUTY: channels.pagerduty}
    for kind, address in known.items():
        users = [threshold for threshold in thresholds if kind in threshold.channels]
        if users and not address:
            problems.add(
                users[0].line,
                f"unknown channel {kind.value!r}: 'Communication Channels' gives it no address",
                where=f"row {users[0].title!r} of table 'Key Metrics to Monitor'",
                hint="add it to the list",
            )


def stages_follow(stages: Sequence[DeploymentStage], problems: Problems) -> None:
    """Each stage of deployment day starts when the one before is over, or later."""
    for before, after in pairwise(stages):
        end = _since_midnight(before) + (before.duration or timedelta(minutes=1))
        if _since_midnight(after) < end:
            problems.add(
                after.line,
                f"starts at {after.at:%H:%M}, before the stage {before.title!r} at line {before.line} is over",
                where=f"stage {after.title!r}",
                hint="correct one of the times",
            )


def retention_agrees(
    backups: Sequence[BackupPlan],
    checklists: Sequence[Checklist],
    environment: Sequence[EnvironmentVariable],
    problems: Problems,
) -> None:
    """What checklists and RETENTION_DAYS say must be the longest retention of the backup schedule."""
    if not backups:
        return
    longest = max(plan.retention for plan in backups) / timedelta(days=1)
    said = [(line, f"{quantity.duration / timedelta(days=1):g}") for line, quantity in retention_said(checklists)]
    said += [(variable.line, variable.value) for variable in environment if variable.name == "RETENTION_DAYS"]
    for line, days in said:
        if days != f"{longest:g}":
            problems.add(
                line,
                f"a retention of {days} days, the table 'Automated Backup Schedule' says {longest:g}",
                hint="correct one of them",
            )


def _since_midnight(stage: DeploymentStage) -> timedelta:
    return timedelta(hours=stage.at.hour, minutes=stage.at.minute)


def _clock(span: timedelta) -> str:
    """A time span as minutes and seconds: ``5 min 30 s``."""
    minutes, seconds = divmod(span.total_seconds(), 60)
    parts = [f"{minutes:g} min" if minutes else "", f"{seconds:g} s" if seconds or not minutes else ""]
    return " ".join(part for part in parts if part)
