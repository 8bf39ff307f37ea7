"""A database with documents in it, migrations of it, and a port that fails when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.faults import Transient, TransientReason
from agent.firestore import (
    CollectionGroup,
    DatabaseAddress,
    Fingerprint,
    Firestore,
    PlannedWrite,
    RawDocument,
    WriteKind,
    WriteOutcome,
    decode_fields,
    encode_fields,
    fingerprint,
)
from agent.migration import Migrations, Preconditions, RestorePoint, RunbookPolicy, RunSettings
from agent.migration.database import Database
from agent.telemetry import Telemetry

COUNTER = """
    collections = ("counters",)
    reads_both_shapes = True

    def transform(document):
        return document.with_fields(n=document.fields["n"] + 1)
"""
"""Not idempotent: whoever transforms a document twice is found out."""


@dataclass(kw_only=True)
class World:
    """A database with documents in it, and migrations of it."""

    firestore: Firestore
    folder: Path
    telemetry: Telemetry
    options: dict[str, Any] = field(default_factory=dict)

    def put(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Write documents by path."""
        writes = [
            PlannedWrite(name=self.firestore.address.name(path), fields=encode_fields(fields))
            for path, fields in documents.items()
        ]
        self.firestore.write(writes, origin="application").finish()

    def get(self, path: str) -> dict[str, Any] | None:
        """A document's fields, or ``None``."""
        name = self.firestore.address.name(path)
        found = self.firestore.get([name])[name]
        return None if found is None else decode_fields(found.raw)

    def delete(self, path: str) -> None:
        """Delete a document."""
        write = PlannedWrite(name=self.firestore.address.name(path), kind=WriteKind.DELETE)
        self.firestore.write([write], origin="application").finish()

    def gauge(self, name: str, **labels: str) -> float | None:
        """A sample of this process's telemetry."""
        for family in self.telemetry.families():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    def all(self, collection: str) -> dict[str, dict[str, Any]]:
        """Every document of a collection group by path."""
        return {
            self.firestore.address.relative(raw.name): decode_fields(raw.raw)
            for raw in self.firestore.documents(CollectionGroup(id=collection))
        }

    def fingerprint(self) -> Fingerprint:
        """Of everything but runbookd's own records."""
        return fingerprint(self.firestore.documents(), exclude=("_migrations",))

    def counters(self, count: int) -> None:
        """``counters/c-0000`` and so on."""
        self.put({f"counters/c-{i:04d}": {"n": start(i), "text": "x" * (i % 50)} for i in range(count)})

    def increments(self) -> set[int]:
        """By how much the counters differ from what they were at first."""
        return {fields["n"] - start(int(path[-4:])) for path, fields in self.all("counters").items()}

    def migrations(self, database: Database | None = None, **options: Any) -> Migrations:
        """Migrations of this database that pass every gate unless ``options`` say otherwise."""
        given: dict[str, Any] = {
            "definitions": self.folder / "definitions",
            "data_dir": self.folder / "data",
            "telemetry": self.telemetry,
            "policy": RunbookPolicy(),
            "preconditions": Preconditions(restore_point=fresh_restore_point),
            "settings": RunSettings(batch_size=50, parallel=2),
            "reports": self.folder / "reports",
        }
        return Migrations(firestore=database or self.firestore, **{**given, **self.options, **options})


def start(number: int) -> int:
    """What a counter is at first: in no order, because a rising field is refused."""
    return number * 37 % 101


def fresh_restore_point() -> RestorePoint:
    return RestorePoint(id="backup-full-1", read_time=datetime.now(UTC) - timedelta(minutes=5), verified=True)


class Unruly:
    """A database port whose writes fail as a plan says; everything else passes through.

    Args:
        inner: the database itself.
        mishap: called with the number of each write request (from 0); returns ``""`` (all is well), ``"before"`` (it
            fails before it reaches the server), ``"after"`` (the server applies it and the answer is lost).
        meddle: called before a write request reaches the server, with its writes.
    """

    def __init__(
        self,
        inner: Firestore,
        *,
        mishap: Callable[[int], str] = lambda _: "",
        meddle: Callable[[int, Sequence[PlannedWrite]], None] = lambda _number, _writes: None,
    ) -> None:
        self._inner = inner
        self._mishap = mishap
        self._meddle = meddle
        self.requests = 0
        self.armed = True

    @property
    def address(self) -> DatabaseAddress:
        return self._inner.address

    def server_time(self) -> datetime:
        return self._inner.server_time()

    def count(self, scope: CollectionGroup, read_time: datetime | None = None) -> int:
        return self._inner.count(scope, read_time)

    def pages(self, scope: CollectionGroup, read_time: datetime) -> Iterator[list[RawDocument]]:
        return self._inner.pages(scope, read_time)

    def get(self, names: Sequence[str], read_time: datetime | None = None) -> dict[str, RawDocument | None]:
        return self._inner.get(names, read_time)

    def write(self, writes: Iterable[PlannedWrite], *, origin: str, parallel: int = 8) -> Iterable[WriteOutcome]:
        planned = list(writes)
        if origin not in ("migration", "undo") or not self.armed:
            return self._inner.write(planned, origin=origin, parallel=parallel)
        number, self.requests = self.requests, self.requests + 1
        self._meddle(number, planned)
        mishap = self._mishap(number)
        if mishap == "before":
            raise Transient(TransientReason.UNAVAILABLE, "connection refused")
        outcomes = list(self._inner.write(planned, origin=origin, parallel=parallel))
        if mishap == "after":
            raise Transient(TransientReason.DEADLINE_EXCEEDED, "no answer in time")
        return outcomes
