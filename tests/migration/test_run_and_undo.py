"""Whole runs against a real server: what is migrated, what is left alone, and the way back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.clock import ManualClock
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason, Transient
from agent.firestore import PlannedWrite
from agent.migration import RunbookPolicy, RunSettings, RunState
from agent.telemetry import Progress
from tests.migration.world import COUNTER, Unruly, World, start

Writer = Callable[..., Path]

CHECKED = """
    def validate(document):
        return "n is negative" if document.fields["n"] < 0 else None
"""

SMALL = RunSettings(batch_size=20, parallel=2)


def test_run_and_undo_restore_every_byte(world: World, write_definition: Writer) -> None:
    """A run changes every document of its collections and an undo brings back exactly what was there."""
    world.counters(230)
    world.put({"counters/c-0007/counters/below": {"n": 5}, "gone/parent/counters/lost": {"n": 6}, "others/o": {"n": 1}})
    before = world.fingerprint()
    write_definition(COUNTER)
    migrations = world.migrations()

    report = migrations.run("0001")

    assert report.record.state is RunState.DONE
    assert report.record.counts.written == 232
    assert world.get("counters/c-0100") == {"n": start(100) + 1, "text": ""}
    assert world.get("gone/parent/counters/lost") == {"n": 7}
    assert world.get("others/o") == {"n": 1}
    assert report.record.collections[0].checked >= 4
    assert report.record.collections[0].mismatched == 0

    undone = migrations.undo(report.record.id)

    assert undone.record.state is RunState.UNDONE
    assert (undone.findings.undone, undone.findings.verified, undone.findings.kept) == (232, 232, ())
    assert world.fingerprint() == before


def test_concurrent_writes_of_users_are_transformed_and_never_overwritten(
    world: World, write_definition: Writer
) -> None:
    """A document that a user writes between scan and write is read again and transformed as the user left it."""
    world.counters(100)
    write_definition(COUNTER)

    def meddle(_number: int, writes: Sequence[PlannedWrite]) -> None:
        if len(writes) > 1:
            path = world.firestore.address.relative(writes[0].name)
            fields = world.get(path)
            assert fields is not None
            world.put({path: {**fields, "n": fields["n"] + 1000, "note": "mine"}})

    report = world.migrations(Unruly(world.firestore, meddle=meddle), settings=SMALL).run("0001")

    found = world.all("counters")
    changed = [fields for fields in found.values() if "note" in fields]
    assert len(changed) == report.record.counts.conflicts == 5
    assert world.increments() == {1, 1001}
    assert all(fields["n"] > 1000 for fields in changed)


def test_documents_changed_after_the_migration_are_kept_and_listed(world: World, write_definition: Writer) -> None:
    """An undo leaves alone what users wrote, created anew or deleted since the migration, and says so."""
    world.counters(60)
    write_definition(COUNTER)
    migrations = world.migrations()
    run = migrations.run("0001").record.id
    world.put({"counters/c-0003": {"n": 4, "mine": True}})
    world.delete("counters/c-0004")

    undone = migrations.undo(run)

    assert {item.name: item.why for item in undone.findings.kept} == {
        "counters/c-0003": "changed by somebody else after the migration",
        "counters/c-0004": "deleted by somebody else after the migration",
    }
    assert undone.record.undone == 58
    assert world.get("counters/c-0003") == {"n": 4, "mine": True}
    assert world.get("counters/c-0004") is None
    assert world.get("counters/c-0005") == {"n": start(5), "text": "xxxxx"}


@pytest.mark.parametrize("kind", ["before", "after"])
def test_failing_requests_neither_lose_nor_double_anything(world: World, write_definition: Writer, kind: str) -> None:
    """With every third request failing, before or after the server applied it, every counter ends at exactly + 1."""
    world.counters(200)
    write_definition(COUNTER)
    unruly = Unruly(world.firestore, mishap=lambda number: kind if number % 3 == 1 else "")

    report = world.migrations(unruly, settings=SMALL).run("0001")

    assert unruly.requests >= 10
    assert report.record.counts.written == 200
    assert world.increments() == {1}

    world.migrations(unruly, settings=SMALL).undo(report.record.id)

    assert world.increments() == {0}


def test_a_lost_answer_with_a_user_on_top_is_not_transformed_twice(world: World, write_definition: Writer) -> None:
    """The server applied a write, its answer was lost, and a user wrote on: the versions in between tell it."""
    world.counters(20)
    write_definition(COUNTER)

    class Overtaken(Unruly):
        def get(self, names: Sequence[str], read_time: Any = None) -> Any:
            if self.armed and self.requests == 1 and read_time is None:
                self.armed = False
                fields = world.get("counters/c-0002")
                assert fields is not None
                world.put({"counters/c-0002": {**fields, "note": "mine"}})
            return super().get(names, read_time)

    unruly = Overtaken(world.firestore, mishap=lambda number: "after" if number == 0 else "")
    migrations = world.migrations(unruly, settings=RunSettings(batch_size=20, parallel=1, validate=False))
    report = migrations.run("0001")

    assert world.get("counters/c-0002") == {"n": start(2) + 1, "text": "xx", "note": "mine"}
    assert report.record.counts.written == 20

    kept = migrations.undo(report.record.id).findings.kept
    assert [item.name for item in kept] == ["counters/c-0002"]


def test_a_stopped_run_resumes_with_exactly_the_rest(world: World, write_definition: Writer) -> None:
    """A run that was stopped between two batches goes on behind its checkpoint."""
    world.counters(200)
    write_definition(COUNTER)
    seen: list[Progress] = []
    unruly = Unruly(world.firestore)
    migrations = world.migrations(unruly, settings=SMALL)

    with pytest.raises(Permanent) as stopped:
        migrations.run("0001", progress=seen.append, cancelled=lambda: unruly.requests >= 3)

    assert stopped.value.reason is PermanentReason.CANCELLED
    status = migrations.status()
    assert status is not None
    assert status.record.state is RunState.CANCELLED
    done = status.record.counts.written
    assert 0 < done < 200

    first = unruly.requests
    report = migrations.resume(status.record.id, progress=seen.append)

    assert report.record.counts.written == report.record.counts.scanned == 200
    assert unruly.requests - first == (200 - done) // 20
    assert world.increments() == {1}
    assert (seen[-1].done, seen[-1].total) == (200, 200)


def test_a_slow_run_stops_at_once(world: World, write_definition: Writer) -> None:
    """A run below a rate limit works in small chunks and does not finish waiting before it stops."""
    world.counters(200)
    write_definition(COUNTER)
    stop = threading.Event()
    unruly = Unruly(world.firestore, meddle=lambda number, _writes: stop.set() if number == 1 else None)
    settings = RunSettings(batch_size=100, parallel=4, rate_limit=4.0)
    assert settings.chunk() == 20
    clock = ManualClock(datetime.now(UTC))
    migrations = world.migrations(unruly, settings=settings, clock=clock)

    with pytest.raises(Permanent) as stopped:
        migrations.run("0001", cancelled=stop.is_set)

    assert stopped.value.reason is PermanentReason.CANCELLED
    status = migrations.status()
    assert status is not None
    assert status.record.state is RunState.CANCELLED
    assert unruly.requests <= 5
    migrations.undo()
    assert world.increments() == {0}


def test_a_failed_run_can_be_undone_half_way(world: World, write_definition: Writer) -> None:
    """When the database stays away for good the run fails, and its undo takes back what it had done."""
    world.counters(200)
    before = world.fingerprint()
    write_definition(COUNTER)
    unruly = Unruly(world.firestore, mishap=lambda number: "before" if number >= 4 else "")
    migrations = world.migrations(unruly, settings=RunSettings(batch_size=20, parallel=2))

    with pytest.raises(Transient):
        migrations.run("0001")
    status = migrations.status()
    assert status is not None
    assert status.record.state is RunState.FAILED
    unruly.armed = False

    migrations.undo(status.record.id)

    assert world.fingerprint() == before


def test_creates_moves_and_deletes_are_undone(world: World, write_definition: Writer) -> None:
    """What a migration created is deleted, what it deleted is created again, what it moved goes back."""
    world.put({f"items/i-{n:03d}": {"n": n, "kind": ("keep", "drop", "move", "split")[n % 4]} for n in range(80)})
    before = world.fingerprint()
    write_definition(
        """
        from agent.migration import DELETE

        collections = ("items",)
        reads_both_shapes = True

        def transform(document):
            match document.fields["kind"]:
                case "drop":
                    return DELETE
                case "move":
                    return [document.elsewhere(f"archive/{document.id}"), DELETE]
                case "split":
                    return [document.with_fields(split=True), document.elsewhere(f"halves/{document.id}", {"n": 0})]
                case _:
                    return None
        """
    )
    migrations = world.migrations(
        Unruly(world.firestore, mishap=lambda n: "after" if n % 4 == 1 else ""), settings=SMALL
    )

    report = migrations.run("0001")

    counts = report.record.counts
    assert (counts.written, counts.unchanged, counts.created) == (60, 20, 40)
    assert (len(world.all("items")), len(world.all("archive")), len(world.all("halves"))) == (40, 20, 20)
    assert report.record.collections[0].mismatched == 0

    migrations.undo(report.record.id)

    assert world.fingerprint() == before


def test_a_document_in_the_way_of_a_new_one_is_not_overwritten(world: World, write_definition: Writer) -> None:
    """Where a migration would create a document that exists already, its origin is set aside."""
    world.put({"items/a": {"n": 1}, "items/b": {"n": 2}, "archive/a": {"precious": True}})
    write_definition(
        """
        from agent.migration import DELETE

        collections = ("items",)
        reads_both_shapes = True

        def transform(document):
            return [document.elsewhere(f"archive/{document.id}"), DELETE]
        """
    )

    report = world.migrations().run("0001")

    assert [(item.name, item.why) for item in report.findings.set_aside] == [
        ("items/a", "it would create archive/a, which is there already")
    ]
    assert world.get("archive/a") == {"precious": True}
    assert world.get("items/a") == {"n": 1}
    assert world.get("archive/b") == {"n": 2}


def test_documents_that_break_the_transform_are_set_aside(world: World, write_definition: Writer) -> None:
    """A document that the transform can't take is left as it was and listed with the line that failed."""
    world.counters(30)
    world.put({"counters/odd": {"text": "no number here"}})
    path = write_definition(COUNTER)

    report = world.migrations().run("0001")

    assert [(item.name, item.why) for item in report.findings.set_aside] == [
        ("counters/odd", f"{path.name}:6: KeyError: 'n'")
    ]
    assert report.record.counts.written == 30
    assert report.record.counts.set_aside == 1
    assert world.get("counters/odd") == {"text": "no number here"}


def test_too_many_documents_set_aside_stop_the_run(world: World, write_definition: Writer) -> None:
    """A transform that fails on document after document is stopped, and can be undone."""
    world.put({f"counters/x-{i:03d}": {"text": "none"} for i in range(60)})
    world.counters(60)
    before = world.fingerprint()
    write_definition(COUNTER)
    migrations = world.migrations(settings=RunSettings(batch_size=20, parallel=1, set_aside_limit=10))

    with pytest.raises(Permanent) as stopped:
        migrations.run("0001")

    assert stopped.value.reason is PermanentReason.TOO_MANY_FAILURES
    migrations.undo()
    assert world.fingerprint() == before


def test_damage_on_the_way_is_counted_and_still_undone(world: World, write_definition: Writer) -> None:
    """Writes that something alters on their way show up in the gauges, and the undo takes them back all the same."""
    world.counters(100)
    before = world.fingerprint()
    write_definition(COUNTER)

    class Damaging(Unruly):
        def write(self, writes: Any, *, origin: str, parallel: int = 8) -> Any:
            if origin != "migration":
                return super().write(writes, origin=origin, parallel=parallel)
            planned = list(writes)
            damaged = [
                PlannedWrite(
                    name=write.name,
                    kind=write.kind,
                    fields=write.fields.replace(b"x", b"y"),
                    precondition=write.precondition,
                )
                for write in planned
            ]
            return super().write(damaged, origin=origin, parallel=parallel)

    migrations = world.migrations(Damaging(world.firestore), settings=RunSettings(batch_size=10, parallel=2))
    report = migrations.run("0001")

    part = report.record.collections[0]
    assert part.mismatched >= 5
    assert part.checked == 10
    assert world.gauge("runbookd_migration_mismatched_documents", collection="counters") == part.mismatched
    assert report.conflicts == part.mismatched

    migrations.undo(report.record.id)

    assert world.fingerprint() == before
    assert world.gauge("runbookd_migration_mismatched_documents", collection="counters") == 0


def test_a_dry_run_writes_nothing_and_touches_no_progress(world: World, write_definition: Writer) -> None:
    """A dry run transforms everything and leaves database, journal and run records exactly as they were."""
    world.counters(120)
    world.put({"counters/odd": {"text": "no number here"}})
    write_definition(COUNTER)
    unruly = Unruly(world.firestore)
    migrations = world.migrations(unruly, settings=SMALL)
    with pytest.raises(Permanent):
        migrations.run("0001", cancelled=lambda: unruly.requests >= 2)
    before = (world.fingerprint(), world.get("_migrations/0001"), _files(world.folder / "data"))

    report = migrations.dry_run("0001")

    assert (world.fingerprint(), world.get("_migrations/0001"), _files(world.folder / "data")) == before
    (part,) = report.findings.collections
    assert (part.counts.scanned, part.counts.written, part.counts.set_aside) == (121, 120, 1)
    assert part.diffs[0].lines[0].startswith("- n: ")
    assert [item.name for item in report.findings.failures] == ["counters/odd"]
    assert "Nothing was written" in (world.folder / "reports" / "dry-run-report.md").read_text()


def test_a_merging_undo_keeps_the_users_part(world: World, write_definition: Writer) -> None:
    """Where the definition says how, a document changed since is merged instead of kept."""
    world.put({f"words/w-{i}": {"list": ["a", "b"]} for i in range(10)})
    write_definition(
        """
        collections = ("words",)
        reads_both_shapes = True

        def transform(document):
            return document.with_fields(count=len(document.fields["list"]))

        def undo(document, before):
            return document.without("count")
        """
    )
    migrations = world.migrations()
    run = migrations.run("0001").record.id
    world.put({"words/w-3": {"list": ["a", "b", "c"], "count": 2}})

    undone = migrations.undo(run)

    assert (undone.record.undone, undone.record.merged, undone.record.kept) == (9, 1, 0)
    assert world.get("words/w-3") == {"list": ["a", "b", "c"]}


def test_an_undo_can_be_stopped_and_goes_on(world: World, write_definition: Writer) -> None:
    """A stopped undo is found where it was and ends with every byte as before."""
    world.counters(200)
    before = world.fingerprint()
    write_definition(COUNTER)
    unruly = Unruly(world.firestore)
    migrations = world.migrations(unruly, settings=RunSettings(batch_size=10, parallel=2))
    run = migrations.run("0001").record.id
    start = unruly.requests

    with pytest.raises(Permanent) as stopped:
        migrations.undo(run, cancelled=lambda: unruly.requests >= start + 5)

    assert stopped.value.reason is PermanentReason.CANCELLED
    status = migrations.status(run)
    assert status is not None
    assert (status.record.state, status.interrupted) == (RunState.UNDOING, True)

    undone = migrations.undo(run)

    assert 0 < undone.findings.undone < 200
    assert undone.record.undone == 200
    assert world.fingerprint() == before


@pytest.mark.parametrize("loss", ["gone", "damaged"])
def test_a_lost_journal_is_no_lost_undo(world: World, write_definition: Writer, loss: str) -> None:
    """Within the hour the before-images come from Firestore itself; users' later writes are kept all the same."""
    world.counters(60)
    before = world.fingerprint()
    write_definition(COUNTER)

    def meddle(_number: int, writes: Sequence[PlannedWrite]) -> None:
        if len(writes) == 20 and writes[0].name.endswith("c-0020"):
            world.put({"counters/c-0021": {"n": 500}})

    migrations = world.migrations(Unruly(world.firestore, meddle=meddle), settings=SMALL)
    run = migrations.run("0001").record.id
    world.put({"counters/c-0005": {"n": 700}})
    (segment,) = (world.folder / "data").rglob("journal-*.bin")
    if loss == "gone":
        segment.unlink()
    else:
        data = bytearray(segment.read_bytes())
        data[300] ^= 1
        segment.write_bytes(data)

    undone = migrations.undo(run)

    assert not undone.findings.by_journal
    assert [item.name for item in undone.findings.kept] == ["counters/c-0005"]
    assert (world.get("counters/c-0005"), world.get("counters/c-0021")) == ({"n": 700}, {"n": 500})
    world.put({f"counters/c-{i:04d}": {"n": start(i), "text": "x" * i} for i in (5, 21)})
    assert world.fingerprint() == before


def test_validation_finds_what_is_wrong_afterwards(world: World, write_definition: Writer) -> None:
    """Every document is held against the definition, every write against what was meant; users' writes are theirs."""
    world.counters(60)
    write_definition(COUNTER + CHECKED)
    migrations = world.migrations()
    run = migrations.run("0001").record.id
    good = migrations.validate(run)
    assert good.passed
    assert [(part.documents, part.compared) for part in good.collections] == [(60, 60)]

    world.put({"counters/c-0001": {"n": -5}})

    found = migrations.validate("0001")
    (part,) = found.collections
    assert (found.run, part.documents, part.invalid, part.compared, part.mismatched) == (run, 60, 1, 59, 0)
    assert part.examples == ("counters/c-0001: n is negative",)
    assert not found.passed


def test_revisions_do_not_run_twice_without_a_word(world: World, write_definition: Writer) -> None:
    """What ran is refused, what changed since is refused, what was rolled back needs an explicit word."""
    world.counters(10)
    write_definition(COUNTER)
    migrations = world.migrations()
    run = migrations.run("0001").record.id

    assert _refusal(lambda: migrations.run("0001")) is RefusedReason.ALREADY_RAN
    assert _refusal(lambda: migrations.resume(run)) is RefusedReason.ALREADY_RAN
    write_definition(COUNTER.replace("+ 1", "+ 2"))
    assert _refusal(lambda: migrations.run("0001")) is RefusedReason.CHANGED_DEFINITION
    write_definition(COUNTER)
    migrations.undo(run)
    assert _refusal(lambda: migrations.run("0001")) is RefusedReason.FAILED_BEFORE
    assert _refusal(lambda: migrations.resume(run)) is RefusedReason.FAILED_BEFORE
    elsewhere = world.migrations(data_dir=world.folder / "another machine")
    assert _refusal(lambda: elsewhere.run("0001")) is RefusedReason.FAILED_BEFORE

    again = migrations.run("0001", again=True)

    assert again.record.state is RunState.DONE
    assert world.get("counters/c-0009") == {"n": start(9) + 1, "text": "x" * 9}
    assert [(listed.name, listed.state) for listed in migrations.list()] == [("0001_test", "done")]


def test_one_run_at_a_time(world: World, write_definition: Writer) -> None:
    """While a run is going on, the same migration is refused, and so is an undo of that run."""
    world.counters(40)
    write_definition(COUNTER)
    entered, leave = threading.Event(), threading.Event()

    def hold(_number: int, _writes: Sequence[PlannedWrite]) -> None:
        entered.set()
        assert leave.wait(30)

    migrations = world.migrations(Unruly(world.firestore, meddle=hold))
    other = world.migrations()
    worker = threading.Thread(target=migrations.run, args=("0001",))
    worker.start()
    try:
        assert entered.wait(30)
        status = other.status()
        assert status is not None
        assert status.alive
        assert _refusal(lambda: other.run("0001")) is RefusedReason.ALREADY_RUNNING
        assert _refusal(other.undo) is RefusedReason.ALREADY_RUNNING
    finally:
        leave.set()
        worker.join()
    assert other.status(status.record.id).record.state is RunState.DONE  # type: ignore[union-attr]


def test_reports_and_journal_copies(world: World, write_definition: Writer) -> None:
    """A run and its undo leave reports for people and programs, and hand their journal segments on for copying."""
    world.counters(60)
    world.put({"counters/odd": {"text": "no number here"}})
    write_definition(COUNTER)
    copied: dict[str, bytes] = {}

    def copy(run_id: str, path: Path) -> None:
        copied[f"{run_id}/{path.name}"] = path.read_bytes()

    migrations = world.migrations(on_segment=copy)
    run = migrations.run("0001").record.id
    migrations.undo(run)

    folder = world.folder / "reports"
    plan = json.loads((folder / "migration-plan.json").read_text())
    assert (plan["allowed"], plan["documents"]) == (True, 61)
    report = json.loads((folder / f"migration-report-{run}.json").read_text())
    assert report["run"]["collections"][0]["counts"]["written"] == 60
    text = (folder / f"migration-report-{run}.md").read_text()
    assert "| counters | 61 | 60 | 0 | 1 | 0 | 0 | 0 |" in text
    assert ": started: 0001_test on 61 documents" in text
    assert "counters done: 61 documents in " in text
    assert "`counters/odd`: 0001_test.py:6: KeyError: 'n'" in text
    assert "60 documents are as they were before" in (folder / f"undo-report-{run}.md").read_text()
    journal = world.folder / "data" / "migrations" / run / "journal"
    assert copied == {f"{run}/{path.name}": path.read_bytes() for path in journal.iterdir()}


def test_collections_run_in_the_runbooks_order(world: World, write_definition: Writer) -> None:
    """The page's priorities say which collection comes first, whatever the file lists first."""
    world.put({"users/u": {"n": 0}, "items/i": {"n": 0}, "extra/e": {"n": 0}})
    write_definition(COUNTER.replace('("counters",)', '("extra", "items", "users")'))
    order = {"users": "CRITICAL", "items": "CORE"}

    report = world.migrations(policy=RunbookPolicy(order=order)).run("0001")

    assert [part.collection for part in report.record.collections] == ["users", "items", "extra"]
    started = [part.started for part in report.record.collections]
    assert started == sorted(started, key=str)


def _refusal(call: Callable[[], object]) -> object:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.reason


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
