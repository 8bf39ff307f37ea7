"""The daemon's side of the pipe: starts workers, hears them, notices when they are stuck or gone.

A worker's memory, crashes and CPU are its own; the rule loop never waits for one. Called by the daemon for scheduled
jobs and by the recovery for its undo.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from agent.clock import Clock
from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    Refused,
    RefusedReason,
    RunbookdError,
    Transient,
    TransientReason,
)
from agent.scheduling.worker import Assignment
from agent.telemetry import Progress, ProgressSink, Telemetry, ignore_progress, trace_headers
from agent.telemetry.catalogue import OPERATION_DOCUMENTS, OPERATIONS_ACTIVE, WORKER_LAST_PROGRESS, WORKERS_STUCK

_log = logging.getLogger(__name__)
_KINDS: Mapping[str, tuple[Callable[..., RunbookdError], Callable[[str], Any]]] = {
    "Transient": (Transient, TransientReason),
    "Permanent": (Permanent, PermanentReason),
    "Misconfigured": (Misconfigured, MisconfiguredReason),
    "Refused": (Refused, RefusedReason),
}


def worker_environment() -> dict[str, str]:
    """A worker's environment: ours, and two heaps for all of its threads.

    glibc gives each thread a heap that keeps what the thread has freed. Of documents of 900 KB a migration's worker
    held 399 MB at its peak, of 40 KB 281; with two heaps 273 and 212, with one 244 and 210. With one, migrations of
    small documents went at 0.95 and 0.89 of their pace (medians of 9 and 11 pairs), with two at 1.03. Whoever sets
    ``MALLOC_ARENA_MAX`` has the last word; other C libraries don't know it.
    """
    return {"MALLOC_ARENA_MAX": "2", **os.environ}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a worker ended: exactly one of ``report`` and ``error`` is set."""

    report: Mapping[str, Any] | None = None
    error: RunbookdError | None = None

    def unwrap(self) -> Mapping[str, Any]:
        """The report; raises the worker's error, which lost nothing but its traceback on the way."""
        if self.error is not None:
            raise self.error
        return self.report or {}


@dataclass(eq=False)
class Running:
    """A worker at work; thread-safe."""

    id: str
    operation: str
    process: subprocess.Popen[str]
    started_at: datetime
    progress: Progress | None = None
    progressed_at: float = 0.0
    progressed_wall: float = 0.0
    outcome: Outcome | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout: float | None = None) -> Outcome | None:
        """The outcome, or ``None`` if it is still at work after ``timeout`` seconds."""
        self._ended.wait(timeout)
        return self.outcome

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def cancel(self) -> None:
        """Ask it to stop at its next safe point."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ValueError, OSError):
                self.process.stdin.write('{"cancel": true}\n')
                self.process.stdin.flush()

    def kill(self) -> None:
        """End it now (SIGKILL); what it had journalled is what there is."""
        self.process.kill()

    def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._ended.set()


class Supervisor:
    """Starts workers and listens to them.

    Args:
        command: the worker program, e.g. ``[sys.executable, "-m", "agent.daemon.worker"]``.
        config: settings file handed to every worker.
        stuck_after: a worker without progress for this long counts as stuck (the page's troubleshooting figure).
    """

    def __init__(
        self,
        *,
        command: Sequence[str],
        config: str | None,
        telemetry: Telemetry,
        clock: Clock,
        stuck_after: timedelta,
    ) -> None:
        self._command = list(command)
        self._config = config
        self._telemetry = telemetry
        self._clock = clock
        self._stuck_after = stuck_after.total_seconds()
        self._running: dict[str, Running] = {}
        self._lock = threading.Lock()
        self._sequence = 0
        telemetry.observe(OPERATIONS_ACTIVE, self._observe_active)
        telemetry.observe(OPERATION_DOCUMENTS, self._observe_documents)
        telemetry.observe(WORKER_LAST_PROGRESS, self._observe_progress)
        telemetry.observe(WORKERS_STUCK, self._observe_stuck)

    def start(
        self, operation: str, arguments: Mapping[str, Any] | None = None, *, progress: ProgressSink = ignore_progress
    ) -> Running:
        """Start a worker; returns at once."""
        assignment = Assignment(
            operation=operation, arguments=dict(arguments or {}), config=self._config, trace=trace_headers()
        )
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=worker_environment(),
            # A group of its own: Ctrl-C at the terminal must reach the daemon, which stops workers in order.
            start_new_session=True,
        )
        with self._lock:
            self._sequence += 1
            running = Running(
                id=f"{operation}-{process.pid}-{self._sequence}",
                operation=operation,
                process=process,
                started_at=self._clock.now(),
                progressed_at=self._clock.monotonic(),
                progressed_wall=self._clock.now().timestamp(),
            )
            self._running[running.id] = running
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # died at once; the reader below reports it
                process.stdin.write(assignment.to_line())
                process.stdin.flush()
        threading.Thread(target=self._hear, args=(running, progress), daemon=True, name=f"hear-{running.id}").start()
        return running

    def run(
        self, operation: str, arguments: Mapping[str, Any] | None = None, *, progress: ProgressSink = ignore_progress
    ) -> Mapping[str, Any]:
        """Start a worker and wait for its report; raises its error."""
        outcome = self.start(operation, arguments, progress=progress).wait()
        assert outcome is not None
        return outcome.unwrap()

    def running(self) -> tuple[Running, ...]:
        with self._lock:
            return tuple(self._running.values())

    def stuck(self) -> tuple[Running, ...]:
        """Workers without progress for longer than the page allows."""
        now = self._clock.monotonic()
        return tuple(
            running
            for running in self.running()
            if now - running.progressed_at > self._stuck_after
            and not (running.progress is not None and running.progress.paused)
        )

    def stop(self, *, grace: float) -> None:
        """Ask all workers to stop, wait ``grace`` seconds together, kill the rest."""
        workers = self.running()
        for running in workers:
            running.cancel()
        deadline = self._clock.monotonic() + grace
        for running in workers:
            if running.wait(max(deadline - self._clock.monotonic(), 0.0)) is None:
                _log.warning("a worker did not stop in time and is killed", extra={"worker": running.id})
                running.kill()
                running.wait(5.0)

    # --- inside -----------------------------------------------------------------------------------------------

    def _hear(self, running: Running, progress: ProgressSink) -> None:
        final: dict[str, Any] | None = None
        stdout = running.process.stdout
        for line in stdout if stdout is not None else ():
            try:
                message: dict[str, Any] = json.loads(line)
            except json.JSONDecodeError:
                _log.warning("a worker printed a line that is no message", extra={"worker": running.id, "line": line})
                continue
            match message.get("type"):
                case "progress":
                    message.pop("type")
                    self._progressed(running, Progress(**message), progress)
                case "telemetry":
                    self._telemetry.absorb(running.id, message["families"])
                case "result" | "error":
                    final = message
        code = running.process.wait()
        for stream in (running.process.stdin, stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._telemetry.retire(running.id)
        with self._lock:
            self._running.pop(running.id, None)
        running.finish(_outcome(running, final, code))

    def _progressed(self, running: Running, progress: Progress, sink: ProgressSink) -> None:
        before = running.progress
        moved = (progress.done, progress.stage, progress.paused)
        if before is None or (before.done, before.stage, before.paused) != moved:
            running.progressed_at = self._clock.monotonic()
            running.progressed_wall = self._clock.now().timestamp()
        running.progress = progress
        sink(progress)

    def _observe_active(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        return _counted(self.running())

    def _observe_stuck(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        return _counted(self.stuck())

    def _observe_documents(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        for running in self.running():
            if running.progress is not None:
                labels = {"operation": running.operation}
                yield running.progress.done, {**labels, "state": "done"}
                if running.progress.total is not None:
                    yield running.progress.total, {**labels, "state": "total"}

    def _observe_progress(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        for running in self.running():
            yield running.progressed_wall, {"operation": running.operation}


def _counted(workers: Iterable[Running]) -> Iterable[tuple[float, Mapping[str, str]]]:
    counts: dict[str, int] = {}
    for running in workers:
        counts[running.operation] = counts.get(running.operation, 0) + 1
    for operation, count in counts.items():
        yield count, {"operation": operation}


def _outcome(running: Running, final: Mapping[str, Any] | None, code: int) -> Outcome:
    if final is None:
        return Outcome(
            error=Transient(
                TransientReason.WORKER_DIED,
                f"the worker of {running.operation} ended with status {code} and said nothing",
                hint="its log is on standard error; resume it, its journal is intact",
            )
        )
    if final["type"] == "result":
        return Outcome(report=final["report"])
    make, reason = _KINDS[final["kind"]]
    return Outcome(error=make(reason(final["reason"]), final["message"], hint=final["hint"]))
