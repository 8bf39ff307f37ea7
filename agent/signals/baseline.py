"""The latency baseline: what "50 % slower" is measured against.

Taken from the samples just before a migration run starts, bound to that run, kept in the state file. A query with
too few operations in the window gets no baseline, and without one nothing is called degraded: the comparison goes to
a person instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from agent.promql import Engine, Vector, compile_expression
from agent.state import StateFile
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import BASELINE_LATENCY

_SCHEMA = ("CREATE TABLE baseline (run_id TEXT PRIMARY KEY, taken_at TEXT NOT NULL, body TEXT NOT NULL);",)
_SELECTOR = 'db_client_operation_duration_seconds{part}{{db_query_summary!="",error_type=""}}[{window}s]'


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """p95 seconds by query before run ``run_id``, with the number of operations each rests on."""

    run_id: str
    taken_at: str
    window_seconds: float
    p95: Mapping[str, float]
    operations: Mapping[str, float]


class BaselineRecorder:
    """Takes, keeps and publishes the baseline of the run under watch.

    Args:
        window: seconds of samples before the run that count.
        minimum: operations a query needs in the window; fewer are not comparable.
    """

    def __init__(
        self, *, engine: Engine, state: StateFile, telemetry: Telemetry, window: int = 60, minimum: int = 30
    ) -> None:
        self._engine = engine
        self._state = state
        self._window = window
        self._minimum = minimum
        bucket = _SELECTOR.format(part="_bucket", window=window)
        count = _SELECTOR.format(part="_count", window=window)
        self._p95 = compile_expression(f"histogram_quantile(0.95, sum by (le, db_query_summary) (rate({bucket})))")
        self._operations = compile_expression(f"sum by (db_query_summary) (increase({count}))")
        state.ensure("signals", _SCHEMA)
        self._current: Baseline | None = None
        telemetry.observe(BASELINE_LATENCY, self._observe)

    def take(self, run_id: str, now: datetime) -> Baseline:
        """Measure and keep the baseline of ``run_id``; it is the one published from now on."""
        at = now.timestamp()
        operations = _by_query(self._engine.instant(self._operations, at))
        p95 = {
            query: value
            for query, value in _by_query(self._engine.instant(self._p95, at)).items()
            if operations.get(query, 0.0) >= self._minimum and math.isfinite(value) and value > 0
        }
        baseline = Baseline(
            run_id=run_id,
            taken_at=now.isoformat(),
            window_seconds=float(self._window),
            p95=p95,
            operations=operations,
        )
        with self._state.transaction() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO baseline (run_id, taken_at, body) VALUES (?, ?, ?)",
                (run_id, baseline.taken_at, json.dumps(asdict(baseline))),
            )
        self._current = baseline
        return baseline

    def watch(self, run_id: str | None) -> Baseline | None:
        """Publish the kept baseline of ``run_id`` (after a restart), or none."""
        if run_id is None:
            self._current = None
        elif self._current is None or self._current.run_id != run_id:
            rows = self._state.query("SELECT body FROM baseline WHERE run_id = ?", (run_id,))
            self._current = Baseline(**json.loads(rows[0]["body"])) if rows else None
        return self._current

    def _observe(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        current = self._current
        for query, seconds in (current.p95 if current else {}).items():
            yield seconds, {"query": query}


def _by_query(value: object) -> dict[str, float]:
    if not isinstance(value, Vector):
        return {}
    return {dict(element.labels).get("db_query_summary", ""): element.value for element in value.elements}
