"""The process in which a migration and its undo are measured: the product's worker, with settings of the bench.

    python -m bench.worker [--silent]

Speaks the workers' protocol (:mod:`agent.scheduling.worker`): an assignment on standard input, progress, telemetry and
the figures on standard output. ``--silent`` leaves telemetry out: nothing is counted, timed, traced or reported.
Started by :mod:`bench.migration` through :func:`measured`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opentelemetry.trace import INVALID_SPAN, Span

from agent.firestore import DatabaseAddress, Firestore
from agent.migration import Migrations, Preconditions, RestorePoint, RunSettings
from agent.scheduling import Assignment, OperationContext, serve, worker_environment
from agent.telemetry import Telemetry, start_telemetry


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker is to run and take back.

    Args:
        definitions: a folder whose revision 0001 it is.
        data: the agent's data folder: records, journals, known rates.
        parallel: chunks on their way at once.
        validate: read a sample of each batch back.
    """

    host: str
    project: str
    definitions: str
    data: str
    parallel: int = RunSettings.parallel
    validate: bool = True


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What it took.

    Args:
        touched: documents that the migration wrote.
        migrate_seconds: of the run, from its first read to its last write and reading back, planning left out.
        write_back_seconds: of the undo, until everything was as before.
        undo_seconds: of the whole undo: reading the journal, writing back, and reading everything back to compare.
        migrate_cpu_seconds: of this process, planning included.
        peak_megabytes: the largest resident set.
    """

    touched: int
    migrate_seconds: float
    write_back_seconds: float
    undo_seconds: float
    migrate_cpu_seconds: float
    peak_megabytes: float


def measured(task: Task, *, silent: bool = False) -> Figures:
    """Have a fresh worker process do ``task``, as the daemon would: its lines are read and its pipe stays open.

    Raises:
        RuntimeError: it failed, with what it said.
    """
    command = [sys.executable, "-m", "bench.worker", *(["--silent"] if silent else [])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=worker_environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(Assignment(operation="migrate and undo", arguments=asdict(task)).to_line())
        process.stdin.flush()
        last: dict[str, Any] = {}
        for line in process.stdout:
            last = json.loads(line)
    if last.get("type") != "result":
        raise RuntimeError(f"the worker on {task.project} ended with {process.returncode}: {last.get('message', last)}")
    return Figures(**last["report"])


class Silent(Telemetry):
    """Telemetry that isn't there: what the product's is compared with."""

    def add(self, *_: object) -> None:
        """Nothing."""

    def record(self, *_: object) -> None:
        """Nothing."""

    def set(self, *_: object) -> None:
        """Nothing."""

    def observe(self, *_: object) -> None:
        """Nothing."""

    @contextmanager
    def span(self, *_: object, **__: object) -> Iterator[Span]:
        """A span that nobody sees."""
        yield INVALID_SPAN

    def relayed(self) -> list[Any]:
        """Nothing."""
        return []


def migrate_and_undo(context: OperationContext, **arguments: Any) -> Mapping[str, float]:
    """The operation; the figures by name."""
    task = Task(**arguments)
    address = DatabaseAddress(project=task.project, host=task.host)
    with Firestore(address, telemetry=context.telemetry, origin="migration") as firestore:
        migrations = Migrations(
            firestore=firestore,
            definitions=Path(task.definitions),
            data_dir=Path(task.data),
            telemetry=context.telemetry,
            preconditions=Preconditions(restore_point=_no_backup_needed),
            # No rate_limit: the daemon would cap the run at 90 % of the page's warning, 900 documents a second.
            settings=RunSettings(parallel=task.parallel, validate=task.validate),
        )
        before = time.process_time()
        report = migrations.run("0001", again=True, progress=context.progress)
        cpu = time.process_time() - before
        undone = migrations.undo(report.record.id, progress=context.progress)
    touched = report.record.counts.written
    if undone.findings.undone != touched or undone.findings.verified != touched:
        raise RuntimeError(f"{touched} documents were written, {undone.findings} taken back")
    figures = Figures(
        touched=touched,
        migrate_seconds=report.record.seconds,
        write_back_seconds=undone.findings.write_seconds,
        undo_seconds=undone.seconds,
        migrate_cpu_seconds=cpu,
        peak_megabytes=_peak_megabytes(),
    )
    return asdict(figures)


def _peak_megabytes() -> float:
    """The largest resident set of this program.

    Not getrusage's: Linux counts there what the process held before it became this program, which is what the bench
    holds, every document of the raw writer included.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kilobytes) / 1024


def _no_backup_needed() -> RestorePoint:
    return RestorePoint(id="none", read_time=datetime.now(UTC), verified=True)


def main() -> int:
    """Serve one assignment; returns the exit code."""
    telemetry = Silent() if "--silent" in sys.argv[1:] else start_telemetry("worker")
    return serve(lambda _assignment, _telemetry: {"migrate and undo": migrate_and_undo}, telemetry=telemetry)


if __name__ == "__main__":
    sys.exit(main())
