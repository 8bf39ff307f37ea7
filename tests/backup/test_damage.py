"""Damage: any byte of any file is found, named, and never restored."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.backup import Backups, BackupType
from agent.backup.records import LET_GO, LetGo
from agent.clock import SystemClock
from agent.faults import Permanent, PermanentReason
from agent.firestore import Firestore
from agent.storage import DirectoryStorage
from tests.backup.conftest import contents, damage, write

Make = Callable[..., Backups]


@pytest.fixture
def damaged_target(firestore: Firestore, backups: Backups, local: DirectoryStorage) -> str:
    """A backup with an increment on top, of every kind of file there is, and a database that has changed since."""
    write(firestore, {f"users/u{number}": {"n": number, "b": bytes([number])} for number in range(8)})
    backups.create(BackupType.FULL)
    write(firestore, {"users/u1": {"n": "newer"}, "users/u2": None})
    backup = backups.create(BackupType.INCREMENTAL).id
    backups.pin(backup, "kept for the test")
    local.replace(f"{backup}/{LET_GO}", LetGo(owner="ada", reason="no accident", at=SystemClock().now()).to_bytes())
    assert backups.restore(backup).changes == 0  # leaves its report
    assert backups.verify(backup).problems == ()
    write(firestore, {"users/u3": {"n": "bad"}})
    return backup


_LONG = (pytest.mark.slow, pytest.mark.timeout(3600))


# Each byte of a backup's dozen files, or a seeded sample of them.
@pytest.mark.parametrize("each", [pytest.param(60, id="sample"), pytest.param(1, marks=_LONG, id="every")])
def test_any_flipped_byte_is_named_and_refused(
    damaged_target: str, backups: Backups, firestore: Firestore, local: DirectoryStorage, each: int
) -> None:
    """A bit flipped in any byte of any file: no restore of it writes anything, and both restore and verify name it."""
    draw = random.Random(11)
    files = sorted(file for file in local.path.rglob("*") if file.is_file())
    kinds = {file.name.partition("-")[0] for file in files}
    records = {"manifest.json", "verified.json", "pinned.json", "let", "restored"}
    assert kinds == {"documents", "index", "deletes", *records}
    before = contents(firestore)
    for file in files:
        sound = file.read_bytes()
        name = file.relative_to(local.path).as_posix()
        for position in sorted({*range(draw.randrange(each), len(sound), each), len(sound) - 1}):
            flipped = bytearray(sound)
            flipped[position] ^= 1 << draw.randrange(8)
            file.write_bytes(flipped)
            with pytest.raises(Permanent) as raised:
                backups.restore(damaged_target)
            assert raised.value.reason is PermanentReason.CORRUPT
            assert name in raised.value.message, position
            report = backups.verify(damaged_target)
            assert not report.ok
            assert name in " ".join(report.problems), position
            newest = backups.newest_verified()
            assert newest is None or newest.id != damaged_target
            file.write_bytes(sound)
    assert contents(firestore) == before
    assert backups.verify(damaged_target).ok
    assert backups.restore(damaged_target).applied == 1


def test_a_damaged_record_is_written_anew(damaged_target: str, backups: Backups, local: DirectoryStorage) -> None:
    """With its documents sound, a backup whose verified.json was damaged is whole again after one verification."""
    damage(local.path / damaged_target / "verified.json")
    with pytest.raises(Permanent, match=r"verified\.json is damaged") as raised:
        backups.restore(damaged_target)
    assert f"runbookd backup verify {damaged_target}" in raised.value.hint
    assert not backups.verify(damaged_target).ok
    assert backups.verify(damaged_target).ok
    assert backups.restore(damaged_target).applied == 1


def test_a_copy_with_a_damaged_record_gives_way(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, tmp_path: Path
) -> None:
    """A record damaged in one storage stops no restore while another storage's copy is sound."""
    backups = backups_of(firestore, local, DirectoryStorage(name="other", path=tmp_path / "other"))
    write(firestore, {"users/u1": {"n": 1}})
    backup = backups.create(BackupType.FULL).id
    assert backups.verify(backup).ok
    damage(local.path / backup / "verified.json")
    write(firestore, {"users/u1": {"n": 2}})
    assert backups.restore(backup).complete


def test_a_missing_file_is_named(damaged_target: str, backups: Backups, local: DirectoryStorage) -> None:
    """A segment that is gone is a problem with its name; so is one that is cut short."""
    file = next((local.path / damaged_target).glob("documents-*"))
    sound = file.read_bytes()
    file.write_bytes(sound[:-1])
    assert any(file.name in problem for problem in backups.verify(damaged_target).problems)
    file.unlink()
    report = backups.verify(damaged_target)
    assert any(f"{file.name} is missing" in problem for problem in report.problems)
    assert not backups.list()[0].verified
    assert file.name in backups.list()[0].problem


def test_the_diagnosis_names_the_next_best_backup(
    firestore: Firestore, backups: Backups, local: DirectoryStorage
) -> None:
    """A refused restore says which backup to take instead."""
    write(firestore, {"users/u1": {"n": 1}})
    older = backups.create(BackupType.FULL)
    backups.verify(older.id)
    newer = backups.create(BackupType.FULL)
    damage(local.path / newer.id / newer.segments[0].file)
    with pytest.raises(Permanent) as raised:
        backups.restore(newer.id)
    assert older.id in raised.value.hint


def test_a_sound_copy_stands_in(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, tmp_path: Path
) -> None:
    """With a second storage, damage in the first is reported and the restore reads the second."""
    other = DirectoryStorage(name="other", path=tmp_path / "other")
    backups = backups_of(firestore, local, other)
    write(firestore, {"users/u1": {"n": 1}, "users/u2": {"n": 2}})
    before = contents(firestore)
    backup = backups.create(BackupType.FULL)
    assert backups.list()[0].storages == ("local", "other")
    damage(local.path / backup.id / backup.segments[0].file)
    damage(local.path / backup.id / "manifest.json")
    report = backups.verify(backup.id)
    assert report.ok
    assert report.sound == (f"other:{backup.id}",)
    assert report.problems[0].startswith("local: ")
    write(firestore, {"users/u1": {"n": "bad"}})
    assert backups.restore(backup.id).complete
    assert contents(firestore) == before
