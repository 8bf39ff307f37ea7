"""How fast migrations and their undo are, beside a writer that does nothing but send the same bytes.

    python -m bench migration --backend emulator --scale 1 --rounds 5

Contenders take turns within each round, because a machine's speed drifts; a ratio is the median of the rounds' ratios.
Migration and undo run in a worker process, as in the product; the bare writer runs here, its requests ready in memory.
So does a migration that is nothing but its wire: it reads and throws away what the migration reads, and sends what that
writes, at the same time. On Google's emulator that is about as fast as a migration can be; the sandbox, one Python
process, serves a reader and writers in such a hurry a little worse than the real thing, which paces itself.
Three more things are measured, on databases of the size that each needs: an undo of one document in a hundred beside
a full restore; what telemetry costs; and fireway, the migration tool of the Node.js world.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.backup import Backups, BackupType
from agent.clock import SystemClock
from agent.firestore import CollectionGroup, DatabaseAddress, Firestore, PlannedWrite, RawDocument, take_fingerprint
from agent.firestore.channel import Channel
from agent.firestore.envelope import BatchWriteEnvelope
from agent.firestore.protos import BatchWriteResponse
from agent.firestore.scopes import query_of, timestamp
from agent.migration import find_definition
from agent.migration.changes import changes_of
from agent.migration.reading import AT_ONCE
from agent.sandbox.seeding import seed
from agent.storage import DirectoryStorage
from agent.telemetry import quiet_telemetry
from bench import fireway
from bench.measure import Measure, Setup, Table, Target, timed
from bench.resident import WORKER_PEAK
from bench.servers import running
from bench.worker import Figures, Task, measured

_DEFINITIONS = Path(__file__).parents[1] / "migrations"
_BATCH, _SENDERS = 500, 8  # as the ledger writer's
# A little less than the round numbers: a scale hardly ever hits them.
_HUNDRED_THOUSAND, _TEN_THOUSAND = 90_000, 9_000
_SMALL = 0.0326  # of the page's documents: 9,999
_WARMING, _WARM_UPS = 0.1, 3  # 30,700 documents; Java still compiles the second time
_PEER = 0.0065  # 1,994: fireway takes up to ten milliseconds a document
_RESTORE_EVERY_ROUND = 50_000  # documents; a restore of many more takes minutes and is done once

_FEW = '''"""Touches one document in a hundred of the sample database."""

import zlib

collections = ("users",)
reads_both_shapes = True


def transform(document):
    if zlib.crc32(document.id.encode()) % 5 < 3:  # of the users, who are 1.7 % of all documents
        return document.with_fields(touched=True)
    return None
'''


@dataclass(frozen=True, kw_only=True)
class Round:
    """One turn of each.

    Args:
        bare, wire: documents a second.
        worker: what it took.
    """

    bare: float
    wire: float
    worker: Figures

    @property
    def migrate(self) -> float:
        return self.worker.touched / self.worker.migrate_seconds

    @property
    def write_back(self) -> float:
        return self.worker.touched / self.worker.write_back_seconds

    @property
    def undo(self) -> float:
        return self.worker.touched / self.worker.undo_seconds


class Bench:
    """A seeded database, and what is measured on it.

    Args:
        parallel, validate: of the migration.
    """

    def __init__(
        self,
        host: str,
        scale: float,
        folder: Path,
        *,
        project: str = "bench",
        parallel: int = Task.parallel,
        validate: bool = True,
    ) -> None:
        self.host, self._folder, self._project = host, folder, project
        self._parallel, self._validate = parallel, validate
        self.documents = seed(host, project, scale).documents
        address = DatabaseAddress(project=project, host=host)
        self.firestore = Firestore(address, telemetry=quiet_telemetry(), origin="bench")
        self._channel = Channel(address, telemetry=quiet_telemetry(), clock=SystemClock())
        self._forth: list[bytes] = []
        self._back: list[bytes] = []
        self._swapped = 0
        for number, batch in enumerate(self._batches()):
            self._forth.append(self._request([PlannedWrite(name=write.name, fields=write.whole) for _, write in batch]))
            self._back.append(self._request([PlannedWrite(name=raw.name, fields=raw.fields) for raw, _ in batch]))
            if number % 2 == 0:
                self._swapped += len(batch)

    def close(self) -> None:
        """End the connections."""
        self._channel.close()
        self.firestore.close()

    def round(self, number: int) -> Round:
        """Each contender once, in another order in the next round. All bring back the fingerprint of the database."""
        before = self._fingerprint()
        found: dict[str, Any] = {}
        turns: list[tuple[str, Callable[[], object]]]
        turns = [("worker", self.worker), ("bare", self.bare), ("wire", self.wire)]
        for name, turn in turns[number % 3 :] + turns[: number % 3]:
            found[name] = turn()
            if self._fingerprint() != before:
                sys.exit(f"{name} did not bring back what was there")
        return Round(**found)

    def bare(self) -> float:
        """Write every other batch of documents as the migration would, and back: as many writes as a migration's.

        Returns:
            Documents a second.
        """
        seconds = timed(lambda: self._send(self._forth[::2])) + timed(lambda: self._send(self._back[::2]))
        return 2 * self._swapped / seconds

    def wire(self) -> float:
        """Read what the migration reads and, meanwhile, write what it writes; put everything back untimed.

        Returns:
            Documents a second.
        """
        batches = [[write for _, write in batch] for batch in self._batches()]
        requests = [self._request(batch) for batch in batches]
        at = self.firestore.server_time()

        def read(collection: str) -> int:
            query = query_of(CollectionGroup(id=collection), self.firestore.address)
            query.read_time.CopyFrom(timestamp(at))
            return sum(1 for _ in self._channel.stream("RunQuery", query.SerializeToString(), deadline=600))

        def both() -> None:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                read_by = [pool.submit(read, one) for one in find_definition(_DEFINITIONS, "0001").collections]
                self._send(requests)
                assert sum(future.result() for future in read_by) >= documents

        documents = sum(len(batch) for batch in batches)
        seconds = timed(both)
        self._send(self._back)
        return documents / seconds

    def worker(self, project: str = "", *, definitions: Path = _DEFINITIONS, silent: bool = False) -> Figures:
        """A migration and its undo in a process of their own.

        Args:
            project: another than the bench's.
        """
        project = project or self._project
        task = Task(
            host=self.host,
            project=project,
            definitions=str(definitions),
            data=str(self._folder / "data" / project),
            parallel=self._parallel,
            validate=self._validate,
        )
        return measured(task, silent=silent)

    def few(self) -> Figures:
        """A migration that touches one document in a hundred, and its undo."""
        definitions = self._folder / "few"
        definitions.mkdir(parents=True, exist_ok=True)
        (definitions / "0001_few.py").write_text(_FEW, encoding="utf-8")
        return self.worker(definitions=definitions)

    def restores(self, count: int) -> list[float]:
        """Seconds of restores in place, each after all that the migration touches was changed."""
        storage = DirectoryStorage(name="local", path=self._folder / "backups")
        backups = Backups(firestore=self.firestore, storages=[storage], telemetry=quiet_telemetry())
        full = backups.create(BackupType.FULL).id
        seconds: list[float] = []
        for _ in range(count):
            self._send(self._forth)
            seconds.append(timed(lambda: backups.restore(full)))
        return seconds

    def seeded(self, project: str, scale: float) -> str:
        """Another database on the same server; its project."""
        seed(self.host, project, scale)
        return project

    def _batches(self) -> Iterator[list[tuple[RawDocument, PlannedWrite]]]:
        """Documents that the migration touches, with what it would write."""
        definition = find_definition(_DEFINITIONS, "0001")
        at = self.firestore.server_time()
        batch: list[tuple[RawDocument, PlannedWrite]] = []
        for collection in definition.collections:
            for raw in self.firestore.documents(CollectionGroup(id=collection), at):
                own = changes_of(definition, raw, self.firestore.address).own
                if own is not None:
                    batch.append((raw, own.write))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _request(self, writes: Sequence[PlannedWrite]) -> bytes:
        encoded = [write.encoded() for write in writes]
        request: bytes = BatchWriteEnvelope(database=self.firestore.address.root, writes=encoded).SerializeToString()
        return request

    def _send(self, requests: Sequence[bytes]) -> None:
        with ThreadPoolExecutor(_SENDERS) as pool:
            replies = list(pool.map(lambda request: self._channel.unary("BatchWrite", request), requests))
        if any(status.code for reply in replies[-1:] for status in BatchWriteResponse.FromString(reply).status):
            sys.exit("the server refused a bare write")

    def _fingerprint(self) -> str:
        return take_fingerprint(self.firestore, exclude=("_migrations",)).digest


def measure(setup: Setup) -> list[Measure]:
    """Everything that is promised of migrations."""
    with tempfile.TemporaryDirectory() as folder:
        found = alternating(setup, Path(folder))
        with running(setup.backend, large=True) as server:
            bench = Bench(server.host, setup.scale, Path(folder) / "further")
            table = Table("migration", setup, documents=bench.documents)
            _throughput(table, found)
            _little(table, bench, setup.rounds)
            small = min(setup.scale, _SMALL)
            _telemetry(table, bench, bench.seeded("small", small), setup.rounds)
            with fireway.installed(Path(folder) / "fireway") as peer:
                if peer is not None:
                    _peer(table, bench, peer, min(setup.scale, _PEER), setup.rounds)
            bench.close()
    return table.measures


def _warm_up(host: str, folder: Path) -> None:
    """Until Java has compiled what it is going to run; the sandbox has nothing to compile."""
    warming = Bench(host, _WARMING, folder, project="warming")
    for _ in range(_WARM_UPS):
        warming.bare()
        warming.worker()
    warming.close()


def alternating(setup: Setup, folder: Path, *, parallel: int = Task.parallel, validate: bool = True) -> list[Round]:
    """The rounds of worker, raw writer and the wire alone, each beginning every third one.

    Each on a server of its own: Google's emulator keeps every version that it was ever given. It is warmed up first.
    """
    found: list[Round] = []
    for number in range(setup.rounds):
        here = folder / f"round-{number}"
        with running(setup.backend, large=True) as server:
            if setup.backend == "emulator":
                _warm_up(server.host, here / "warming")
            bench = Bench(server.host, setup.scale, here, parallel=parallel, validate=validate)
            found.append(bench.round(number))
            bench.close()
    return found


def _throughput(table: Table, found: Sequence[Round]) -> None:
    def median(of: Callable[[Round], float]) -> float:
        return statistics.median(of(one) for one in found)

    table.add("bare raw writer", median(lambda one: one.bare), "documents/s")
    table.add("reading and writing alone", median(lambda one: one.wire), "documents/s")
    table.add("migrate", median(lambda one: one.migrate), "documents/s")
    table.add("undo, until all is back", median(lambda one: one.write_back), "documents/s")
    table.add("undo, read back and compared", median(lambda one: one.undo), "documents/s")
    promise = Target(limit=0.6, at_least=True, backend="emulator", documents=_TEN_THOUSAND)
    table.add("migrate / bare raw writer", median(lambda one: one.migrate / one.bare), "x", promise)
    table.add("reading and writing alone / bare raw writer", median(lambda one: one.wire / one.bare), "x")
    table.add("migrate / reading and writing alone", median(lambda one: one.migrate / one.wire), "x")
    table.add(
        "undo, until all is back / migrate",
        median(lambda one: one.write_back / one.migrate),
        "x",
        Target(limit=1, at_least=True),
    )
    table.add("undo, read back and compared / migrate", median(lambda one: one.undo / one.migrate), "x")
    peak = max(one.worker.peak_megabytes for one in found)
    table.add("peak memory of the worker", peak, "MB", WORKER_PEAK)


def _little(table: Table, bench: Bench, rounds: int) -> None:
    few = [bench.few() for _ in range(rounds)]
    restored = statistics.median(bench.restores(rounds if bench.documents < _RESTORE_EVERY_ROUND else 1))
    undone = statistics.median(one.undo_seconds for one in few)
    table.add("full restore in place", restored, "s")
    table.add("undo of 1 % touched", undone, "s")
    table.add("documents touched", few[0].touched / bench.documents, "x")
    table.add(
        "undo of 1 % touched / full restore",
        undone / restored,
        "x",
        Target(limit=0.03, at_least=False, backend="emulator", documents=_HUNDRED_THOUSAND),
    )


def _telemetry(table: Table, bench: Bench, project: str, rounds: int) -> None:
    """Pairs of the same migration with and without.

    What is judged is CPU: the median of the differences, as a share of the run's time without telemetry. That is all
    that throughput can lose, and it is steady; the times of two runs of seconds differ by more than 3 % for any reason.
    """
    bench.worker(project)  # whatever is measured but once before a first run
    costs: list[float] = []
    ratios: list[float] = []
    for number in range(max(rounds, 5)):
        first = bench.worker(project, silent=number % 2 == 0)
        second = bench.worker(project, silent=number % 2 == 1)
        without, with_ = (first, second) if number % 2 == 0 else (second, first)
        costs.append((with_.migrate_cpu_seconds - without.migrate_cpu_seconds) / without.migrate_seconds)
        ratios.append(without.migrate_seconds / with_.migrate_seconds)
    cost = Target(limit=0.03, at_least=False, documents=_TEN_THOUSAND)
    table.add("telemetry's CPU / run without", statistics.median(costs), "x", cost)
    table.add("migrate with telemetry / without", statistics.median(ratios), "x")


def _peer(table: Table, bench: Bench, peer: fireway.Fireway, scale: float, rounds: int) -> None:
    ours: list[float] = []
    theirs: list[float] = []
    bench.seeded("beside-fireway", scale)
    for number in range(min(rounds, 3)):
        figures = bench.worker("beside-fireway")
        ours.append(figures.touched / figures.migrate_seconds)
        rate = peer.rate(bench.host, bench.seeded(f"fireway-{number}", scale))
        if rate is None:
            print("fireway did not finish in its time; it is left out", file=sys.stderr)
            return
        theirs.append(rate)
    table.add("fireway, the same transform", statistics.median(theirs), "documents/s")
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    table.add("migrate / fireway", ratio, "x")


def main() -> None:
    """The alternating rounds alone, with other settings than the product's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.02, help="1 is 306,725 documents")
    parser.add_argument("--backend", choices=("sandbox", "emulator"), default="sandbox")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=Task.parallel, help="chunks on their way at once")
    parser.add_argument("--no-validate", action="store_true", help="read nothing back during the run")
    given = parser.parse_args()
    setup = Setup(scale=given.scale, backend=given.backend, rounds=given.rounds)
    with tempfile.TemporaryDirectory() as folder:
        found = alternating(setup, Path(folder), parallel=given.parallel, validate=not given.no_validate)
    touched = found[0].worker.touched
    table = Table("migration", setup, documents=touched)
    _throughput(table, found)
    print(f"{touched:,} documents on the {given.backend}, median of {given.rounds}")
    for measure_ in table.measures:
        if measure_.median is not None:
            print(f"  {measure_.name:<40} {measure_.median:>10,.2f} {measure_.unit}")


if __name__ == "__main__":
    main()
