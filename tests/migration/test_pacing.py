"""The gate before each batch: orders, the throttle, rates and the ramp of new collections, on a manual clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent.clock import ManualClock
from agent.faults import Permanent, PermanentReason
from agent.firestore import NEW_COLLECTION
from agent.migration.chronicle import Chronicle, Entry, Event, wishes
from agent.migration.governor import Governor, Standing
from agent.migration.pace import Pace, ramp_seconds
from agent.migration.throttle import Band, Load, LoadLimits
from agent.migration.vitals import LoadFile, Vitals, nothing_known

LIMITS = LoadLimits(latency=Band(warning=0.2, critical=0.5))


class Acting(ManualClock):
    """A manual clock on which something happens at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: list[tuple[float, Callable[[], object]]] = []

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        while self.plan and self.plan[0][0] <= self.monotonic():
            self.plan.pop(0)[1]()


class Gate:
    """A pace with everything that tells it what to do."""

    def __init__(self, folder: Path, *, rate: float | None = None, vitals: Vitals = nothing_known) -> None:
        self.clock = Acting()
        self.chronicle = Chronicle(folder / "chronicle.jsonl")
        self.told: list[Standing] = []
        self.cancelled = False
        self.new = {"fresh"}
        governor = Governor(
            chronicle=self.chronicle,
            vitals=vitals,
            limits=LIMITS,
            rate=rate,
            clock=self.clock,
            tell=self.told.append,
        )
        self.pace = Pace(governor, self.clock, lambda: self.cancelled, is_new=lambda name: name in self.new)

    def order(self, event: Event, **values: object) -> None:
        entry = Entry(at=self.clock.now(), event=event, owner="ana", reason="peak hour")
        self.chronicle.append(replace(entry, **values))  # type: ignore[arg-type]

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        self.clock.plan.append((seconds, act))

    def seconds(self, documents: int, batch: int = 100) -> float:
        """How long writing so many takes."""
        began = self.clock.monotonic()
        for _ in range(0, documents, batch):
            self.pace.take(batch)
        return self.clock.monotonic() - began


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_without_limits_nobody_waits(gate: Gate) -> None:
    """No rate, no orders, no load: the gate costs no time."""
    assert gate.seconds(100_000) == 0


def test_a_pause_holds_until_somebody_says_go_on(gate: Gate) -> None:
    """Nothing is written while it is paused; who paused it, and why, is told; then it goes on at once."""
    gate.order(Event.PAUSE)
    gate.at(600, lambda: gate.order(Event.GO_ON))
    assert 600 <= gate.seconds(100) <= 602
    assert [(one.waits, one.paused, one.words) for one in gate.told] == [
        (True, True, "paused by ana: peak hour"),
        (False, False, ""),
    ]


def test_a_pause_may_end_by_itself(gate: Gate) -> None:
    """With an end, nobody has to be awake for it."""
    gate.order(Event.PAUSE, until=gate.clock.now() + timedelta(minutes=30))
    assert 1800 <= gate.seconds(100) <= 1802
    assert "until 00:30:00Z" in gate.told[0].words


def test_a_paused_run_that_is_told_to_stop_stops(gate: Gate) -> None:
    """A pause is no reason to sit out a rollback."""
    gate.order(Event.PAUSE)

    def stop() -> None:
        gate.cancelled = True

    gate.at(3, stop)
    with pytest.raises(Permanent) as stopped:
        gate.pace.take(1)
    assert stopped.value.reason is PermanentReason.CANCELLED
    assert gate.clock.monotonic() <= 4


def test_a_rate_and_a_batch_size_are_heard_while_it_works(tmp_path: Path) -> None:
    """What is set holds from the next second on, below the settings' own ceiling; the last word counts."""
    gate = Gate(tmp_path, rate=1000)
    assert gate.seconds(2000) == pytest.approx(1.9, abs=0.3)
    gate.order(Event.RATE, value=100.0)
    gate.order(Event.BATCH_SIZE, value=400.0)
    gate.order(Event.BATCH_SIZE, value=50.0)
    assert gate.seconds(2000) >= 18
    assert (gate.pace.rate, gate.pace.batch_size) == (100.0, 50)
    gate.order(Event.RATE, value=5000.0)
    gate.seconds(1000)
    assert gate.pace.rate == 1000


def test_it_slows_down_by_the_load_and_comes_back(tmp_path: Path) -> None:
    """Latency near the page's warning halves the rate; it is told, written to the chronicle, and ends."""
    load = [Load(latency=0.19)]
    gate = Gate(tmp_path, rate=1000, vitals=lambda: load[0])
    gate.at(20, lambda: load.__setitem__(0, Load(latency=0.05)))
    took = gate.seconds(20_000)
    assert took > 25
    assert gate.told[0].words.startswith("slowed down: queries take 190 ms (p95)")
    assert gate.told[-1] == Standing(rate=1000)
    entries = [entry for entry in gate.chronicle.read() if entry.event is Event.THROTTLE]
    assert [entry.detail.split(":")[0].split(" to ")[0] for entry in entries] == ["slowed down", "at full speed again"]


def test_a_load_that_stays_critical_ends_the_run(tmp_path: Path) -> None:
    """It waits, looks again after the recheck, and gives up with the figures; nothing was written meanwhile."""
    gate = Gate(tmp_path, vitals=lambda: Load(latency=0.6))
    with pytest.raises(Permanent) as gave_up:
        gate.pace.take(1)
    assert gave_up.value.reason is PermanentReason.UNHEALTHY
    assert "600 ms" in gave_up.value.message
    assert 40 <= gate.clock.monotonic() <= 42
    assert [entry.detail.split(":")[0] for entry in gate.chronicle.read()] == [
        "stopped writing for a while",
        "gave up",
    ]


def test_a_pause_is_not_given_up_because_of_the_load(tmp_path: Path) -> None:
    """While somebody keeps it paused, the load is not the run's."""
    load = [Load(latency=0.6)]
    gate = Gate(tmp_path, vitals=lambda: load[0])
    gate.order(Event.PAUSE)
    gate.at(500, lambda: load.__setitem__(0, Load()))
    gate.at(600, lambda: gate.order(Event.GO_ON))
    assert gate.seconds(100) >= 600


def test_a_new_collection_is_ramped_and_an_old_one_is_not(gate: Gate) -> None:
    """500 a second for five minutes, then half as much more; where documents were before, as fast as it goes."""
    for _ in range(400):
        gate.pace.create(["old"] * 500)
    assert gate.clock.monotonic() == 0
    created = 0
    while gate.clock.monotonic() < 299:
        gate.pace.create(["fresh"] * 500)
        created += 500
    assert created / gate.clock.monotonic() == pytest.approx(500, rel=0.02)
    began, created = 301.0, 0
    gate.clock.advance(began - gate.clock.monotonic())
    gate.pace.create(["fresh"] * 750)  # uses up what the pause had saved
    began = gate.clock.monotonic()
    while gate.clock.monotonic() < 590:
        gate.pace.create(["fresh"] * 500)
        created += 500
    assert created / (gate.clock.monotonic() - began) == pytest.approx(750, rel=0.03)


def test_what_a_ramp_takes() -> None:
    """The figure that plans use: 306,725 documents in one new collection take 509 s."""
    assert ramp_seconds(500) == 1
    assert ramp_seconds(150_000) == 300
    assert round(ramp_seconds(306_725)) == 509
    assert ramp_seconds(1000, replace(NEW_COLLECTION, growth=1.0)) == 2


def test_the_chronicle_survives_a_torn_line(tmp_path: Path) -> None:
    """A writer that was killed in the middle of a line costs that line alone; a later version's events are left out."""
    path = tmp_path / "chronicle.jsonl"
    chronicle = Chronicle(path)
    clock = ManualClock()
    first = Entry(at=clock.now(), event=Event.PAUSE, owner="ana", reason='a "quoted"\nreason', until=clock.now())
    assert chronicle.read() == ()
    chronicle.append(first)
    with path.open("ab") as file:
        file.write(b'\n{"at": "2026-01-01T00:00:00Z", "event": "resume_en\xff')
    last = Entry(at=clock.now(), event=Event.BATCH_SIZE, value=50.0)
    chronicle.append(last)
    with path.open("ab") as file:
        file.write(b'{"at": "2026-01-01T00:00:00Z", "event": "of a later version"}\n[]\n')
    assert chronicle.read() == (first, last)
    assert wishes(chronicle.read(), clock.now()).pause is None


def test_what_the_daemon_publishes_is_believed_for_ten_seconds(tmp_path: Path) -> None:
    """A stale, torn, future or missing figure is not known, and never passes for a good one or a bad one."""
    clock = ManualClock()
    file = LoadFile(tmp_path / "load.json", clock)
    assert file() == Load()
    file.publish(Load(latency=0.3, errors=None, reversal="it is slow"))
    clock.advance(10)
    assert file() == Load(latency=0.3, reversal="it is slow")
    clock.advance(1)
    assert file() == Load()
    clock.jump(-3600)
    assert file() == Load()
    (tmp_path / "load.json").write_text('{"at": "2026-01-0')
    assert file() == Load()
