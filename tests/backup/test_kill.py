"""``kill -9`` at any moment: no listed backup is broken, nothing is left locked, a restore goes on.

Moments are seeded. Some are steps (before, within and after each change to a storage, each report of progress), which
meets every place where the code could have left something half; others are bytes on the wire, which meets the middle
of requests that no code sees. CI runs one seed; ``pytest -m slow tests/backup/test_kill.py`` runs 25 more, and tells
how many kills there were.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent.backup import Backups, BackupType
from agent.firestore import Firestore
from agent.storage import DirectoryStorage, GcsStorage, Storage
from tests.backup.conftest import Running, contents, write
from tests.storage.conftest import fake_gcs, new_bucket
from tests.storage.relay import Relay, relay_to

Make = Callable[..., Backups]
NEVER = 1_000_000

MANY = pytest.mark.parametrize(
    "seed", [pytest.param(1), *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 27))]
)


@pytest.fixture(scope="module")
def kills(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """How often each operation was killed; told at the end, for the record."""
    counted: Counter[str] = Counter()
    yield counted
    told = ", ".join(f"{operation} {count}" for operation, count in sorted(counted.items()))
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        sys.stdout.write(f"\nkilled {counted.total()} times: {told}\n")


class Bench:
    """A database, two storages, and processes that are killed while they work on them."""

    def __init__(
        self, firestore: Firestore, relay: Relay, folder: Path, make: Make, kills: Counter[str], bucket: str = "-"
    ) -> None:
        self.firestore = firestore
        self.folder = folder
        self._relay = relay
        self._kills = kills
        self._bucket = bucket
        self.one = DirectoryStorage(name="one", path=folder / "one")
        self.two: Storage = DirectoryStorage(name="two", path=folder / "two")
        if bucket != "-":
            self.two = GcsStorage(name="two", bucket=bucket.partition(",")[2], endpoint=f"http://{relay.target}")
        self.backups = make(firestore, self.one, self.two, retention={BackupType.FULL: timedelta(0)})

    def run(self, *operation: str, step: int = NEVER, byte: int | None = None) -> bool:
        """Run an operation that is killed at a step, or when so many bytes have passed; whether it was."""
        host = self._relay.host if self._bucket == "-" else self.firestore.address.host
        command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(host)]
        command += [self.firestore.address.project, str(self.folder), self._bucket, str(step), *operation]
        self._relay.hold()
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        self._relay.kill_after(byte, process.pid)
        _, said = process.communicate(timeout=120)
        self._relay.pass_all()
        assert process.returncode in {0, -signal.SIGKILL}, said.decode()
        killed = process.returncode != 0
        self._kills[operation[0]] += killed
        return killed

    def assert_sound(self) -> None:
        """Every listed backup verifies, and nothing holds a lease."""
        for summary in self.backups.list():
            assert self.backups.verify(summary.id).problems == ()
            assert not summary.in_use


def changed(bench: Bench) -> dict[str, bytes]:
    """The database after an accident: half of it wrong, some of it gone, some of it new; as it is then."""
    write(bench.firestore, {f"users/u{number:04d}": {"n": -1} for number in range(0, 1100, 2)})
    write(bench.firestore, {f"users/u{number:04d}": None for number in range(1, 300, 3)})
    write(bench.firestore, {f"users/x{number:03d}": {} for number in range(20)})
    return contents(bench.firestore)


@pytest.fixture
def relay(sandbox: Running) -> Iterator[Relay]:
    """Between the processes that are killed and the database."""
    with relay_to(sandbox.host) as made:
        yield made


@pytest.fixture
def bench(firestore: Firestore, relay: Relay, tmp_path: Path, backups_of: Make, kills: Counter[str]) -> Bench:
    """The database holds documents for some batches of writes."""
    write(firestore, {f"users/u{number:04d}": {"n": number, "text": "x" * 200} for number in range(1100)})
    return Bench(firestore, relay, tmp_path, backups_of, kills)


@MANY
def test_a_killed_create_leaves_a_whole_backup_or_none(bench: Bench, seed: int) -> None:
    """Killed at seeded moments, a create leaves nothing listed that is broken; leftovers go, and the next one works."""
    draw = random.Random(seed)
    for kind, length in ((BackupType.FULL, 400_000), (BackupType.INCREMENTAL, 130_000)):
        bench.run("create", kind, step=draw.randrange(24))
        bench.assert_sound()
        bench.run("create", kind, byte=draw.randrange(length))
        bench.assert_sound()
        write(bench.firestore, {f"users/u{draw.randrange(1100):04d}": {"n": -2} for _ in range(20)})
    assert not bench.backups.interrupted_restores()
    bench.backups.clean(dry_run=False)
    listed = {summary.id for summary in bench.backups.list()}
    for storage in ("one", "two"):
        folders = {path.name for path in (bench.folder / storage).glob("*")}
        assert folders <= listed
        assert not list((bench.folder / storage).rglob(".partial-*"))
        assert not list((bench.folder / storage).rglob("lease-*"))
    before = contents(bench.firestore)
    manifest = bench.backups.create(BackupType.FULL)
    assert bench.backups.verify(manifest.id).ok
    changed(bench)
    assert bench.backups.restore(manifest.id, delete_extra=True).complete
    assert contents(bench.firestore) == before


@MANY
def test_a_killed_restore_goes_on(bench: Bench, seed: int) -> None:
    """Killed at a seeded moment, a restore is told of as unfinished; run again, it loses and doubles nothing."""
    draw = random.Random(seed)
    before = contents(bench.firestore)
    backup = bench.backups.create(BackupType.FULL).id
    for moment in ({"step": draw.randrange(8)}, {"byte": draw.randrange(700_000)}, {"byte": draw.randrange(700_000)}):
        altered = changed(bench)
        bench.run("restore", backup, **moment)
        now = contents(bench.firestore)
        unfinished = [(one.backup, one.target) for one in bench.backups.interrupted_restores()]
        if now not in (altered, before):
            assert unfinished == [(backup, bench.firestore.address.root)], moment
        assert all(now[path] in (altered.get(path), before.get(path)) for path in now)
        bench.assert_sound()
        assert bench.backups.clean(dry_run=False).removed == ()
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
    for step in sorted(draw.sample(range(14), 2)):
        bench.run("clean", step=step)
        bench.assert_sound()
        assert last.id in {summary.id for summary in bench.backups.list()}
    assert not bench.run("clean")
    assert [path.name for path in (bench.folder / "one").iterdir()] == [last.id]
    assert [path.name for path in (bench.folder / "two").iterdir()] == [last.id]


@pytest.fixture(scope="module")
def bucket_relay() -> Iterator[Relay]:
    """Between the processes that are killed and a bucket, resumable uploads included."""
    with relay_to() as made, fake_gcs(f"http://{made.host}") as endpoint:
        made.target = endpoint.removeprefix("http://")
        yield made


@MANY
@pytest.mark.gcs
def test_a_killed_upload_leaves_a_whole_copy_or_none(
    firestore: Firestore, bucket_relay: Relay, tmp_path: Path, backups_of: Make, kills: Counter[str], seed: int
) -> None:
    """Killed while it writes to a bucket, an upload leaves no half copy listed; the next one completes it."""
    draw = random.Random(seed)
    write(firestore, {f"blobs/b{number}": {"blob": draw.randbytes(900_000)} for number in range(10)})
    write(firestore, {f"users/u{number:04d}": {"n": number} for number in range(200)})
    name = new_bucket(f"http://{bucket_relay.target}")
    bench = Bench(firestore, bucket_relay, tmp_path, backups_of, kills, f"http://{bucket_relay.host},{name}")
    alone = backups_of(firestore, bench.one)
    full = alone.create(BackupType.FULL)
    write(firestore, {"users/u0001": None, "users/u0002": {"n": -1}})
    increment = alone.create(BackupType.INCREMENTAL)
    assert max(segment.stored_bytes for segment in full.segments) > 8_000_000, "too small for a resumable upload"
    for byte in sorted(draw.sample(range(full.stored_bytes), 2)):
        bench.run("upload", byte=byte)
        for summary in bench.backups.list():
            assert not summary.in_use
        bench.assert_sound()
    assert not bench.run("upload")
    assert [summary.storages for summary in bench.backups.list()] == [("one", "two")] * 2
    bench.assert_sound()
    assert bench.backups.clean(dry_run=False).removed == ()
    assert not [stored.key for storage in (bench.one, bench.two) for stored in storage.list() if "lease" in stored.key]
    before = contents(firestore)
    write(firestore, {"users/u0003": {"n": "bad"}})
    assert backups_of(firestore, bench.two).restore(increment.id).complete
    assert contents(firestore) == before
