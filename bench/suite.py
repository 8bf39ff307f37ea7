"""All benchmarks under one roof: each takes a :class:`~bench.measure.Setup` and gives measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench import backup, detection, large, lateness, migration, prometheus, rules, wire
from bench.measure import Measure, Setup, Table, Target

Bench = Callable[[Setup], list[Measure]]


def measure_rules(setup: Setup) -> list[Measure]:
    """The rule loop's cost; CPU, because the machine's load moves the wall clock."""
    table = Table("rules", setup)
    for figure in rules.run():
        target = Target(limit=figure.goal_ms, at_least=False) if figure.goal_ms is not None else None
        table.add(f"{figure.name}, CPU", figure.cpu_ms, "ms", target)
    return table.measures


BENCHES: Mapping[str, Bench] = {
    "rules": measure_rules,
    "wire": wire.measure,
    "backup": backup.measure,
    "migration": migration.measure,
    "large": large.measure,
    "prometheus": prometheus.measure,
    "detection": detection.measure,
    "lateness": lateness.measure,
}
