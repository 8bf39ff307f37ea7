"""The documents on disk: one SQLite file, readable as it was at any moment of the last hour.

``documents`` holds what is; ``versions`` holds what was: a row goes there only when a document is overwritten or
deleted, so loading a database costs nothing extra. A document is keyed by a small integer for its collection and
the sort key of its id; both tables are ordinary rowid tables with 32 KB pages, because a WITHOUT ROWID table keyed
by name was measured six times slower and four times larger.

One writer at a time (:meth:`Store.commit`), any number of readers (:meth:`Store.view`), each in its own snapshot.
Called by the write path, queries and the server.
"""

from __future__ import annotations

import queue
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from agent.clock import Clock, SystemClock
from agent.faults import Misconfigured, MisconfiguredReason
from agent.sandbox import field_indexes
from agent.sandbox.catalogue import Catalogue, Collection
from agent.sandbox.field_indexes import FieldIndexes
from agent.sandbox.timeline import Timeline
from agent.sandbox.transaction import Commit
from agent.sandbox.values import FieldPath
from agent.sandbox.view import View

READ_WINDOW = timedelta(hours=1)  # what the service promises without point-in-time recovery

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (
    id INTEGER PRIMARY KEY, root TEXT NOT NULL, path TEXT NOT NULL, UNIQUE (root, path)
);
CREATE TABLE IF NOT EXISTS documents (
    id INTEGER PRIMARY KEY, collection INTEGER NOT NULL, key BLOB NOT NULL,
    created INTEGER NOT NULL, updated INTEGER NOT NULL, frame BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS documents_by_key ON documents (collection, key);
CREATE TABLE IF NOT EXISTS versions (
    id INTEGER PRIMARY KEY, collection INTEGER NOT NULL, key BLOB NOT NULL,
    created INTEGER NOT NULL, updated INTEGER NOT NULL, until INTEGER NOT NULL, frame BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS versions_by_key ON versions (collection, key);
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL);
INSERT OR IGNORE INTO clock (id, last) VALUES (1, 0);
"""

_PRUNE_STEP = 2_000  # superseded versions looked at in one commit, so that forgetting never makes one commit slow


class Store:
    """The database file.

    Args:
        folder: where the data lives; ``None`` for a file that vanishes with the process, however it ends.
        clock: the wall clock that commit times follow.
        readers: how many views can be open at once; more wait for one to close.
        window: how far back reads may look.

    Raises:
        Misconfigured: NOT_WRITABLE if the folder can't be made or written.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        clock: Clock | None = None,
        readers: int = 32,
        window: timedelta = READ_WINDOW,
    ) -> None:
        self._lasting = folder is not None
        place = folder or Path(tempfile.mkdtemp(prefix="runbookd-sandbox-"))
        self._file = place / "firestore.sqlite3"
        try:
            place.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect(cache_kib=64_000)
            self._writer.executescript(_SCHEMA + field_indexes.SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise Misconfigured(
                MisconfiguredReason.NOT_WRITABLE,
                f"the sandbox can't keep its data in {place}: {error}",
                hint="give --data a folder that this user may write",
            ) from error
        (last,) = self._writer.execute("SELECT last FROM clock").fetchone()
        self.timeline = Timeline(clock=clock or SystemClock(), last=last, window=window)
        self.catalogue = Catalogue()
        for identity, root, path in self._writer.execute("SELECT id, root, path FROM collections"):
            self.catalogue.add(Collection.of(identity, root, path))
        self.indexes = FieldIndexes(self._writer)
        self._writing = threading.Lock()
        self._connections = [self._connect(cache_kib=8_000) for _ in range(readers)]
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        for connection in self._connections:
            connection.execute("SELECT last FROM clock").fetchone()  # opens the file and its WAL
            self._idle.put(connection)
        if not self._lasting:
            # Every connection has the files open; unlinked, they can't outlive even a killed process.
            shutil.rmtree(place)

    def _connect(self, *, cache_kib: int) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=30)
        connection.execute("PRAGMA page_size = 32768")
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL survives a killed process; only a power cut can take back the last commits.
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if self._lasting else 'OFF'}")
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        connection.execute("PRAGMA mmap_size = 2147418112")
        connection.execute("PRAGMA secure_delete = OFF")  # Debian's SQLite zeroes what is deleted
        return connection

    def close(self) -> None:
        """Close the file; views and commits have to be over."""
        with self._writing:
            for connection in self._connections:
                connection.close()
            self._writer.close()

    def collection(self, root: str, path: str) -> Collection:
        """The collection at ``path`` below ``root``'s documents, known from now on (an empty one is invisible)."""
        known = self.catalogue.find(root, path)
        if known is not None:
            return known
        with self._writing:
            known = self.catalogue.find(root, path)
            if known is None:
                found = self._writer.execute(
                    "INSERT INTO collections (root, path) VALUES (?, ?) RETURNING id", (root, path)
                ).fetchone()
                known = Collection.of(found[0], root, path)
                self.catalogue.add(known)
            return known

    def index(self, collection: Collection, path: FieldPath, *, elements: bool) -> None:
        """Index a field of ``collection`` if that is worth it and not done yet; writers wait meanwhile."""
        if self.indexes.find(collection, path, elements=elements):
            return
        with self.view() as view:
            if not view.is_large(collection):
                return
        with self._writing:
            self.indexes.build(self._writer, collection, path, elements=elements)

    @contextmanager
    def view(self, read_time: int | None = None) -> Iterator[View]:
        """The database at ``read_time`` (microseconds), or as it is now; stable for as long as it is open.

        Raises:
            StatusError: INVALID_ARGUMENT or FAILED_PRECONDITION for a time outside the window.
        """
        if read_time is None:
            settled = self.timeline.read_point()
        else:
            self.timeline.settle(read_time)
            settled = read_time
        connection = self._idle.get()
        try:
            connection.execute("BEGIN")
            try:
                (last,) = connection.execute("SELECT last FROM clock").fetchone()
                # Without a read time, a commit that slipped in since is simply part of "now".
                moment = max(settled, last) if read_time is None else settled
                yield View(connection, self.catalogue, self.indexes, time=moment, current=last <= moment)
            finally:
                connection.execute("COMMIT")
        finally:
            self._idle.put(connection)

    @contextmanager
    def commit(self) -> Iterator[Commit]:
        """One atomic change of the database; nothing of it happened if the block raises."""
        with self._writing:
            moment = self.timeline.begin_commit()
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield Commit(self._writer, self.indexes, time=moment)
                    self._writer.execute("UPDATE clock SET last = ?", (moment,))
                    self._forget()
                except BaseException:
                    self._writer.execute("ROLLBACK")
                    raise
                self._writer.execute("COMMIT")
            finally:
                self.timeline.end_commit()

    def _forget(self) -> None:
        """Drop versions that no permitted read time can see; rowids follow the order in which they ended."""
        horizon = self.timeline.horizon()
        oldest = self._writer.execute("SELECT id, until FROM versions ORDER BY id LIMIT 1").fetchone()
        if oldest is None or oldest[1] >= horizon:
            return
        (newest,) = self._writer.execute(
            "SELECT max(id) FROM (SELECT id, until FROM versions ORDER BY id LIMIT ?) WHERE until < ?",
            (_PRUNE_STEP, horizon),
        ).fetchone()
        self._writer.execute("DELETE FROM versions WHERE id <= ?", (newest,))
