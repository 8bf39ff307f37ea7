"""A recovery on a world of its own, on a disk of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import ManualClock
from agent.runbook import load_runbook
from tests.recovery.world import Bench, World

PAGE = Path(__file__).parents[2] / "runbooks" / "firestore-operations.md"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    clock = ManualClock()
    found = Bench(path=tmp_path / "state.db", policy=load_runbook(PAGE), clock=clock, world=World(clock=clock))
    yield found
    found.state.close()
