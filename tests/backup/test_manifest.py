"""The manifest: everything comes back, and no byte of it can change unnoticed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.backup import BackupType, Compression, Manifest, Tally
from agent.backup.manifest import backup_id, is_backup_id, read_manifest, seal, unseal
from agent.backup.segments import Segment
from agent.faults import Permanent, PermanentReason

_MOMENT = datetime(2025, 9, 10, 8, 0, 0, tzinfo=UTC)


def a_manifest() -> Manifest:
    segment = Segment(
        file="documents-000-0000.pb.zst",
        first="users/ä",
        last="users/☃",
        documents=2,
        raw_bytes=100,
        stored_bytes=50,
        sha256="ab" * 32,
        content_sha256="ba" * 32,
        collections=("users",),
    )
    return Manifest(
        id="backup-incremental-20250910-080000",
        type=BackupType.INCREMENTAL,
        database="projects/p/databases/(default)",
        read_time=_MOMENT.replace(microsecond=123456),
        started_at=_MOMENT,
        finished_at=_MOMENT,
        documents=2,
        raw_bytes=96,
        stored_bytes=50,
        digest="cd" * 32,
        collections={"users": Tally(documents=2, bytes=96)},
        segments=(segment,),
        index=(replace(segment, file="index-000-0000.pb.zst"),),
        deletes=(),
        total_documents=7,
        parent="backup-full-20250909-080000",
        parent_sha256="ef" * 32,
        requested=None,
        compression=Compression.ZSTD,
        tool="runbookd 0.1.0",
    )


def test_a_manifest_comes_back() -> None:
    """Reading what was written gives an equal manifest, with its seal."""
    manifest = a_manifest()
    read = read_manifest(manifest.to_bytes())
    assert read == manifest
    assert len(read.sha256) == 64


def test_any_changed_byte_is_found() -> None:
    """Each byte, flipped, removed or doubled, makes the manifest unreadable and the error names it."""
    data = a_manifest().to_bytes()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        removed = data[:position] + data[position + 1 :]
        doubled = data[: position + 1] + data[position:]
        for damaged in (bytes(flipped), removed, doubled):
            if damaged == data:
                continue
            with pytest.raises(Permanent, match=r"b-1/manifest\.json") as raised:
                read_manifest(damaged, "b-1/manifest.json")
            assert raised.value.reason is PermanentReason.CORRUPT


def test_a_newer_format_is_refused() -> None:
    """A manifest of a later format is not guessed at."""
    body = unseal(a_manifest().to_bytes(), "m")
    del body["sha256"]
    with pytest.raises(Permanent) as raised:
        read_manifest(seal({**body, "format": 2}))
    assert raised.value.reason is PermanentReason.UNSUPPORTED


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"sha256": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_manifest(data: bytes) -> None:
    """Other content is corruption, whatever it is."""
    with pytest.raises(Permanent) as raised:
        read_manifest(data)
    assert raised.value.reason is PermanentReason.CORRUPT


def test_ids() -> None:
    """Ids are the page's, in UTC, and tell backups of one second apart."""
    assert backup_id(BackupType.FULL, _MOMENT) == "backup-full-20250910-080000"
    assert backup_id(BackupType.SNAPSHOT, _MOMENT, 2) == "backup-snapshot-20250910-080000-2"
    assert is_backup_id("backup-full-20250910-080000")
    assert is_backup_id("backup-critical-20250910-080000-12")
    assert not is_backup_id("backup-other-20250910-080000")
    assert not is_backup_id("backup-full-20250910-080000/../x")
