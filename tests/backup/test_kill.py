"""``kill -9`` at any step: no listed backup is broken, nothing is left locked, a restore goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.backup import Backups, BackupType
from agent.firestore import Firestore
from agent.storage import DirectoryStorage
from tests.backup.conftest import Running, contents, write

Make = Callable[..., Backups]

MANY = pytest.mark.parametrize(
    "seed", [pytest.param(1), *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 26))]
)


class Bench:
    """A database, two storages, and processes that are killed while they work on them."""

    def __init__(self, firestore: Firestore, host: str, folder: Path, make: Make) -> None:
        self.firestore = firestore
        self._host = host
        self.folder = folder
        storages = [DirectoryStorage(name=name, path=folder / name) for name in ("one", "two")]
        self.backups = make(firestore, *storages)

    def run(self, steps: int, *operation: str) -> bool:
        """Run an operation that is killed after ``steps``; whether it ended before."""
        command = [sys.executable, str(Path(__file__).with_name("killed.py")), self._host]
        command += [self.firestore.address.project, str(self.folder), str(steps), *operation]
        ended = subprocess.run(command, check=False, capture_output=True, timeout=60)
        assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr.decode()
        return ended.returncode == 0

    def assert_sound(self) -> None:
        """Every listed backup verifies, and nothing holds a lease."""
        for summary in self.backups.list():
            assert self.backups.verify(summary.id).problems == ()
            assert not summary.in_use


@pytest.fixture
def bench(firestore: Firestore, sandbox: Running, tmp_path: Path, backups_of: Make) -> Bench:
    """The database holds a few documents."""
    write(firestore, {f"users/u{number:03d}": {"n": number} for number in range(200)})
    return Bench(firestore, sandbox.host, tmp_path, backups_of)


@MANY
def test_a_killed_create_leaves_a_whole_backup_or_none(bench: Bench, seed: int) -> None:
    """Killed at seeded steps, a create leaves nothing listed that is broken; leftovers go, and the next one works."""
    draw = random.Random(seed)
    for kind in (BackupType.FULL, BackupType.INCREMENTAL):
        for steps in draw.sample(range(24), 3):
            bench.run(steps, "create", kind)
            bench.assert_sound()
    bench.backups.clean(dry_run=False)
    listed = {summary.id for summary in bench.backups.list()}
    for storage in ("one", "two"):
        folders = {path.name for path in (bench.folder / storage).glob("*")}
        assert folders <= listed
        assert not list((bench.folder / storage).rglob(".partial-*"))
    manifest = bench.backups.create(BackupType.FULL)
    assert bench.backups.verify(manifest.id).ok


@MANY
def test_a_killed_restore_goes_on(bench: Bench, seed: int) -> None:
    """Killed at a seeded step, a restore is listed as interrupted; the same restore again loses and doubles nothing."""
    draw = random.Random(seed)
    before = contents(bench.firestore)
    backup = bench.backups.create(BackupType.FULL).id
    for steps in (draw.randrange(6), 6 + draw.randrange(4)):
        write(bench.firestore, {f"users/u{number:03d}": {"n": -1} for number in range(0, 200, 2)})
        write(bench.firestore, {f"users/x{number:03d}": {} for number in range(20)})
        ended = bench.run(steps, "restore", backup)
        changed = contents(bench.firestore) != before
        interrupted = [one.backup for one in bench.backups.interrupted_restores()]
        if changed and not ended and interrupted == []:
            # Killed before the first write: the database is as the test left it.
            assert len(contents(bench.firestore)) == 220
        bench.assert_sound()
        assert bench.backups.restore(backup, delete_extra=True).complete
        assert contents(bench.firestore) == before
        assert bench.backups.interrupted_restores() == ()


@MANY
def test_a_killed_clean_breaks_nothing(bench: Bench, seed: int) -> None:
    """Killed in the middle of removing, a clean leaves only whole backups listed; the next one finishes the work."""
    draw = random.Random(seed)
    for _ in range(3):
        last = bench.backups.create(BackupType.FULL)
    bench.backups.verify(last.id)
    for steps in sorted(draw.sample(range(30), 2)):
        bench.run(steps, "clean")
        bench.assert_sound()
        assert last.id in {summary.id for summary in bench.backups.list()}
    assert bench.run(10_000, "clean")
    assert [path.name for path in (bench.folder / "one").iterdir()] == [last.id]
    assert [path.name for path in (bench.folder / "two").iterdir()] == [last.id]
