"""Taking a backup: one read_time, many ranges at once, bytes as they came, the manifest last.

A full backup never looks at a field; an incremental one compares names and update times with its parent's index and
fetches only what changed. Whatever goes wrong, including ``kill -9``, leaves either a whole backup or none.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, islice
from typing import TypeVar

from agent.ahead import Ahead
from agent.backup.balance import even_cuts
from agent.backup.catalogue import Catalogue
from agent.backup.chain import Chain
from agent.backup.copies import Copies
from agent.backup.differences import Differences, Key, compare_keys, spans_of
from agent.backup.manifest import BackupType, Manifest, Tally
from agent.backup.portions import Portions
from agent.backup.ports import Reader
from agent.backup.segments import Compression, Segment, SegmentWriter, digest_of
from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.firestore import CollectionGroup, RawDocument, Scope
from agent.firestore.names import sort_key
from agent.firestore.protos import Document
from agent.telemetry import Progress, ProgressSink

# Firestore keeps versions for an hour; what is read must be read before 55 minutes, the rest is for publishing and for
# clocks that differ. A minute less, because time is looked at between portions, and one may take as long as its RPC.
TIME_LIMIT_SECONDS = 54 * 60.0
_KEYS_AHEAD = 200_000  # of the parent's, some 170 bytes each, over all ranges that are read at once
_KEYS_AT_ONCE = 500
_FAST, _THOROUGH = 3, 12  # zstd levels: a full backup must keep up with the wire, an increment is a hundredth of it
_NS = 1_000_000_000
_R = TypeVar("_R")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to make.

    Args:
        type: the type of the backup that will result.
        requested: the type that was asked for, where that is another one.
        storages: names of the storages to hold it, the first to be written first.
        only: collection ids to limit it to; empty for the whole database.
        base: the chain that an incremental builds on.
        compression: how segments are stored.
        key_id: the key to encrypt with, the catalogue's current one; empty for none.
        parallel: how many ranges are read at once.
        expected: documents to expect, for progress.
        sizes: mean bytes of a document under a root collection, as far as they are known: ranges that are read with
            their documents are to be equal in bytes.
        tool: what makes it, e.g. ``runbookd 0.1.0``.
    """

    type: BackupType
    storages: tuple[str, ...]
    requested: BackupType | None = None
    only: tuple[str, ...] = ()
    base: Chain | None = None
    compression: Compression = Compression.ZSTD
    key_id: str = ""
    parallel: int = 4
    expected: int | None = None
    sizes: Mapping[str, float] = field(default_factory=dict)
    tool: str = "runbookd"


def create_backup(
    order: Order,
    *,
    reader: Reader,
    catalogue: Catalogue,
    clock: Clock,
    progress: ProgressSink,
    cancelled: Callable[[], bool],
) -> Manifest:
    """Make the backup and publish it in each of its storages.

    Raises:
        Permanent: ``READ_TIME_EXPIRED`` before 55 minutes are over; ``CANCELLED``; ``DISK_FULL``.
        RunbookdError: as the database or the last working storage raised it. If only some storages failed, the
            backup is published in the others, and the error says so.
    """
    started = clock.now()
    read_time = reader.server_time()
    watch = _Watch(order, clock=clock, progress=progress, cancelled=cancelled)
    backup, _ = catalogue.claim(order.type, read_time, order.storages)
    copies = Copies(backup, catalogue, order.storages)
    try:
        parts = _read_all(order, reader, read_time, copies, watch)
        manifest = _manifest(order, parts, backup, reader.address.root, read_time, started, clock.now())
        if order.base is not None:
            catalogue.manifest(order.base.newest.id)  # gone, if retention decided just before our lease was written
        manifest = copies.publish_manifest(manifest)
    except BaseException:
        copies.withdraw()
        raise
    catalogue.release_claim(backup, order.storages)
    copies.raise_failures()
    return manifest


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one range contributed."""

    segments: tuple[Segment, ...]
    index: tuple[Segment, ...]
    deletes: tuple[Segment, ...]
    tallies: Mapping[str, Tally]
    total_documents: int


def _read_all(order: Order, reader: Reader, read_time: datetime, copies: Copies, watch: _Watch) -> list[_Part]:
    if order.base is not None:
        return _read_increment(order, order.base, reader, read_time, copies, watch)
    scopes: Sequence[Scope] = (
        [CollectionGroup(id=collection) for collection in order.only]
        if order.only
        else reader.ranges(order.parallel * 4, read_time, sizes=order.sizes)
    )

    def read(number: int, scope: Scope) -> _Part:
        recorder = _Recorder(number, order, copies, reader.address.documents)
        for page in reader.pages(scope, read_time):
            recorder.extend(page)
            watch.advance(len(page), recorder.collection)
        return recorder.close()

    return _side_by_side(read, scopes, order.parallel, watch)


def _side_by_side(read: Callable[[int, Scope], _R], scopes: Sequence[Scope], parallel: int, watch: _Watch) -> list[_R]:
    """What ``read`` makes of each scope, in order; the first that fails ends the others."""

    def guarded(number: int, scope: Scope) -> _R:
        try:
            return read(number, scope)
        except BaseException:
            watch.stop()  # the other ranges need not be read to their end
            raise

    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="backup") as pool:
        futures = [pool.submit(guarded, number, scope) for number, scope in enumerate(scopes)]
        try:
            failures = [error for future in futures if (error := future.exception()) is not None]
        except BaseException:  # Ctrl-C while waiting
            watch.stop()
            raise
    for error in failures:
        if not isinstance(error, _Stopped):
            raise error
    return [future.result() for future in futures]


def _read_increment(
    order: Order, base: Chain, reader: Reader, read_time: datetime, copies: Copies, watch: _Watch
) -> list[_Part]:
    """Find what changed, range by range, then fetch it into one set of segments, which compresses far better.

    What changed is held as names only: about 100 bytes for each.
    """
    newer = base.newer()
    prefix = len(reader.address.documents) + 1
    scopes = reader.ranges(order.parallel * 4, read_time, known=even_cuts(base.members[0].segments, order.parallel * 4))
    spans = spans_of(scopes)
    at_once = max(1, min(len(scopes), order.parallel))

    def compare(number: int, scope: Scope) -> Differences:
        # What the parent knows is unpacked while the server prepares its answer, which may take it seconds.
        with Ahead(lambda: _in_lists(base.remembered(spans[number])), most=_KEYS_AHEAD // at_once, weigh=len) as known:
            return compare_keys(
                reader.pages(scope, read_time, keys_only=True),
                chain.from_iterable(known),
                newer,
                prefix=prefix,
                advance=watch.advance,
            )

    found = _side_by_side(compare, scopes, order.parallel, watch)
    gone = {path for differences in found for path in differences.deleted}
    gone.update(path for path, update_time in newer.items() if update_time is not None)
    recorder = _Recorder(0, order, copies, reader.address.documents)
    recorder.total_documents = sum(differences.documents for differences in found)
    changed = [name for differences in found for name in differences.changed]
    portions = Portions(changed, base.members[0].collections)

    def fetch(portion: Sequence[str]) -> list[RawDocument]:
        got = reader.get(portion, read_time)
        for name, document in got.items():
            if document is None:
                raise Permanent(PermanentReason.INTERNAL, f"{name} is in the scan at {read_time} and can't be read")
        return [document for document in got.values() if document is not None]

    with ThreadPoolExecutor(max_workers=order.parallel, thread_name_prefix="backup") as pool:
        waiting: deque[Future[list[RawDocument]]] = deque()

        def record_next() -> None:
            documents = waiting.popleft().result()
            portions.came(documents)
            recorder.extend(documents)
            watch.advance(0, recorder.collection)

        for portion in portions:
            waiting.append(pool.submit(fetch, portion))
            if len(waiting) > order.parallel:
                record_next()
        while waiting:
            record_next()
    for path in sorted(gone, key=sort_key):
        recorder.delete(path)
    return [recorder.close()]


def _in_lists(keys: Iterator[Key]) -> Iterator[list[Key]]:
    while some := list(islice(keys, _KEYS_AT_ONCE)):
        yield some


class _Recorder:
    """Writes the documents, index and deletes of one range."""

    def __init__(self, number: int, order: Order, copies: Copies, root: str) -> None:
        def writer(kind: str) -> SegmentWriter:
            stem = f"{kind}-{number:03d}"
            return SegmentWriter(
                stem=stem,
                publish=copies.publish,
                compression=order.compression,
                encrypt=copies.encrypt if order.key_id else None,
                level=_THOROUGH if order.base is not None else _FAST,
            )

        self._documents = writer("documents")
        self._index = writer("index")
        self._deletes = writer("deletes")
        self._tallies: dict[str, list[int]] = {}
        self._incremental = order.base is not None
        self._root = root
        self.total_documents = 0
        self.collection = ""

    def extend(self, page: Iterable[RawDocument]) -> None:
        """Append documents that follow those before. This loop runs for every document of every backup."""
        prefix = len(self._root) + 1
        add, remember = self._documents.add, self._index.add
        keeps_index = not self._incremental  # an increment is small enough to be its own index
        parent, collection, tally = None, self.collection, [0, 0]
        for document in page:
            raw = document.raw
            path = document.name[prefix:]
            found = path.rpartition("/")[0]
            if found != parent:
                parent, collection = found, found.rpartition("/")[2]
                tally = self._tallies.setdefault(collection, [0, 0])
            add(raw, path, collection)
            if keeps_index:
                remember(_remembered(document), path, collection)
            tally[0] += 1
            tally[1] += len(raw)
        self.collection = collection

    def delete(self, path: str) -> None:
        document = Document()
        document.name = f"{self._root}/{path}"
        self._deletes.add(document.SerializeToString(), path, path.rsplit("/", 2)[-2])

    def close(self) -> _Part:
        tallies = {name: Tally(documents=count, bytes=size) for name, (count, size) in self._tallies.items()}
        return _Part(
            segments=self._documents.close(),
            index=self._index.close(),
            deletes=self._deletes.close(),
            tallies=tallies,
            total_documents=self.total_documents
            if self._incremental
            else sum(tally.documents for tally in tallies.values()),
        )


def _remembered(document: RawDocument) -> bytes:
    """The document's name and update time alone: what the next incremental compares with."""
    key = Document()
    key.name = document.name
    moment = key.update_time
    moment.seconds, moment.nanos = divmod(document.update_time, _NS)
    data: bytes = key.SerializeToString()
    return data


class _Stopped(Exception):
    """Another range failed; this one was given up."""


class _Watch:
    """Counts progress, and says when to give up. Shared by the threads that read."""

    def __init__(self, order: Order, *, clock: Clock, progress: ProgressSink, cancelled: Callable[[], bool]) -> None:
        self._expected = order.expected
        self._monotonic = clock.monotonic
        self._until = clock.monotonic() + TIME_LIMIT_SECONDS
        self._progress = progress
        self._cancelled = cancelled
        self._done = 0
        self._stopped = False
        self._lock = threading.Lock()

    def stop(self) -> None:
        self._stopped = True

    def advance(self, documents: int, stage: str) -> None:
        if self._stopped:
            raise _Stopped
        if self._monotonic() >= self._until:
            raise Permanent(
                PermanentReason.READ_TIME_EXPIRED,
                "the backup was given up after 54 minutes: Firestore keeps old versions for an hour only",
                hint="raise backup.parallel, run it nearer to the database, or use Firestore's managed export",
            )
        if self._cancelled():
            raise Permanent(PermanentReason.CANCELLED, "the backup was cancelled; nothing of it is kept")
        with self._lock:
            self._done += documents
            total = max(self._expected, self._done) if self._expected is not None else None
            self._progress(Progress(operation="backup", stage=stage, done=self._done, total=total))


def _manifest(
    order: Order,
    parts: Sequence[_Part],
    backup: str,
    database: str,
    read_time: datetime,
    started: datetime,
    finished: datetime,
) -> Manifest:
    collections: dict[str, Tally] = {}
    for part in parts:
        for name, tally in part.tallies.items():
            known = collections.get(name, Tally(documents=0, bytes=0))
            collections[name] = Tally(documents=known.documents + tally.documents, bytes=known.bytes + tally.bytes)
    manifest = Manifest(
        id=backup,
        type=order.type,
        requested=order.requested,
        database=database,
        read_time=read_time,
        started_at=started,
        finished_at=finished,
        documents=sum(tally.documents for tally in collections.values()),
        raw_bytes=sum(tally.bytes for tally in collections.values()),
        stored_bytes=0,
        digest=digest_of(segment for part in parts for segment in part.segments),
        collections=dict(sorted(collections.items())),
        segments=tuple(segment for part in parts for segment in part.segments),
        index=tuple(segment for part in parts for segment in part.index),
        deletes=tuple(segment for part in parts for segment in part.deletes),
        total_documents=sum(part.total_documents for part in parts),
        only=order.only,
        parent=order.base.newest.id if order.base else "",
        parent_sha256=order.base.newest.sha256 if order.base else "",
        compression=order.compression,
        key_id=order.key_id,
        tool=order.tool,
    )
    return replace(manifest, stored_bytes=sum(segment.stored_bytes for segment in manifest.files))
