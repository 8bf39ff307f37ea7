"""Stuck runs: noticed, stopped and resumed, as the page's troubleshooting section tells a person to do it.

A run whose record shows no progress for longer than the page allows is stuck, whoever started it: its process hangs,
or was killed with nobody there to resume it. The process is ended (``kill -9``, as on the page; the journal is what
counts) and the run resumed in a worker of the daemon. Three times without getting on, and people are needed.

:func:`care` is pure; :class:`RunKeeper` is asked once a pass over the rules.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from agent.clock import Clock
from agent.faults import RunbookdError
from agent.migration import Entry, Event, RunRecord, Runs, RunState
from agent.scheduling import Supervisor
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import WORKERS_STUCK

_log = logging.getLogger(__name__)
_MIGRATING = ("migrate", "resume")
_UNDOING = "undo"
_MOST_RESUMES = 3
_FORGOTTEN = timedelta(hours=1)
"""A run that nobody worked on for longer is left to people: the versions that tell of its last writes are gone."""


class Care(StrEnum):
    """What a run needs."""

    NOTHING = "nothing"
    STOP = "stop"
    RESUME = "resume"
    PEOPLE = "people"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What is remembered of a run from one look to the next.

    Args:
        mark: changes whenever the run gets on.
        since: when the mark was first seen, on the caller's monotonic clock.
        resumes: how often it was resumed by itself since it last got on with documents.
    """

    run_id: str
    mark: tuple[object, ...]
    since: float
    documents: int = 0
    resumes: int = 0

    def looked(self, record: RunRecord, now: float) -> Watched:
        """The same after another look."""
        mark, documents = mark_of(record), record.counts.scanned
        if record.id != self.run_id:
            return Watched(run_id=record.id, mark=mark, since=now, documents=documents)
        resumes = self.resumes if documents == self.documents else 0
        since = self.since if mark == self.mark else now
        return dataclasses.replace(self, mark=mark, since=since, documents=documents, resumes=resumes)


def mark_of(record: RunRecord) -> tuple[object, ...]:
    """What changes when a run gets on; that it waits because a person said so is no standing still."""
    return (record.state, record.sessions, record.pace, record.counts)


def care(
    record: RunRecord, watched: Watched, *, alive: bool, idle: timedelta, now: float, stuck_after: timedelta
) -> Care:
    """What the run needs now.

    Args:
        alive: a process of this machine works on it.
        idle: since its record was last written.
    """
    if record.state is not RunState.RUNNING or now - watched.since <= stuck_after.total_seconds():
        return Care.NOTHING
    if not alive and idle > _FORGOTTEN + stuck_after:
        return Care.NOTHING
    if watched.resumes >= _MOST_RESUMES:
        return Care.PEOPLE
    return Care.STOP if alive else Care.RESUME


class RunKeeper:
    """Looks after the newest run.

    Args:
        obstacle: why the automation keeps its hands off the run (a hold, an abort, a recovery), ``""`` if it doesn't.
        resume: starts a worker that goes on with the run.
        tell: says a line about a run to people, without calling them; the stuck gauge and its rule do that.
    """

    def __init__(
        self,
        *,
        runs: Runs,
        supervisor: Supervisor,
        stuck_after: Callable[[], timedelta],
        obstacle: Callable[[str], str],
        resume: Callable[[str], object],
        tell: Callable[[str, str], None],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._runs = runs
        self._supervisor = supervisor
        self._stuck_after = stuck_after
        self._obstacle = obstacle
        self._resume = resume
        self._tell = tell
        self._clock = clock
        self._watched: Watched | None = None
        self._stuck = False
        telemetry.observe(WORKERS_STUCK, self._observe)

    def look(self, record: RunRecord | None) -> Care:
        """Look at the newest run, and do what it needs; returns what that was."""
        self._end_stuck_undos()
        if record is None:
            self._stuck = False
            return Care.NOTHING
        now = self._clock.monotonic()
        before = self._watched or Watched(run_id="", mark=(), since=now)
        self._watched = watched = before.looked(record, now)
        needed = care(
            record,
            watched,
            alive=self._runs.alive(record),
            idle=self._clock.now() - self._runs.touched(record.id),
            now=now,
            stuck_after=self._stuck_after(),
        )
        self._stuck = needed is not Care.NOTHING
        if not self._stuck or self._obstacle(record.id):
            return Care.NOTHING
        match needed:
            case Care.STOP:
                self._stop(record)
            case Care.RESUME:
                self._watched = dataclasses.replace(watched, resumes=watched.resumes + 1, since=now)
                self._note(record, f"resumed by the daemon, for the {_nth(watched.resumes)} time")
                self._resume(record.id)
        return needed

    # --- inside -----------------------------------------------------------------------------------------------

    def _stop(self, record: RunRecord) -> None:
        ours = [running for running in self._supervisor.running() if running.operation in _MIGRATING]
        minutes = self._stuck_after().total_seconds() / 60
        self._note(record, f"no progress for {minutes:g} minutes; process {record.pid} is ended")
        for running in ours:
            running.kill()
        if ours or record.host != socket.gethostname():
            return
        try:
            os.kill(record.pid, signal.SIGKILL)
        except OSError as error:
            _log.warning("a stuck migration can't be ended", extra={"pid": record.pid, "why": str(error)})

    def _end_stuck_undos(self) -> None:
        """Their recovery tries again: an undo goes on where it stopped."""
        for running in self._supervisor.stuck():
            if running.operation == _UNDOING:
                _log.warning("an undo makes no progress; its worker is ended", extra={"worker": running.id})
                running.kill()

    def _note(self, record: RunRecord, what: str) -> None:
        _log.warning("a migration is stuck", extra={"run": record.id, "what": what})
        self._runs.chronicle(record.id).note(Entry(at=self._clock.now(), event=Event.STUCK, detail=what))
        try:
            self._tell(record.id, f"Migration {record.name} is stuck: {what}")
        except RunbookdError as error:
            _log.warning("nobody could be told", extra={"run": record.id, "why": str(error)})

    def _observe(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        yield float(self._stuck), {"operation": "migration"}


def _nth(resumes: int) -> str:
    return ("first", "second", "third")[resumes]
