"""The raw wire against the official client on the same server: writing in batches, reading a collection.

    python -m bench wire --backend emulator

The official client is used as its documentation shows: ``batch().commit()`` of 500, ``stream()`` with ``to_dict()``.
"""

from __future__ import annotations

import itertools
import statistics

from google.cloud.firestore import Client

from agent.firestore import Carrier, Collection, DatabaseAddress, Firestore, MustNotExist, PlannedWrite
from agent.sandbox.seeding import seed
from agent.telemetry import quiet_telemetry
from bench.measure import Measure, Setup, Table, Target, contest, duel, ratio
from bench.servers import emulator_at, running

_COLLECTION = "review_items"  # three quarters of the page's documents
_BATCH = 500

# Below twice as fast, a wire of our own is not worth owning. Writing on the emulator is bound by the emulator.
_READ_TARGET = Target(limit=2, at_least=True)
_WRITE_TARGET = Target(limit=5, at_least=True, backend="sandbox")


class Bench:
    """A seeded database, read and copied by both."""

    def __init__(self, host: str, scale: float) -> None:
        self._host = host
        self._projects = itertools.count(1)
        self._telemetry = quiet_telemetry()
        seed(host, "bench", scale)
        self._pages = self._open("bench", Carrier.PAGES)
        self._stream = self._open("bench", Carrier.STREAM)
        self._official = Client(project="bench")
        self._collection = Collection(path=_COLLECTION)
        self._documents = [
            (self._pages.address.relative(document.name), document.fields)
            for document in self._pages.documents(self._collection)
        ]
        self._values = [
            (snapshot.reference.path, snapshot.to_dict() or {})
            for snapshot in self._official.collection(_COLLECTION).stream()
        ]

    @property
    def documents(self) -> int:
        return len(self._documents)

    def scan(self, carrier: Carrier) -> None:
        """Every document's bytes, by one RPC or the other; the product tries both and keeps the faster."""
        firestore = self._pages if carrier is Carrier.PAGES else self._stream
        assert sum(len(page) for page in firestore.pages(self._collection)) == self.documents

    def stream(self) -> None:
        """Every document as a dict."""
        found = sum(1 for snapshot in self._official.collection(_COLLECTION).stream() if snapshot.to_dict() is not None)
        assert found == self.documents

    def ledger(self) -> None:
        """All documents into an empty project through the ledger writer."""
        with self._open(f"raw-{next(self._projects)}") as target:
            ledger = target.write(
                PlannedWrite(name=target.address.name(path), fields=fields, precondition=MustNotExist())
                for path, fields in self._documents
            ).finish()
        assert ledger.applied == self.documents

    def batches(self) -> None:
        """The same into another one through the official client."""
        client = Client(project=f"official-{next(self._projects)}")
        for start in range(0, len(self._values), _BATCH):
            batch = client.batch()
            for path, value in self._values[start : start + _BATCH]:
                batch.create(client.document(path), value)
            batch.commit()

    def close(self) -> None:
        self._pages.close()
        self._stream.close()

    def _open(self, project: str, carrier: Carrier | None = None) -> Firestore:
        address = DatabaseAddress(project=project, host=self._host)
        return Firestore(address, telemetry=self._telemetry, origin="bench", carrier=carrier)


def measure(setup: Setup) -> list[Measure]:
    """Both duels."""
    with running(setup.backend) as server, emulator_at(server.host):
        bench = Bench(server.host, setup.scale)
        table = Table("wire", setup, documents=bench.documents)
        pages, stream, official = contest(
            [lambda: bench.scan(Carrier.PAGES), lambda: bench.scan(Carrier.STREAM), bench.stream], setup.rounds
        )
        for name, seconds in (
            ("ListDocuments", pages),
            ("RunQuery", stream),
            ("official stream().to_dict()", official),
        ):
            table.add(name, bench.documents / statistics.median(seconds), "documents/s")
        faster = max(ratio(pages, official), ratio(stream, official))
        table.add("the faster carrier / official", faster, "x", _READ_TARGET)
        writing = duel(bench.ledger, bench.batches, setup.rounds)
        table.add("ledger writer", bench.documents / writing.ours, "documents/s")
        table.add("official batch()", bench.documents / writing.theirs, "documents/s")
        table.add("ledger writer / official", writing.ratio, "x", _WRITE_TARGET)
        bench.close()
    return table.measures
