"""All benchmarks under one roof: each takes a :class:`~bench.measure.Setup` and gives measures."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import backup, detection, lateness, migration, prometheus, rules, wire
from bench.measure import Measure, Setup, Table, Target, duel, timed
from bench.servers import running

Bench = Callable[[Setup], list[Measure]]

_FULL_SIZE = 300_000


def measure_rules(setup: Setup) -> list[Measure]:
    """The rule loop's cost; CPU, because the machine's load moves the wall clock."""
    table = Table("rules", setup)
    for figure in rules.run():
        target = Target(limit=figure.goal_ms, at_least=False) if figure.goal_ms is not None else None
        table.add(f"{figure.name}, CPU", figure.cpu_ms, "ms", target)
    return table.measures


def measure_backup(setup: Setup) -> list[Measure]:
    """Create, restore, verify and incremental, each beside the fastest thing that could be."""
    folder = Path(tempfile.mkdtemp(prefix="runbookd-bench-"))
    try:
        with running(setup.backend) as host:
            bench = backup.Bench(host, setup.scale, folder)
            table = Table("backup", setup, documents=bench.documents)
            promise = Target(limit=0.85, at_least=True, backend="emulator", documents=_FULL_SIZE)
            creating = duel(bench.create, bench.read_bare, setup.rounds)
            table.add("create", bench.documents / creating.ours, "documents/s")
            table.add("create / bare reader", creating.ratio, "x", promise)
            restoring = duel(bench.restore, bench.write_bare, setup.rounds)
            table.add("restore", bench.documents / restoring.ours, "documents/s")
            table.add("restore / bare writer", restoring.ratio, "x", promise)
            verified = statistics.median(timed(bench.verify) for _ in range(setup.rounds))
            table.add("verify", bench.documents / verified, "documents/s")
            _incremental(bench, table, setup.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return table.measures


def _incremental(bench: backup.Bench, table: Table, rounds: int) -> None:
    shares, sizes = [], []
    for _ in range(rounds):
        bench.change(0.01)
        began = time.perf_counter()
        sizes.append(bench.incremental() / bench.full_bytes)
        seconds = time.perf_counter() - began
        shares.append(seconds / timed(bench.create))
    for what, median, limit in (("time", statistics.median(shares), 0.5), ("bytes", statistics.median(sizes), 0.015)):
        promise = Target(limit=limit, at_least=False, backend="emulator", documents=_FULL_SIZE)
        table.add(f"incremental / full, {what}, 1 % changed", median, "x", promise)


BENCHES: Mapping[str, Bench] = {
    "rules": measure_rules,
    "wire": wire.measure,
    "backup": measure_backup,
    "migration": migration.measure,
    "prometheus": prometheus.measure,
    "detection": detection.measure,
    "lateness": lateness.measure,
}
