"""APScheduler, kept in one place.

Jobs live in a SQLAlchemy job store on disk, so that a restart neither forgets a run that came due meanwhile nor
repeats one: a run that is late but within its grace starts, each later one is reported as missed under its own due
time. Runs are not coalesced, because APScheduler drops what it coalesces without a word.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from agent.scheduling.jobs import JobPlan

_log = logging.getLogger(__name__)
JobHandler = Callable[[str, datetime], None]
"""Called with a job's type and the time at which it was due, in UTC."""

# The job store pickles jobs by reference, so a job names a function of this module and the scheduler is looked up when
# it fires. One daemon a process: the registry holds one entry per scheduler.
_schedulers: dict[str, Scheduler] = {}
_schedulers_lock = threading.Lock()


def fire(scheduler: str, job: str) -> None:
    """Called by APScheduler in its own thread."""
    with _schedulers_lock:
        found = _schedulers.get(scheduler)
    if found is None:
        _log.error("a job came due and nobody handles it", extra={"job": job})
        return
    found.fired(job)


def last_due(trigger: CronTrigger, now: datetime, grace: timedelta) -> datetime:
    """When a run that starts now was due: the latest time of ``trigger`` that is not more than ``grace`` ago.

    APScheduler does not tell a job its due time, and the present is not it: an attempt that was recorded under
    02:20:07 would be counted beside the miss of 02:20.
    """
    due: datetime | None = None
    following = trigger.get_next_fire_time(None, now - grace)
    while following is not None and following <= now:
        due = following
        following = trigger.get_next_fire_time(due, due + timedelta(seconds=1))
    return (due or now).astimezone(UTC)


class Scheduler:
    """Runs ``handler(type, due)`` when a job is due and ``missed(type, due)`` when one was skipped.

    Args:
        file: SQLite file of the job store.
        handler: does the work and returns; runs in a thread of its own per job.
        missed: told of every run that was dropped (too late, or the one before still running).
    """

    def __init__(self, *, file: Path, handler: JobHandler, missed: JobHandler) -> None:
        self._name = str(file.resolve())
        self._handler = handler
        self._missed = missed
        self._plans: dict[str, JobPlan] = {}
        with _schedulers_lock:
            _schedulers[self._name] = self
        self._scheduler: Any = BackgroundScheduler(
            jobstores={"default": SQLAlchemyJobStore(url=f"sqlite:///{file}", tablename="scheduled_job")},
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": False, "max_instances": 1},
            timezone=UTC,
        )
        self._scheduler.add_listener(self._on_missed, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def start(self, plans: Iterable[JobPlan]) -> None:
        """Bring the stored jobs in line with ``plans`` and begin; an unchanged job keeps its due time."""
        self._scheduler.start(paused=True)
        wanted = self._plans = {plan.id: plan for plan in plans}
        for job in self._scheduler.get_jobs():
            if job.id not in wanted:
                self._scheduler.remove_job(job.id)
        for plan in wanted.values():
            trigger, grace = _trigger(plan), int(plan.grace.total_seconds())
            known = self._scheduler.get_job(plan.id)
            if (
                known is not None
                and (str(known.trigger), known.args) == (str(trigger), (self._name, plan.id))
                and (known.coalesce, known.misfire_grace_time) == (False, grace)
            ):
                continue
            self._scheduler.add_job(
                fire,
                trigger,
                args=(self._name, plan.id),
                id=plan.id,
                name=plan.id,
                misfire_grace_time=grace,
                replace_existing=True,
            )
        self._scheduler.resume()

    def due_times(self) -> dict[str, datetime]:
        """When each job is due next, in UTC."""
        return {job.id: job.next_run_time for job in self._scheduler.get_jobs() if job.next_run_time is not None}

    def stop(self) -> None:
        """No new runs; doesn't wait for those under way (their workers are stopped by the supervisor)."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        with _schedulers_lock:
            _schedulers.pop(self._name, None)

    def fired(self, job: str) -> None:
        """A job is due; for :func:`fire`."""
        plan = self._plans[job]
        self._handler(plan.type, last_due(_trigger(plan), datetime.now(UTC), plan.grace))

    def _on_missed(self, event: Any) -> None:
        """One run that came too late, or the runs that were due while the one before was still at work."""
        plan = self._plans.get(event.job_id)
        if plan is not None:
            for due in getattr(event, "scheduled_run_times", None) or [event.scheduled_run_time]:
                self._missed(plan.type, due.astimezone(UTC))


def _trigger(plan: JobPlan) -> CronTrigger:
    return CronTrigger(timezone=UTC, **plan.cron)
