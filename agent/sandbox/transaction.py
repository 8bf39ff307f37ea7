"""One commit in the making: the reads and writes of the write path inside SQLite's write transaction.

Made by the store; called by ``writes.py``.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from agent.sandbox import frames
from agent.sandbox.catalogue import Collection
from agent.sandbox.field_indexes import FieldIndexes, insert, replace
from agent.sandbox.frames import body, frame


@dataclass(slots=True)
class Stored:
    """A document as it is before the write at hand."""

    id: int
    created: int
    updated: int
    frame: bytes

    @property
    def body(self) -> bytes:
        """Its name and fields, serialised."""
        return body(self.frame, self.created, self.updated)


class Commit:
    """Changes that become visible together at ``time`` (microseconds)."""

    def __init__(self, connection: sqlite3.Connection, indexes: FieldIndexes, *, time: int) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._indexes = indexes
        self.time = time

    def find(self, collection: Collection, key: bytes) -> Stored | None:
        """The document with ``key``, earlier writes of this commit included."""
        found = self._execute(
            "SELECT id, created, updated, frame FROM documents WHERE collection = ? AND key = ?",
            (collection.id, key),
        ).fetchone()
        return Stored(*found) if found else None

    def put(self, collection: Collection, key: bytes, content: bytes, stored: Stored | None) -> int:
        """Make name and fields ``content`` the document, ``stored`` being what :meth:`find` says now.

        Returns:
            The document's update time: the old one if nothing changes, as the service does it.
        """
        if stored is None:
            framed = frame(content, self.time, self.time)
            made = self._execute(
                "INSERT INTO documents (collection, key, created, updated, frame) VALUES (?, ?, ?, ?, ?)",
                (collection.id, key, self.time, self.time, framed),
            )
            for index in self._indexes.of(collection):
                insert(self._connection, index, [(made.lastrowid or 0, framed)])
            return self.time
        unchanged = frame(content, stored.created, stored.updated)
        if len(unchanged) == len(stored.frame) and (
            unchanged == stored.frame or frames.same_content(unchanged, stored.frame)
        ):
            return stored.updated
        self._keep(stored)
        framed = frame(content, stored.created, self.time)
        self._execute("UPDATE documents SET updated = ?, frame = ? WHERE id = ?", (self.time, framed, stored.id))
        for index in self._indexes.of(collection):
            replace(self._connection, index, stored.id, stored.frame, framed)
        return self.time

    def remove(self, collection: Collection, stored: Stored) -> None:
        """Delete the document."""
        self._keep(stored)
        for index in self._indexes.of(collection):
            replace(self._connection, index, stored.id, stored.frame, None)
        self._execute("DELETE FROM documents WHERE id = ?", (stored.id,))

    def changed_since(self, moment: int, collection: Collection, key: bytes | None = None) -> bool:
        """Whether a document of ``collection`` (the one with ``key``) was written or deleted after ``moment``."""
        which, arguments = "collection = ?", [collection.id]  # type: tuple[str, list[object]]
        if key is not None:
            which, arguments = "collection = ? AND key = ?", [collection.id, key]
        return any(
            self._execute(
                f"SELECT 1 FROM {table} WHERE {which} AND {since} > ? LIMIT 1", (*arguments, moment)
            ).fetchone()
            for table, since in (("documents", "updated"), ("versions", "until"))
        )

    def _keep(self, stored: Stored) -> None:
        """Keep what is about to be superseded for reads of the past."""
        if stored.updated == self.time:
            return  # written by this very commit: nobody could ever see it
        self._execute(
            "INSERT INTO versions (collection, key, created, updated, until, frame)"
            " SELECT collection, key, created, updated, ?, frame FROM documents WHERE id = ?",
            (self.time, stored.id),
        )
