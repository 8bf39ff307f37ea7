"""The page's schedule as jobs that survive restarts."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.runbook import load_runbook
from agent.scheduling import RESTORE_DRILL, JobPlan, Scheduler, drill_plan, job_plans

PAGE = Path(__file__).parents[2] / "runbooks" / "firestore-operations.md"


def _ignore(_: str) -> None:
    return


def test_one_job_a_row_of_the_schedule() -> None:
    """Hourly snapshot, daily incremental, weekly full."""
    plans = {plan.id: plan for plan in job_plans(load_runbook(PAGE).backups)}
    assert set(plans) == {"backup-snapshot", "backup-incremental", "backup-full"}
    assert plans["backup-snapshot"].cron == {"minute": "0"}
    assert plans["backup-full"].cron["day_of_week"] == "sun"


def test_a_restore_is_tried_every_day() -> None:
    """The drill is a job of its own, daily, apart from the backups."""
    plan = drill_plan()
    assert (plan.type, plan.cron) == (RESTORE_DRILL, {"hour": "6", "minute": "10"})


def test_due_times_are_the_next_ones_in_utc(tmp_path: Path) -> None:
    """The hourly job is due at the next full hour."""
    scheduler = Scheduler(file=tmp_path / "jobs.db", handler=_ignore, missed=_ignore)
    scheduler.start(job_plans(load_runbook(PAGE).backups))
    try:
        due = scheduler.due_times()["backup-snapshot"]
        assert due.minute == 0
        assert timedelta(0) < due - datetime.now(UTC) <= timedelta(hours=1)
    finally:
        scheduler.stop()


def _every_second(kind: str, grace: timedelta) -> JobPlan:
    return JobPlan(id=f"backup-{kind}", type=kind, cron={"second": "*"}, grace=grace)


def test_a_due_job_reaches_its_handler(tmp_path: Path) -> None:
    """APScheduler calls the daemon's handler with the backup's type."""
    called = threading.Event()
    scheduler = Scheduler(file=tmp_path / "jobs.db", handler=lambda _: called.set(), missed=_ignore)
    scheduler.start([_every_second("full", timedelta(seconds=60))])
    try:
        assert called.wait(10)
    finally:
        scheduler.stop()


def test_a_run_that_overlaps_the_one_before_is_missed(tmp_path: Path) -> None:
    """The one before still runs: the new one is dropped and counted, not queued without end."""
    release, missed = threading.Event(), threading.Event()

    def slow(_: str) -> None:
        release.wait(20)

    scheduler = Scheduler(file=tmp_path / "jobs.db", handler=slow, missed=lambda _: missed.set())
    scheduler.start([_every_second("full", timedelta(seconds=60))])
    try:
        assert missed.wait(10)
    finally:
        release.set()
        scheduler.stop()
