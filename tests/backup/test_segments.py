"""Segments: what is written is read, in pieces of any size, and nothing else passes for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.backup.segments import (
    BLOCK_BYTES,
    SEGMENT_BYTES,
    Compression,
    Segment,
    SegmentWriter,
    checked_segment,
    digest_of,
    documents_of,
)
from agent.faults import Permanent, PermanentReason
from agent.firestore.protos import ListDocumentsResponse


def written(
    documents: Sequence[bytes],
    compression: Compression = Compression.ZSTD,
    *,
    block_bytes: int = BLOCK_BYTES,
    segment_bytes: int = SEGMENT_BYTES,
) -> tuple[tuple[Segment, ...], dict[str, bytes]]:
    """The segments that ``documents`` make, and their files."""
    files: dict[str, bytes] = {}

    def publish(file: str, chunks: list[bytes]) -> None:
        files[file] = b"".join(chunks)

    writer = SegmentWriter(
        stem="documents-000",
        publish=publish,
        compression=compression,
        block_bytes=block_bytes,
        segment_bytes=segment_bytes,
    )
    for number, document in enumerate(documents):
        writer.add(document, f"users/{number:06d}", "users")
    return writer.close(), files


@settings(max_examples=150, deadline=None)
@given(
    documents=st.lists(st.binary(max_size=700), max_size=60),
    compression=st.sampled_from(Compression),
    block_bytes=st.integers(1, 2000),
    segment_bytes=st.integers(1, 3000),
)
def test_documents_come_back_in_order(
    documents: list[bytes], compression: Compression, block_bytes: int, segment_bytes: int
) -> None:
    """Whatever the sizes of documents, blocks and segments, reading gives what was written."""
    segments, files = written(documents, compression, block_bytes=block_bytes, segment_bytes=segment_bytes)
    read = [
        document
        for segment in segments
        for document in documents_of(segment, checked_segment(segment, [files[segment.file]]), compression)
    ]
    assert read == documents
    assert [segment.file for segment in segments] == sorted(files)
    assert sum(segment.documents for segment in segments) == len(documents)
    assert all(segment.sha256 == hashlib.sha256(files[segment.file]).hexdigest() for segment in segments)


def test_a_document_larger_than_a_block() -> None:
    """Documents of the largest size cross the reader's blocks."""
    documents = [bytes([n]) * (1 << 20) for n in range(5)] + [b"", b"x"]
    segments, files = written(documents)
    assert list(documents_of(segments[0], files[segments[0].file], Compression.ZSTD)) == documents


def test_a_segment_is_a_protobuf_message() -> None:
    """Decompressed, a segment parses as ListDocumentsResponse, as the format's description says."""
    documents = [ListDocumentsResponse().documents.add(name=f"d{n}").SerializeToString() for n in range(1000)]
    segments, files = written(documents, block_bytes=500)
    data = zstandard.ZstdDecompressor().stream_reader(files[segments[0].file], read_across_frames=True).read()
    assert [document.name for document in ListDocumentsResponse.FromString(data).documents] == [
        f"d{n}" for n in range(1000)
    ]


def test_segments_know_their_ends() -> None:
    """First and last name of each segment, and the collections in it, are in the manifest."""
    segments, _ = written([b"x" * 100] * 10, Compression.NONE, block_bytes=1, segment_bytes=400)
    assert [(segment.first, segment.last) for segment in segments] == [
        ("users/000000", "users/000003"),
        ("users/000004", "users/000007"),
        ("users/000008", "users/000009"),
    ]
    assert segments[0].collections == ("users",)


@pytest.mark.parametrize("compression", Compression)
def test_any_flipped_bit_is_found(compression: Compression) -> None:
    """No damaged byte of a segment gets past its checksum; the error names the file."""
    segments, files = written([b"some document", b"another"], compression)
    segment, data = segments[0], files[segments[0].file]
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(Permanent, match=segment.file) as raised:
            checked_segment(segment, [bytes(damaged)])
        assert raised.value.reason is PermanentReason.CORRUPT
    with pytest.raises(Permanent, match="bytes instead of"):
        checked_segment(segment, [data[:-1]])


@pytest.mark.parametrize("data", [b"\x0b\x00", b"\x0a", b"\x0a\x05abc", b"\x0a\xff\xff\xff\xff\xff\xff\x01"])
def test_bytes_that_are_no_segment(data: bytes) -> None:
    """Content that is not documents is corruption, not a crash or a silent end."""
    segments, _ = written([b"x"], Compression.NONE)
    with pytest.raises(Permanent) as raised:
        list(documents_of(segments[0], data, Compression.NONE))
    assert raised.value.reason is PermanentReason.CORRUPT


def test_the_digest_is_of_the_documents() -> None:
    """The digest of a set depends on its documents and their order alone, not on compression."""
    documents = [b"one", b"two", b"three"]
    compressed, _ = written(documents)
    plain, _ = written(documents, Compression.NONE)
    other, _ = written(documents[::-1])
    assert digest_of(compressed) == digest_of(plain) != digest_of(other)
