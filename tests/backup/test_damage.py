"""Damage: any byte of any file is found, named, and never restored."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.backup import Backups, BackupType
from agent.faults import Permanent, PermanentReason
from agent.firestore import Firestore
from agent.storage import DirectoryStorage
from tests.backup.conftest import contents, of_everything, write

Make = Callable[..., Backups]


@pytest.fixture
def damaged_target(firestore: Firestore, backups: Backups) -> str:
    """A backup of everything with an increment on top, and a database that has changed since."""
    documents = of_everything(firestore.address)
    del documents["large/one"]
    write(firestore, documents)
    backups.create(BackupType.FULL)
    write(firestore, {"users/u1": {"n": "newer"}, "users/u2": None})
    backup = backups.create(BackupType.INCREMENTAL).id
    backups.pin(backup, "kept for the test")
    write(firestore, {"users/u3": {"n": "bad"}})
    return backup


def test_any_flipped_byte_is_named_and_refused(
    damaged_target: str, backups: Backups, firestore: Firestore, local: DirectoryStorage
) -> None:
    """A byte flipped anywhere makes verify name that file, and no restore of damaged documents writes anything."""
    draw = random.Random(11)
    assert backups.verify(damaged_target).problems == ()
    files = [file for file in local.path.rglob("*") if file.is_file()]
    assert len(files) > 8
    before = contents(firestore)
    for file in files:
        sound = file.read_bytes()
        for position in {0, len(sound) - 1, *draw.sample(range(len(sound)), min(len(sound), 5))}:
            flipped = bytearray(sound)
            flipped[position] ^= 1 << draw.randrange(8)
            file.write_bytes(flipped)
            report = backups.verify(damaged_target)
            name = file.relative_to(local.path).as_posix()
            assert name in " ".join(report.problems), (name, position)
            if file.name.startswith(("documents", "deletes", "manifest")):
                assert not report.ok
                with pytest.raises(Permanent) as raised:
                    backups.restore(damaged_target)
                assert raised.value.reason is PermanentReason.CORRUPT
                assert name in raised.value.message
                newest = backups.newest_verified()
                assert newest is None or newest.id != damaged_target
            file.write_bytes(sound)
    assert contents(firestore) == before
    assert backups.verify(damaged_target).ok
    assert backups.restore(damaged_target).applied == 1


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


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)
