"""Increments: what changed and what was deleted since the parent, and chains that restore to the newest state."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from agent.backup import Backups, BackupType
from agent.faults import Permanent, PermanentReason
from agent.firestore import Firestore, take_fingerprint
from agent.storage import DirectoryStorage
from tests.backup.conftest import Running, contents, of_everything, write

Connect = Callable[[str, str], Firestore]
Make = Callable[..., Backups]


def test_a_chain_restores_to_its_newest_state(
    backend: Running, project: str, connect: Connect, local: DirectoryStorage, backups_of: Make
) -> None:
    """Through creations, updates, deletions and re-creations, each member of a chain restores to its own instant."""
    draw = random.Random(7)
    firestore = connect(backend.host, project)
    backups = backups_of(firestore, local)
    documents = of_everything(firestore.address)
    write(firestore, documents)
    made = [(backups.create(BackupType.FULL), contents(firestore))]
    paths = sorted(documents)
    for generation in range(3):
        changed = draw.sample(paths, 12)
        write(firestore, {path: {"generation": generation} if draw.random() < 0.6 else None for path in changed})
        write(firestore, {f"users/new{generation}/cards/c{generation}": {"n": generation}})
        made.append((backups.create(BackupType.INCREMENTAL), contents(firestore)))

    assert [manifest.type for manifest, _ in made] == [BackupType.FULL] + [BackupType.INCREMENTAL] * 3
    for (manifest, _), (parent, _) in zip(made[1:], made, strict=False):
        assert manifest.parent == parent.id
        assert manifest.documents < 14
    for number, (manifest, expected) in enumerate(made):
        assert manifest.total_documents == len(expected)
        target = connect(backend.host, f"{project}-{number}")
        assert backups.restore(manifest.id, to=target).complete
        assert contents(target) == expected
    report = backups.verify(made[-1][0].id)
    assert report.ok
    assert len(report.chain) == 4
    assert report.fingerprint == take_fingerprint(firestore).digest
    assert backups.newest_verified() == made[-1][0]


def test_nothing_changed(firestore: Firestore, backups: Backups) -> None:
    """An increment of nothing holds nothing and restores to the parent's state."""
    write(firestore, of_everything(firestore.address))
    full = backups.create(BackupType.FULL)
    increment = backups.create(BackupType.INCREMENTAL)
    assert (increment.documents, increment.files, increment.parent) == (0, (), full.id)
    assert increment.total_documents == full.documents
    assert backups.restore(increment.id).changes == 0


def test_a_collection_that_is_gone(firestore: Firestore, backups: Backups) -> None:
    """Documents of a collection that no longer exists, first, last and in the middle, are deletions."""
    write(firestore, {f"{c}/d{n}": {"n": n} for c in ("aa", "mm", "zz") for n in range(3)})
    backups.create(BackupType.FULL)
    write(firestore, {f"{c}/d{n}": None for c in ("aa", "zz") for n in range(3)})
    increment = backups.create(BackupType.INCREMENTAL)
    assert sum(segment.documents for segment in increment.deletes) == 6
    write(firestore, {"mm/d0": None, "mm/d1": None, "mm/d2": None})
    empty = backups.create(BackupType.INCREMENTAL)
    assert empty.total_documents == 0
    assert backups.verify(empty.id).ok


def test_without_a_parent_it_becomes_a_full_backup(firestore: Firestore, backups: Backups) -> None:
    """The first increment ever is a full backup, and says what was asked for."""
    write(firestore, {"users/u1": {"n": 1}})
    manifest = backups.create(BackupType.INCREMENTAL)
    assert (manifest.type, manifest.requested) == (BackupType.FULL, BackupType.INCREMENTAL)
    assert manifest.id.startswith("backup-full-")


def test_snapshots_are_no_parents(firestore: Firestore, backups: Backups) -> None:
    """A snapshot is gone in a day, so nothing builds on it."""
    write(firestore, {"users/u1": {"n": 1}})
    full = backups.create(BackupType.FULL)
    backups.create(BackupType.SNAPSHOT)
    assert backups.create(BackupType.INCREMENTAL).parent == full.id


def test_a_damaged_parent_is_not_built_on(firestore: Firestore, backups: Backups, local: DirectoryStorage) -> None:
    """If the parent's index can't be read, a full backup is taken instead."""
    write(firestore, {"users/u1": {"n": 1}})
    full = backups.create(BackupType.FULL)
    index = local.path / full.id / full.index[0].file
    index.write_bytes(b"x" + index.read_bytes()[1:])
    assert backups.create(BackupType.INCREMENTAL).type is BackupType.FULL


def test_a_missing_link(firestore: Firestore, backups: Backups, local: DirectoryStorage) -> None:
    """A chain without its parent says which one is missing, is not proven, and restores nothing."""
    write(firestore, {"users/u1": {"n": 1}})
    full = backups.create(BackupType.FULL)
    increment = backups.create(BackupType.INCREMENTAL)
    assert backups.verify(increment.id).ok
    for file in list((local.path / full.id).iterdir()):
        file.unlink()
    assert backups.newest_verified() is None
    report = backups.verify(increment.id)
    assert not report.ok
    assert full.id in report.problems[0]
    with pytest.raises(Permanent, match=full.id) as raised:
        backups.restore(increment.id)
    assert raised.value.reason is PermanentReason.NOT_FOUND


def test_what_was_beneath_a_collection_and_beside_it(firestore: Firestore, backups: Backups) -> None:
    """Documents beneath one that stayed, and a root collection between two that stayed, are deletions when gone."""
    kept = {f"{collection}/d{number:04}": {"n": number} for collection in ("aa", "cc") for number in range(700)}
    gone: dict[str, dict[str, int]] = {
        "aa/d0005/below/x": {},
        "aa/gone/below/y": {},
        "bb/b": {},
        "cc/d0699/below/z": {},
        "zz/z": {},
    }
    write(firestore, kept | gone)
    backups.create(BackupType.FULL)
    write(firestore, dict.fromkeys(gone))
    increment = backups.create(BackupType.INCREMENTAL)
    assert sum(segment.documents for segment in increment.deletes) == len(gone)
    assert increment.total_documents == len(kept)
    write(firestore, {"bb/b": {"again": True}})
    assert backups.create(BackupType.INCREMENTAL).documents == 1
    assert backups.verify(backups.list()[0].id).ok
