"""Telling a run what to do while it works, and its own restraint, on a real database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.clock import ManualClock, SystemClock
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason
from agent.firestore import PlannedWrite
from agent.migration import Band, Entry, Event, Load, LoadLimits, Migrations, RunbookPolicy, RunSettings, RunState
from agent.migration.vitals import OwnVitals
from agent.telemetry import Progress
from agent.telemetry.catalogue import DB_OPERATION_DURATION
from tests.migration.world import COUNTER, Unruly, World

Writer = Callable[..., Path]
SMALL = RunSettings(batch_size=20, parallel=2)


def order(event: Event, value: float | None = None) -> Entry:
    return Entry(at=datetime.now(UTC), event=event, owner="ana", reason="peak hour", value=value)


class Clockwork(ManualClock):
    """A manual clock on which whoever waits is heard: ``waited`` is called at each nap."""

    def __init__(self, waited: Callable[[], None]) -> None:
        super().__init__(datetime.now(UTC))
        self._waited = waited

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self._waited()


def test_a_run_is_paused_and_goes_on(world: World, write_definition: Writer) -> None:
    """While it is paused nothing is written and its record says by whom; then it ends with every counter at + 1."""
    world.counters(200)
    write_definition(COUNTER)
    seen: list[Progress] = []
    naps: list[RunState] = []
    other: list[Migrations] = []

    def waited() -> None:
        status = other[0].status()
        assert status is not None
        naps.append(status.record.state)
        if len(naps) == 1:
            assert (status.alive, status.interrupted) == (True, False)
            assert status.record.pace == "paused by ana: peak hour"
        if len(naps) == 40:
            other[0].order(order(Event.GO_ON))

    clock = Clockwork(waited)

    def meddle(number: int, _writes: Sequence[PlannedWrite]) -> None:
        if number == 3:
            other[0].order(order(Event.PAUSE))
        clock.advance(1)

    migrations = world.migrations(Unruly(world.firestore, meddle=meddle), settings=SMALL, clock=clock)
    other.append(world.migrations())
    report = migrations.run("0001", progress=seen.append)

    assert set(naps[:40]) == {RunState.PAUSED}
    assert report.record.state is RunState.DONE
    assert report.record.pace == ""
    assert report.record.seconds < 15, "waiting is not time that the migration takes"
    assert any(progress.paused for progress in seen)
    assert world.increments() == {1}


def test_a_pause_outlives_the_process(world: World, write_definition: Writer) -> None:
    """A run that was paused and stopped waits when it is resumed, until somebody says go on."""
    world.counters(100)
    write_definition(COUNTER)
    unruly = Unruly(world.firestore)
    migrations = world.migrations(unruly, settings=SMALL)
    with pytest.raises(Permanent):
        migrations.run("0001", cancelled=lambda: unruly.requests >= 2)
    status = migrations.status()
    assert status is not None
    run = status.record.id
    migrations.order(order(Event.PAUSE), run)
    before, naps = unruly.requests, threading.Event()

    def waited() -> None:
        naps.set()
        assert unruly.requests == before

    worker = world.migrations(unruly, settings=SMALL, clock=Clockwork(waited))
    stop = threading.Event()
    failures: list[Permanent] = []

    def work() -> None:
        try:
            worker.resume(run, cancelled=stop.is_set)
        except Permanent as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert naps.wait(30)
    finally:
        stop.set()
        thread.join()
    assert [error.reason for error in failures] == [PermanentReason.CANCELLED]
    assert migrations.wishes(run).pause is not None

    migrations.order(order(Event.GO_ON), run)
    assert migrations.resume(run).record.state is RunState.DONE
    assert world.increments() == {1}


def test_a_batch_size_is_changed_while_it_works(world: World, write_definition: Writer) -> None:
    """From the second after it was said on, batches have the new size, also in later sessions."""
    world.counters(200)
    write_definition(COUNTER)
    sizes: list[int] = []
    clock = ManualClock(datetime.now(UTC))

    def meddle(number: int, writes: Sequence[PlannedWrite]) -> None:
        sizes.append(len(writes))
        if number == 1:
            world.migrations().order(order(Event.BATCH_SIZE, 5))
        clock.advance(1)

    settings = RunSettings(batch_size=20, parallel=1, validate=False)
    unruly = Unruly(world.firestore, meddle=meddle)
    migrations = world.migrations(unruly, settings=settings, clock=clock)
    with pytest.raises(Permanent):
        migrations.run("0001", cancelled=lambda: len(sizes) >= 10)
    assert sizes[0] == 20
    assert sizes[-1] == 5
    resumed = len(sizes)
    status = migrations.status()
    assert status is not None
    migrations.resume(status.record.id)
    assert set(sizes[resumed:]) == {5}
    assert world.increments() == {1}


MOVING = """
    from agent.migration import DELETE

    collections = ("counters",)
    reads_both_shapes = True

    def transform(document):
        return [document.elsewhere(f"{TARGET}/{document.id}"), DELETE]
"""


@pytest.mark.parametrize("target", ["archive", "old"])
def test_only_a_collection_that_was_empty_is_ramped(world: World, write_definition: Writer, target: str) -> None:
    """600 documents into a new collection take more than a second at 500/s; an old one takes them as they come."""
    world.counters(600)
    world.put({"old/o": {"n": 1}})
    write_definition(MOVING.replace("{TARGET}", target))
    clock = ManualClock(datetime.now(UTC))
    migrations = world.migrations(settings=RunSettings(batch_size=100, parallel=1), clock=clock)
    (gate,) = [gate for gate in migrations.plan("0001").gates if gate.name == "new collections are ramped"]
    assert ("archive, which is empty" in gate.detail) is (target == "archive")
    began = clock.monotonic()

    report = migrations.run("0001")

    assert report.record.counts.created == 600
    took = clock.monotonic() - began
    assert (0.9 < took < 1.5) if target == "archive" else took == 0
    migrations.undo()
    assert len(world.all("counters")) == 600
    assert world.all(target).keys() <= {"old/o"}


def test_a_run_that_is_disarmed_says_so_in_its_record_and_report(world: World, write_definition: Writer) -> None:
    """Whoever decides about a rollback reads there that it is for a person."""
    world.counters(50)
    write_definition(COUNTER)
    policy = RunbookPolicy(undo_budget=timedelta(microseconds=1))
    migrations = world.migrations(policy=policy)
    with pytest.raises(Refused) as refused:
        migrations.run("0001")
    assert refused.value.reason is RefusedReason.UNDO_OVER_BUDGET
    assert "--disarm" in refused.value.hint

    record = migrations.run("0001", disarmed="the team is at the table").record

    assert record.disarmed == "the team is at the table"
    report = (world.folder / "reports" / f"migration-report-{record.id}.md").read_text()
    assert "it is not rolled back by itself: the team is at the table" in report


def test_a_run_that_has_ended_takes_no_orders(world: World, write_definition: Writer) -> None:
    """There is nothing to pause; who tries is told so."""
    world.counters(5)
    write_definition(COUNTER)
    migrations = world.migrations()
    migrations.run("0001")
    with pytest.raises(Permanent) as refused:
        migrations.order(order(Event.PAUSE))
    assert refused.value.reason is PermanentReason.INVALID


def test_a_critical_load_stops_the_run_which_can_be_resumed(world: World, write_definition: Writer) -> None:
    """By what the daemon's rules see: it waits, looks once more, gives up; later it does exactly the rest."""
    world.counters(200)
    write_definition(COUNTER)
    load = [Load()]
    clock = ManualClock(datetime.now(UTC))

    def meddle(number: int, _writes: Sequence[PlannedWrite]) -> None:
        clock.advance(1)
        if number == 3:
            load[0] = Load(errors=0.02)

    unruly = Unruly(world.firestore, meddle=meddle)
    policy = RunbookPolicy(limits=LoadLimits(errors=Band(warning=0.005, critical=0.01)))
    migrations = world.migrations(unruly, settings=SMALL, clock=clock, policy=policy, published=lambda: load[0])

    with pytest.raises(Permanent) as stopped:
        migrations.run("0001")

    assert stopped.value.reason is PermanentReason.UNHEALTHY
    status = migrations.status()
    assert status is not None
    assert status.record.state is RunState.FAILED
    assert "2.0% of operations fail" in status.record.error
    assert 0 < status.record.counts.written < 200

    load[0] = Load()
    assert migrations.resume(status.record.id).record.counts.written == 200
    assert world.increments() == {1}


def test_a_run_waits_while_it_is_about_to_be_rolled_back(world: World, write_definition: Writer) -> None:
    """What the daemon's rules say reaches the run; when it has passed, the run goes on to its end."""
    world.counters(200)
    write_definition(COUNTER)
    slower = Load(reversal="user_lookup is slower than before the migration")
    load, naps = [Load()], [0]

    def waited() -> None:
        naps[0] += 1
        if naps[0] == 40:
            load[0] = Load()

    clock = Clockwork(waited)

    def meddle(number: int, _writes: Sequence[PlannedWrite]) -> None:
        clock.advance(1)
        if number == 3:
            load[0] = slower

    unruly = Unruly(world.firestore, meddle=meddle)
    policy = RunbookPolicy(limits=LoadLimits(matrix=True))
    migrations = world.migrations(unruly, settings=SMALL, clock=clock, policy=policy, published=lambda: load[0])

    report = migrations.run("0001")

    assert report.record.counts.written == 200
    assert naps[0] >= 40
    text = (world.folder / "reports" / f"migration-report-{report.record.id}.md").read_text()
    assert f"stopped writing for a while: {slower.reversal}, for which the page's matrix rolls back" in text
    assert world.increments() == {1}


def test_a_run_feels_the_database_itself(world: World) -> None:
    """Without any daemon: how long a read takes, and how many of the process's own operations fail."""
    name = world.firestore.address.name("_migrations", "probe")
    clock = SystemClock()
    vitals = OwnVitals(database=world.firestore, name=name, telemetry=world.telemetry, clock=clock)
    for _ in range(12):
        vitals.look()
    load = vitals()
    assert load.errors == 0.0
    assert load.latency is not None
    assert 0 < load.latency < 30
    failing = {"db.system.name": "gcp.firestore", "db.operation.name": "BatchWrite", "error.type": "unavailable"}
    for _ in range(12):
        world.telemetry.record(DB_OPERATION_DURATION, 0.1, failing)
    vitals.look()
    assert vitals().errors is not None
    assert 0.3 < (vitals().errors or 0) < 0.7
