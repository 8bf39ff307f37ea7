"""The undo journal: what every document was before the migration, on disk before the migration touches it.

A run's journal is a folder of segments, each a sequence of frames. A frame is a header (kind, length, CRC-32) and its
payload; whatever ``kill -9`` tore off at the end of the last segment is recognised by it and left out.

* INTENTS: before-images of the documents of one batch and a digest of what each is to become. It is on disk
  (fsync) before the batch is sent.
* RESULTS: what became of those writes, with the resulting update_times. It is on disk with the next INTENTS at the
  latest; where it is missing, :mod:`agent.migration.settlement` asks the database.
* RANGES, DONE: what is scanned and how far it is finished: the checkpoint, in the same order as the facts it rests on.
* SET_ASIDE: documents that the run leaves alone, and why.

Written by :mod:`agent.migration.run` and :mod:`agent.migration.undo`; read by both, and by whoever resumes.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import zstandard

from agent.faults import Permanent, PermanentReason

SEGMENT_BYTES = 32 << 20

FRAME = struct.Struct(">2sBIII")  # magic, kind, length, CRC-32 of the payload, CRC-32 of the 7 bytes before
MAGIC = b"RJ"
INTENTS = struct.Struct(">QIIH")  # first sequence, count, range, length of the last name
INTENT = struct.Struct(">BHIq16s")  # action, length of the name, length of the before-image, its update_time, digest
RESULT = struct.Struct(">QBq")  # sequence, state, update_time


class Kind(IntEnum):
    """What a frame holds."""

    HEADER = 1
    RANGES = 2
    INTENTS = 3
    RESULTS = 4
    DONE = 5
    SET_ASIDE = 6


class Action(IntEnum):
    """What a write is meant to do."""

    UPDATE = 1
    """Give it other fields."""
    CREATE = 2
    DELETE = 3
    EDIT = 4
    """UPDATE, told by what is to differ."""


class State(IntEnum):
    """What is known of an intent. The later record of one sequence wins."""

    UNKNOWN = 0
    APPLIED = 1
    NOT_APPLIED = 2
    UNCLEAR = 3
    UNDONE = 4
    KEPT = 5
    MERGED = 6


class Intent(NamedTuple):
    """One document about to be written.

    Args:
        action: what is meant to happen to it.
        name: full resource name.
        before: the Document message as it was, as received; empty for a document that did not exist.
        before_time: update_time of ``before`` in ns since the epoch; 0 for a document that did not exist.
        digest: of what is meant, by which :func:`agent.migration.changes.is_as_meant` knows it again: of all fields
            that are to be there, for an EDIT of what is to differ from ``before``, zeros for a DELETE.
    """

    action: Action
    name: str
    before: bytes
    before_time: int
    digest: bytes


class Result(NamedTuple):
    """What became of the intent with this sequence number. ``update_time`` in ns since the epoch, 0 where none."""

    sequence: int
    state: State
    update_time: int = 0


@dataclass(frozen=True, kw_only=True)
class Header:
    """First frame of every segment."""

    run: str
    database: str
    checksum: str
    segment: int


@dataclass(frozen=True, kw_only=True)
class ScanRange:
    """A stretch of one collection group, in name order.

    Args:
        index: number of the range within the run.
        collection: id of the collection group.
        after: full name after which it starts; empty for the start.
        until: full name with which it ends (included); empty for the end.
    """

    index: int
    collection: str
    after: str = ""
    until: str = ""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What happened to the documents of one chunk, or of a whole collection.

    Args:
        scanned: documents that the transform saw; the sum of the four that follow.
        written: changed or deleted, or the origin of a created one.
        unchanged: left as they were by the transform.
        gone: deleted by somebody else before they were written.
        set_aside: left alone because something was wrong with them.
        created: new documents.
        conflicts: times a document was transformed again because somebody had written it meanwhile.
    """

    scanned: int = 0
    written: int = 0
    unchanged: int = 0
    gone: int = 0
    set_aside: int = 0
    created: int = 0
    conflicts: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every document that was seen has exactly one fate."""
        return self.scanned == self.written + self.unchanged + self.gone + self.set_aside

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{key: value + getattr(other, key) for key, value in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A document that the run left as it was, and why."""

    name: str
    collection: str
    why: str


class JournalWriter:
    """Appends to a run's journal; thread-safe.

    Args:
        folder: of this journal; made if missing. Existing segments are never touched: a new session starts a new one.
        run, database, checksum: for the segments' headers.
        next_sequence: number of the next intent: the count of those that the folder holds already.
        on_closed: called with the path of each segment that is complete; has to return at once.
        segment_bytes: size at which a segment is closed.

    Raises:
        Permanent: DISK_FULL from every method that writes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        database: str,
        checksum: str,
        next_sequence: int = 0,
        on_closed: Callable[[Path], None] | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._run, self._database, self._checksum = run, database, checksum
        self._next_sequence = next_sequence
        self._on_closed = on_closed
        self._segment_bytes = segment_bytes
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._written = 0  # bytes handed to the operating system, over all segments of this session
        self._synced = 0
        self._segment = max((number for number, _ in segments(folder)), default=0)
        self._file: BinaryIO
        self._path: Path
        with self._lock:
            self._open_segment()

    # --- what is written --------------------------------------------------------------------------------------

    def ranges(self, ranges: Sequence[ScanRange]) -> None:
        """What is going to be scanned; on disk when this returns."""
        self._append(Kind.RANGES, json.dumps([asdict(part) for part in ranges]).encode())
        self.sync()

    def intents(self, scan_range: int, last_name: str, intents: Sequence[Intent]) -> range:
        """What is about to be written; on disk when this returns.

        Args:
            scan_range: index of the range that the documents come from.
            last_name: the last name of the chunk that they come from, so that a resume can tell what lies behind
                the checkpoint without unpacking it.

        Returns:
            The sequence numbers of ``intents``, in order.
        """
        parts: list[bytes] = []
        for action, text, before, before_time, digest in intents:
            name = text.encode()
            parts += (INTENT.pack(action, len(name), len(before), before_time, digest), name, before)
        last = last_name.encode()
        with self._lock:
            packed = self._compressor.compress(b"".join(parts))
            first = self._next_sequence
            self._next_sequence += len(intents)
            self._append_locked(Kind.INTENTS, INTENTS.pack(first, len(intents), scan_range, len(last)) + last + packed)
            written = self._written
        self._sync_to(written)
        return range(first, first + len(intents))

    def results(self, results: Sequence[Result]) -> None:
        """What became of intents; on disk with the next :meth:`intents` or :meth:`sync`."""
        if results:
            self._append(
                Kind.RESULTS,
                b"".join([RESULT.pack(*item) for item in results]),
            )

    def done(self, scan_range: int, last_name: str, counts: Counts) -> None:
        """Every document of the range up to ``last_name`` is settled; ``counts`` since the last such record."""
        record = {"range": scan_range, "last": last_name, "counts": asdict(counts)}
        self._append(Kind.DONE, json.dumps(record).encode())

    def set_aside(self, documents: Sequence[SetAside]) -> None:
        """Documents that the run leaves alone."""
        if documents:
            self._append(Kind.SET_ASIDE, json.dumps([asdict(document) for document in documents]).encode())

    def sync(self) -> None:
        """Everything appended so far is on disk when this returns."""
        with self._lock:
            written = self._written
        self._sync_to(written)

    def close(self) -> None:
        """Put everything on disk and close the last segment."""
        self.sync()
        with self._lock:
            self._file.close()
        self._closed_segment(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside -----------------------------------------------------------------------------------------------

    def _append(self, kind: Kind, payload: bytes) -> None:
        with self._lock:
            self._append_locked(kind, payload)

    def _append_locked(self, kind: Kind, payload: bytes) -> None:
        if self._file.tell() + len(payload) > self._segment_bytes and self._file.tell() > FRAME.size * 32:
            self._rotate()
        self._put(frame(kind, payload))

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        whole = self._file.tell()
        try:
            while left:  # on a full disk a write may be cut short before the next one fails
                left = left[self._file.write(left) :]
        except OSError as error:
            # Half a frame with whole ones after it would pass for damage, and with it the whole journal.
            with suppress(OSError):
                self._file.seek(self._file.truncate(whole))
            raise _disk_error(self._path, error) from error
        self._written += len(data)

    def _rotate(self) -> None:
        # Under the lock: nobody may append to the next segment while the end of this one is not on disk, or a power
        # loss could leave a gap that looks like corruption.
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _disk_error(self._path, error) from error
        self._synced = max(self._synced, self._written)
        self._file.close()
        self._closed_segment(self._path)
        self._open_segment()

    def _open_segment(self) -> None:
        self._segment += 1
        self._path = self._folder / f"journal-{self._segment:06d}.bin"
        try:
            self._file = self._path.open("xb", buffering=0)
            _sync_folder(self._folder)
        except OSError as error:
            raise _disk_error(self._path, error) from error
        header = Header(run=self._run, database=self._database, checksum=self._checksum, segment=self._segment)
        self._put(frame(Kind.HEADER, json.dumps(asdict(header)).encode()))

    def _closed_segment(self, path: Path) -> None:
        if self._on_closed is not None:
            self._on_closed(path)

    def _sync_to(self, written: int) -> None:
        """Group commit: whoever finds the disk behind syncs for everybody who waits meanwhile."""
        if self._synced >= written:
            return
        with self._syncing:
            if self._synced >= written:
                return
            with self._lock:
                target, descriptor, path = self._written, os.dup(self._file.fileno()), self._path
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise _disk_error(path, error) from error
            finally:
                os.close(descriptor)
            self._synced = max(self._synced, target)


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Number and path of every segment, in order."""
    return sorted((int(path.stem.rpartition("-")[2]), path) for path in folder.glob("journal-[0-9]*.bin"))


def frame(kind: Kind, payload: bytes) -> bytes:
    """``payload`` as it stands in a segment."""
    start = MAGIC + bytes((kind,)) + len(payload).to_bytes(4, "big")
    return start + zlib.crc32(payload, kind).to_bytes(4, "big") + zlib.crc32(start).to_bytes(4, "big") + payload


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(path: Path, error: OSError) -> Permanent:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Permanent(
            PermanentReason.DISK_FULL,
            f"no room left for the undo journal {path}",
            hint="free some space and resume the run; nothing was written without its before-image",
        )
    return Permanent(PermanentReason.INTERNAL, f"the undo journal {path} can't be written ({error})")
