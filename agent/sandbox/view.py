"""The database at one moment, for reading.

A view is one SQLite snapshot plus a time. If nothing was committed after that time, ``documents`` is the answer;
otherwise what has been superseded since is merged back in from ``versions``, in key order, by SQLite itself. Made
by the store; called by queries and the server.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from agent.firestore.protobuf import delimited
from agent.sandbox import frames
from agent.sandbox.catalogue import Catalogue, Collection, Run, clip, in_name_order
from agent.sandbox.field_indexes import WORTHWHILE, FieldIndexes
from agent.sandbox.keys import AFTER_DESCENDANTS, segment_of
from agent.sandbox.values import FieldPath

Row = tuple[bytes, int, int, bytes]  # key, created and updated in microseconds, framed document

_NOW = "SELECT {columns} FROM documents WHERE collection = ?1 AND key >= ?2 AND key < ?3"
_THEN = (
    "SELECT {columns} FROM documents WHERE collection = ?1 AND key >= ?2 AND key < ?3 AND updated <= ?4"
    " UNION ALL "
    "SELECT {columns} FROM versions"
    " WHERE collection = ?1 AND key >= ?2 AND key < ?3 AND updated <= ?4 AND until > ?4"
)


class View:
    """What the documents were at ``time`` (microseconds); valid while the store's ``view`` block is open.

    Args:
        current: nothing visible to the connection was committed after ``time``.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        catalogue: Catalogue,
        indexes: FieldIndexes,
        *,
        time: int,
        current: bool,
    ) -> None:
        self._connection = connection
        self._indexes = indexes
        self.catalogue = catalogue
        self.time = time
        self.current = current

    def get(self, collection: Collection, key: bytes) -> Row | None:
        """The document with ``key``, if there is one."""
        found = self._connection.execute(
            "SELECT key, created, updated, frame FROM documents WHERE collection = ? AND key = ?",
            (collection.id, key),
        ).fetchone()
        if not self.current and (found is None or found[2] > self.time):
            found = self._connection.execute(
                "SELECT key, created, updated, frame FROM versions"
                " WHERE collection = ? AND key = ? AND updated <= ? AND until > ?",
                (collection.id, key, self.time, self.time),
            ).fetchone()
        return found  # type: ignore[no-any-return]

    def rows(self, run: Run, *, descending: bool = False, limit: int = -1) -> Iterator[Row]:
        """The documents of ``run`` in key order; ``limit`` -1 for all."""
        return self._select("key, created, updated, frame", run, descending=descending, limit=limit)

    def nameplates(
        self, collections: Sequence[Collection], *, low: bytes = b"", high: bytes = AFTER_DESCENDANTS
    ) -> Iterator[tuple[bytes, bytes]]:
        """As :meth:`walk`: full keys, and frames of name and times alone. No stored document is even copied."""
        for run in self.runs(collections, low=low, high=high):
            collection = run.collection
            prefix = f"{collection.root}/documents/{collection.path}/".encode()
            for key, created, updated in self._select("key, created, updated", run, descending=False, limit=-1):
                name = prefix + segment_of(key)
                yield (
                    collection.prefix + key,
                    frames.frame(delimited(b"\x0a", name), created, updated),
                )

    def keys(self, run: Run) -> Iterator[bytes]:
        """The keys of ``run`` in order, read from the index alone where nothing changed since."""
        return (key for (key,) in self._select("key", run, descending=False, limit=-1))

    def _select(self, columns: str, run: Run, *, descending: bool, limit: int) -> Iterator[tuple]:  # type: ignore[type-arg]
        sql = (_NOW if self.current else _THEN).format(columns=columns)
        order = " ORDER BY key DESC" if descending else " ORDER BY key"
        arguments: tuple[object, ...] = (run.collection.id, run.low, run.high)
        if not self.current:
            arguments += (self.time,)
        if limit >= 0:
            order += f" LIMIT {limit:d}"
        return self._connection.execute(sql + order, arguments)

    def walk(
        self,
        collections: Sequence[Collection],
        *,
        low: bytes = b"",
        high: bytes = AFTER_DESCENDANTS,
        descending: bool = False,
    ) -> Iterator[tuple[Collection, Row]]:
        """Documents of ``collections`` in name order, full keys from ``low`` (included) to ``high`` (not)."""
        for run in self.runs(collections, low=low, high=high, descending=descending):
            collection = run.collection
            for row in self.rows(run, descending=descending):
                yield collection, row

    def runs(
        self, collections: Sequence[Collection], *, low: bytes, high: bytes, descending: bool = False
    ) -> Iterable[Run]:
        """The stretches that :meth:`walk` reads."""
        pieces = (clip(run, low, high) for run in in_name_order(collections))
        kept = (run for run in pieces if run is not None)
        return reversed(list(kept)) if descending else kept

    def count(self, run: Run) -> int:
        """How many documents ``run`` has."""
        if self.current:
            (number,) = self._connection.execute(
                "SELECT count(*) FROM documents WHERE collection = ? AND key >= ? AND key < ?",
                (run.collection.id, run.low, run.high),
            ).fetchone()
            return int(number)
        return sum(1 for _ in self.keys(run))

    def is_large(self, collection: Collection) -> bool:
        """Whether an index of ``collection`` pays."""
        found = self._connection.execute(
            "SELECT 1 FROM documents WHERE collection = ? LIMIT 1 OFFSET ?", (collection.id, WORTHWHILE)
        ).fetchone()
        return found is not None

    def candidates(
        self, collection: Collection, path: FieldPath, keys: Iterable[bytes], *, elements: bool
    ) -> list[Row] | None:
        """Documents of ``collection`` whose field at ``path`` has one of ``keys``, in key order.

        ``None`` where no index can tell: there is none, it is newer than this view, or the view is of the past.
        """
        index = self._indexes.find(collection, path, elements=elements)
        if index is None or not self.current:
            return None
        if not self._connection.execute("SELECT 1 FROM field_indexes WHERE id = ?", (index.id,)).fetchone():
            return None
        found: dict[bytes, Row] = {}
        for key in keys:
            for row in self._connection.execute(
                "SELECT d.key, d.created, d.updated, d.frame FROM field_entries AS e"
                " JOIN documents AS d ON d.id = e.document WHERE e.field = ? AND e.value = ?",
                (index.id, key),
            ):
                found[row[0]] = row
        return [found[key] for key in sorted(found)]

    def holds_documents(self, collection: Collection) -> bool:
        """Whether ``collection`` has a document."""
        whole = Run(collection=collection, low=b"", high=AFTER_DESCENDANTS)
        return next(iter(self._select("key", whole, descending=False, limit=1)), None) is not None
