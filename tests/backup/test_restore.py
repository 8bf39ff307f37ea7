"""Restoring: only what differs is written, a dry run writes nothing, and nobody's newer change is overwritten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import pytest

from agent.backup import Backups, BackupType, Change
from agent.backup.catalogue import Catalogue
from agent.backup.chain import load_chain
from agent.backup.restore import Recipe, plan_restore
from agent.clock import SystemClock
from agent.faults import Permanent, PermanentReason
from agent.firestore import (
    EVERYTHING,
    DatabaseAddress,
    DocumentKey,
    Firestore,
    PlannedWrite,
    RawDocument,
    Scope,
    WriteRun,
    set_maintenance,
)
from agent.storage import DirectoryStorage
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import DOCUMENTS_WRITTEN
from tests.backup.conftest import Running, contents, of_everything, write

Connect = Callable[[str, str], Firestore]
Make = Callable[..., Backups]


def test_only_differences_are_written(
    backend: Running, project: str, connect: Connect, local: DirectoryStorage, backups_of: Make
) -> None:
    """A changed, a missing and an additional document: one update, one creation, the addition left or deleted."""
    firestore = connect(backend.host, project)
    write(firestore, of_everything(firestore.address))
    before = contents(firestore)
    backups = backups_of(firestore, local)
    backup = backups.create(BackupType.FULL).id
    write(firestore, {"users/u1": {"n": "changed"}, "users/u2/cards/c1": None, "users/zz/new/one": {"extra": True}})

    changes: list[tuple[Change, str]] = []
    report = backups.restore(backup, on_change=lambda change, path: changes.append((change, path)))
    assert changes == [(Change.UPDATE, "users/u1"), (Change.CREATE, "users/u2/cards/c1")]
    assert (report.applied, report.unchanged, report.extra) == (2, len(before) - 2, 1)
    assert contents(firestore).keys() - before.keys() == {"users/zz/new/one"}

    report = backups.restore(backup, delete_extra=True)
    assert (report.deleted, report.applied) == (1, 1)
    assert contents(firestore) == before
    assert backups.restore(backup, delete_extra=True).changes == 0


def test_an_unchanged_database_is_not_touched(firestore: Firestore, backups: Backups) -> None:
    """Restoring what is there changes no update_time."""
    write(firestore, of_everything(firestore.address))
    before = [key.update_time for key in firestore.keys(EVERYTHING)]
    report = backups.restore(backups.create(BackupType.FULL).id)
    assert report.changes == 0
    assert report.complete
    assert [key.update_time for key in firestore.keys(EVERYTHING)] == before


def test_a_dry_run_is_the_plan_and_writes_nothing(firestore: Firestore, backups: Backups) -> None:
    """A dry run leaves every update_time alone, and what follows does exactly what it said."""
    write(firestore, of_everything(firestore.address))
    backup = backups.create(BackupType.FULL).id
    write(firestore, {"users/u1": {"n": "changed"}, "users/u2": None, "aaa/first": {}})
    before = list(firestore.keys(EVERYTHING))

    plan = backups.restore(backup, dry_run=True, delete_extra=True)
    assert list(firestore.keys(EVERYTHING)) == before
    assert (plan.created, plan.updated, plan.deleted, plan.applied) == (1, 1, 1, 0)
    done = backups.restore(backup, delete_extra=True)
    assert done.plan_digest == plan.plan_digest
    assert done.complete


class ReadOnly:
    """A database without a way to write to it."""

    def __init__(self, firestore: Firestore) -> None:
        self._firestore = firestore

    @property
    def address(self) -> DatabaseAddress:
        return self._firestore.address

    def server_time(self) -> datetime:
        return self._firestore.server_time()

    def ranges(
        self,
        parts: int,
        read_time: datetime,
        *,
        known: Sequence[str] = (),
        sizes: Mapping[str, float] | None = None,
    ) -> list[Scope]:
        return self._firestore.ranges(parts, read_time, known=known, sizes=sizes)

    def pages(
        self, scope: Scope, read_time: datetime | None = None, *, keys_only: bool = False
    ) -> Iterator[list[RawDocument]]:
        return self._firestore.pages(scope, read_time, keys_only=keys_only)

    def documents(self, scope: Scope, read_time: datetime | None = None) -> Iterator[RawDocument]:
        return self._firestore.documents(scope, read_time)

    def keys(self, scope: Scope, read_time: datetime | None = None) -> Iterator[DocumentKey]:
        return self._firestore.keys(scope, read_time)

    def get(self, names: Sequence[str], read_time: datetime | None = None) -> dict[str, RawDocument | None]:
        return self._firestore.get(names, read_time)


def test_a_plan_needs_no_writer(firestore: Firestore, backups: Backups, local: DirectoryStorage) -> None:
    """The whole plan can be made with a database that has no way to be written."""
    write(firestore, {"users/u1": {"n": 1}})
    backup = backups.create(BackupType.FULL).id
    write(firestore, {"users/u1": {"n": 2}})
    clock = SystemClock()
    chain = load_chain(Catalogue(storages=[local], clock=clock), backup)
    report = plan_restore(chain, Recipe(), reader=ReadOnly(firestore), clock=clock)
    assert report.updated == 1


class Meddler(ReadOnly):
    """A database in which somebody changes a document between the comparison and the write."""

    def __init__(self, firestore: Firestore, path: str) -> None:
        super().__init__(firestore)
        self._meddled = path

    def write(self, writes: Iterable[PlannedWrite], *, origin: str) -> WriteRun:
        planned = list(writes)
        write(self._firestore, {self._meddled: {"n": "a user's newer change"}})
        return self._firestore.write(planned, origin=origin)


def test_a_newer_change_is_kept_and_reported(firestore: Firestore, backups: Backups) -> None:
    """A document that a user changes while the restore runs stays as the user left it, and the report names it."""
    write(firestore, {f"users/u{number}": {"n": number} for number in range(5)})
    backup = backups.create(BackupType.FULL).id
    write(firestore, {f"users/u{number}": {"n": "bad"} for number in range(5)})
    report = backups.restore(backup, to=Meddler(firestore, "users/u3"))
    assert (report.applied, report.conflicts, report.failed) == (4, 1, 0)
    assert not report.complete
    assert report.unresolved[0].startswith("users/u3: ")
    assert b"newer change" in contents(firestore)["users/u3"]


def test_one_collection(firestore: Firestore, backups: Backups) -> None:
    """restore-collection restores that collection id wherever it occurs, and nothing else."""
    write(firestore, of_everything(firestore.address))
    before = contents(firestore)
    backup = backups.create(BackupType.FULL).id
    write(firestore, {"users/u1": {"bad": 1}, "users/u1/cards/c1": {"bad": 1}, "users/u2/cards/c0": None})
    report = backups.restore(backup, collections=["cards"])
    assert (report.applied, report.compared) == (2, 9)
    after = contents(firestore)
    assert {path for path in before if after.get(path) != before[path]} == {"users/u1"}


def test_a_critical_backup(
    firestore: Firestore, project: str, sandbox: Running, connect: Connect, local: DirectoryStorage, backups_of: Make
) -> None:
    """A critical backup holds the critical collections only, restores them, and refuses others."""
    write(firestore, of_everything(firestore.address))
    backups = backups_of(firestore, local, critical=["users", "cards"])
    manifest = backups.create(BackupType.CRITICAL)
    assert set(manifest.collections) == {"users", "cards"}
    assert backups.verify(manifest.id).ok
    target = connect(sandbox.host, project + "-copy")
    assert backups.restore(manifest.id, to=target).applied == 29
    expected = {path: fields for path, fields in contents(firestore).items() if path.startswith("users/")}
    assert contents(target) == expected
    with pytest.raises(Permanent) as raised:
        backups.restore(manifest.id, collections=["odd"])
    assert raised.value.reason is PermanentReason.NOT_FOUND
    assert backups.newest_verified() is None


def test_maintenance_mode_survives_a_restore(firestore: Firestore, backups: Backups) -> None:
    """The flag that keeps traffic away during the restore is not restored away, nor deleted as an extra."""
    write(firestore, {"users/u1": {"n": 1}})
    clock = SystemClock()
    without = backups.create(BackupType.FULL).id
    set_maintenance(firestore, enabled=False, now=clock.now())
    off = backups.create(BackupType.FULL).id
    set_maintenance(firestore, enabled=True, now=clock.now())
    flag = contents(firestore)["_config/maintenance"]
    for backup in (without, off):
        assert backups.restore(backup, delete_extra=True).changes == 0
        assert contents(firestore)["_config/maintenance"] == flag


def test_a_cancelled_restore_goes_on_where_it_stopped(firestore: Firestore, backups: Backups) -> None:
    """Cancelling says so, is listed as interrupted, and the same restore again completes it."""
    write(firestore, {f"users/u{number:05d}": {"n": number} for number in range(3000)})
    before = contents(firestore)
    backup = backups.create(BackupType.FULL).id
    write(firestore, {f"users/u{number:05d}": {"n": -1} for number in range(3000)})
    done: list[int] = []
    with pytest.raises(Permanent) as raised:
        backups.restore(backup, progress=lambda report: done.append(report.done), cancelled=lambda: bool(done))
    assert raised.value.reason is PermanentReason.CANCELLED
    interrupted = backups.interrupted_restores()
    assert [(one.backup, one.target) for one in interrupted] == [(backup, firestore.address.root)]

    report = backups.restore(backup)
    assert 0 < report.applied < 3000
    assert contents(firestore) == before
    assert backups.interrupted_restores() == ()


def test_restored_documents_are_counted(firestore: Firestore, backups: Backups, telemetry: Telemetry) -> None:
    """What a restore writes is counted under its own origin."""
    write(firestore, {"users/u1": {"n": 1}})
    backup = backups.create(BackupType.FULL).id
    write(firestore, {"users/u1": {"n": 2}})
    backups.restore(backup)
    written = [
        sample.value
        for family in telemetry.families()
        for sample in family.samples
        if sample.name == DOCUMENTS_WRITTEN.prometheus_name and sample.labels["origin"] == "restore"
    ]
    assert written == [1]
