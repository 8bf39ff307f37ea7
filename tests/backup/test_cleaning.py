"""Cleaning in real storages: what retention says is done copy by copy, and never to what somebody needs meanwhile."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent.backup import Backups, BackupType, Why
from agent.backup.leases import new_lease
from agent.clock import ManualClock, SystemClock
from agent.faults import Permanent, PermanentReason, Refused
from agent.firestore import Firestore
from agent.storage import DirectoryStorage, StoredObject
from tests.backup.conftest import Running, damage, write

Make = Callable[..., Backups]
Connect = Callable[[str, str], Firestore]
DAY = timedelta(days=1).total_seconds()
RETENTION = {
    BackupType.SNAPSHOT: timedelta(hours=24),
    BackupType.INCREMENTAL: timedelta(days=7),
    BackupType.FULL: timedelta(days=30),
}


class Moving(ManualClock):
    """A clock set to the database's time, so that retention can be tried on real backups."""

    def __init__(self) -> None:
        super().__init__(SystemClock().now())


@pytest.fixture
def bucket(tmp_path: Path) -> DirectoryStorage:
    """A second storage, off this host as far as retention knows."""
    return DirectoryStorage(name="gcs", path=tmp_path / "gcs")


def test_a_copy_here_waits_for_the_one_in_the_bucket(
    firestore: Firestore, local: DirectoryStorage, bucket: DirectoryStorage, backups_of: Make
) -> None:
    """Expired here and in the bucket, but damaged there: the copy here stays, the one there goes, until one is good."""
    clock = Moving()
    backups = backups_of(firestore, local, bucket, clock=clock, retention=RETENTION)
    write(firestore, {"users/u1": {"n": 1}})
    held = backups.create(BackupType.FULL)
    damage(bucket.path / held.id / held.segments[0].file)
    assert backups.verify(held.id).ok
    newest = backups.create(BackupType.FULL)
    assert backups.verify(newest.id).ok
    clock.advance(31 * DAY)
    report = backups.clean(dry_run=False)
    assert report.removed == (f"gcs:{held.id}",)
    assert {(v.storage, v.why) for v in report.verdicts if v.id == held.id} == {
        ("local", Why.COPY_UNVERIFIED),
        ("gcs", Why.EXPIRED),
    }
    assert backups.clean(dry_run=False).removed == ()
    assert backups.upload(held.id).uploaded == (f"gcs:{held.id}",)
    assert set(backups.clean(dry_run=False).removed) == {f"local:{held.id}", f"gcs:{held.id}"}
    assert [item.id for item in backups.list()] == [newest.id]


def test_two_databases_share_a_storage(
    firestore: Firestore, project: str, sandbox: Running, connect: Connect, local: DirectoryStorage, backups_of: Make
) -> None:
    """One database's clean leaves the other's backups alone, however old, and does not count them as its own."""
    clock = Moving()
    other = connect(sandbox.host, project + "-other")
    for database in (firestore, other):
        write(database, {"users/u1": {"n": 1}})
    ours = backups_of(firestore, local, clock=clock, retention=RETENTION)
    theirs = backups_of(other, local, clock=clock, retention=RETENTION)
    good = ours.create(BackupType.FULL).id
    foreign = [theirs.create(BackupType.SNAPSHOT).id for _ in range(2)]
    for backup in (good, *foreign):
        assert ours.verify(backup).ok
    clock.advance(40 * DAY)
    assert ours.clean(dry_run=False).removed == ()
    assert {v.id: v.why for v in ours.clean().verdicts} == {good: Why.LAST_GOOD, **dict.fromkeys(foreign, Why.FOREIGN)}
    assert theirs.clean(dry_run=False).removed == (f"local:{foreign[0]}",)


def test_a_parent_is_not_removed_under_the_increment_that_is_being_made(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make
) -> None:
    """A full backup that expired and is being built on stays: the increment would be an orphan."""
    clock = Moving()
    backups = backups_of(firestore, local, clock=clock, retention=RETENTION)
    write(firestore, {"users/u1": {"n": 1}})
    parent = backups.create(BackupType.FULL).id
    assert backups.verify(backups.create(BackupType.SNAPSHOT).id).ok
    clock.advance(31 * DAY)
    assert backups.clean().removed == (f"local:{parent}",)
    write(firestore, {"users/u2": {"n": 2}})
    cleaned: list[tuple[str, ...]] = []
    increment = backups.create(
        BackupType.INCREMENTAL, progress=lambda _: cleaned.append(backups.clean(dry_run=False).removed)
    )
    assert cleaned
    assert not any(cleaned)
    assert increment.parent == parent
    assert backups.verify(increment.id).ok


class Listed(DirectoryStorage):
    """A storage in which something happens right after the first listing."""

    meanwhile: Callable[[], object] | None = None

    def list(self, prefix: str = "") -> builtins.list[StoredObject]:
        found = super().list(prefix)
        if self.meanwhile is not None and prefix == "backup-":
            happens, self.meanwhile = self.meanwhile, None
            happens()
        return found


@pytest.mark.parametrize("what", ["pinned", "built on"])
def test_what_changes_while_clean_decides(firestore: Firestore, tmp_path: Path, backups_of: Make, what: str) -> None:
    """A backup that is pinned, or built on, between the verdict and the deed stays."""
    clock = Moving()
    storage = Listed(name="local", path=tmp_path / "backups")
    backups = backups_of(firestore, storage, clock=clock, retention=RETENTION)
    write(firestore, {"users/u1": {"n": 1}})
    old = backups.create(BackupType.FULL).id
    assert backups.verify(backups.create(BackupType.SNAPSHOT).id).ok
    clock.advance(31 * DAY)
    assert backups.clean().removed == (f"local:{old}",)
    deeds = {"pinned": lambda: backups.pin(old, "wait"), "built on": lambda: backups.create(BackupType.INCREMENTAL)}
    storage.meanwhile = deeds[what]
    assert backups.clean(dry_run=False).removed == ()
    assert old in {item.id for item in backups.list()}


def test_leases_of_the_dead_go(firestore: Firestore, backups: Backups, local: DirectoryStorage) -> None:
    """What a killed process left beside a backup is no lease, and clean removes it; one on another machine counts."""
    write(firestore, {"users/u1": {"n": 1}})
    backup = backups.create(BackupType.FULL).id
    now = SystemClock().now()
    dead = replace(new_lease("restore", now), process="1@0")
    elsewhere = replace(new_lease("restore", now), machine="elsewhere")
    for lease in (dead, elsewhere):
        local.put(f"{backup}/{lease.file}", [lease.to_bytes()])
    assert backups.list()[0].in_use
    assert backups.clean(dry_run=False).leftovers == (f"local:{backup}/{dead.file}",)
    assert backups.list()[0].in_use
    assert backups.clean().leftovers == ()


def test_the_backup_of_an_unfinished_restore_stays(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make
) -> None:
    """However old: it is the way out, and with it would go the note that the database is half restored."""
    clock = Moving()
    backups = backups_of(firestore, local, clock=clock, retention=RETENTION)
    write(firestore, {f"users/u{number:04}": {"n": number} for number in range(2000)})
    old = backups.create(BackupType.SNAPSHOT).id
    assert backups.verify(backups.create(BackupType.FULL).id).ok
    write(firestore, {f"users/u{number:04}": {"n": -1} for number in range(2000)})
    done: list[object] = []
    with pytest.raises(Permanent) as raised:
        backups.restore(old, progress=done.append, cancelled=lambda: bool(done))
    assert raised.value.reason is PermanentReason.CANCELLED
    clock.advance(2 * DAY)
    assert backups.clean(dry_run=False).removed == ()
    assert [one.backup for one in backups.interrupted_restores()] == [old]
    assert backups.restore(old).complete
    assert backups.clean(dry_run=False).removed == (f"local:{old}",)


def test_a_clean_that_would_leave_nothing_is_refused(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make
) -> None:
    """Critical backups alone bring no database back, and yet the last of them don't all go at once."""
    clock = Moving()
    keep = {BackupType.CRITICAL: timedelta(days=1)}
    backups = backups_of(firestore, local, clock=clock, retention=keep, critical=["users"])
    write(firestore, {"users/u1": {"n": 1}})
    for _ in range(2):
        backups.create(BackupType.CRITICAL)
    clock.advance(2 * DAY)
    with pytest.raises(Refused):
        backups.clean(dry_run=False)
    assert len(backups.list()) == 2
