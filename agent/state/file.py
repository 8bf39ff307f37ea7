"""The SQLite file in which alert timers, the outbox, decisions and sagas survive ``kill -9``.

One file serves the daemon and, at the same time, the command line (``runbookd alerts ack`` and friends): WAL lets
them read while another writes, and every write is one ``BEGIN IMMEDIATE`` transaction.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason

_BUSY_TIMEOUT_MS = 10_000


class Transaction:
    """What may be done inside :meth:`StateFile.transaction`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> sqlite3.Cursor:
        return self._connection.executemany(sql, parameters)


class StateFile:
    """A SQLite file shared by rooms, threads and processes.

    Args:
        path: the file; its folder must exist or be creatable.

    Raises:
        Misconfigured: the folder or the file can't be written.
        Permanent: the file is not a SQLite database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
            self._connection.execute("PRAGMA journal_mode=WAL")
            # FULL, not NORMAL: in WAL mode NORMAL may lose the last transactions at power loss, and the last
            # transaction is the one that says a page or a rollback is about to go out.
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS room (name TEXT PRIMARY KEY, version INTEGER NOT NULL)"
            )
        except (sqlite3.OperationalError, OSError) as error:
            raise Misconfigured(
                MisconfiguredReason.NOT_WRITABLE,
                f"the state file {path} can't be opened for writing ({error})",
                hint="give this user write permission on the folder, or set data_dir to another one",
            ) from error
        except sqlite3.DatabaseError as error:
            raise Permanent(
                PermanentReason.CORRUPT,
                f"the state file {path} is not a SQLite database ({error})",
                hint="move it away; runbookd starts with an empty one",
            ) from error

    def ensure(self, room: str, steps: Sequence[str]) -> None:
        """Bring ``room``'s tables up to date.

        Args:
            room: the owner of the tables, e.g. ``"notifications"``.
            steps: SQL scripts, oldest first; step *n* takes the schema from version *n* to *n + 1*. A released step
                never changes; append a new one.

        Raises:
            Misconfigured: the file was written by a newer version of the program.
        """
        with self.transaction() as tx:
            row = tx.execute("SELECT version FROM room WHERE name = ?", (room,)).fetchone()
            version = int(row["version"]) if row else 0
            if version > len(steps):
                raise Misconfigured(
                    MisconfiguredReason.SETTINGS,
                    f"{self.path} holds version {version} of {room}'s tables; this program knows {len(steps)}",
                    hint="run the newer runbookd, or point data_dir at another folder",
                )
            for step in steps[version:]:
                for statement in _statements(step):
                    tx.execute(statement)
            tx.execute("INSERT OR REPLACE INTO room (name, version) VALUES (?, ?)", (room, len(steps)))

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One atomic, durable change; rolled back if the block raises. Re-entrant within a thread."""
        with self._lock:
            if self._connection.in_transaction:
                yield Transaction(self._connection)
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(self._connection)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        """Rows of a read-only statement."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def _statements(script: str) -> Iterator[str]:
    """Split an SQL script; ``executescript`` would commit behind the transaction's back."""
    pending = ""
    for line in script.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending
