"""The page's schedule as jobs that survive restarts."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import time_machine
from apscheduler.triggers.cron import CronTrigger

from agent.runbook import load_runbook
from agent.scheduling import RESTORE_DRILL, JobPlan, Scheduler, drill_plan, job_plans
from agent.scheduling.scheduler import last_due
from tests.daemon.deployment import eventually

PAGE = Path(__file__).parents[2] / "runbooks" / "firestore-operations.md"


HOURLY = JobPlan(id="backup-snapshot", type="snapshot", cron={"minute": "0"}, grace=timedelta(minutes=15))


def _ignore(_: str, __: datetime) -> None:
    return


class Log:
    """What a scheduler called."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, datetime]] = []
        self.missed: list[tuple[str, datetime]] = []
        self.called = threading.Event()

    def run(self, kind: str, due: datetime) -> None:
        self.ran.append((kind, due))
        self.called.set()

    def miss(self, kind: str, due: datetime) -> None:
        self.missed.append((kind, due))


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
    scheduler = Scheduler(file=tmp_path / "jobs.db", handler=lambda _, __: called.set(), missed=_ignore)
    scheduler.start([_every_second("full", timedelta(seconds=60))])
    try:
        assert called.wait(10)
    finally:
        scheduler.stop()


def test_a_run_that_overlaps_the_one_before_is_missed(tmp_path: Path) -> None:
    """The one before still runs: the new one is dropped and counted, not queued without end."""
    release, missed = threading.Event(), threading.Event()

    def slow(_: str, __: datetime) -> None:
        release.wait(20)

    scheduler = Scheduler(file=tmp_path / "jobs.db", handler=slow, missed=lambda _, __: missed.set())
    scheduler.start([_every_second("full", timedelta(seconds=60))])
    try:
        assert missed.wait(10)
    finally:
        release.set()
        scheduler.stop()


def test_after_a_downtime_every_run_is_accounted_for(tmp_path: Path) -> None:
    """Down from 08:30 to 11:05: 09:00 and 10:00 are missed, each by its due time, and 11:00 is made up."""
    log = Log()
    with time_machine.travel(datetime(2025, 9, 10, 8, 30, tzinfo=UTC)):
        before = Scheduler(file=tmp_path / "jobs.db", handler=_ignore, missed=_ignore)
        before.start([HOURLY])
        before.stop()
    with time_machine.travel(datetime(2025, 9, 10, 11, 5, tzinfo=UTC)):
        after = Scheduler(file=tmp_path / "jobs.db", handler=log.run, missed=log.miss)
        after.start([HOURLY])
        try:
            assert log.called.wait(10)
            assert after.due_times()["backup-snapshot"] == datetime(2025, 9, 10, 12, tzinfo=UTC)
        finally:
            after.stop()
    assert log.ran == [("snapshot", datetime(2025, 9, 10, 11, tzinfo=UTC))]
    eventually(lambda: len(log.missed) == 2, what=lambda: f"two misses, got {log.missed}")
    assert log.missed == [("snapshot", datetime(2025, 9, 10, hour, tzinfo=UTC)) for hour in (9, 10)]


def test_too_late_is_missed(tmp_path: Path) -> None:
    """A daemon that starts after the grace of a run does not start it, and says so."""
    log = Log()
    with time_machine.travel(datetime(2025, 9, 10, 8, 30, tzinfo=UTC)):
        before = Scheduler(file=tmp_path / "jobs.db", handler=_ignore, missed=_ignore)
        before.start([HOURLY])
        before.stop()
    with time_machine.travel(datetime(2025, 9, 10, 9, 16, tzinfo=UTC)):
        after = Scheduler(file=tmp_path / "jobs.db", handler=log.run, missed=log.miss)
        after.start([HOURLY])
        try:
            eventually(lambda: bool(log.missed), what=lambda: "a miss")
        finally:
            after.stop()
    assert (log.ran, log.missed) == ([], [("snapshot", datetime(2025, 9, 10, 9, tzinfo=UTC))])


def test_when_a_run_was_due() -> None:
    """The latest time within the grace, to the second; the present where there is none."""
    trigger = CronTrigger(timezone=UTC, minute="0")
    due = datetime(2025, 9, 10, 9, tzinfo=UTC)
    for late in (timedelta(0), timedelta(milliseconds=3), timedelta(minutes=14)):
        assert last_due(trigger, due + late, timedelta(minutes=15)) == due
    assert last_due(trigger, due + timedelta(minutes=20), timedelta(minutes=15)) == due + timedelta(minutes=20)
