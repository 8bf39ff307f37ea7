"""The ways back when the journal is damaged or gone: its copies, old versions, the last proven backup."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from agent.backup import Backups, BackupType
from agent.daemon.assembly import LastBackup
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason
from agent.migration import Migrations, Runs, RunSettings, RunState
from agent.storage import DirectoryStorage
from tests.migration.world import COUNTER, World, start

Writer = Callable[..., Path]


def segments(world: World) -> list[Path]:
    return sorted((world.folder / "data").rglob("journal-*.bin"))


def age(world: World, run: str) -> None:
    """Two hours go by: Firestore no longer serves the versions of before the run."""
    runs = Runs(world.folder / "data" / "migrations")
    record = runs.get(run)
    runs.save(dataclasses.replace(record, pre_read_time=record.pre_read_time - timedelta(hours=2)))


def backed_up(world: World) -> tuple[Backups, str]:
    """A proven backup of what is there, made long before the run."""
    backups = Backups(
        firestore=world.firestore,
        storages=[DirectoryStorage(name="local", path=world.folder / "backups")],
        telemetry=world.telemetry,
    )
    manifest = backups.create(BackupType.FULL)
    assert backups.verify(manifest.id).ok
    return backups, manifest.id


@pytest.mark.parametrize("loss", ["gone", "middle", "tail"])
def test_a_damaged_journal_is_mended_with_its_copies(world: World, write_definition: Writer, loss: str) -> None:
    """What was copied to backup storage comes back, and the undo is by the journal, users' writes kept as ever."""
    world.counters(120)
    before = world.fingerprint()
    write_definition(COUNTER)
    copies: dict[str, bytes] = {}

    def copy(_run: str, path: Path) -> None:
        copies[path.name] = path.read_bytes()

    migrations = world.migrations(on_segment=copy, segments=lambda _: copies)
    run = migrations.run("0001").record.id
    (segment,) = segments(world)
    data = bytearray(segment.read_bytes())
    if loss == "gone":
        segment.unlink()
    elif loss == "middle":
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
    else:
        segment.write_bytes(data[: len(data) // 2])

    undone = migrations.undo(run)

    assert undone.findings.by_journal
    assert undone.record.undone == 120
    assert world.fingerprint() == before
    assert "came back from backup storage" in (world.folder / "reports" / f"undo-report-{run}.md").read_text()


def test_a_journal_that_lost_its_end_is_not_believed(world: World, write_definition: Writer) -> None:
    """Half a journal looks whole; the record knows that more was written, so the old versions are asked instead."""
    world.counters(120)
    before = world.fingerprint()
    write_definition(COUNTER)
    migrations = world.migrations(settings=RunSettings(batch_size=20, parallel=1))
    run = migrations.run("0001").record.id
    (segment,) = segments(world)
    data = segment.read_bytes()
    segment.write_bytes(data[: len(data) // 2])

    undone = migrations.undo(run)

    assert not undone.findings.by_journal
    assert world.fingerprint() == before


def lost(world: World, write_definition: Writer) -> tuple[Migrations, str]:
    """A run whose journal is gone, and with it the hour, and the backup of before it."""
    world.counters(60)
    world.put({"others/o": {"n": 1}})
    write_definition(COUNTER)
    backups, _ = backed_up(world)
    migrations = world.migrations(backups=LastBackup(backups))
    run = migrations.run("0001").record.id
    (segment,) = segments(world)
    segment.unlink()
    return migrations, run


def test_after_the_hour_the_last_proven_backup_is_put_back_if_that_is_allowed(
    world: World, write_definition: Writer
) -> None:
    """It takes a word, because users' later writes go too; other collections and new documents are left alone."""
    migrations, run = lost(world, write_definition)
    runs = Runs(world.folder / "data" / "migrations")
    world.put({"counters/new": {"n": 5}, "others/o": {"n": 2}, "counters/c-0007": {"n": 700}})
    write_definition(COUNTER.replace("+ 1", "+ 2"))  # the file is not there as it ran: old versions are of no use

    with pytest.raises(Refused, match="users wrote since") as refused:
        migrations.undo(run)
    assert refused.value.reason is RefusedReason.NOT_CONFIRMED
    assert "--from-backup" in refused.value.hint
    assert runs.get(run).state is RunState.DONE, "a refusal changes nothing"

    undone = migrations.undo(run, from_backup=True)

    assert (undone.record.state, undone.record.undone) == (RunState.UNDONE, 60)
    assert not undone.findings.by_journal
    found = world.all("counters")
    assert found.pop("counters/new") == {"n": 5}
    assert {path: fields["n"] for path, fields in found.items()} == {f"counters/c-{i:04d}": start(i) for i in range(60)}
    assert world.get("others/o") == {"n": 2}
    report = (world.folder / "reports" / f"undo-report-{run}.md").read_text()
    assert "1 documents that backup-full-" in report


def test_the_backup_has_to_be_older_than_the_run(world: World, write_definition: Writer) -> None:
    """A backup taken after it holds what the migration made; then there is no way back by itself, and it says so."""
    migrations, run = lost(world, write_definition)
    age(world, run)

    with pytest.raises(Refused) as refused:
        migrations.undo(run, from_backup=True)

    assert refused.value.reason is RefusedReason.NO_RESTORE_POINT
    assert "no proven backup is older than the run" in refused.value.message


def test_without_any_backups_the_refusal_names_what_preflight_had(world: World, write_definition: Writer) -> None:
    """Too late for old versions and nothing to restore from: the backup that preflight accepted is what to look for."""
    world.counters(10)
    write_definition(COUNTER)
    migrations = world.migrations()
    run = migrations.run("0001").record.id
    segments(world)[0].unlink()
    age(world, run)

    with pytest.raises(Refused, match="backup-full-1") as refused:
        migrations.undo(run)

    assert refused.value.reason is RefusedReason.NO_RESTORE_POINT


def test_a_resume_does_not_guess_what_a_lost_journal_said(world: World, write_definition: Writer) -> None:
    """Going on without the journal would transform documents twice; it is refused as damage."""
    world.counters(100)
    write_definition(COUNTER)
    stop = [0]

    def cancelled() -> bool:
        stop[0] += 1
        return stop[0] > 6

    migrations = world.migrations(settings=RunSettings(batch_size=10, parallel=1))
    with pytest.raises(Permanent):
        migrations.run("0001", cancelled=cancelled)
    status = migrations.status()
    assert status is not None
    assert status.record.counts.written > 0
    for segment in segments(world):
        segment.unlink()

    with pytest.raises(Permanent) as refused:
        migrations.resume(status.record.id)

    assert refused.value.reason in (PermanentReason.NOT_FOUND, PermanentReason.CORRUPT)
    migrations.undo(status.record.id)
    assert world.increments() == {0}
