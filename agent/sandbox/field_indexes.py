"""Indexes of single fields, made when a query first needs one.

Firestore indexes every field of every document as it is written. Here that would triple the cost of loading, so a
collection's field gets its index the first time a query compares it with something, and is kept up to date from
then on. Called by the store and its commits, and by queries to find candidates; a query still looks at every
candidate, so an index can only make it faster.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from agent.firestore.protobuf import delimited, read_varint
from agent.firestore.protos import Value
from agent.sandbox import frames
from agent.sandbox.catalogue import Collection
from agent.sandbox.frames import LazyFields
from agent.sandbox.order import sort_key
from agent.sandbox.values import FieldPath, find_value, nested_values

SCHEMA = """
CREATE TABLE IF NOT EXISTS field_indexes (
    id INTEGER PRIMARY KEY, collection INTEGER NOT NULL, path TEXT NOT NULL, elements INTEGER NOT NULL,
    UNIQUE (collection, path, elements)
);
CREATE TABLE IF NOT EXISTS field_entries (
    field INTEGER NOT NULL, value BLOB NOT NULL, document INTEGER NOT NULL,
    PRIMARY KEY (field, value, document)
) WITHOUT ROWID;
"""

_SEPARATOR = "\x1f"  # between the segments of a path in the table

# A collection of fewer documents than this is read faster than its index.
WORTHWHILE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldIndex:
    """The index of one field of one collection.

    Args:
        collection: the collection's integer.
        elements: it is the elements of arrays that are indexed, not whole values.
    """

    id: int
    collection: int
    path: FieldPath
    elements: bool

    def keys(self, framed: bytes) -> set[bytes]:
        """What a stored document is found under."""
        value = _value_at(framed, self.path)
        if value is None:
            return set()
        if self.elements:
            return {sort_key(element) for element in nested_values(value)}
        return {sort_key(value)}


class FieldIndexes:
    """The indexes there are, by collection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._by_collection: dict[int, tuple[FieldIndex, ...]] = {}
        self._lock = threading.Lock()
        rows = connection.execute("SELECT id, collection, path, elements FROM field_indexes")
        for identity, collection, path, elements in rows:
            self._add(
                FieldIndex(
                    id=identity,
                    collection=collection,
                    path=tuple(path.split(_SEPARATOR)),
                    elements=bool(elements),
                )
            )

    def of(self, collection: Collection) -> tuple[FieldIndex, ...]:
        """The indexes of ``collection``; every write to it keeps them up to date."""
        return self._by_collection.get(collection.id, ())

    def find(self, collection: Collection, path: FieldPath, *, elements: bool) -> FieldIndex | None:
        """The index of one field, if there is one."""
        for index in self.of(collection):
            if index.path == path and index.elements == elements:
                return index
        return None

    def build(self, connection: sqlite3.Connection, collection: Collection, path: FieldPath, *, elements: bool) -> None:
        """Index what ``collection`` has; the caller is the only writer and no transaction is open."""
        if self.find(collection, path, elements=elements):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            (identity,) = connection.execute(
                "INSERT INTO field_indexes (collection, path, elements) VALUES (?, ?, ?) RETURNING id",
                (collection.id, _SEPARATOR.join(path), elements),
            ).fetchone()
            index = FieldIndex(id=identity, collection=collection.id, path=path, elements=elements)
            rows = connection.execute(
                "SELECT id, frame FROM documents WHERE collection = ? ORDER BY id", (collection.id,)
            )
            insert(connection, index, rows)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        self._add(index)

    def _add(self, index: FieldIndex) -> None:
        with self._lock:
            self._by_collection[index.collection] = (*self._by_collection.get(index.collection, ()), index)


def insert(connection: sqlite3.Connection, index: FieldIndex, documents: Iterable[tuple[int, bytes]]) -> None:
    """Add ``documents`` (row id and frame) to ``index``."""
    entries = [(index.id, key, identity) for identity, framed in documents for key in index.keys(framed)]
    entries.sort()  # pages are then filled one after the other
    connection.executemany("INSERT INTO field_entries (field, value, document) VALUES (?, ?, ?)", entries)


def replace(connection: sqlite3.Connection, index: FieldIndex, document: int, old: bytes, new: bytes | None) -> None:
    """Bring ``index`` up to date with a document that was ``old`` and is ``new`` (``None``: deleted)."""
    before = index.keys(old)
    after = index.keys(new) if new is not None else set()
    for key in before - after:
        connection.execute(
            "DELETE FROM field_entries WHERE field = ? AND value = ? AND document = ?",
            (index.id, key, document),
        )
    for key in after - before:
        connection.execute(
            "INSERT INTO field_entries (field, value, document) VALUES (?, ?, ?)", (index.id, key, document)
        )


def _value_at(framed: bytes, path: FieldPath) -> Value | None:
    if len(path) > 1:
        return find_value(frames.parse(framed).fields, path)
    start = delimited(b"\x0a", path[0].encode())
    for entry in LazyFields.FromString(frames.message(framed)).fields:
        if entry.startswith(start):
            _, position = read_varint(entry, len(start) + 1)
            return Value.FromString(entry[position:])
    return None
