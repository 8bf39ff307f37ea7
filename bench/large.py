"""What workers hold of large documents, which no compression makes smaller.

Memory is bounded by bytes, not by documents: what is read ahead, a chunk of a migration, a request, a portion of an
increment. Here 270 MB of documents close to Firestore's limit of 1 MiB, and 240 MB of documents of 40 KB, go through
every worker that reads or writes documents. The migration renames the field that holds nearly all of a document, so
that all of it is journalled and written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

from agent.firestore import DatabaseAddress, Firestore, PlannedWrite, encode_fields
from agent.telemetry import quiet_telemetry
from bench.measure import Measure, Setup, Table
from bench.resident import WORKER_PEAK, Workers
from bench.servers import running
from bench.worker import Task, measured

_COLLECTIONS = ("films", "maps", "scans", "songs", "voices")
_SHAPES = (("900 KB", 60, 900_000), ("40 KB", 1200, 40_000))  # documents of each collection

_RENAME = f'''"""Moves nearly all of every document."""

collections = {_COLLECTIONS!r}
reads_both_shapes = True


def transform(document):
    return document.renamed("body", "content") if document.has("body") else None
'''


def measure(setup: Setup) -> list[Measure]:
    """Peak memory of each kind of worker; a MB is 2^20 bytes."""
    table = Table("large", setup)
    for name, count, size in _SHAPES:
        with tempfile.TemporaryDirectory() as folder, running(setup.backend) as server:
            for worker, peak in _peaks(server.host, Path(folder), count, size):
                table.add(f"peak memory of a worker, documents of {name}, {worker}", peak, "MB", WORKER_PEAK)
    return table.measures


def _peaks(host: str, folder: Path, count: int, size: int) -> Iterator[tuple[str, float]]:
    project = "large"
    workers = Workers(folder)
    _fill(host, project, count, size)
    full, peak = workers.run(host, project, "backup", type="full", verify=False)
    yield "create", peak
    _fill(host, project, count, size, every=2)
    _, peak = workers.run(host, project, "backup", type="incremental", verify=False)
    yield "incremental", peak
    _, peak = workers.run(host, project, "verify", backup=full["id"])
    yield "verify", peak
    _, peak = workers.run(host, project, "restore", backup=full["id"])
    yield "restore", peak
    definitions = folder / "definitions"
    definitions.mkdir()
    (definitions / "0001_rename.py").write_text(_RENAME, encoding="utf-8")
    task = Task(host=host, project=project, definitions=str(definitions), data=str(folder / "journals"))
    yield "migrate and undo", measured(task).peak_megabytes


def _fill(host: str, project: str, count: int, size: int, *, every: int = 1) -> None:
    """Write all documents, or change every second one."""
    chance = Random(every)
    address = DatabaseAddress(project=project, host=host)
    writes = (
        PlannedWrite(
            name=address.name(collection, f"{number:05d}"),
            fields=encode_fields({"body": chance.randbytes(size), "owner": f"u{number}"}),
        )
        for collection in _COLLECTIONS
        for number in range(0, count, every)
    )
    with Firestore(address, telemetry=quiet_telemetry(), origin="bench") as firestore:
        ledger = firestore.write(writes, origin="bench").finish()
    assert ledger.applied == len(_COLLECTIONS) * len(range(0, count, every))
