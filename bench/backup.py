"""How fast backups are: beside the fastest thing that could be, and beside what people use.

    python -m bench backup --backend emulator --scale 1 --rounds 5 --json figures.json

*Bare* contenders do what the product does on the wire and nothing else: the reader takes the same ranges with as many
threads and throws the bytes away, the writer sends the same documents, held in memory, with the same preconditions,
batches and threads. Reading contenders each begin after a change of 1 % of the documents, because the first scan after
a change costs the emulator more; each writing contender gets an empty database on a server of its own.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from agent.backup import Backups, BackupType
from agent.firestore import EVERYTHING, DatabaseAddress, Firestore, MustNotExist, PlannedWrite, Scope, encode_fields
from agent.sandbox.seeding import seed
from agent.storage import DirectoryStorage
from agent.telemetry import quiet_telemetry
from bench.measure import Measure, Setup, Table, Target, contest, ratio, timed
from bench.official import OfficialClient
from bench.peers import PEERS_DOCUMENTS, measure_peers
from bench.resident import WORKER_PEAK, Workers
from bench.servers import Server, Servers, emulator_at, running

_PROJECT = "bench"
_EMPTY = "empty"
_PARALLEL = 4
_CHANGED = 0.01
_FULL_SIZE = 300_000
_PEERS_FROM = 30_000  # a short run downloads nothing
_BULK_AT_MOST = 5_000  # ten seconds: the bulk writer begins with 500 operations a second
_REFERENCE = b"/databases/"

# All of it is promised for Google's emulator and the page's documents, see bench/README.md.
_BARE = Target(limit=0.85, at_least=True, backend="emulator", documents=_FULL_SIZE)
_OFFICIAL = Target(limit=3, at_least=True, backend="emulator", documents=_FULL_SIZE)
_BULK_WRITER = Target(limit=10, at_least=True, backend="emulator", documents=_FULL_SIZE)
_INCREMENTAL_TIME = Target(limit=0.5, at_least=False, backend="emulator", documents=_FULL_SIZE)
_INCREMENTAL_BYTES = Target(limit=0.015, at_least=False, backend="emulator", documents=_FULL_SIZE)


class Bench:
    """One seeded database and what is measured on it.

    Args:
        folder: for backups; each full one is removed before the next contender begins.
    """

    def __init__(self, server: Server, scale: float, folder: Path) -> None:
        self._folder = folder
        self._telemetry = quiet_telemetry()
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self._stack.callback(self._telemetry.shutdown)
        self._scratch: Path | None = None
        seed(server.host, _PROJECT, scale)
        self.firestore = self._stack.enter_context(self._open(_PROJECT, server))
        self.backups = self._backups(folder / "kept")
        self.full = self.backups.create(BackupType.FULL)
        self.documents = self.full.documents
        self.shares: list[float] = []
        self._writes = [
            (self.firestore.address.relative(document.name), document.fields)
            for document in self.firestore.documents(EVERYTHING)
        ]

    # --- reading --------------------------------------------------------------------------------------------------

    def read_bare(self) -> None:
        """Every document's bytes, thrown away."""
        at = self.firestore.server_time()

        def drain(scope: Scope) -> int:
            return sum(len(page) for page in self.firestore.pages(scope, at))

        with ThreadPoolExecutor(_PARALLEL) as pool:
            assert sum(pool.map(drain, self.firestore.ranges(_PARALLEL * 4, at))) == self.documents

    def create(self) -> None:
        """A full backup into a directory."""
        self._scratch = self._folder / f"full-{next(self._numbers)}"
        assert self._backups(self._scratch).create(BackupType.FULL).documents == self.documents

    def incremental(self) -> None:
        """An incremental on what was kept."""
        manifest = self.backups.create(BackupType.INCREMENTAL)
        assert manifest.type is BackupType.INCREMENTAL
        assert manifest.documents == len(self._writes[:: self._step])
        self.shares.append(manifest.stored_bytes / self.full.stored_bytes)

    def verify(self) -> None:
        """Every byte read back, fingerprint included."""
        assert self.backups.verify(self.full.id).ok

    @property
    def _step(self) -> int:
        return round(1 / _CHANGED)

    def change(self) -> None:
        """Change 1 % of the documents, the same ones each time; remove the full backup of the turn before."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch)
            self._scratch = None
        ledger = self.firestore.write(
            PlannedWrite(name=self.firestore.address.name(path), fields=fields + encode_fields({"bench": time.time()}))
            for path, fields in self._writes[:: self._step]
        ).finish()
        assert ledger.applied == ledger.planned

    # --- writing --------------------------------------------------------------------------------------------------

    def write_bare(self, server: Server) -> None:
        """The same documents from memory, with the preconditions that a restore has."""
        with self._open(_EMPTY, server) as target:
            ledger = target.write(
                PlannedWrite(name=target.address.name(path), fields=fields, precondition=MustNotExist())
                for path, fields in self._writes
            ).finish()
        assert ledger.applied == self.documents

    def restore(self, server: Server) -> None:
        """The full backup, as it was taken."""
        with self._open(_EMPTY, server) as target:
            report = self.backups.restore(self.full.id, to=target)
        assert report.complete
        assert report.compared == self.documents  # all but the maintenance flag are written

    def sample(self, count: int) -> list[tuple[str, bytes]]:
        """Paths and fields of ``count`` documents of root collections without references, spread evenly."""
        flat = [(path, fields) for path, fields in self._writes if path.count("/") == 1 and _REFERENCE not in fields]
        return flat[:: max(1, len(flat) // count)][:count]

    def official(self) -> OfficialClient:
        """The official client, set up for this database."""
        return OfficialClient(
            _PROJECT,
            collections={name: tally.documents for name, tally in self.full.collections.items()},
            sample=[path for path, _ in self.sample(min(_BULK_AT_MOST, self.documents // 3))],
            folder=self._folder,
        )

    def close(self) -> None:
        self._stack.close()

    def _open(self, project: str, server: Server) -> Firestore:
        return Firestore(DatabaseAddress(project=project, host=server.host), telemetry=self._telemetry)

    def _backups(self, folder: Path) -> Backups:
        return Backups(
            firestore=self.firestore,
            storages=[DirectoryStorage(name="local", path=folder)],
            telemetry=self._telemetry,
            parallel=_PARALLEL,
        )


def measure(setup: Setup) -> list[Measure]:
    """Everything that is promised of backups, on one server."""
    folder = Path(tempfile.mkdtemp(prefix="runbookd-bench-"))
    servers = Servers(setup.backend)
    try:
        with running(setup.backend) as server, emulator_at(server.host):
            bench = Bench(server, setup.scale, folder)
            table = Table("backup", setup, documents=bench.documents)
            official = bench.official()
            _reading(bench, official, table, setup.rounds)
            workers = Workers(folder)
            full = _reading_workers(bench, workers, server, table)
        _writing(bench, official, servers, table, setup.rounds)
        servers.renew()
        report, peak = workers.run(servers.current.host, _EMPTY, "restore", backup=full)
        assert report["compared"] == bench.documents
        table.add("peak memory of a worker, restore", peak, "MB", WORKER_PEAK)
        if bench.documents >= _PEERS_FROM:
            measure_peers(servers.current, folder, bench.sample(PEERS_DOCUMENTS), table)
        bench.close()
    finally:
        servers.close()
        shutil.rmtree(folder, ignore_errors=True)
    return table.measures


def _reading(bench: Bench, official: OfficialClient, table: Table, rounds: int) -> None:
    create, bare, incremental, _ = contest(
        [bench.create, bench.read_bare, bench.incremental, official.read], rounds, before=bench.change
    )
    table.add("create", bench.documents / statistics.median(create), "documents/s")
    table.add("bare reader", bench.documents / statistics.median(bare), "documents/s")
    table.add("create / bare reader", ratio(create, bare), "x", _BARE)
    table.add("official stream().to_dict() + JSON", statistics.median(official.read_rates), "documents/s")
    table.add("create / official", _faster(bench.documents, create, official.read_rates), "x", _OFFICIAL)
    table.add("incremental / full, time, 1 % changed", ratio(create, incremental), "x", _INCREMENTAL_TIME)
    table.add("incremental / full, bytes, 1 % changed", statistics.median(bench.shares), "x", _INCREMENTAL_BYTES)
    verified = statistics.median(timed(bench.verify) for _ in range(rounds))
    table.add("verify", bench.documents / verified, "documents/s")


def _writing(bench: Bench, official: OfficialClient, servers: Servers, table: Table, rounds: int) -> None:
    restore, bare, _ = contest(
        [lambda: bench.restore(servers.current), lambda: bench.write_bare(servers.current), official.bulk],
        rounds,
        before=servers.renew,
    )
    table.add("restore", bench.documents / statistics.median(restore), "documents/s")
    table.add("bare writer", bench.documents / statistics.median(bare), "documents/s")
    table.add("restore / bare writer", ratio(restore, bare), "x", _BARE)
    table.add("BulkWriter, default settings", statistics.median(official.bulk_rates), "documents/s")
    table.add("restore / BulkWriter", _faster(bench.documents, restore, official.bulk_rates), "x", _BULK_WRITER)


def _faster(documents: int, seconds: Sequence[float], rates: Sequence[float]) -> float:
    """The median over the rounds of how much faster we were than somebody who took fewer documents."""
    return statistics.median(documents / ours / theirs for ours, theirs in zip(seconds, rates, strict=True))


def _reading_workers(bench: Bench, workers: Workers, server: Server, table: Table) -> str:
    """The workers that a daemon would start, one an operation; the id of their full backup. A MB is 2^20 bytes."""
    full, create = workers.run(server.host, _PROJECT, "backup", type="full", verify=False)
    bench.change()
    _, incremental = workers.run(server.host, _PROJECT, "backup", type="incremental", verify=False)
    _, verify = workers.run(server.host, _PROJECT, "verify", backup=full["id"])
    for operation, peak in (("create", create), ("incremental", incremental), ("verify", verify)):
        table.add(f"peak memory of a worker, {operation}", peak, "MB", WORKER_PEAK)
    return str(full["id"])
