"""The page's backup schedule as jobs: pure, so that ``check`` can print it and tests can read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from agent.runbook import BackupPlan, Frequency

_HOUR = timedelta(hours=1)
RESTORE_DRILL = "restore-drill"
"""The type of the job that is no backup: it restores one, to see that it can be."""


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """One job.

    Args:
        id: stable across restarts, e.g. ``backup-full``.
        type: the backup type.
        cron: APScheduler cron fields, in UTC.
        grace: how late a start still makes sense; later than that the run counts as missed.
    """

    id: str
    type: str
    cron: dict[str, str]
    grace: timedelta


def job_plans(
    backups: Iterable[BackupPlan], *, daily_at: str = "02:00", weekly_day: str = "sun"
) -> tuple[JobPlan, ...]:
    """One job a row of the page's schedule.

    The page says how often, not when: hourly runs start at the full hour, daily ones at ``daily_at`` (UTC), weekly
    ones two hours later on ``weekly_day``, so that no two bulk reads of one database start together.
    """
    hour, minute = (int(part) for part in daily_at.split(":"))
    times: dict[Frequency, tuple[dict[str, str], timedelta]] = {
        Frequency.HOURLY: ({"minute": "0"}, _HOUR / 4),
        Frequency.DAILY: ({"hour": str(hour), "minute": str(minute or 20)}, _HOUR * 6),
        Frequency.WEEKLY: (
            {"day_of_week": weekly_day, "hour": str((hour + 2) % 24), "minute": str(minute or 40)},
            _HOUR * 24,
        ),
    }
    return tuple(
        JobPlan(id=f"backup-{plan.type}", type=str(plan.type), cron=times[plan.every][0], grace=times[plan.every][1])
        for plan in backups
    )


def drill_plan(*, daily_at: str = "06:10") -> JobPlan:
    """The daily restore drill: when the night's backups are through, and a person comes to work soon (UTC)."""
    hour, minute = daily_at.split(":")
    cron = {"hour": str(int(hour)), "minute": str(int(minute))}
    return JobPlan(id=RESTORE_DRILL, type=RESTORE_DRILL, cron=cron, grace=_HOUR * 6)
