"""Uploads: copies where the page wants them, made from a sound one, byte for byte, and verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from agent.backup import Backups, BackupType, Keyring
from agent.faults import Permanent, PermanentReason, Transient, TransientReason
from agent.firestore import Firestore
from agent.storage import DirectoryStorage, StoredObject
from tests.backup.conftest import contents, damage, write

Make = Callable[..., Backups]


@pytest.fixture
def bucket(tmp_path: Path) -> DirectoryStorage:
    """The storage that lacks the copies."""
    return DirectoryStorage(name="gcs", path=tmp_path / "gcs")


def files(storage: DirectoryStorage, backup: str) -> dict[str, bytes]:
    """A copy's files but for what is known of this copy alone."""
    return {
        path.name: path.read_bytes() for path in (storage.path / backup).iterdir() if path.name not in {"verified.json"}
    }


def test_what_is_missing_is_made_up_for(
    firestore: Firestore, local: DirectoryStorage, bucket: DirectoryStorage, backups_of: Make
) -> None:
    """A chain that is on one storage alone is on both afterwards, pins included, and restores from the other."""
    write(firestore, {f"users/u{number}": {"n": number} for number in range(50)})
    alone = backups_of(firestore, local)
    full = alone.create(BackupType.FULL).id
    write(firestore, {"users/u1": None, "users/u2": {"n": "newer"}})
    increment = alone.create(BackupType.INCREMENTAL).id
    alone.pin(increment, "for the auditor")
    before = contents(firestore)

    backups = backups_of(firestore, local, bucket)
    report = backups.upload()
    assert report.uploaded == (f"gcs:{full}", f"gcs:{increment}")
    assert report.problems == ()
    assert report.bytes_written == sum(item.stored_bytes for item in backups.list())
    for backup in (full, increment):
        assert files(bucket, backup) == files(local, backup)
    assert all(item.verified and item.storages == ("local", "gcs") and not item.in_use for item in backups.list())
    assert backups.upload().uploaded == ()

    write(firestore, {"users/u3": {"n": "bad"}})
    assert backups_of(firestore, bucket).restore(increment).complete
    assert contents(firestore) == before


def test_a_damaged_copy_is_made_anew(
    firestore: Firestore, local: DirectoryStorage, bucket: DirectoryStorage, backups_of: Make
) -> None:
    """A copy that verification found damaged, segment or manifest, is replaced by a sound one, on either side."""
    write(firestore, {"users/u1": {"n": 1}})
    backups = backups_of(firestore, local, bucket)
    manifest = backups.create(BackupType.FULL)
    for storage, file in ((bucket, manifest.segments[0].file), (local, "manifest.json")):
        damage(storage.path / manifest.id / file)
        assert backups.verify(manifest.id).problems
        assert backups.upload().uploaded == (f"{storage.name}:{manifest.id}",)
        assert backups.verify(manifest.id).problems == ()
    assert files(bucket, manifest.id) == files(local, manifest.id)


def test_without_a_sound_copy_nothing_is_touched(
    firestore: Firestore, local: DirectoryStorage, bucket: DirectoryStorage, backups_of: Make
) -> None:
    """If both copies are damaged, in different files, neither is thrown away: together they still restore."""
    write(firestore, {"users/u1": {"n": 1}})
    before = contents(firestore)
    backups = backups_of(firestore, local, bucket)
    manifest = backups.create(BackupType.FULL)
    damage(local.path / manifest.id / manifest.segments[0].file)
    damage(bucket.path / manifest.id / manifest.index[0].file)
    assert not backups.verify(manifest.id).ok
    report = backups.upload()
    assert report.uploaded == ()
    assert len(report.problems) == 2
    write(firestore, {"users/u1": {"n": 2}})
    assert backups.restore(manifest.id).complete
    assert contents(firestore) == before


class Damaging(DirectoryStorage):
    """A source that rots after it was verified."""

    rotten = ""

    def get(self, key: str) -> Iterable[bytes]:  # type: ignore[override]  # an iterator of one
        data = b"".join(super().get(key))
        return iter([data[:-1] + b"?" if self.rotten and key.endswith(self.rotten) else data])


def test_what_is_not_what_was_written_is_not_copied(
    firestore: Firestore, tmp_path: Path, bucket: DirectoryStorage, backups_of: Make
) -> None:
    """A source that changed since its verification is noticed on the way; the other copy stays as it was."""
    write(firestore, {"users/u1": {"n": 1}})
    source = Damaging(name="local", path=tmp_path / "backups")
    backups = backups_of(firestore, source, bucket)
    manifest = backups.create(BackupType.FULL)
    damage(bucket.path / manifest.id / manifest.index[0].file)
    backups.verify(manifest.id)
    before = files(bucket, manifest.id)
    source.rotten = manifest.segments[0].file
    report = backups.upload()
    assert report.uploaded == ()
    assert manifest.segments[0].file in report.problems[0]
    assert files(bucket, manifest.id) == before


class Failing(DirectoryStorage):
    """A storage that goes down after some puts."""

    puts_left = 1000

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        self.puts_left -= 1
        if self.puts_left < 0:
            raise Transient(TransientReason.UNAVAILABLE, "the bucket does not answer")
        return super().put(key, chunks)


def test_a_storage_that_goes_down_meanwhile(
    firestore: Firestore, local: DirectoryStorage, tmp_path: Path, backups_of: Make
) -> None:
    """Whenever it fails, nothing half is listed, the report says why, and the next upload completes it."""
    write(firestore, {"users/u1": {"n": 1}})
    backup = backups_of(firestore, local).create(BackupType.FULL).id
    failing = Failing(name="gcs", path=tmp_path / "gcs")
    backups = backups_of(firestore, local, failing)
    for puts in range(3):
        failing.puts_left = puts
        report = backups.upload()
        assert (report.uploaded, report.problems) == ((), (f"gcs:{backup}: the bucket does not answer",))
        assert [item.storages for item in backups.list()] == [("local",)]
    failing.puts_left = 1000
    assert backups.upload().uploaded == (f"gcs:{backup}",)
    assert backups.verify(backup).problems == ()


def test_a_cancelled_upload_goes_on_where_it_stopped(
    firestore: Firestore, local: DirectoryStorage, bucket: DirectoryStorage, backups_of: Make
) -> None:
    """Cancelling says so and lists nothing half; the next upload completes it, and clean finds no leftovers."""
    write(firestore, {"users/u1": {"n": 1}})
    backup = backups_of(firestore, local).create(BackupType.FULL).id
    backups = backups_of(firestore, local, bucket)
    done: list[object] = []
    with pytest.raises(Permanent) as raised:
        backups.upload(progress=done.append, cancelled=lambda: bool(done))
    assert raised.value.reason is PermanentReason.CANCELLED
    assert [item.storages for item in backups.list()] == [("local",)]
    assert backups.upload().uploaded == (f"gcs:{backup}",)
    assert backups.clean().leftovers == ()


def test_an_upload_needs_no_key(
    firestore: Firestore, local: DirectoryStorage, bucket: DirectoryStorage, backups_of: Make
) -> None:
    """An encrypted backup is copied as it is stored."""
    write(firestore, {"users/u1": {"n": 1}})
    keys = Keyring([bytes(32)])
    backup = backups_of(firestore, local, keys=keys).create(BackupType.FULL).id
    assert backups_of(firestore, local, bucket, keys=keys).upload().uploaded == (f"gcs:{backup}",)
    assert files(bucket, backup) == files(local, backup)
