"""What the database holds, compared with what the page says it holds.

In this room because it is the first thing that is done for a migration (the page's Monday), is about the collections
that a migration moves and their order, and needs nothing but the room's port to the database and a few facts of the
page. Called by ``runbookd analyze``.

Documents are counted by the server. Bytes are either an average of samples times the count, or, with ``full``, summed
over every document at one read_time. Bytes are those of name and fields on the wire, which is what the page's figure
("1,014 bytes a document") means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Protocol

from agent.faults import Permanent, PermanentReason
from agent.firestore import (
    EVERYTHING,
    Collection,
    CollectionGroup,
    DatabaseAddress,
    GeoPoint,
    NameRange,
    RawDocument,
    Reference,
    Scope,
    Timestamp,
    Vector,
    decode_fields,
)
from agent.firestore.names import SMALLEST_ID, collection_id, root_collection
from agent.telemetry import Progress, ProgressSink, ignore_progress

_STARTS = ("", *"05AFKPUZejot")  # where ids of any alphabet begin, so that samples come from all over a collection
_AT_EACH = 20
_TYPES_EVERY = 50  # a full scan looks into one document of so many
_NESTED_LOOKS = 12  # documents of a collection whose subcollections are listed
_OWN = ("_config", "_migrations")
_TOLERANCE = 0.05


class Readable(Protocol):
    """What a census asks of a Firestore; the promise is :class:`agent.firestore.Firestore`'s."""

    @property
    def address(self) -> DatabaseAddress: ...

    def server_time(self) -> datetime: ...

    def collection_ids(self, parent: str = "", read_time: datetime | None = None) -> list[str]: ...

    def count(self, scope: Scope = ..., read_time: datetime | None = None) -> int: ...

    def head(self, scope: Scope, limit: int, read_time: datetime | None = None) -> list[RawDocument]: ...

    def pages(self, scope: Scope = ..., read_time: datetime | None = None) -> Iterator[list[RawDocument]]: ...


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the page says.

    Args:
        documents: in all collections that are migrated.
        bytes: of them.
        collections: number of root collections.
        order: collections in the order of migration, with their documents (``None``: transient).
    """

    documents: int
    bytes: float
    collections: int
    order: Mapping[str, int | None]


@dataclass(frozen=True, kw_only=True)
class GroupCensus:
    """One collection group.

    Args:
        documents: wherever the collection occurs; ``nested`` of them below another document.
        bytes: estimated unless the census is full.
        sampled: documents that were looked at for it.
        types: share of field values by type, in those that were looked into.
    """

    collection: str
    documents: int
    nested: int
    bytes: float
    sampled: int
    types: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A figure of the page that the database doesn't have."""

    subject: str
    page: float | None
    found: float | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Census:
    """The whole database at ``read_time``.

    Args:
        full: every document was read; otherwise bytes and types are estimates from samples.
        documents, bytes: of everything but the agent's own records.
        unseen: documents in subcollections that no sample has met; 0 in a full census.
        differences: from the page; counts are compared exactly, bytes within 5 %.
    """

    database: str
    read_time: datetime
    full: bool
    documents: int
    bytes: float
    root_collections: tuple[str, ...]
    groups: tuple[GroupCensus, ...]
    unseen: int
    differences: tuple[Difference, ...]


def take_census(
    database: Readable, expected: Expected, *, full: bool = False, progress: ProgressSink = ignore_progress
) -> Census:
    """Look at everything once, at one moment.

    Raises:
        Permanent: READ_TIME_EXPIRED if a full scan takes longer than Firestore keeps old versions.
        RunbookdError: the database couldn't be asked.
    """
    at = database.server_time()
    there = database.collection_ids(read_time=at)
    roots = [name for name in there if name not in _OWN]
    tallies = _scanned(database, at, progress) if full else _sampled(database, roots, expected, at, progress)
    groups = tuple(
        tally.group(name)
        for name, tally in sorted(tallies.items(), key=lambda item: _place(item[0], expected))
        if tally.documents
    )
    documents = sum(group.documents for group in groups)
    everything = documents if full else _everything(database, there, at)
    unseen = max(everything - documents, 0) if everything is not None else 0
    return Census(
        database=database.address.root,
        read_time=at,
        full=full,
        documents=documents + unseen,
        bytes=sum(group.bytes for group in groups),
        root_collections=tuple(roots),
        groups=groups,
        unseen=unseen,
        differences=tuple(_differences(groups, roots, expected)),
    )


@dataclass(kw_only=True)
class _Tally:
    documents: int = 0
    nested: int = 0
    bytes: float = 0.0
    sampled: int = 0
    types: Counter[str] = field(default_factory=Counter)

    def look_into(self, document: RawDocument) -> None:
        self.types.update(_type_of(value) for value in decode_fields(document.fields).values())

    def group(self, collection: str) -> GroupCensus:
        values = self.types.total()
        return GroupCensus(
            collection=collection,
            documents=self.documents,
            nested=self.nested,
            bytes=self.bytes,
            sampled=self.sampled,
            types={name: count / values for name, count in self.types.most_common()},
        )


def _scanned(database: Readable, at: datetime, progress: ProgressSink) -> dict[str, _Tally]:
    tallies: dict[str, _Tally] = {}
    done = 0
    for page in database.pages(EVERYTHING, at):
        for document in page:
            path = database.address.relative(document.name)
            if root_collection(path) in _OWN:
                continue
            tally = tallies.setdefault(collection_id(path), _Tally())
            tally.documents += 1
            tally.nested += path.count("/") > 1
            tally.bytes += _size(document)
            tally.sampled += 1
            if tally.documents % _TYPES_EVERY == 1:
                tally.look_into(document)
        done += len(page)
        progress(Progress(operation="analyze", stage="documents", done=done))
    return tallies


def _sampled(
    database: Readable, roots: Sequence[str], expected: Expected, at: datetime, progress: ProgressSink
) -> dict[str, _Tally]:
    known = dict.fromkeys((*roots, *expected.order))
    tallies: dict[str, _Tally] = {}
    waiting = list(known)
    while waiting:
        collection = waiting.pop(0)
        progress(Progress(operation="analyze", stage=collection, done=len(tallies), total=len(known)))
        tally, samples = _estimated(database, collection, at, root=collection in roots)
        tallies[collection] = tally
        for nested in _subcollections(database, samples, at):
            if nested not in known:
                known[nested] = None
                waiting.append(nested)
    return tallies


def _estimated(database: Readable, collection: str, at: datetime, *, root: bool) -> tuple[_Tally, list[RawDocument]]:
    total = database.count(CollectionGroup(id=collection), at)
    direct = database.count(Collection(path=collection), at) if root and total else 0
    tally = _Tally(documents=total, nested=total - direct)
    samples = _samples(database, collection, at) if total else []
    parts: dict[bool, list[int]] = {True: [], False: []}
    for document in samples:
        below = database.address.relative(document.name).count("/") > 1
        parts[below].append(_size(document))
        tally.look_into(document)
    tally.sampled = len(samples)
    everywhere = _average([*parts[True], *parts[False]])
    tally.bytes = (_average(parts[False]) or everywhere) * direct + (_average(parts[True]) or everywhere) * tally.nested
    return tally, samples


def _samples(database: Readable, collection: str, at: datetime) -> list[RawDocument]:
    """A few documents from each of several places, those below other documents included."""
    found: dict[str, RawDocument] = {}
    for start in _STARTS:
        scope = CollectionGroup(id=collection, first=f"{collection}/{start}" if start else "")
        found.update((document.name, document) for document in database.head(scope, _AT_EACH, at))
    behind = CollectionGroup(id=collection, first=f"{collection}0/0")
    found.update((document.name, document) for document in database.head(behind, _AT_EACH, at))
    return list(found.values())


def _subcollections(database: Readable, samples: Sequence[RawDocument], at: datetime) -> Iterable[str]:
    step = max(len(samples) // _NESTED_LOOKS, 1)
    found: dict[str, None] = {}
    for document in samples[::step]:
        found.update(dict.fromkeys(database.collection_ids(database.address.relative(document.name), read_time=at)))
    return found


def _everything(database: Readable, roots: Sequence[str], at: datetime) -> int | None:
    """Number of documents, the agent's own left out; ``None`` where the server doesn't count across collections."""
    bounds = [*(f"{root}/{SMALLEST_ID}" for root in sorted(roots)), ""]
    try:
        return sum(
            database.count(NameRange(first=first, last=last), at)
            for first, last in pairwise(bounds)
            if root_collection(first) not in _OWN
        )
    except Permanent as error:
        if error.reason in (PermanentReason.UNSUPPORTED, PermanentReason.INVALID):
            return None
        raise


def _differences(groups: Sequence[GroupCensus], roots: Sequence[str], expected: Expected) -> Iterator[Difference]:
    found = {group.collection: group for group in groups}
    moved = [found[name] for name, count in expected.order.items() if count is not None and name in found]
    yield from _compared("documents that are migrated", expected.documents, sum(group.documents for group in moved))
    size = sum(group.bytes for group in moved)
    if expected.bytes and abs(size - expected.bytes) > _TOLERANCE * expected.bytes:
        change = size / expected.bytes - 1
        yield Difference(
            subject="bytes that are migrated", page=expected.bytes, found=size, text=f"{change:+.0%} of the page's"
        )
    yield from _compared("root collections", expected.collections, len(roots))
    for name, count in expected.order.items():
        here = found[name].documents if name in found else 0
        if count is not None:
            yield from _compared(f"documents in {name}", count, here)
    for group in groups:
        if group.collection not in expected.order:
            yield Difference(
                subject=f"documents in {group.collection}",
                page=None,
                found=group.documents,
                text="the page's migration order doesn't name this collection",
            )


def _compared(subject: str, page: int, found: int) -> Iterator[Difference]:
    if page != found:
        share = f" ({found / page - 1:+.1%})" if page else ""
        yield Difference(subject=subject, page=page, found=found, text=f"{found - page:+,}{share}")


def _place(collection: str, expected: Expected) -> tuple[int, str]:
    order = list(expected.order)
    return (order.index(collection) if collection in expected.order else len(order), collection)


def _average(sizes: Sequence[int]) -> float:
    return sum(sizes) / len(sizes) if sizes else 0.0


def _size(document: RawDocument) -> int:
    return len(document.name) + len(document.fields)


def _type_of(value: Any) -> str:
    for kinds, name in _TYPES:
        if isinstance(value, kinds):
            return name
    return "other"


_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (type(None), "null"),
    (bool, "boolean"),
    (int, "integer"),
    (float, "double"),
    (str, "string"),
    (bytes, "bytes"),
    (Timestamp, "timestamp"),
    (Reference, "reference"),
    (GeoPoint, "geopoint"),
    (Vector, "vector"),
    (list, "array"),
    (dict, "map"),
)
