"""``kill -9`` at any moment of run, resume and undo, while users go on writing."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.firestore import (
    DatabaseAddress,
    Firestore,
    MustExistAt,
    PlannedWrite,
    WriteState,
    decode_fields,
    encode_fields,
)
from agent.migration import RunState
from agent.telemetry import Telemetry
from tests.background import repeatedly
from tests.migration.conftest import Host
from tests.migration.world import COUNTER, World, start

DOCUMENTS = 300

Writer = Callable[..., Path]


class Killer:
    """Starts workers and kills the first few at seeded moments."""

    def __init__(self, world: World, draw: random.Random, kills: int) -> None:
        self._world = world
        self._draw = draw
        self._left = kills
        self.kills = 0

    def work(self, action: str, run_id: str = "") -> None:
        """One worker; killed after some signs of progress, perhaps in the middle of its next batch."""
        address = self._world.firestore.address
        arguments = [str(address.host), address.project, str(self._world.folder), action, run_id]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.migration.worker_program", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            if self._left:
                self._kill_later(process)
            _, error = process.communicate()
        assert process.returncode in (0, -9), error

    def _kill_later(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for _ in range(self._draw.randrange(0, DOCUMENTS // 10 + 5)):
            if not process.stdout.readline():
                return
        try:
            process.wait(self._draw.random() * 0.03)
        except subprocess.TimeoutExpired:
            process.kill()
            self._left -= 1
            self.kills += 1


class Users:
    """Users who leave notes, each under the precondition that nobody wrote meanwhile."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._draw = random.Random(f"users {seed}")
        self.notes: dict[str, int] = {}

    @contextmanager
    def writing(self) -> Iterator[None]:
        with repeatedly(self._note, pause=lambda: self._draw.random() * 0.02):
            yield

    def _note(self) -> None:
        firestore = self._world.firestore
        path = f"counters/c-{self._draw.randrange(DOCUMENTS):04d}"
        name = firestore.address.name(path)
        found = firestore.get([name])[name]
        assert found is not None
        note = self.notes.get(path, 0) + 1
        write = PlannedWrite(
            name=name,
            fields=encode_fields({**decode_fields(found.raw), "note": note}),
            precondition=MustExistAt(found.update_time),
        )
        (outcome,) = firestore.write([write], origin="application", parallel=1)
        if outcome.state is WriteState.APPLIED:
            self.notes[path] = note


def check_run(world: World, seed: int, kills: int = 2) -> int:
    """Kill a run and its resumes, then the undo and its resumes; ``kills`` times each. Returns how often."""
    draw = random.Random(f"kill {seed}")
    killer = Killer(world, draw, kills)
    users = Users(world, seed)
    world.counters(DOCUMENTS)
    migrations = world.migrations()

    with users.writing():
        while (status := migrations.status()) is None:
            killer.work("run")
        while status.record.state is not RunState.DONE:
            killer.work("resume", status.record.id)
            status = migrations.status(status.record.id)
            assert status is not None

    found = world.all("counters")
    assert world.increments() == {1}
    assert {path: fields["note"] for path, fields in found.items() if "note" in fields} == users.notes
    assert status.record.counts.scanned == DOCUMENTS

    run = status.record.id
    late = Users(world, seed + 1)
    late.notes = users.notes
    undoer = Killer(world, draw, kills)
    with late.writing():
        while (status := migrations.status(run)) is not None and status.record.state is not RunState.UNDONE:
            undoer.work("undo", run)

    found = world.all("counters")
    assert {path: fields["note"] for path, fields in found.items() if "note" in fields} == users.notes
    changed = {path for path, fields in found.items() if fields["n"] != start(int(path[-4:]))}
    assert {found[path]["n"] - start(int(path[-4:])) for path in changed} <= {1}
    # Whatever is not as before the migration is listed as changed by users.
    assert changed <= {item.name for item in migrations.undo(run).findings.kept}
    return killer.kills + undoer.kills


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_during_run_resume_and_undo(world: World, write_definition: Writer, seed: int) -> None:
    """However often it is killed, every counter ends at exactly + 1, then at + 0, and every note is kept."""
    write_definition(COUNTER)
    assert check_run(world, seed) > 0


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_two_hundred_kills(backend: Host, project: str, tmp_path: Path, telemetry: Telemetry) -> None:
    """The same over seed after seed, each with a database of its own, until 200 workers have been killed."""
    kills = 0
    for seed in itertools.count(100):
        folder = tmp_path / str(seed)
        (folder / "definitions").mkdir(parents=True)
        (folder / "definitions" / "0001_test.py").write_text(textwrap.dedent(COUNTER), encoding="utf-8")
        address = DatabaseAddress(project=f"{project}-{seed}", host=backend.host)
        with Firestore(address, telemetry=telemetry, origin="test") as firestore:
            kills += check_run(World(firestore=firestore, folder=folder, telemetry=telemetry), seed, kills=5)
        sys.stderr.write(f"seed {seed}: {kills} kills\n")  # shown with -s: it takes a while
        if kills >= 200:
            return
