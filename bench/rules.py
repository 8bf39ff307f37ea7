"""What the rule loop costs: ``python -m bench.rules [--json]``.

Three figures: a tick of the shipped rules over some 500 living series (goal: under 5 ms), filing one reading of 10,000
series, and 1,000 synthetic rules over 10,000 series at once. Times are medians of repeated runs, CPU and wall; the
machine's load moves the latter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from agent.alerting import AlertRule, RuleEvaluator, RuleGroup, RuleSet, load_rules
from agent.clock import ManualClock
from agent.promql import Engine, compile_expression
from agent.samples import Labels, Sample, SeriesStore, labels_of
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

START = datetime(2026, 1, 1, tzinfo=UTC)
RULES = Path(__file__).parents[1] / "rules"
QUERIES = ("user_lookup", "queue_generation", "batch_updates", "stats_calculation")
BOUNDS = ("0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.15", "0.2", "0.25", "0.3", "0.5", "1", "10", "+Inf")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Median of one measurement, in milliseconds."""

    name: str
    series: int
    rules: int
    wall_ms: float
    cpu_ms: float
    goal_ms: float | None = None


def measured(
    action: Callable[[], object], *, times: int, before: Callable[[], object] = lambda: None
) -> tuple[float, float]:
    """Medians (wall, CPU) of ``action`` in ms; ``before`` each run is not counted."""
    walls, cpus = [], []
    for _ in range(times):
        before()
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    return statistics.median(walls), statistics.median(cpus)


@cache
def known(name: str, pairs: tuple[tuple[str, str], ...]) -> Labels:
    """Labels as a source keeps them from one reading to the next."""
    return labels_of(name, {"job": "runbookd", **dict(pairs)})


def living_system(second: int) -> list[Sample]:
    """A reading such as a busy daemon takes of itself and its application: some 500 series, all healthy."""
    count = float(10 * second)
    found: list[Sample] = []

    def put(name: str, value: float, **labels: str) -> None:
        found.append(Sample(known(name, tuple(labels.items())), value))

    for query in QUERIES:
        for rpc in ("RunQuery", "BatchGetDocuments", "Commit", "RunAggregationQuery", "ListDocuments", "BatchWrite"):
            labels = {"db_query_summary": query, "db_operation_name": rpc}
            for number, bound in enumerate(BOUNDS):
                put("db_client_operation_duration_seconds_bucket", count * min(1.0, number / 4), le=bound, **labels)
            put("db_client_operation_duration_seconds_count", count, **labels)
            put("db_client_operation_duration_seconds_sum", count / 50, **labels)
    for metric in ("query_latency_p95", "error_rate", "document_write_rate", "backup_failure", "storage_usage"):
        for level in ("warning", "critical"):
            put("runbook_threshold", 5000, metric=metric, level=level)
    for condition in ("data_corruption", "error_rate", "performance_degradation", "missing_indexes"):
        put("runbook_decision_threshold", 5000, condition=condition)
    for query in QUERIES:
        put("runbook_query_target_seconds", 0.3, query=query)
        put("runbookd_baseline_query_latency_seconds", 0.05, query=query)
    for origin in ("application", "migration", "undo", "control"):
        put("firestore_documents_written_total", count, origin=origin)
    for name in ("snapshot", "incremental", "full"):
        put("runbookd_backup_consecutive_failures", 0, type=name)
    for collection in ("users", "lessons", "reviews", "review_items", "progress"):
        put("runbookd_migration_mismatched_documents", 0, collection=collection)
    for source in ("instruments", "application", "probes"):
        put("runbookd_signal_age_seconds", 0.5, source=source)
        put("runbookd_probe_success", 1, probe=source)
        put("runbookd_outbox_pending", 0, channel=source)
        put("runbookd_workers_stuck", 0, operation=source)
    put("runbookd_storage_usage_ratio", 0.4, storage="local")
    put("runbookd_recovery_active", 0)
    put("runbookd_rule_ticks_missed_total", 0)
    return found


def evaluator_over(store: SeriesStore, rules: RuleSet, state: StateFile) -> RuleEvaluator:
    return RuleEvaluator(
        rules=rules,
        engine=Engine(store),
        store=store,
        state=state,
        clock=ManualClock(START),
        telemetry=quiet_telemetry(),
    )


def shipped_rules(state: StateFile) -> Figure:
    """A tick of the rules in ``rules/``, one second after the last."""
    store = SeriesStore()
    rules = load_rules([RULES])
    evaluator = evaluator_over(store, rules, state)
    second = 0

    def advance() -> None:
        nonlocal second
        second += 1
        store.ingest("bench", (START + timedelta(seconds=second)).timestamp(), living_system(second))

    def tick() -> None:
        evaluator.tick(START + timedelta(seconds=second))

    for _ in range(320):
        advance()
    measured(tick, times=3, before=advance)
    wall, cpu = measured(tick, times=60, before=advance)
    return Figure(
        name="tick of the shipped rules",
        series=store.statistics().series,
        rules=len(rules.rules),
        wall_ms=wall,
        cpu_ms=cpu,
        goal_ms=5.0,
    )


def filing() -> Figure:
    """One reading of 10,000 known series."""
    store = SeriesStore()
    labels = [labels_of("requests_total", {"id": str(number)}) for number in range(10_000)]
    second = 0
    batch: list[Sample] = []

    def prepare() -> None:
        nonlocal second, batch
        second += 1
        batch = [Sample(each, float(second)) for each in labels]

    wall, cpu = measured(lambda: store.ingest("bench", float(second), batch), times=20, before=prepare)
    return Figure(name="filing a reading", series=len(labels), rules=0, wall_ms=wall, cpu_ms=cpu, goal_ms=10.0)


def thousand_rules(*, windows: tuple[str, ...], name: str) -> Figure:
    """1,000 rules ``sum by (job) (rate(x{job="a"})) / sum by (job) (rate(y{job="a"})) > 0.05`` over 10,000 series."""
    store = SeriesStore()
    labels = [
        labels_of(metric, {"job": f"job{job}", "instance": str(instance)})
        for metric in ("x_total", "y_total")
        for job in range(100)
        for instance in range(50)
    ]
    for second in range(300):
        samples = [Sample(each, second * (1.0 + number % 7)) for number, each in enumerate(labels)]
        store.ingest("bench", (START + timedelta(seconds=second)).timestamp(), samples)
    rules = tuple(
        AlertRule(
            name=f"R{number}",
            expression=compile_expression(_ratio(f"job{number % 100}", windows[number // 100 % len(windows)])),
            pending_for=timedelta(seconds=60),
            keep_firing_for=timedelta(0),
            labels={},
            annotations={},
            place=f"bench:{number}",
        )
        for number in range(1_000)
    )
    group = RuleGroup(name="bench", file="bench", interval=timedelta(seconds=1), limit=0, rules=rules)
    engine = Engine(store)
    at = (START + timedelta(seconds=299)).timestamp()

    def evaluate() -> None:
        shared = engine.at(at)
        for rule in group.rules:
            shared.elements(rule.expression.root)

    evaluate()
    wall, cpu = measured(evaluate, times=5)
    return Figure(name=name, series=len(labels), rules=len(rules), wall_ms=wall, cpu_ms=cpu)


def _ratio(job: str, window: str) -> str:
    failed, asked = (f'sum by (job) (rate({metric}{{job="{job}"}}[{window}]))' for metric in ("x_total", "y_total"))
    return f"{failed} / {asked} > 0.05"


def run() -> list[Figure]:
    """All measurements."""
    with tempfile.TemporaryDirectory() as folder, closing(StateFile(Path(folder) / "state.db")) as state:
        windows = tuple(f"{30 * number}s" for number in range(1, 11))
        return [
            shipped_rules(state),
            filing(),
            thousand_rules(windows=("5m",), name="1,000 rules, one window (W2)"),
            thousand_rules(windows=windows, name="1,000 rules, ten windows (W3)"),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    options = parser.parse_args()
    figures = run()
    if options.json:
        json.dump([asdict(figure) for figure in figures], sys.stdout, indent=2)
        print()
        return
    for figure in figures:
        goal = f"  (goal {figure.goal_ms:g} ms)" if figure.goal_ms else ""
        print(
            f"{figure.name:32} {figure.rules:5} rules {figure.series:6} series"
            f" {figure.wall_ms:9.2f} ms wall {figure.cpu_ms:9.2f} ms CPU{goal}"
        )


if __name__ == "__main__":
    main()
