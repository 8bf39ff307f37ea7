"""Segments: files of whole documents exactly as they came over the wire.

Decompressed, a segment is ``(0x0A, varint length, Document)*``, which is the protobuf encoding of a message whose
field 1 is ``repeated google.firestore.v1.Document`` (``ListDocumentsResponse`` is one): any protobuf library reads
it. Compressed, it is a sequence of zstd frames, one a block of about 1 MiB, so that ``zstd -dc`` reads it too.

``create`` writes them, ``verify``, ``restore`` and ``export`` read them. Nothing here looks inside a field.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import zstandard

from agent.faults import Permanent, PermanentReason
from agent.firestore.protobuf import varint

BLOCK_BYTES = 1 << 20
# Stored bytes at which a segment is closed. A segment is held in memory until it is published, one for each range
# read in parallel, so this and not the size of the database bounds a backup's memory.
SEGMENT_BYTES = 16 << 20

ENCRYPTED = ".enc"
_TAG = b"\x0a"  # field 1, length-delimited

Publish = Callable[[str, list[bytes]], None]
"""Makes a file of a backup durable: its name within the backup, its bytes in chunks."""


class Compression(StrEnum):
    """How the blocks of a segment are stored."""

    ZSTD = "zstd"
    NONE = "none"

    @property
    def suffix(self) -> str:
        return ".pb.zst" if self is Compression.ZSTD else ".pb"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What the manifest says of one segment.

    Args:
        file: name within the backup.
        first: relative name (``users/u1``) of its first document; documents are in ``__name__`` order.
        last: relative name of its last document.
        documents: how many documents.
        raw_bytes: their size before compression, framing included.
        stored_bytes: the file's size.
        sha256: hex digest of the file.
        content_sha256: hex digest of the documents, framing included, before compression.
        collections: ids of the collections that occur in it, sorted.
    """

    file: str
    first: str
    last: str
    documents: int
    raw_bytes: int
    stored_bytes: int
    sha256: str
    content_sha256: str
    collections: tuple[str, ...]


def digest_of(segments: Iterable[Segment]) -> str:
    """The checksum of a set of documents: SHA-256 over the content digests of its segments, in order."""
    digest = hashlib.sha256()
    for segment in segments:
        digest.update(bytes.fromhex(segment.content_sha256))
    return digest.hexdigest()


class SegmentWriter:
    """Writes documents in ``__name__`` order into segments, rotating by size. Not for several threads.

    Args:
        stem: start of the files' names, e.g. ``documents-03``.
        publish: makes a closed segment durable; called from :meth:`add` and :meth:`close`.
        encrypt: seals a closed segment, given its file's name and its bytes.
        level: zstd's; a higher one takes longer and stores less.
    """

    def __init__(
        self,
        *,
        stem: str,
        publish: Publish,
        compression: Compression = Compression.ZSTD,
        segment_bytes: int = SEGMENT_BYTES,
        block_bytes: int = BLOCK_BYTES,
        level: int = 3,
        encrypt: Callable[[str, bytes], bytes] | None = None,
    ) -> None:
        self._stem = stem
        self._publish = publish
        self._encrypt = encrypt
        self._compression = compression
        self._segment_bytes = segment_bytes
        self._block_bytes = block_bytes
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        self._segments: list[Segment] = []
        self._open = _OpenSegment()
        self._block: list[bytes] = []
        self._size = 0
        self._collection = ""
        self._last = ""

    def add(self, document: bytes, name: str, collection: str) -> None:
        """Append one document. Called for every document there is: what can be done for a block is not done here.

        Args:
            document: the Document message's bytes.
            name: its relative name; greater than the one before.
            collection: id of the collection it is in.
        """
        length = len(document)
        header = _headers.get(length) or _header(length)
        block = self._block
        block.append(header)
        block.append(document)
        self._size += len(header) + length
        if collection != self._collection or len(block) == 2:
            self._collection = collection
            self._open.begin(name, collection)
        self._last = name
        if self._size >= self._block_bytes:
            self._close_block()
            if self._open.stored_bytes >= self._segment_bytes:
                self._close_segment()

    def close(self) -> tuple[Segment, ...]:
        """Publish what is pending and return all segments, in order."""
        self._close_block()
        self._close_segment()
        return tuple(self._segments)

    def _close_block(self) -> None:
        if not self._block:
            return
        segment = self._open
        content = b"".join(self._block)
        segment.documents += len(self._block) // 2
        segment.raw_bytes += len(content)
        segment.content_sha256.update(content)
        stored = self._compressor.compress(content) if self._compression is Compression.ZSTD else content
        segment.sha256.update(stored)
        segment.stored.append(stored)
        segment.stored_bytes += len(stored)
        self._block = []
        self._size = 0

    def _close_segment(self) -> None:
        segment = self._open
        if not segment.documents:
            return
        file = f"{self._stem}-{len(self._segments):04d}{self._compression.suffix}"
        if self._encrypt is not None:
            file += ENCRYPTED
            segment.stored = [self._encrypt(file, b"".join(segment.stored))]
            segment.stored_bytes = len(segment.stored[0])
            segment.sha256 = hashlib.sha256(segment.stored[0])
        self._publish(file, segment.stored)
        self._segments.append(
            Segment(
                file=file,
                first=segment.first,
                last=self._last,
                documents=segment.documents,
                raw_bytes=segment.raw_bytes,
                stored_bytes=segment.stored_bytes,
                sha256=segment.sha256.hexdigest(),
                content_sha256=segment.content_sha256.hexdigest(),
                collections=tuple(sorted(segment.collections)),
            )
        )
        self._open = _OpenSegment()


class _OpenSegment:
    """The closed blocks of a segment that is still being written."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.stored_bytes = 0
        self.raw_bytes = 0
        self.documents = 0
        self.first = ""
        self.collections: set[str] = set()
        self.sha256 = hashlib.sha256()
        self.content_sha256 = hashlib.sha256()

    def begin(self, name: str, collection: str) -> None:
        """A block begins, or another collection does."""
        self.first = self.first or name
        self.collections.add(collection)


def checked_segment(segment: Segment, chunks: Iterable[bytes]) -> bytes:
    """The stored bytes of ``segment``, once size and checksum are known to be right.

    Raises:
        Permanent: ``CORRUPT``, naming the file.
    """
    data = b"".join(chunks)
    if len(data) != segment.stored_bytes:
        raise _corrupt(segment.file, f"has {len(data)} bytes instead of {segment.stored_bytes}")
    if hashlib.sha256(data).hexdigest() != segment.sha256:
        raise _corrupt(segment.file, "is damaged: its SHA-256 is not the one in the manifest")
    return data


def documents_of(
    segment: Segment, data: bytes, compression: Compression, content: hashlib._Hash | None = None
) -> Iterator[bytes]:
    """The Document messages of a segment's stored bytes, in order, holding about one block at a time.

    Args:
        content: fed with the decompressed bytes, for the content digest; who has checked the stored bytes, as
            :func:`checked_segment` does, needs it only to check the manifest itself.

    Raises:
        Permanent: ``CORRUPT``, naming the file.
    """
    stream: io.BufferedIOBase | zstandard.ZstdDecompressionReader = io.BytesIO(data)
    if compression is Compression.ZSTD:
        stream = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    buffer = b""
    try:
        while chunk := stream.read(BLOCK_BYTES):
            if content is not None:
                content.update(chunk)
            buffer += chunk
            start = 0
            while (found := _next(buffer, start, segment.file)) is not None:
                begin, start = found
                yield buffer[begin:start]
            buffer = buffer[start:]
    except zstandard.ZstdError as error:
        raise _corrupt(segment.file, f"can't be decompressed ({error})") from error
    if buffer:
        raise _corrupt(segment.file, "ends in the middle of a document")


def _next(buffer: bytes, start: int, file: str) -> tuple[int, int] | None:
    """Where the document after ``start`` begins and ends, or ``None`` if the buffer does not hold all of it."""
    size = len(buffer)
    if start >= size:
        return None
    if buffer[start] != _TAG[0]:
        raise _corrupt(file, f"has byte {buffer[start]:#04x} where a document should start")
    position = start + 1
    length = shift = 0
    while True:
        if position >= size:
            return None
        byte = buffer[position]
        position += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise _corrupt(file, "has a document of an impossible length")
    return (position, position + length) if position + length <= size else None


_headers: dict[int, bytes] = {}


def _header(length: int) -> bytes:
    """Tag and varint of a document of ``length`` bytes; remembered, because most documents have few lengths."""
    header = _headers.get(length)
    if header is None:
        header = _TAG + varint(length)
        if len(_headers) < 65_536:
            _headers[length] = header
    return header


def _corrupt(file: str, what: str) -> Permanent:
    return Permanent(PermanentReason.CORRUPT, f"{file} {what}")
