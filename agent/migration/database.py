"""The port to the database: what a migration asks of :class:`agent.firestore.Firestore`.

Wrappers (throttles, and the fault injection of the tests) stand in front of this port.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from agent.firestore import (
    CollectionGroup,
    DatabaseAddress,
    PlannedWrite,
    RawDocument,
    WriteOutcome,
)


class Database(Protocol):
    """What a migration asks of a Firestore; the promise is :class:`agent.firestore.Firestore`'s."""

    @property
    def address(self) -> DatabaseAddress:
        """Which database this is."""

    def server_time(self) -> datetime:
        """A read_time that can be pinned."""

    def count(self, scope: CollectionGroup, read_time: datetime | None = None) -> int:
        """Documents of a collection group."""

    def pages(self, scope: CollectionGroup, read_time: datetime) -> Iterator[list[RawDocument]]:
        """The documents of a collection group in name order, as they were at ``read_time``.

        In lists, none of them empty, of no more documents than one :meth:`get` asks for at once.
        """

    def get(self, names: Sequence[str], read_time: datetime | None = None) -> dict[str, RawDocument | None]:
        """Documents by full name."""

    def write(
        self,
        writes: Iterable[PlannedWrite],
        *,
        origin: str,
        parallel: int = ...,
    ) -> Iterable[WriteOutcome]:
        """One outcome for each write."""
