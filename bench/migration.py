"""How fast migrations and their undo are, against a writer that does nothing but write the same bytes.

    python -m bench.migration --scale 0.05 --backend sandbox --rounds 3

The contenders alternate within each round, because a machine's speed drifts; the table gives medians and the median of
the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.firestore import CollectionGroup, DatabaseAddress, Firestore, PlannedWrite, fingerprint
from agent.migration import Migrations, Preconditions, RestorePoint, RunSettings, find_definition
from agent.migration.changes import changes_of
from agent.sandbox.seeding import seed
from agent.telemetry import quiet_telemetry
from bench.servers import running

_DEFINITIONS = Path(__file__).parents[1] / "migrations"
_OWN = ("_migrations", "_config", "sessions")


@dataclass(frozen=True, kw_only=True)
class Round:
    """Documents per second in one round."""

    bare: float
    migrate: float
    undo: float
    undo_verified: float


class Bench:
    """A seeded database, and what is measured on it."""

    def __init__(self, host: str, scale: float, folder: Path, *, parallel: int, validate: bool) -> None:
        telemetry = quiet_telemetry()
        self.firestore = Firestore(DatabaseAddress(project="bench", host=host), telemetry=telemetry, origin="bench")
        self.documents = seed(host, "bench", scale).documents
        self._definition = find_definition(_DEFINITIONS, "0001")
        self._migrations = Migrations(
            firestore=self.firestore,
            definitions=_DEFINITIONS,
            data_dir=folder,
            telemetry=telemetry,
            preconditions=Preconditions(restore_point=_no_backup_needed),
            settings=RunSettings(parallel=parallel, validate=validate),
        )

    def round(self) -> Round:
        before = fingerprint(self.firestore.documents(), exclude=_OWN)
        bare = self._bare()
        report = self._migrations.run("0001", again=True)
        undone = self._migrations.undo(report.record.id)
        after = fingerprint(self.firestore.documents(), exclude=_OWN)
        if before.digest != after.digest:
            sys.exit("the undo did not bring back what was there")
        return Round(
            bare=bare,
            migrate=report.documents_per_second,
            undo=undone.findings.undone / undone.findings.write_seconds,
            undo_verified=undone.documents_per_second,
        )

    def _bare(self) -> float:
        """Write what the migration would write, and back, with nothing around it: twice the documents."""
        after, before = list(self._planned(True)), list(self._planned(False))
        began = time.perf_counter()
        self.firestore.write(after, origin="bench").finish()
        seconds = time.perf_counter() - began
        self.firestore.write(before, origin="bench").finish()
        return len(after) / seconds

    def _planned(self, changed: bool) -> Iterator[PlannedWrite]:
        at = self.firestore.server_time()
        for collection in self._definition.collections:
            for raw in self.firestore.documents(CollectionGroup(id=collection), at):
                own = changes_of(self._definition, raw, self.firestore.address).own
                if own is not None:
                    fields = own.write.fields if changed else raw.fields
                    yield PlannedWrite(name=raw.name, fields=fields)


def _no_backup_needed() -> RestorePoint:
    return RestorePoint(id="none", read_time=datetime.now(UTC), verified=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.02, help="1 is 306,725 documents")
    parser.add_argument("--backend", choices=("sandbox", "emulator"), default="sandbox")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=4, help="chunks on their way at once")
    parser.add_argument("--no-validate", action="store_true", help="read nothing back during the run")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with running(given.backend) as host, tempfile.TemporaryDirectory() as folder:
        bench = Bench(host, given.scale, Path(folder), parallel=given.parallel, validate=not given.no_validate)
        rounds = [bench.round() for _ in range(given.rounds)]
        bench.firestore.close()
    medians = {name: statistics.median(getattr(one, name) for one in rounds) for name in asdict(rounds[0])}
    ratios = {
        "migrate / bare": statistics.median(one.migrate / one.bare for one in rounds),
        "undo / migrate": statistics.median(one.undo / one.migrate for one in rounds),
    }
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if given.json:
        print(json.dumps({"documents": bench.documents, "documents_per_second": medians, "ratios": ratios}))
        return
    print(f"{bench.documents:,} documents on the {given.backend}, median of {given.rounds}; peak {megabytes:,.0f} MB")
    for name, value in medians.items():
        print(f"  {name:<16} {value:>10,.0f} documents/s")
    for name, value in ratios.items():
        print(f"  {name:<16} {value:>10.2f}")


if __name__ == "__main__":
    main()
