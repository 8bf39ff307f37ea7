"""What else goes wrong: full disks, huge documents, clocks that jump, hours that pass, empty databases."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.clock import ManualClock
from agent.faults import Permanent, PermanentReason
from agent.firestore import CollectionGroup, RawDocument
from agent.migration import RunbookPolicy, RunSettings, RunState
from agent.migration.replay import replay
from tests.migration.world import COUNTER, Unruly, World

Writer = Callable[..., Path]


def test_a_full_disk_lets_nothing_out_without_its_before_image(world: World, write_definition: Writer) -> None:
    """The journal is cut short by the kernel: the run ends, and each document that it changed can be put back."""
    world.put({f"counters/c-{i:04d}": {"n": 3, "text": f"{i:04d}" * 500} for i in range(300)})
    before = world.fingerprint()
    write_definition(COUNTER)
    address = world.firestore.address
    worker = [sys.executable, "-m", "tests.migration.worker_program", str(address.host), address.project]
    limited = ["sh", "-c", 'ulimit -f 20; exec "$@"', "sh", *worker, str(world.folder), "run", ""]  # 10 or 20 KiB

    ended = subprocess.run(limited, capture_output=True, text=True, timeout=100, check=False)

    assert ended.returncode == 1
    assert "no room left for the undo journal" in ended.stderr
    migrations = world.migrations()
    status = migrations.status()
    assert status is not None
    assert status.record.state is RunState.FAILED
    changed = sum(fields["n"] == 4 for fields in world.all("counters").values())
    journalled = replay(world.folder / "data" / "migrations" / status.record.id / "journal").next_sequence
    assert 0 < changed <= journalled < 300

    assert migrations.undo().record.undone == changed
    assert world.fingerprint() == before


def test_documents_near_the_limit_travel_in_small_batches(world: World, write_definition: Writer) -> None:
    """Forty documents of 900 KB: no request is over the server's limit, no chunk fills the memory, all come back."""
    world.put({f"counters/big-{i:02d}": {"n": i * 7 % 40, "text": chr(97 + i % 26) * 900_000} for i in range(40)})
    before = world.fingerprint()
    write_definition(COUNTER)
    sizes: list[int] = []
    unruly = Unruly(world.firestore, meddle=lambda _, writes: sizes.append(sum(len(w.fields) for w in writes)))
    migrations = world.migrations(unruly, settings=RunSettings(batch_size=500, parallel=2))

    report = migrations.run("0001")

    assert report.record.counts.written == 40
    assert max(sizes) < 6_000_000
    migrations.undo(report.record.id)
    assert world.fingerprint() == before


def test_clocks_that_jump_confuse_nobody(world: World, write_definition: Writer) -> None:
    """An hour back between each of run, resume and undo: what is to be done follows from records, not from clocks."""
    world.counters(60)
    before = world.fingerprint()
    write_definition(COUNTER)
    clock = ManualClock(datetime.now(UTC))
    migrations = world.migrations(clock=clock, settings=RunSettings(batch_size=20, parallel=1))
    unruly = Unruly(world.firestore)
    stopping = world.migrations(unruly, clock=clock, settings=RunSettings(batch_size=20, parallel=1))
    with pytest.raises(Permanent):
        stopping.run("0001", cancelled=lambda: unruly.requests >= 1)
    run = migrations.status()
    assert run is not None
    clock.jump(-3600)
    assert migrations.resume(run.record.id).record.counts.written == 60
    clock.jump(-3600)
    assert migrations.undo(run.record.id).record.state is RunState.UNDONE
    assert world.fingerprint() == before
    assert [listed.state for listed in migrations.list()] == ["undone"]


class Expiring(Unruly):
    """Old versions are served for a few documents only: a machine that slept through the hour."""

    served = 45  # more than the plan's sample

    def pages(self, scope: CollectionGroup, read_time: datetime) -> Iterator[list[RawDocument]]:
        for page in super().pages(scope, read_time):
            yield page[: self.served]
            if len(page) > self.served:
                raise Permanent(PermanentReason.READ_TIME_EXPIRED, "the read_time is too old")


def test_a_scan_whose_hour_is_over_goes_on_at_a_new_time(world: World, write_definition: Writer) -> None:
    """Behind the last document that was read; each is migrated once."""
    world.counters(100)
    write_definition(COUNTER)
    report = world.migrations(Expiring(world.firestore)).run("0001")
    assert report.record.counts.written == 100
    assert world.increments() == {1}


def test_a_scan_that_gets_nowhere_ends(world: World, write_definition: Writer) -> None:
    """A server that serves not even a fresh time is an error, not an endless loop."""
    world.counters(10)
    write_definition(COUNTER)
    broken = Expiring(world.firestore)
    broken.served = 0
    migrations = world.migrations(broken)
    with pytest.raises(Permanent) as expired:
        migrations.dry_run("0001")
    assert expired.value.reason is PermanentReason.READ_TIME_EXPIRED


def test_a_database_with_nothing_in_it(world: World, write_definition: Writer) -> None:
    """Nothing to migrate needs no measured rate; it runs, validates and is undone."""
    write_definition(COUNTER)
    migrations = world.migrations(policy=RunbookPolicy(undo_budget=timedelta(minutes=3)))
    report = migrations.run("0001")
    assert (report.record.state, report.record.counts.scanned) == (RunState.DONE, 0)
    assert migrations.validate("0001").passed
    assert migrations.undo().record.state is RunState.UNDONE


def test_a_few_documents_in_an_hour_are_a_run_like_any_other(world: World, write_definition: Writer) -> None:
    """One document every few minutes: each is checkpointed by itself, and the pinned time is renewed on the way."""
    world.counters(12)
    write_definition(COUNTER)
    clock = ManualClock(datetime.now(UTC))
    settings = RunSettings(batch_size=500, parallel=1, rate_limit=1 / 600)
    report = world.migrations(clock=clock, settings=settings).run("0001")
    assert report.record.counts.written == 12
    assert clock.monotonic() > 11 * 600 - 1
    assert world.increments() == {1}
