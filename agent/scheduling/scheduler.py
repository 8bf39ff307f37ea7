"""APScheduler, kept in one place.

Jobs live in a SQLAlchemy job store on disk, so that a restart neither forgets a run that came due meanwhile nor
repeats one: a run that is late but within its grace starts once (coalesced), a later one is reported as missed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from agent.scheduling.jobs import JobPlan

_log = logging.getLogger(__name__)
JobHandler = Callable[[str], None]

# The job store pickles jobs by reference, so a job names a function of this module and the handler is looked up when
# it fires. One daemon a process: the registry holds one entry per scheduler.
_handlers: dict[str, JobHandler] = {}
_handlers_lock = threading.Lock()


def fire(scheduler: str, job_type: str) -> None:
    """Called by APScheduler in its own thread."""
    with _handlers_lock:
        handler = _handlers.get(scheduler)
    if handler is None:
        _log.error("a job came due and nobody handles it", extra={"job": job_type})
        return
    handler(job_type)


class Scheduler:
    """Runs ``handler(type)`` when a job is due and ``missed(type)`` when one was skipped.

    Args:
        file: SQLite file of the job store.
        handler: does the work and returns; runs in a thread of its own per job.
        missed: told of every run that was dropped (too late, or the one before still running).
    """

    def __init__(self, *, file: Path, handler: JobHandler, missed: JobHandler) -> None:
        self._name = str(file.resolve())
        self._missed = missed
        with _handlers_lock:
            _handlers[self._name] = handler
        self._scheduler: Any = BackgroundScheduler(
            jobstores={"default": SQLAlchemyJobStore(url=f"sqlite:///{file}", tablename="scheduled_job")},
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": True, "max_instances": 1},
            timezone=UTC,
        )
        self._scheduler.add_listener(self._on_missed, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def start(self, plans: Iterable[JobPlan]) -> None:
        """Bring the stored jobs in line with ``plans`` and begin; an unchanged job keeps its due time."""
        self._scheduler.start(paused=True)
        wanted = {plan.id: plan for plan in plans}
        for job in self._scheduler.get_jobs():
            if job.id not in wanted:
                self._scheduler.remove_job(job.id)
        for plan in wanted.values():
            trigger = CronTrigger(timezone=UTC, **plan.cron)
            known = self._scheduler.get_job(plan.id)
            if known is not None and str(known.trigger) == str(trigger) and known.args == (self._name, plan.type):
                continue
            self._scheduler.add_job(
                fire,
                trigger,
                args=(self._name, plan.type),
                id=plan.id,
                name=plan.id,
                misfire_grace_time=int(plan.grace.total_seconds()),
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
        with _handlers_lock:
            _handlers.pop(self._name, None)

    def _on_missed(self, event: Any) -> None:
        self._missed(event.job_id.removeprefix("backup-"))
