"""How fast backups are, against the fastest thing that could be: reading and throwing away, writing and nothing else.

    python -m bench.backup --scale 0.05 --backend sandbox --rounds 5

Contenders alternate within one run, because a machine's speed drifts; the table gives medians and ratios of the pairs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from agent.backup import Backups, BackupType
from agent.firestore import EVERYTHING, DatabaseAddress, Firestore, MustNotExist, PlannedWrite, Scope, encode_fields
from agent.sandbox import start_sandbox
from agent.sandbox.seeding import seed
from agent.storage import DirectoryStorage
from agent.telemetry import quiet_telemetry

_EMULATOR = Path("/usr/lib/google-cloud-sdk/platform/cloud-firestore-emulator/cloud_firestore_emulator")
_PARALLEL = 4
_INCREMENTAL_TIME, _INCREMENTAL_BYTES = 0.5, 0.015  # of a full backup, 1 % changed
_PEAK_MEGABYTES = 256


@contextmanager
def _backend(kind: str) -> Iterator[str]:
    """A running Firestore's ``host:port``."""
    if kind == "sandbox":
        with start_sandbox() as sandbox:
            yield sandbox.host
        return
    if not _EMULATOR.exists():
        sys.exit("Google's Firestore emulator is not installed: apt-get install google-cloud-cli-firestore-emulator")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    command = [str(_EMULATOR), "start", f"--host={host.partition(':')[0]}", f"--port={host.rpartition(':')[2]}"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(host.rpartition(":")[2]))) == 0:
                    break
            time.sleep(0.1)
        yield host
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Bench:
    """One seeded database and what is measured on it."""

    def __init__(self, host: str, scale: float, folder: Path) -> None:
        self._host = host
        self._folder = folder
        self._telemetry = quiet_telemetry()
        self._projects = 0
        self.report = seed(host, "bench", scale)
        self.firestore = self._open("bench")
        self.backups = self._backups()
        manifest = self.backups.create(BackupType.FULL)
        self.documents = manifest.documents
        self.raw_bytes = manifest.raw_bytes
        self.full_bytes = manifest.stored_bytes
        self.full = manifest.id
        # Preconditions included: the server checks them for the restore, too.
        self._writes = [
            (self.firestore.address.relative(document.name), document.fields)
            for document in self.firestore.documents(EVERYTHING)
        ]

    def read_bare(self) -> None:
        """Every document's bytes, by the same ranges and threads, thrown away."""
        at = self.firestore.server_time()

        def drain(scope: Scope) -> int:
            return sum(len(page) for page in self.firestore.pages(scope, at))

        with ThreadPoolExecutor(_PARALLEL) as pool:
            assert sum(pool.map(drain, self.firestore.ranges(_PARALLEL * 4, at))) == self.documents

    def create(self) -> None:
        """A full backup into a directory."""
        self._backups().create(BackupType.FULL)

    def verify(self) -> None:
        """Every byte read back, fingerprint included."""
        assert self.backups.verify(self.full).ok

    def write_bare(self) -> None:
        """The same documents from memory into an empty database, with the same batches."""
        target = self._empty()
        ledger = target.write(
            PlannedWrite(name=target.address.name(path), fields=fields, precondition=MustNotExist())
            for path, fields in self._writes
        ).finish()
        assert ledger.applied == self.documents

    def restore(self) -> None:
        """The backup into an empty database."""
        assert self.backups.restore(self.full, to=self._empty()).complete

    def official(self) -> None:
        """The official client's ``stream().to_dict()`` to JSON lines, root collections and one level below."""
        os.environ["FIRESTORE_EMULATOR_HOST"] = self._host
        from google.cloud.firestore import Client

        client = Client(project="bench")
        with (self._folder / "official.json").open("w") as file:
            for collection in client.collections():
                for snapshot in collection.stream():
                    file.write(json.dumps(snapshot.to_dict(), default=str) + "\n")

    def change(self, share: float) -> None:
        """Change ``share`` of the documents."""
        step = max(1, round(1 / share))
        self.firestore.write(
            PlannedWrite(name=self.firestore.address.name(path), fields=fields + encode_fields({"bench": time.time()}))
            for path, fields in self._writes[::step]
        ).finish()

    def incremental(self) -> float:
        """An incremental; its stored bytes."""
        return float(self.backups.create(BackupType.INCREMENTAL).stored_bytes)

    def _open(self, project: str) -> Firestore:
        return Firestore(DatabaseAddress(project=project, host=self._host), telemetry=self._telemetry)

    def _empty(self) -> Firestore:
        self._projects += 1
        return self._open(f"empty-{self._projects}")

    def _backups(self) -> Backups:
        folder = tempfile.mkdtemp(dir=self._folder)
        return Backups(
            firestore=self.firestore,
            storages=[DirectoryStorage(name="local", path=Path(folder))],
            telemetry=self._telemetry,
            parallel=_PARALLEL,
        )


def _peak_megabytes(host: str, folder: Path) -> float:
    """Peak memory of a process that takes a full backup, an increment and verifies them, as a worker does."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[float] = context.Queue()
    worker = context.Process(target=_work, args=(host, folder / "worker", results))
    worker.start()
    peak = results.get(timeout=3600)
    worker.join()
    return peak


def _work(host: str, folder: Path, results: multiprocessing.Queue[float]) -> None:
    telemetry = quiet_telemetry()
    with Firestore(DatabaseAddress(project="bench", host=host), telemetry=telemetry) as firestore:
        storage = DirectoryStorage(name="local", path=folder)
        backups = Backups(firestore=firestore, storages=[storage], telemetry=telemetry, parallel=_PARALLEL)
        backups.create(BackupType.FULL)
        assert backups.verify(backups.create(BackupType.INCREMENTAL).id).ok
    results.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _pairs(name: str, ours: Callable[[], object], bare: Callable[[], object], rounds: int, documents: int) -> str:
    """A line of the table: both contenders in turn, medians and the median of the ratios."""
    times = []
    for number in range(rounds):
        pair = [(0, ours), (1, bare)]
        measured = {which: _timed(action) for which, action in (pair if number % 2 else reversed(pair))}
        times.append((measured[0], measured[1]))
    our_median = statistics.median(one for one, _ in times)
    bare_median = statistics.median(other for _, other in times)
    ratio = statistics.median(other / one for one, other in times)
    return (
        f"{name:<28} {our_median:8.2f} s {documents / our_median:9,.0f}/s   "
        f"bare {bare_median:7.2f} s {documents / bare_median:9,.0f}/s   ratio {ratio:5.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.02, help="1 is 306,725 documents")
    parser.add_argument("--backend", choices=("sandbox", "emulator"), default="sandbox")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--official", action="store_true", help="also the official client")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="runbookd-bench-"))
    try:
        with _backend(options.backend) as host:
            bench = Bench(host, options.scale, folder)
            count = bench.documents
            print(
                f"{options.backend}, {count:,} documents, {bench.raw_bytes / 1e6:.1f} MB on the wire, "
                f"{bench.full_bytes / 1e6:.1f} MB stored, medians of {options.rounds}"
            )
            print(_pairs("create, vs bare reader", bench.create, bench.read_bare, options.rounds, count))
            print(_pairs("restore, vs bare writer", bench.restore, bench.write_bare, options.rounds, count))
            print(f"{'verify':<28} {statistics.median(_timed(bench.verify) for _ in range(options.rounds)):8.2f} s")
            if options.official:
                print(_pairs("create, vs official client", bench.create, bench.official, options.rounds, count))
            times, sizes = [], []
            for _ in range(options.rounds):
                bench.change(0.01)
                began = time.perf_counter()
                sizes.append(bench.incremental())
                full = _timed(bench.create)
                times.append((time.perf_counter() - began - full) / full)
            slower, larger = statistics.median(times), statistics.median(sizes) / bench.full_bytes
            print(
                f"{'incremental, 1 % changed':<28} {slower:8.2f} of a full backup's time, "
                f"{100 * larger:.2f} % of its bytes"
            )
            peak = _peak_megabytes(host, folder)
            print(f"{'peak memory of a worker':<28} {peak:8.0f} MB")
        missed = [
            text
            for text, value, most in (
                ("an incremental's time", slower, _INCREMENTAL_TIME),
                ("an incremental's bytes", larger, _INCREMENTAL_BYTES),
                ("peak memory in MB", peak, _PEAK_MEGABYTES),
            )
            if value > most
        ]
        if missed:
            sys.exit(f"missed: {', '.join(missed)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
