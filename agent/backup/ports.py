"""What this room needs of a Firestore database, split by what may be done with it.

:class:`agent.firestore.Firestore` is all of it. A plan, a dry run and a verification are handed a :class:`Reader`
and nothing more, so that they can't write, whatever their code says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from agent.firestore import DatabaseAddress, PlannedWrite, RawDocument, Scope, WriteRun


class Reader(Protocol):
    """A database that can be read at a pinned instant."""

    @property
    def address(self) -> DatabaseAddress:
        """Which database."""

    def server_time(self) -> datetime:
        """The server's present, usable as ``read_time``."""

    def ranges(
        self,
        parts: int,
        read_time: datetime,
        *,
        known: Sequence[str] = (),
        sizes: Mapping[str, float] | None = None,
    ) -> list[Scope]:
        """Disjoint scopes, in ``__name__`` order, that together hold every document; about ``parts`` of them.

        Args:
            sizes: mean bytes of a document under a root collection, where known, so that parts are equal in bytes.
            known: paths that are known to cut the database well; they may spare the server the planning.
        """

    def pages(
        self, scope: Scope, read_time: datetime | None = None, *, keys_only: bool = False
    ) -> Iterator[list[RawDocument]]:
        """Documents in ``__name__`` order, in the portions in which they arrive; without fields if ``keys_only``."""

    def documents(self, scope: Scope, read_time: datetime | None = None) -> Iterator[RawDocument]:
        """Documents in ``__name__`` order."""

    def get(self, names: Sequence[str], read_time: datetime | None = None) -> dict[str, RawDocument | None]:
        """Documents by full name; ``None`` for those that don't exist."""


class Database(Reader, Protocol):
    """A database that can also be written."""

    def write(self, writes: Iterable[PlannedWrite], *, origin: str) -> WriteRun:
        """Write everything, giving each write exactly one outcome."""
