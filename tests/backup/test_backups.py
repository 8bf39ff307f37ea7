"""The front door: where backups go, what is listed, what is removed, what is measured."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from agent.backup import Backups, BackupType, Why, sandbox_scratch
from agent.backup.catalogue import Catalogue
from agent.clock import ManualClock, SystemClock
from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    Refused,
    Transient,
    TransientReason,
)
from agent.firestore import Firestore, take_fingerprint
from agent.storage import DirectoryStorage, GcsStorage, StoredObject
from agent.telemetry import Progress, Telemetry
from tests.backup.conftest import Running, contents, of_everything, write

Make = Callable[..., Backups]
Connect = Callable[[str, str], Firestore]


@pytest.fixture
def other(tmp_path: Path) -> DirectoryStorage:
    """A second directory."""
    return DirectoryStorage(name="other", path=tmp_path / "other")


class Moving(ManualClock):
    """A clock set to the database's time, so that retention can be tried on real backups."""

    def __init__(self) -> None:
        super().__init__(SystemClock().now())


class Failing(DirectoryStorage):
    """A storage that goes down after some puts."""

    puts_left = 0

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        self.puts_left -= 1
        if self.puts_left < 0:
            raise Transient(TransientReason.UNAVAILABLE, "the bucket does not answer")
        return super().put(key, chunks)


def test_types_go_where_they_are_routed(
    firestore: Firestore, local: DirectoryStorage, other: DirectoryStorage, backups_of: Make
) -> None:
    """A snapshot goes to the local storage alone, a full backup to both."""
    backups = backups_of(firestore, local, other, routes={BackupType.SNAPSHOT: ["local"]})
    write(firestore, {"users/u1": {"n": 1}})
    backups.create(BackupType.SNAPSHOT)
    backups.create(BackupType.FULL)
    assert {summary.type: summary.storages for summary in backups.list()} == {
        BackupType.FULL: ("local", "other"),
        BackupType.SNAPSHOT: ("local",),
    }


def test_unknown_routes_and_no_storage(firestore: Firestore, local: DirectoryStorage, backups_of: Make) -> None:
    """Settings that can't work are refused at the start."""
    with pytest.raises(Misconfigured) as raised:
        backups_of(firestore)
    assert raised.value.reason is MisconfiguredReason.SETTINGS
    with pytest.raises(Misconfigured) as raised:
        backups_of(firestore, local, routes={BackupType.FULL: ["nowhere"]})
    assert raised.value.reason is MisconfiguredReason.SETTINGS


@pytest.mark.parametrize("puts", range(5))
def test_a_storage_that_goes_down(
    firestore: Firestore, local: DirectoryStorage, tmp_path: Path, backups_of: Make, puts: int
) -> None:
    """If one of two storages fails at any point, the other has the whole backup, and the error says both."""
    failing = Failing(name="gcs", path=tmp_path / "gcs")
    failing.puts_left = puts
    write(firestore, {"users/u1": {"n": 1}})
    for order in ((local, failing), (failing, local)):
        backups = backups_of(firestore, *order)
        if puts >= 4:
            break
        with pytest.raises(Transient, match=r"is complete in local, but its copy to gcs failed: the bucket") as raised:
            backups.create(BackupType.FULL)
        assert raised.value.reason is TransientReason.UNAVAILABLE
        newest = backups.list()[0]
        assert newest.storages == ("local",)
        assert backups.verify(newest.id).ok


def test_no_storage_works(firestore: Firestore, tmp_path: Path, backups_of: Make) -> None:
    """If the only storage fails, the backup fails with its error, and nothing is listed or left."""
    failing = Failing(name="gcs", path=tmp_path / "gcs")
    write(firestore, {"users/u1": {"n": 1}})
    for puts in range(3):
        failing.puts_left = puts
        backups = backups_of(firestore, failing)
        with pytest.raises(Transient, match="the bucket does not answer"):
            backups.create(BackupType.FULL)
        assert backups.list() == ()
        assert failing.list() == []


class Down(DirectoryStorage):
    """A storage that does not answer."""

    def list(self, prefix: str = "") -> builtins.list[StoredObject]:
        raise Transient(TransientReason.UNAVAILABLE, f"the bucket does not answer when asked for {prefix}")


def test_a_restore_does_not_need_every_storage(
    firestore: Firestore, local: DirectoryStorage, other: DirectoryStorage, backups_of: Make
) -> None:
    """With the bucket down, the local copy is listed, restored and verified; nothing is cleaned away meanwhile."""
    write(firestore, {"users/u1": {"n": 1}})
    backup = backups_of(firestore, local, other).create(BackupType.FULL).id
    backups = backups_of(firestore, local, Down(name="other", path=other.path))
    assert backups.verify(backup).ok
    assert [summary.storages for summary in backups.list()] == [("local",)]
    assert list(backups.unreachable()) == ["other"]
    newest = backups.newest_verified()
    assert newest is not None
    write(firestore, {"users/u1": {"n": 2}})
    assert backups.restore(newest.id).complete
    with pytest.raises(Transient):
        backups.clean()
    with pytest.raises(Transient):
        backups_of(firestore, Down(name="other", path=other.path)).list()


def test_cancelling(firestore: Firestore, backups: Backups, local: DirectoryStorage) -> None:
    """A cancelled backup leaves nothing."""
    write(firestore, {"users/u1": {"n": 1}})
    with pytest.raises(Permanent) as raised:
        backups.create(BackupType.FULL, cancelled=lambda: True)
    assert raised.value.reason is PermanentReason.CANCELLED
    assert local.list() == []


def test_two_in_one_second(firestore: Firestore, backups: Backups) -> None:
    """Backups of one second have different ids."""
    write(firestore, {"users/u1": {"n": 1}})
    ids = [backups.create(BackupType.FULL).id for _ in range(4)]
    assert len(set(ids)) == 4
    assert len(backups.list()) == 4


def test_progress(firestore: Firestore, backups: Backups) -> None:
    """Progress counts up to the number of documents, with the last backup's as the expected total."""
    write(firestore, {f"users/u{number:04d}": {"n": number} for number in range(700)})
    seen: list[Progress] = []
    backups.create(BackupType.FULL, progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (700, None)
    seen.clear()
    backup = backups.create(BackupType.FULL, progress=seen.append).id
    assert (seen[-1].done, seen[-1].total, seen[-1].stage) == (700, 700, "users")
    seen.clear()
    backups.verify(backup, progress=seen.append)
    assert (seen[-1].operation, seen[-1].done, seen[-1].total) == ("verify", 700, 700)


def test_what_is_known_of_a_backup(firestore: Firestore, backups: Backups) -> None:
    """List and show say what is there, as plain data."""
    write(firestore, of_everything(firestore.address))
    manifest = backups.create(BackupType.FULL)
    details = backups.show(manifest.id)
    assert details.collections == manifest.collections
    assert details.chain == (manifest.id,)
    assert not details.summary.verified
    backups.verify(manifest.id)
    assert backups.show(manifest.id).summary.verified
    json.dumps([asdict(summary) for summary in backups.list()], default=str)
    json.dumps(asdict(backups.show(manifest.id)), default=str)
    with pytest.raises(Permanent) as raised:
        backups.show("backup-full-20000101-000000")
    assert raised.value.reason is PermanentReason.NOT_FOUND


def test_the_newest_verified(firestore: Firestore, backups: Backups) -> None:
    """Only verified backups are restore points, and one can ask for those before a moment."""
    write(firestore, {"users/u1": {"n": 1}})
    assert backups.newest_verified() is None
    first = backups.create(BackupType.FULL)
    second = backups.create(BackupType.SNAPSHOT)
    assert backups.newest_verified() is None
    backups.verify(first.id)
    assert backups.newest_verified() == first
    backups.verify(second.id)
    assert backups.newest_verified() == second
    assert backups.newest_verified(before=second.read_time) == first
    assert backups.newest_verified(kinds=[BackupType.FULL]) == first
    assert backups.newest_verified(before=first.read_time) is None


def test_the_latest_is_not_a_trap(firestore: Firestore, backups: Backups) -> None:
    """After everything was deleted, the snapshot of the empty database is not what `latest` silently stands for."""
    with pytest.raises(Permanent):
        backups.latest()
    documents: dict[str, dict[str, int]] = {f"users/u{number}": {"n": number} for number in range(30)}
    write(firestore, documents)
    good = backups.create(BackupType.FULL)
    backups.verify(good.id)
    assert backups.latest() == good
    write(firestore, dict.fromkeys(documents))
    write(firestore, {"_config/maintenance": {"enabled": True}})
    for _ in range(2):
        backups.verify(backups.create(BackupType.SNAPSHOT).id)
        with pytest.raises(Refused) as raised:
            backups.latest()
        assert good.id in raised.value.hint


def test_deep_verification(firestore: Firestore, local: DirectoryStorage, backups_of: Make) -> None:
    """Deep verification restores into a scratch sandbox, compares, and marks the backup as proven."""
    write(firestore, of_everything(firestore.address))
    backups = backups_of(firestore, local, scratch=sandbox_scratch())
    backups.create(BackupType.FULL)
    write(firestore, {"users/u1": {"n": "changed"}, "users/u2": None})
    backup = backups.create(BackupType.INCREMENTAL).id
    report = backups.verify(backup, deep=True)
    assert report.problems == ()
    assert report.deep
    assert report.fingerprint == take_fingerprint(firestore).digest
    assert all(summary.proven for summary in backups.list())
    assert not backups.verify(backup).deep
    assert all(summary.proven for summary in backups.list()), "reading it again does not undo the proof"


def test_deep_verification_without_a_scratch_database(backups: Backups) -> None:
    """Asking for it where there is none says so."""
    backup = backups.create(BackupType.FULL).id
    with pytest.raises(Misconfigured) as raised:
        backups.verify(backup, deep=True)
    assert raised.value.reason is MisconfiguredReason.MISSING_PART


def test_cleaning(firestore: Firestore, local: DirectoryStorage, backups_of: Make) -> None:
    """Expired backups go, a dry run only says so; the last good, pinned and used ones stay."""
    clock = Moving()
    backups = backups_of(
        firestore,
        local,
        clock=clock,
        retention={BackupType.FULL: timedelta(days=30), BackupType.SNAPSHOT: timedelta(hours=24)},
    )
    write(firestore, {"users/u1": {"n": 1}})
    last_good = backups.create(BackupType.FULL)
    backups.verify(last_good.id)
    pinned, used, expired = (backups.create(BackupType.SNAPSHOT) for _ in range(3))
    backups.pin(pinned.id, "the auditor asked for it")
    clock.advance(timedelta(days=31).total_seconds())

    with Catalogue(storages=[local], clock=clock).in_use([used.id], "restore"):
        plan = backups.clean()
        assert plan.removed == (f"local:{expired.id}",)
        assert len(backups.list()) == 4
        report = backups.clean(dry_run=False)
    assert report.removed == plan.removed
    assert report.freed_bytes > 0
    assert {verdict.id: verdict.why for verdict in report.verdicts} == {
        last_good.id: Why.LAST_GOOD,
        pinned.id: Why.PINNED,
        used.id: Why.IN_USE,
        expired.id: Why.EXPIRED,
    }
    backups.unpin(pinned.id)
    assert set(backups.clean(dry_run=False).removed) == {f"local:{pinned.id}", f"local:{used.id}"}
    assert [summary.id for summary in backups.list()] == [last_good.id]
    assert {stored.key.partition("/")[0] for stored in local.list()} == {last_good.id}


def test_work_under_way_is_not_a_leftover(firestore: Firestore, backups: Backups, local: DirectoryStorage) -> None:
    """A clean that runs while a backup is made leaves it alone."""
    write(firestore, {"users/u1": {"n": 1}})
    reports = []
    manifest = backups.create(BackupType.FULL, progress=lambda _: reports.append(backups.clean(dry_run=False)))
    assert [report.leftovers for report in reports] == [()]
    assert backups.verify(manifest.id).ok
    assert not [stored for stored in local.list() if "lease" in stored.key]


def test_metrics(firestore: Firestore, local: DirectoryStorage, backups_of: Make, telemetry: Telemetry) -> None:
    """Durations, sizes, the last success and the usage of the storage are measured."""
    write(firestore, {"users/u1": {"n": 1}})
    backups = backups_of(firestore, DirectoryStorage(name="local", path=local.path, capacity_bytes=1_000_000))
    manifest = backups.create(BackupType.FULL)
    backups.verify(manifest.id)
    backups.observe_metrics()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in telemetry.families()
        for sample in family.samples
    }
    assert samples["runbookd_backup_size_bytes", "full"] == manifest.stored_bytes
    assert samples["runbookd_backup_last_success_timestamp_seconds", "full"] == manifest.read_time.timestamp()
    assert 0 < samples["runbookd_storage_usage_ratio", "local"] < 1
    assert samples["runbookd_operation_duration_seconds_count", "backup", "ok"] == 1
    assert samples["runbookd_operation_duration_seconds_count", "ok", "verify"] == 1
    assert samples["firestore_documents_read_total", "backup"] >= 1


def test_a_restore_keeps_its_report(firestore: Firestore, backups: Backups, local: DirectoryStorage) -> None:
    """The report of a restore lies beside the backup that it came from."""
    write(firestore, {"users/u1": {"n": 1}})
    backup = backups.create(BackupType.FULL).id
    write(firestore, {"users/u1": {"n": 2}})
    backups.restore(backup)
    kept = [stored.key for stored in local.list(f"{backup}/restored-")]
    assert len(kept) == 1
    report = json.loads(b"".join(local.get(kept[0])))
    assert (report["applied"], report["target"]) == (1, firestore.address.root)
    assert datetime.fromisoformat(report["finished_at"]).tzinfo is not None


@pytest.mark.gcs
def test_a_bucket(
    firestore: Firestore,
    project: str,
    sandbox: Running,
    connect: Connect,
    local: DirectoryStorage,
    gcs_storage: GcsStorage,
    backups_of: Make,
) -> None:
    """A backup in a directory and a bucket restores from the bucket when the directory is lost."""
    write(firestore, of_everything(firestore.address))
    backup = backups_of(firestore, local, gcs_storage).create(BackupType.FULL).id
    remaining = backups_of(firestore, gcs_storage)
    assert remaining.verify(backup).ok
    target = connect(sandbox.host, project + "-copy")
    assert remaining.restore(backup, to=target).complete
    assert contents(target) == contents(firestore)
