"""References inside documents: where they point, and whether something is there.

Used by validation: a migration that moves or deletes documents must not leave references behind that lead nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent.firestore import RawDocument, Reference
from agent.migration.changes import to_document
from agent.migration.database import Database

_REMEMBERED = 100_000


def references_in(raw: RawDocument, database: Database) -> frozenset[str]:
    """Full names of the documents of the same database that ``raw`` refers to."""
    # Few documents hold references, and each spells the database's name out: the others are not even decoded.
    if database.address.documents.encode() not in raw.fields:
        return frozenset()
    prefix = database.address.documents + "/"
    return frozenset(name for name in _names(to_document(raw, database.address).fields) if name.startswith(prefix))


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Reference):
        yield value.name
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _names(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _names(item)


class Targets:
    """Asks which documents are there; remembers the last hundred thousand that are."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._there: dict[str, None] = {}

    def missing(self, names: frozenset[str]) -> frozenset[str]:
        """Those of ``names`` that are no documents."""
        unknown = [name for name in names if name not in self._there]
        if not unknown:
            return frozenset()
        found = self._database.get(unknown)
        self._there.update((name, None) for name in unknown if found[name] is not None)
        while len(self._there) > _REMEMBERED:
            del self._there[next(iter(self._there))]
        return frozenset(name for name in unknown if found[name] is None)
