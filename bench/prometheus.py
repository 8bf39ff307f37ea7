"""Our engine beside Debian's Prometheus on the same 10,000 series: the CPU of 1,000 rules, and of range queries.

    python -m bench prometheus

Prometheus scrapes the population and evaluates the rules by itself; its CPU is the process's, less what it uses for
scraping alone. Ours is that of the rule loop's evaluator on the store, alerts and state file included. Both have to
find the same alerts and the same numbers, or there is no figure.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from agent.alerting import RuleEvaluator, load_rules
from agent.clock import ManualClock
from agent.promql import Engine
from agent.samples import SeriesStore
from agent.sandbox.child import Child
from agent.state import StateFile
from agent.telemetry import quiet_telemetry
from bench.measure import Measure, Setup, Table, Target
from bench.monitoring import CONFIGURATION, PROMETHEUS, RULES, Remote, Server, configuration, missing, prometheus
from bench.population import JOBS, Feed

_HISTORY_S = 330  # the rules' window of 5 min, and room for some passes
_FILL_PAUSE_S = 0.1
_INTERVAL_S = 5
_IDLE_S = 5.0
_THOUSAND = 1_000
_STEPS = 120
_TEN_WINDOWS = tuple(f"{30 * number}s" for number in range(1, 11))
_FEW_RULES = 20  # of W1: all of them take Prometheus some 200 CPU seconds a pass, and it shares nothing between rules

RULE_LIMIT = Target(limit=0.2, at_least=False)
QUERY_LIMIT = Target(limit=1.0, at_least=False)
QUERIES = ("y_total", "rate(y_total[2m])", "sum by (job) (rate(y_total[2m]))")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Rules as of the reference: ``sum by (job) (rate(x{job="a"}[w])) / sum by (job) (rate(y[w])) > 0.05``.

    Args:
        matched: the right side names the job, too.
        rules: how many of the thousand are there.
    """

    name: str
    windows: tuple[str, ...] = ("5m",)
    matched: bool = True
    rules: int = _THOUSAND

    def file(self) -> str:
        """The rule file, the same for both."""
        lines = ["groups:", f"  - {{name: bench, interval: {_INTERVAL_S}s, rules: ["]
        for number in range(self.rules):
            window = self.windows[number // JOBS % len(self.windows)]
            job = f'{{job="job{number % JOBS}"}}'
            failed = f"sum by (job) (rate(x_total{job}[{window}]))"
            asked = f"sum by (job) (rate(y_total{job if self.matched else ''}[{window}]))"
            lines.append(f"    {{alert: R{number}, expr: '{failed} / {asked} > 0.05'}},")
        return "\n".join([*lines, "  ]}", ""])


WORKLOADS = (
    Workload(name="W1", matched=False, rules=_FEW_RULES),
    Workload(name="W2"),
    Workload(name="W3", windows=_TEN_WINDOWS),
)


def measure(setup: Setup) -> list[Measure]:
    """Rules, then queries; nothing where there is no Prometheus. Scale and backend play no part."""
    table = Table("prometheus", setup)
    if PROMETHEUS in missing():
        print("prometheus: not installed, left out (apt-get install prometheus)", file=sys.stderr)
        return table.measures
    with (
        Feed(history=_HISTORY_S, pause=_FILL_PAUSE_S) as feed,
        prometheus(configuration(feed.target, "100ms")) as theirs,
    ):
        feed.wait_until_full()
        theirs.rewrite(CONFIGURATION, configuration(feed.target, "1s"))
        _compare_rules(table, setup, feed, theirs)
        theirs.rewrite(CONFIGURATION, configuration(feed.target, "1h"))
        _compare_queries(table, setup, feed, theirs)
    return table.measures


# --- rules --------------------------------------------------------------------------------------------------------


def _compare_rules(table: Table, setup: Setup, feed: Feed, theirs: Server) -> None:
    began, before = time.monotonic(), theirs.cpu()
    time.sleep(_IDLE_S)
    idle = (theirs.cpu() - before) / (time.monotonic() - began)
    store, held = SeriesStore(), _held(theirs)
    for reading in feed.served:
        if reading[0] in held:
            feed.population.file(store, reading)
    last = max(held)
    for load in WORKLOADS:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rules.yaml"
            file.write_text(load.file(), encoding="utf-8")
            ours, our_alerts = _our_passes(store, file, last, setup.rounds)
        server, their_alerts = _their_passes(theirs, load, idle, setup.rounds)
        if our_alerts != their_alerts:
            raise RuntimeError(f"{load.name}: the alerts differ by {sorted(our_alerts ^ their_alerts)[:5]}")
        times = _THOUSAND / load.rules
        what = (
            f"{load.name}, a pass" if load.rules == _THOUSAND else f"{load.name}, {load.rules} rules times {times:.0f}"
        )
        table.add(f"{what}: ours, CPU", ours * times * 1000, "ms")
        table.add(f"{what}: Prometheus, CPU", server * times * 1000, "ms")
        table.add(f"{load.name}: ours / Prometheus", ours / server, "x", RULE_LIMIT if load.matched else None)


def _our_passes(store: SeriesStore, file: Path, last: int, rounds: int) -> tuple[float, set[tuple[str, str]]]:
    """Median CPU seconds of a pass after the first, and alerts as (name, job)."""
    with tempfile.TemporaryDirectory() as folder, closing(StateFile(Path(folder) / "state.db")) as state:
        evaluator = RuleEvaluator(
            rules=load_rules([file]),
            engine=Engine(store),
            store=store,
            state=state,
            clock=ManualClock(datetime.fromtimestamp(last, UTC)),
            telemetry=quiet_telemetry(),
        )
        seconds = []
        for number in range(rounds + 1):
            # Half-way between two samples: Prometheus 2 and 3 differ on a sample at a window's very edge.
            now = datetime.fromtimestamp(last + 0.5, UTC) - timedelta(seconds=_INTERVAL_S * (rounds - number))
            before = time.thread_time()
            evaluator.tick(now)
            seconds.append(time.thread_time() - before)
        alerts = {(alert.labels["alertname"], alert.labels["job"]) for alert in evaluator.active()}
        store.stale(f"alerts:{evaluator.groups()[0].group.key}", last + 1.0)
    return statistics.median(seconds[1:]), alerts


def _their_passes(server: Server, load: Workload, idle: float, rounds: int) -> tuple[float, set[tuple[str, str]]]:
    """Mean CPU seconds of a pass after the first, and alerts as (name, job)."""
    server.rewrite(RULES, load.file())
    passes = _passes(server)
    first, cpu, began = _next_pass(server, passes)
    last = first
    while last < first + rounds:
        last, after, ended = _next_pass(server, last)
    used = (after - cpu - idle * (ended - began)) / (last - first)
    alerts = {(each["labels"]["alertname"], each["labels"]["job"]) for each in server.ask("alerts")["alerts"]}
    server.rewrite(RULES, "")
    return used, alerts


def _next_pass(server: Server, seen: int) -> tuple[int, float, float]:
    """Passes so far, CPU seconds and the monotonic clock, just after one has ended."""
    while True:
        found = _passes(server)
        if found > seen:
            return found, server.cpu(), time.monotonic()
        time.sleep(0.1)


def _passes(server: Server) -> int:
    """Evaluations of rule groups that have ended."""
    for line in server.get("/metrics").text.splitlines():
        if line.startswith("prometheus_rule_group_duration_seconds_count "):
            return int(float(line.split()[1]))
    return 0


def _held(server: Server) -> set[int]:
    """Unix seconds of the readings that Prometheus has: on a busy machine some of its scrapes time out."""
    (series,) = server.ask("query", query='y_total{job="job0",instance="0"}[1h]')["result"]
    return {int(float(at)) for at, _ in series["values"]}


# --- queries ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One range query as its caller sees it: seconds on the wall, CPU seconds of the server, ``data``."""

    wall: float
    cpu: float
    data: Any


def _compare_queries(table: Table, setup: Setup, feed: Feed, theirs: Server) -> None:
    with ExitStack() as stack:
        held = _held(theirs)
        arguments = [str(feed.began), *(str(at) for at in sorted(held))]
        replica = stack.enter_context(Child("bench.replica", arguments, name="replica", ready_within=120.0))
        ours = Remote(replica.ready["url"], replica.pid)
        stack.callback(ours.close)
        end = max(held) - 0.5
        for query in QUERIES:
            asked = {"query": query, "start": end - _STEPS + 1, "end": end, "step": 1}
            found = [(_ask(ours, asked), _ask(theirs, {**asked, "stats": 1})) for _ in range(setup.rounds + 1)][1:]
            _check_same(query, *(each.data["result"] for each in found[-1]))
            wall = statistics.median(our.wall / their.wall for our, their in found)
            cpu = statistics.median(our.cpu / their.cpu for our, their in found)
            engine = statistics.median(replica.ask(asked, within=60.0)["seconds"] for _ in range(setup.rounds))
            their_engine = statistics.median(their.data["stats"]["timings"]["evalTotalTime"] for _, their in found)
            table.add(f"{query}, HTTP: ours", statistics.median(our.wall for our, _ in found) * 1000, "ms")
            table.add(f"{query}, HTTP: ours / Prometheus, wall", wall, "x", QUERY_LIMIT)
            table.add(f"{query}, HTTP: ours / Prometheus, CPU", cpu, "x", QUERY_LIMIT)
            table.add(f"{query}, engine: ours / Prometheus, wall", engine / their_engine, "x", QUERY_LIMIT)


def _ask(server: Remote, asked: Mapping[str, Any]) -> Asked:
    cpu, wall = server.cpu(), time.perf_counter()
    response = server.get("/api/v1/query_range", asked)
    wall, cpu = time.perf_counter() - wall, server.cpu() - cpu
    return Asked(wall=wall, cpu=cpu, data=response.json()["data"])


def _check_same(query: str, ours: list[Any], theirs: list[Any]) -> None:
    """Raises: RuntimeError: the answers differ by more than rounding."""
    if [each["metric"] for each in ours] != [each["metric"] for each in theirs]:
        raise RuntimeError(f"{query}: the series differ")
    ours_found, theirs_found = (np.array([each["values"] for each in one], dtype=np.float64) for one in (ours, theirs))
    if not np.allclose(ours_found, theirs_found, rtol=1e-9, atol=0.0):
        raise RuntimeError(f"{query}: the numbers differ")
