"""One change to the database at a time, across processes.

Held by whoever writes documents in bulk: a migration, an undo, a restore. It is a kernel lock on a file in the data
folder, so it can't outlive its holder, and a daemon that was killed leaves no stale lock behind while its orphaned
worker still finishes its batch.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType

from agent.clock import Clock
from agent.faults import Refused, RefusedReason

_POLL_S = 0.1


class ChangeLock:
    """Context manager; waits up to ``patience`` seconds for the holder to end.

    Raises:
        Refused: another change still holds it; the message says which, and since when.
    """

    def __init__(self, path: Path, *, purpose: str, clock: Clock, patience: float = 0.0) -> None:
        self._path = path
        self._purpose = purpose
        self._clock = clock
        self._patience = patience
        self._file: int | None = None

    def __enter__(self) -> ChangeLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        deadline = self._clock.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if self._clock.monotonic() >= deadline:
                    holder = os.pread(file, 4096, 0).decode(errors="replace").strip()
                    os.close(file)
                    raise Refused(
                        RefusedReason.ALREADY_RUNNING,
                        f"another change to the database is under way ({holder or 'unknown'})",
                        hint="wait for it to end, or stop it first",
                    ) from None
                self._clock.sleep(_POLL_S)
        note = {"purpose": self._purpose, "pid": os.getpid(), "since": self._clock.now().isoformat()}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(note).encode(), 0)
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)  # releases the lock
            self._file = None
