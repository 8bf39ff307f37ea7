"""What is looked at before a run: enough to tell, and never more than a worker can hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from agent.clock import SystemClock
from agent.firestore import PlannedWrite, WriteOutcome
from agent.migration import find_definition
from agent.migration.sampling import probe, take_sample
from tests.migration.world import COUNTER, Unruly, World


class Watched(Unruly):
    """Keeps how large the probe's writes were; deletes are empty."""

    def __init__(self, world: World) -> None:
        super().__init__(world.firestore)
        self.sizes: list[list[int]] = []

    def write(self, writes: Iterable[PlannedWrite], *, origin: str, parallel: int = 8) -> Iterable[WriteOutcome]:
        planned = list(writes)
        self.sizes.append([len(write.fields) for write in planned])
        return super().write(planned, origin=origin, parallel=parallel)


def test_small_documents_are_sampled_by_number(world: World, write_definition: Callable[..., Path]) -> None:
    """Forty of each collection; the probe writes a thousand, all of them gone afterwards."""
    world.counters(60)
    folder = write_definition(COUNTER).parent
    sample = take_sample(find_definition(folder, "0001"), world.firestore, ("counters", "nobody"))
    assert sample.found.seen == {"counters": 40, "nobody": 0}
    assert (sample.found.documents, sample.found.changed) == (40, 40)
    assert len(sample.bodies) == 40
    before = world.fingerprint()
    watched = Watched(world)
    rate = probe(watched, sample.bodies, SystemClock())
    assert rate is not None
    assert rate.documents_per_second > 0
    assert [len(sizes) for sizes in watched.sizes] == [1000, 1000, 1000]
    assert world.fingerprint() == before
    assert world.all("scratch") == {}


def test_large_documents_are_sampled_by_bytes(world: World, write_definition: Callable[..., Path]) -> None:
    """Of documents of 700 KB a dozen, enough to find stamped fields by; a probe of 17 MB instead of 700."""
    world.put({f"counters/c-{i:02d}": {"n": i * 7 % 20, "body": os.urandom(700_000)} for i in range(20)})
    folder = write_definition(COUNTER).parent
    sample = take_sample(find_definition(folder, "0001"), world.firestore, ("counters",))
    assert sample.found.seen == {"counters": 12}
    assert [len(body) // 100_000 for body in sample.bodies] == [7, 7]
    watched = Watched(world)
    assert probe(watched, sample.bodies, SystemClock()) is not None
    assert [len(sizes) for sizes in watched.sizes] == [24, 24, 24]
    assert sum(watched.sizes[0]) < 20_000_000
