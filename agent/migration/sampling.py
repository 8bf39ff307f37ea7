"""What is measured before a migration may start: a sampled transform, and how fast the database takes writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.firestore import (
    CollectionGroup,
    MustExistAt,
    PlannedWrite,
    RawDocument,
    WriteKind,
    WriteState,
    decode_fields,
)
from agent.migration.changes import Changes, changes_of
from agent.migration.database import Database
from agent.migration.definition import Definition
from agent.migration.facts import Rate, Sampled, StampedField
from agent.migration.plan import stamped_fields
from agent.migration.reading import in_chunks
from agent.migration.revisions import COLLECTION

_PER_COLLECTION = 40
_SAMPLE_BYTES = 8 << 20  # eight of the largest documents, which is as many as stamped fields are told by
_PROBE_DOCUMENTS = 1000
_PROBE_LEAST = 24  # three for each sender
_PROBE_BYTES = 16_000_000  # a thousand documents near the limit of 1 MiB would be two gigabytes on the wire
_BODY_BYTES = 2_000_000
_ENOUGH_TO_TELL = 2000


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the first documents of each collection show.

    Args:
        bodies: fields of some of them, of each collection at least of one.
    """

    found: Sampled
    bodies: tuple[bytes, ...]


def take_sample(definition: Definition, database: Database, collections: Sequence[str]) -> Sample:
    """Transform the first documents of each collection twice: what changes, what fails, what could heat an index.

    One collection after the other is held, and of large documents fewer than of small ones.
    """
    address = database.address
    at = database.server_time()
    failures: list[str] = []
    stamped: list[StampedField] = []
    bodies: list[bytes] = []
    changed = 0
    seen: dict[str, int] = {}
    creates: dict[str, Counter[str]] = {}
    for collection in collections:
        raws = _first(database, collection, at)
        first = [changes_of(definition, raw, address) for raw in raws]
        second = [changes_of(definition, raw, address) for raw in raws]
        failures.extend(f"{address.relative(c.source.name)}: {c.problem}" for c in first if c.problem)
        changed += sum(not c.empty for c in first)
        seen[collection] = len(raws)
        creates[collection] = Counter(new.write.name.split("/")[-2] for c in first for new in c.creates)
        triples = [
            (decode_fields(one.source.raw), _fields(one), _fields(two))
            for one, two in zip(first, second, strict=True)
            if one.own is not None and one.own.write.kind is WriteKind.SET and two.own is not None
        ]
        if len(triples) == len(raws):  # stamped on every document, or not a ceiling for the run
            stamped.extend(stamped_fields(collection, triples))
        sizes = accumulate(len(raw.raw) for raw in raws)
        share = _BODY_BYTES // len(collections)
        bodies.extend(raw.fields for raw, size in zip(raws, sizes, strict=True) if size <= share or raw is raws[0])
    found = Sampled(seen=seen, changed=changed, creates=creates, failures=tuple(failures), stamped=tuple(stamped))
    return Sample(found=found, bodies=tuple(bodies))


def _first(database: Database, collection: str, at: datetime) -> list[RawDocument]:
    pages = database.pages(CollectionGroup(id=collection), at)
    try:
        documents = chain.from_iterable(pages)
        return next(in_chunks(documents, lambda: _PER_COLLECTION, most_bytes=_SAMPLE_BYTES), [])
    finally:
        if hasattr(pages, "close"):
            pages.close()


def _fields(changes: Changes) -> dict[str, Any]:
    return decode_fields(changes.own.write.whole) if changes.own is not None else {}


def probe(database: Database, bodies: Sequence[bytes], clock: Clock) -> Rate | None:
    """Measure overwrites: scratch documents below ``_migrations/probe``, written, overwritten, deleted.

    Args:
        bodies: fields of real documents. Up to 1,000 documents are written, of large ones fewer.

    Returns:
        ``None`` where there is nothing to measure with.
    """
    if not bodies:
        return None
    affordable = _PROBE_BYTES * len(bodies) // max(1, sum(map(len, bodies)))
    count = max(_PROBE_LEAST, min(_PROBE_DOCUMENTS, affordable))
    names = [database.address.name(COLLECTION, "probe", "scratch", f"{i:05d}") for i in range(count)]
    try:
        times: dict[str, int] = {}
        for outcome in database.write(_probe_writes(names, bodies, {}), origin="control", parallel=8):
            if outcome.state is WriteState.APPLIED and outcome.update_time:
                times[outcome.name] = outcome.update_time
        began = clock.monotonic()
        # Other bodies than before: a write that changes nothing costs the server less.
        applied = sum(
            outcome.state is WriteState.APPLIED
            for outcome in database.write(_probe_writes(names, [*bodies[1:], b""], times), origin="control", parallel=8)
        )
        seconds = clock.monotonic() - began
    finally:
        for _ in database.write(
            [PlannedWrite(name=name, kind=WriteKind.DELETE) for name in names], origin="control", parallel=8
        ):
            pass
    return Rate(documents_per_second=applied / seconds, source="probe") if applied and seconds > 0 else None


def _probe_writes(names: Sequence[str], bodies: Sequence[bytes], times: dict[str, int]) -> Iterator[PlannedWrite]:
    for index, name in enumerate(names):
        condition = MustExistAt(times[name]) if name in times else None
        yield PlannedWrite(name=name, fields=bodies[index % len(bodies)], precondition=condition)


class Rates:
    """Throughput of earlier runs on this database, kept in one small file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, kind: str) -> Rate | None:
        """The latest ``migration`` or ``undo`` rate."""
        entry = self._load().get(kind)
        return Rate(**entry) if entry else None

    def note(self, kind: str, documents: int, seconds: float, run: str) -> None:
        """Keep a measurement that is large enough to tell something."""
        if documents < _ENOUGH_TO_TELL or seconds <= 0:
            return
        rate = Rate(documents_per_second=documents / seconds, source=f"measured on {run}")
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({**self._load(), kind: asdict(rate)}), encoding="utf-8")
        fresh.replace(self._path)

    def _load(self) -> dict[str, Any]:
        try:
            loaded = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}  # only an estimate is lost
        return loaded if isinstance(loaded, dict) else {}
