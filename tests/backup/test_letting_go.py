"""Letting go of large backups in real storages: who may be let go of, what it leaves, and that it lasts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from agent.backup import Backups, BackupType, Why
from agent.backup.records import LET_GO
from agent.clock import ManualClock, SystemClock
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason, Transient, TransientReason
from agent.firestore import Firestore
from agent.storage import DirectoryStorage, StoredObject
from tests.backup.conftest import damage, write

Make = Callable[..., Backups]

DAY = timedelta(days=1).total_seconds()
RETENTION = {BackupType.SNAPSHOT: timedelta(hours=24), BackupType.FULL: timedelta(days=30)}


@pytest.fixture
def clock() -> ManualClock:
    """Set to the database's time, so that retention can be tried on real backups."""
    return ManualClock(SystemClock().now())


@pytest.fixture
def shrunk(firestore: Firestore, local: DirectoryStorage, backups_of: Make, clock: ManualClock) -> list[str]:
    """Backups of 40 documents (a full one, a snapshot), then of one; a month later. Oldest first."""
    backups = backups_of(firestore, local, clock=clock, retention=RETENTION)
    paths = [f"users/u{number}" for number in range(40)]
    write(firestore, {path: {"n": 1} for path in paths})
    made = [backups.create(BackupType.FULL).id, backups.create(BackupType.SNAPSHOT).id]
    write(firestore, dict.fromkeys(paths[1:]))
    made.append(backups.create(BackupType.FULL).id)
    for backup in made:
        assert backups.verify(backup).ok
    clock.advance(31 * DAY)
    return made


def reasons(backups: Backups) -> dict[str, Why]:
    return {verdict.id: verdict.why for verdict in backups.clean().verdicts}


def test_a_database_that_was_made_smaller(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, clock: ManualClock, shrunk: list[str]
) -> None:
    """The newest large backup is named, and the older one does not take its place; other processes know of it."""
    full, snapshot, small = shrunk
    backups = backups_of(firestore, local, clock=clock, retention=RETENTION)
    before = {full: Why.LAST_SUBSTANTIAL, snapshot: Why.LAST_SUBSTANTIAL, small: Why.LAST_GOOD}
    assert reasons(backups) == before

    found = backups.shrinkage(snapshot)

    assert (found.documents, found.since, found.documents_since) == (40, small, 1)
    assert found.backups == (full, snapshot)
    assert [(verdict.keep, verdict.why) for verdict in found.verdicts] == [(False, Why.LET_GO)]
    assert reasons(backups) == before, "nobody has said anything yet"

    assert backups.let_go(snapshot, owner="ada", reason="moved to the archive") == found

    again = backups_of(firestore, local, clock=clock, retention=RETENTION)
    assert reasons(again) == {full: Why.LET_GO, snapshot: Why.LET_GO, small: Why.LAST_GOOD}
    said = f"by ada on {clock.now():%Y-%m-%d}: moved to the archive"
    assert again.show(full).summary.let_go == said
    assert {verdict.let_go for verdict in again.clean().verdicts if not verdict.keep} == {said}
    assert set(again.clean(dry_run=False).removed) == {f"local:{full}", f"local:{snapshot}"}
    assert [item.id for item in again.list()] == [small]


def test_it_can_be_taken_back_by_a_pin(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, clock: ManualClock, shrunk: list[str]
) -> None:
    """Until it is gone."""
    backups = backups_of(firestore, local, clock=clock, retention=RETENTION)
    backups.let_go(shrunk[1], owner="ada", reason="moved")
    backups.pin(shrunk[1], "not so fast")
    assert backups.clean(dry_run=False).removed == (f"local:{shrunk[0]}",)


def test_latest_is_no_trap_then(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, clock: ManualClock, shrunk: list[str]
) -> None:
    """What somebody let go of no longer makes the word `latest` ambiguous."""
    backups = backups_of(firestore, local, clock=clock, retention=RETENTION)
    with pytest.raises(Refused, match="holds 40") as refused:
        backups.latest()
    assert f"backup let-go {shrunk[1]}" in refused.value.hint
    backups.let_go(shrunk[1], owner="ada", reason="moved")
    assert backups.latest().id == shrunk[2]


def test_only_what_shrinking_keeps_is_let_go_of(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, clock: ManualClock, shrunk: list[str]
) -> None:
    """An older one, the last good one, one there is not, and one of a database that never shrank: each says why."""
    full, snapshot, small = shrunk
    backups = backups_of(firestore, local, clock=clock, retention=RETENTION)
    with pytest.raises(Permanent, match=f"{snapshot} is") as older:
        backups.let_go(full, owner="ada", reason="moved")
    assert older.value.reason is PermanentReason.INVALID
    with pytest.raises(Refused, match="the newest verified backup") as good:
        backups.let_go(small, owner="ada", reason="moved")
    assert good.value.reason is RefusedReason.LAST_GOOD
    with pytest.raises(Permanent) as missing:
        backups.let_go("backup-full-20200101-000000", owner="ada", reason="moved")
    assert missing.value.reason is PermanentReason.NOT_FOUND
    backups.let_go(snapshot, owner="ada", reason="moved")
    with pytest.raises(Permanent, match="somebody let go of it"):
        backups.let_go(snapshot, owner="ada", reason="moved")
    assert not any("let go" in item.let_go for item in backups.list() if item.id == small)


def test_without_a_verified_newer_one_nothing_is_let_go_of(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, clock: ManualClock
) -> None:
    """The large one may be all there is to restore from."""
    backups = backups_of(firestore, local, clock=clock, retention=RETENTION)
    paths = [f"users/u{number}" for number in range(40)]
    write(firestore, {path: {"n": 1} for path in paths})
    large = backups.create(BackupType.FULL).id
    write(firestore, dict.fromkeys(paths))
    backups.create(BackupType.FULL)
    with pytest.raises(Refused, match="no backup of the whole database is verified"):
        backups.let_go(large, owner="ada", reason="moved")


class Torn(DirectoryStorage):
    """Breaks at the second note."""

    notes = 0

    def replace(self, key: str, data: bytes) -> StoredObject:
        if key.endswith(LET_GO):
            self.notes += 1
            if self.notes == 2:
                raise Transient(TransientReason.UNAVAILABLE, "connection refused")
        return super().replace(key, data)


def test_cut_off_it_can_be_said_again(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, clock: ManualClock, shrunk: list[str]
) -> None:
    """After half of it nothing has changed yet; said again it is whole."""
    backups = backups_of(firestore, Torn(name="local", path=local.path), clock=clock, retention=RETENTION)
    with pytest.raises(Transient):
        backups.let_go(shrunk[1], owner="ada", reason="moved")
    assert reasons(backups)[shrunk[1]] is Why.LAST_SUBSTANTIAL
    backups.let_go(shrunk[1], owner="ada", reason="moved")
    assert reasons(backups)[shrunk[0]] is reasons(backups)[shrunk[1]] is Why.LET_GO


def test_a_damaged_note_lets_go_of_nothing(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, clock: ManualClock, shrunk: list[str]
) -> None:
    """Then the backup is kept, as if nobody had said anything."""
    backups = backups_of(firestore, local, clock=clock, retention=RETENTION)
    backups.let_go(shrunk[1], owner="ada", reason="moved")
    damage(local.path / shrunk[1] / LET_GO)
    assert reasons(backups)[shrunk[1]] is Why.LAST_SUBSTANTIAL


def test_the_note_goes_along_with_a_copy(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, clock: ManualClock, shrunk: list[str]
) -> None:
    """A copy that is made later says the same, also when the first one is lost."""
    backups_of(firestore, local, clock=clock, retention=RETENTION).let_go(shrunk[1], owner="ada", reason="moved")
    bucket = DirectoryStorage(name="gcs", path=local.path.parent / "gcs")
    assert backups_of(firestore, local, bucket, clock=clock).upload(shrunk[1]).uploaded == (f"gcs:{shrunk[1]}",)
    assert backups_of(firestore, bucket, clock=clock).show(shrunk[1]).summary.let_go.endswith("moved")
