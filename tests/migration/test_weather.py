"""Every third write request fails on the wire, before or after the server applied it, while users go on writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.firestore import DatabaseAddress, Firestore, RetryPolicy
from agent.migration import Counts, RunSettings, RunState
from agent.sandbox import Direction, Fault, FaultKind, ProxyProcess, start_proxy
from tests.migration.conftest import Host
from tests.migration.test_kill import DOCUMENTS, Users
from tests.migration.world import COUNTER, World, start

SETTINGS = RunSettings(batch_size=10, parallel=3)


@pytest.fixture
def proxy(backend: Host) -> Iterator[ProxyProcess]:
    """Between the migration and the database; users go past it."""
    with start_proxy(backend.host) as process:
        yield process


@pytest.mark.parametrize("code", ["UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"])
def test_every_third_batch_failing_loses_nothing(
    world: World, write_definition: Callable[..., Path], proxy: ProxyProcess, code: str
) -> None:
    """Totals balance, every counter ends at exactly + 1 and then at + 0, and every note of a user is kept."""
    world.counters(DOCUMENTS)
    write_definition(COUNTER)
    users = Users(world, 7)
    for direction in Direction:
        proxy.inject(
            Fault(kind=FaultKind.ERRORS, marker=b"", every=3, code=code, methods=("BatchWrite",), direction=direction)
        )
    address = DatabaseAddress(project=world.firestore.address.project, host=proxy.host)
    retry = RetryPolicy(first=0.01, ceiling=0.1, budget=5.0)
    with (
        Firestore(address, telemetry=world.telemetry, origin="test", retry=retry) as firestore,
        users.writing(),
    ):
        migrations = world.migrations(firestore, settings=SETTINGS)
        record = migrations.run("0001").record
        assert record.state is RunState.DONE
        assert (record.counts.scanned, record.counts.written) == (DOCUMENTS, DOCUMENTS)
        assert record.counts.balanced
        assert world.increments() == {1}

        undone = migrations.undo(record.id)

    found = world.all("counters")
    assert {path: fields["note"] for path, fields in found.items() if "note" in fields} == users.notes
    left = {path for path, fields in found.items() if fields["n"] != start(int(path[-4:]))}
    assert {found[path]["n"] - start(int(path[-4:])) for path in left} <= {1}
    assert left <= {item.name for item in undone.findings.kept}
    assert undone.record.undone + undone.record.kept == DOCUMENTS
    assert Counts() != record.counts
