"""Run records: one folder for each run of a migration, readable by every process of the machine.

``<data>/migrations/<run id>/run.json`` is replaced atomically; the journal lies beside it. Whether somebody works on a
run is told by a lock on the folder's ``lock`` file, which the operating system drops when the process dies, and not
by what the record says: after ``kill -9`` the record still says ``running``.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent.clock import rfc3339
from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason, Refused, RefusedReason
from agent.migration.chronicle import Chronicle
from agent.migration.journal import Counts

_STAMP = len("run-20250910-080000")


class RunState(StrEnum):
    """Where a run is."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FAILED = "failed"
    DONE = "done"
    UNDOING = "undoing"
    UNDONE = "undone"

    @property
    def resumable(self) -> bool:
        """Whether the rest of the migration may still be run."""
        return self in (RunState.RUNNING, RunState.PAUSED, RunState.CANCELLED, RunState.FAILED)


@dataclass(frozen=True, kw_only=True)
class CollectionProgress:
    """One collection of a run."""

    collection: str
    documents: int
    counts: Counts = field(default_factory=Counts)
    checked: int = 0
    mismatched: int = 0
    started: datetime | None = None
    finished: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What is known of one run.

    Args:
        id: e.g. ``run-20250910-080000-0001``: when it started (UTC) and the revision.
        name: the migration's name.
        database: full name of the database, ``projects/p/databases/d``.
        checksum: of the migration's file when the run started.
        pre_read_time: a server time before the first write: the state to which an undo goes back.
        restore_point: id of the backup that preflight accepted; empty where none was asked for.
        seconds: spent migrating, resumes included, waiting in between not.
        undone, kept, merged: documents of the undo so far.
        error: why it failed; empty otherwise.
        pace: why it is not at full speed just now: paused by whom, slowed down by what; empty if it is.
        disarmed: why it must not be rolled back by itself; empty if it may be.
        pid, host: the process that worked on it last.
    """

    id: str
    name: str
    revision: str
    database: str
    checksum: str
    state: RunState
    started: datetime
    finished: datetime | None = None
    pre_read_time: datetime
    restore_point: str = ""
    collections: tuple[CollectionProgress, ...] = ()
    seconds: float = 0.0
    sessions: int = 1
    undo_started: datetime | None = None
    undo_finished: datetime | None = None
    undone: int = 0
    kept: int = 0
    merged: int = 0
    error: str = ""
    pace: str = ""
    disarmed: str = ""
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    @property
    def total(self) -> int:
        """Documents of all collections when the run started."""
        return sum(part.documents for part in self.collections)

    @property
    def counts(self) -> Counts:
        """Sums over the collections."""
        return sum((part.counts for part in self.collections), Counts())

    def with_collection(self, changed: CollectionProgress) -> RunRecord:
        """A copy in which one collection's figures are replaced."""
        parts = tuple(changed if part.collection == changed.collection else part for part in self.collections)
        return dataclasses.replace(self, collections=parts)


class Runs:
    """The run records below one folder.

    Args:
        folder: made if missing.

    Raises:
        Misconfigured: NOT_WRITABLE.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(
                MisconfiguredReason.NOT_WRITABLE,
                f"the folder for migration runs {folder} can't be made ({error.strerror})",
                hint="give this user write permission, or set data_dir to another folder",
            ) from error

    def new_id(self, revision: str, now: datetime) -> str:
        """An id that no run has yet; its folder exists from now on."""
        stem = f"run-{now.astimezone(UTC):%Y%m%d-%H%M%S}-{revision}"
        for number in range(1, 1000):
            run_id = stem if number == 1 else f"{stem}-{number}"
            try:
                (self._folder / run_id).mkdir()
            except FileExistsError:
                continue
            return run_id
        raise Permanent(PermanentReason.INTERNAL, f"a thousand runs are called {stem}")

    def folder(self, run_id: str) -> Path:
        """Where the run's record and journal are."""
        return self._folder / run_id

    def journal(self, run_id: str) -> Path:
        """Folder of the run's journal."""
        return self._folder / run_id / "journal"

    def chronicle(self, run_id: str) -> Chronicle:
        """What happened to the run, and what people asked of it."""
        return Chronicle(self._folder / run_id / "chronicle.jsonl")

    def save(self, record: RunRecord, *, durable: bool = True) -> None:
        """Replace the record in one step; ``durable`` waits for the disk (state changes do, counters need not)."""
        path = self._folder / record.id / "run.json"
        fresh = path.with_name(f"run.json.{os.getpid()}")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(to_json(record), file, indent=1)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        fresh.replace(path)
        if durable:
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def get(self, run_id: str) -> RunRecord:
        """The record of one run.

        Raises:
            Permanent: NOT_FOUND, or CORRUPT if the record can't be read.
        """
        path = self._folder / run_id / "run.json"
        try:
            return _from_json(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError) as error:
            known = ", ".join(record.id for record in self.all()[-5:])
            raise Permanent(
                PermanentReason.NOT_FOUND,
                f"there is no migration run {run_id!r}",
                hint=f"the latest are {known}" if known else "nothing has run yet",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise Permanent(PermanentReason.CORRUPT, f"the run record {path} can't be read ({error})") from error

    def all(self) -> tuple[RunRecord, ...]:
        """Every run, oldest first."""
        found = [self.get(path.parent.name) for path in self._folder.glob("run-*/run.json")]
        return tuple(sorted(found, key=lambda record: (record.started, record.id)))

    def latest(self, name: str | None = None) -> RunRecord | None:
        """The newest run, or the newest of one migration."""
        if name is not None:
            return next((record for record in reversed(self.all()) if record.name == name), None)
        # Asked at every pass over the rules: only runs of the newest second are read, which their ids tell.
        ids = [path.parent.name for path in self._folder.glob("run-*/run.json")]
        second = max((run_id[:_STAMP] for run_id in ids), default="")
        newest = [self.get(run_id) for run_id in ids if run_id[:_STAMP] == second]
        return max(newest, key=lambda record: (record.started, record.id), default=None)

    def touched(self, run_id: str) -> datetime:
        """When the run's record was last written.

        Raises:
            Permanent: NOT_FOUND.
        """
        try:
            return datetime.fromtimestamp((self._folder / run_id / "run.json").stat().st_mtime, UTC)
        except OSError as error:
            raise Permanent(PermanentReason.NOT_FOUND, f"there is no migration run {run_id!r}") from error

    def resumable(self, run_id: str | None) -> RunRecord:
        """A run that may still go on; ``None`` is the latest one.

        Raises:
            Permanent: NOT_FOUND; INVALID if it has ended.
        """
        record = self.get(run_id) if run_id else self.latest()
        if record is None:
            raise Permanent(PermanentReason.NOT_FOUND, "no migration has run yet")
        if not record.state.resumable:
            raise Permanent(PermanentReason.INVALID, f"{record.id} is {record.state}: it has ended")
        return record

    def alive(self, record: RunRecord) -> bool:
        """Whether a process of this machine works on the run now."""
        path = self._folder / record.id / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextmanager
    def working_on(self, run_id: str) -> Iterator[None]:
        """Hold the run for the caller alone.

        Raises:
            Refused: ALREADY_RUNNING if somebody else holds it.
        """
        descriptor = os.open(self._folder / run_id / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take_lock(descriptor, run_id)
            yield
        finally:
            os.close(descriptor)


def _take_lock(descriptor: int, run_id: str) -> None:
    for _ in range(25):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)  # a look by Runs.alive holds the lock for microseconds; a worker holds it for good
        else:
            return
    raise Refused(
        RefusedReason.ALREADY_RUNNING,
        f"another process is working on {run_id}",
        hint="wait for it, or stop it first",
    )


def to_json(value: Any) -> Any:
    """A report or record as plain JSON values; times as RFC 3339."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, datetime):
        return rfc3339(value)
    return value


def _from_json(data: dict[str, Any]) -> RunRecord:
    times = ("started", "finished", "pre_read_time", "undo_started", "undo_finished")
    values: dict[str, Any] = {key: _time(value) if key in times else value for key, value in data.items()}
    values["state"] = RunState(values["state"])
    values["collections"] = tuple(
        CollectionProgress(
            **{
                **part,
                "counts": Counts(**part["counts"]),
                "started": _time(part["started"]),
                "finished": _time(part["finished"]),
            }
        )
        for part in data["collections"]
    )
    return RunRecord(**values)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
