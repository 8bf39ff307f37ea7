"""A backup put back after the hour: what the migration created goes as well, and what stays is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from agent.backup import Backups, BackupType
from agent.daemon.assembly import LastBackup
from agent.faults import Transient, TransientReason
from agent.firestore import CollectionGroup, PlannedWrite, RawDocument, WriteOutcome
from agent.migration import Restored, RunState
from agent.migration.putback import LISTED, put_back
from agent.migration.reports import undo_text
from agent.migration.undo import UndoFindings
from agent.storage import DirectoryStorage
from agent.telemetry import ignore_progress
from tests.migration.world import World, start

Writer = Callable[..., Path]

LATER = timedelta(hours=2)

SPLIT = """
    collections = ("counters",)
    reads_both_shapes = True

    def transform(document):
        n = document.fields["n"]
        name = document.name.split("/")[1]
        return [
            document.with_fields(n=n + 1),
            document.elsewhere(f"counters/{name}-half", {"n": n, "half": True}),
            document.elsewhere(f"ledger/{name}", {"n": n}),
        ]
"""
"""Makes two documents of each: one beside it, one in a collection that the run itself does not go through."""


class Later:
    """The same database two hours later, when what it held before the run is no longer readable.

    Args:
        fails: asked before each write request of an undo, by its number: ``"before"`` or ``"after"`` it reached the
            server the connection breaks; ``""`` it does not.
    """

    def __init__(self, world: World, fails: Callable[[int], str] = lambda _: "") -> None:
        self._inner = world.firestore
        self._fails = fails
        self._requests = 0
        self.address = world.firestore.address

    def server_time(self) -> datetime:
        return self._inner.server_time() + LATER

    def count(self, scope: CollectionGroup, read_time: datetime | None = None) -> int:
        return self._inner.count(scope, read_time and read_time - LATER)

    def pages(self, scope: CollectionGroup, read_time: datetime) -> Iterator[list[RawDocument]]:
        return self._inner.pages(scope, read_time - LATER)

    def get(self, names: Sequence[str], read_time: datetime | None = None) -> dict[str, RawDocument | None]:
        return self._inner.get(names, read_time and read_time - LATER)

    def write(self, writes: Iterable[PlannedWrite], *, origin: str, parallel: int = 8) -> Iterable[WriteOutcome]:
        number, self._requests = self._requests, self._requests + (origin == "undo")
        fails = self._fails(number) if origin == "undo" else ""
        if fails == "before":
            raise Transient(TransientReason.UNAVAILABLE, "connection refused")
        outcomes = list(self._inner.write(writes, origin=origin, parallel=parallel))
        if fails == "after":
            raise Transient(TransientReason.UNAVAILABLE, "no answer in time")
        return outcomes


@pytest.fixture
def backups(world: World) -> Callable[[], LastBackup]:
    """Takes a proven backup of what is there."""

    def take() -> LastBackup:
        made = Backups(
            firestore=world.firestore,
            storages=[DirectoryStorage(name="local", path=world.folder / "backups")],
            telemetry=world.telemetry,
        )
        assert made.verify(made.create(BackupType.FULL).id).ok
        return LastBackup(made)

    return take


def lost(world: World) -> None:
    """The journal is gone."""
    for segment in (world.folder / "data").rglob("journal-*.bin"):
        segment.unlink()


def test_what_the_migration_created_goes_with_it(
    world: World, write_definition: Writer, backups: Callable[[], LastBackup]
) -> None:
    """Beside its origin and in other collections; users' documents, changed ones and older ones stay and are named."""
    world.counters(12)
    old = {"ledger/c-0005": {"n": start(5), "old": True}, "ledger/c-0006": {"n": start(6)}}
    world.put(old)
    write_definition(SPLIT)
    source = backups()
    run = world.migrations().run("0001").record
    assert run.counts.set_aside == 1, "it never overwrites a document"
    lost(world)
    world.put(
        {
            "counters/new": {"n": 5},
            "ledger/new": {"n": 5},
            "counters/c-0003-half": {"n": 3, "half": True, "note": "ours"},
            "ledger/c-0004": {"n": -4},
        }
    )

    undone = world.migrations(Later(world), backups=source).undo(run.id, from_backup=True)

    found = world.all("counters")
    assert found.pop("counters/new") == {"n": 5}
    assert found.pop("counters/c-0003-half")["note"] == "ours"
    assert {path: fields["n"] for path, fields in found.items()} == {f"counters/c-{i:04d}": start(i) for i in range(12)}
    assert world.all("ledger") == {**old, "ledger/new": {"n": 5}, "ledger/c-0004": {"n": -4}}
    kept = {item.name: item.why for item in undone.findings.kept}
    assert set(kept) == {"counters/new", "counters/c-0003-half", "ledger/c-0004"}
    assert "a user created it" in kept["counters/new"]
    assert "not as the migration makes it" in kept["ledger/c-0004"]
    assert (undone.record.state, undone.record.undone, undone.record.kept) == (RunState.UNDONE, 11 + 20, 3)
    report = (world.folder / "reports" / f"undo-report-{run.id}.md").read_text()
    assert "20 documents that the migration had created were removed" in report
    assert "- `ledger/c-0004`: created by the migration, and not as" in report


def test_what_stood_there_before_is_not_taken_for_created(world: World, write_definition: Writer) -> None:
    """With the very contents that the migration would have given it, it is no conflict, and an undo leaves it."""
    world.counters(5)
    world.put({"ledger/c-0002": {"n": start(2)}})
    before = world.fingerprint()
    write_definition(SPLIT)
    migrations = world.migrations()
    run = migrations.run("0001").record
    assert run.counts.set_aside == 0

    undone = migrations.undo(run.id)

    assert undone.findings.by_journal
    assert world.fingerprint() == before
    assert (undone.record.undone, undone.findings.kept) == (5 + 9, ())


def test_what_users_created_is_nobodys_origin(
    world: World, write_definition: Writer, backups: Callable[[], LastBackup]
) -> None:
    """An application that writes both shapes makes of a new document what the migration would have made of it."""
    world.counters(3)
    write_definition(SPLIT)
    source = backups()
    run = world.migrations().run("0001").record.id
    lost(world)
    both = {"counters/new": {"n": 5}, "counters/new-half": {"n": 5, "half": True}, "ledger/new": {"n": 5}}
    world.put(both)

    undone = world.migrations(Later(world), backups=source).undo(run, from_backup=True)

    assert {path: fields for path in both if (fields := world.get(path))} == both
    assert [item.name for item in undone.findings.kept] == ["counters/new", "counters/new-half"]


def test_what_the_backup_has_stays(world: World, write_definition: Writer, backups: Callable[[], LastBackup]) -> None:
    """A user deleted a document after the backup, and the migration made the very same anew: the backup wins."""
    half = {"counters/c-0000-half": {"n": start(0), "half": True}}
    world.counters(2)
    world.put(half)
    source = backups()
    world.delete("counters/c-0000-half")
    write_definition(SPLIT)
    run = world.migrations().run("0001").record
    assert run.counts.created == 4
    lost(world)

    undone = world.migrations(Later(world), backups=source).undo(run.id, from_backup=True)

    assert set(world.all("counters")) == {"counters/c-0000", "counters/c-0001", *half}
    assert world.all("ledger") == {}
    assert undone.findings.kept == ()


@pytest.mark.parametrize("fails", ["before", "after"])
def test_done_again_it_takes_the_rest_away(
    world: World, write_definition: Writer, backups: Callable[[], LastBackup], fails: str
) -> None:
    """Broken off between two pages, before or after the server heard of the second."""
    world.counters(400)
    before = world.fingerprint()
    write_definition(SPLIT)
    source = backups()
    run = world.migrations().run("0001").record.id
    lost(world)
    torn = world.migrations(Later(world, lambda number: fails if number == 1 else ""), backups=source)
    with pytest.raises(Transient):
        torn.undo(run, from_backup=True)
    assert world.fingerprint() != before or fails == "after"
    status = torn.status(run)
    assert status is not None
    assert status.record.state is RunState.UNDOING

    undone = world.migrations(Later(world), backups=source).undo(run, from_backup=True)

    assert world.fingerprint() == before
    assert (undone.record.state, undone.findings.kept) == (RunState.UNDONE, ())


def test_without_the_file_all_are_named(
    world: World, write_definition: Writer, backups: Callable[[], LastBackup]
) -> None:
    """Nobody can tell then what the migration created, so nothing goes; a person gets the names."""
    world.counters(3)
    path = write_definition(SPLIT)
    source = backups()
    run = world.migrations().run("0001").record.id
    lost(world)
    path.write_text(path.read_text() + "\n# edited since\n")

    undone = world.migrations(Later(world), backups=source).undo(run, from_backup=True)

    assert [item.name for item in undone.findings.kept] == [f"counters/c-{i:04d}-half" for i in range(3)]
    assert all("0001_test.py as it ran would tell" in item.why for item in undone.findings.kept)
    assert len(world.all("counters")) == 6
    content = json.loads((world.folder / "reports" / f"undo-report-{run}.json").read_text())
    assert [item["name"] for item in content["findings"]["kept"]] == [f"counters/c-{i:04d}-half" for i in range(3)]
    assert "in other collections is not looked for" in json.dumps(content["timeline"])


class Plenty:
    """Backups that lack more documents than a report can name."""

    def newest(self, before: datetime) -> tuple[str, datetime] | None:
        return "backup-full-1", before

    def restore(
        self, _backup: str, _collections: tuple[str, ...], _progress: object, _cancelled: Callable[[], bool]
    ) -> Restored:
        return Restored(documents=7, kept=(), extra=frozenset(f"counters/x-{i:05d}" for i in range(LISTED + 500)))


def test_the_number_of_those_that_are_not_named_is(world: World, write_definition: Writer) -> None:
    """A thousand names in order; the report and the record say how many more there are."""
    world.counters(1)
    write_definition(SPLIT)
    run = world.migrations().run("0001").record

    found = put_back(
        Plenty(),
        "backup-full-1",
        run,
        None,
        database=world.firestore,
        progress=ignore_progress,
        cancelled=lambda: False,
    )

    assert (len(found.kept), found.unlisted, found.extra) == (LISTED, 500, LISTED + 500)
    assert [item.name for item in found.kept[:2]] == ["counters/x-00000", "counters/x-00001"]
    findings = UndoFindings(
        undone=7,
        merged=0,
        kept=found.kept,
        verified=0,
        write_seconds=1.0,
        by_journal=False,
        unlisted=found.unlisted,
    )
    assert "- and 500 more of the last kind" in undo_text(run, findings, 1.0, ())


def test_the_way_by_old_versions_comes_back_to_what_it_had_not_removed(world: World, write_definition: Writer) -> None:
    """Killed between a document and what was made of it, it is not taken for done; what was there before stays."""
    world.counters(5)
    world.put({"ledger/c-0002": {"n": start(2)}})
    before = world.fingerprint()
    write_definition(SPLIT)
    migrations = world.migrations()
    run = migrations.run("0001").record.id
    lost(world)
    world.put({"counters/c-0001": {"n": start(1), "text": "x"}})  # written back; what was made of it is still there

    undone = migrations.undo(run)

    assert not undone.findings.by_journal
    assert world.fingerprint() == before
    assert undone.findings.kept == ()
