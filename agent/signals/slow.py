"""Which queries are slow now, by what a running daemon has sampled.

The daemon's read API is a port, so that this works across processes; :class:`agent.api.client.DaemonClient` stands
behind it. Called by ``runbookd slow-queries``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from agent.runbook import QueryTarget
from agent.samples import Exemplar

_SERIES = "db_client_operation_duration_seconds"
_BY = "db_query_summary, db_operation_name"
_AGENT = ""  # what carries no summary is the agent's own reading and writing

Key = tuple[str, str]


class Asked(Protocol):
    """A Prometheus-compatible read API."""

    def query(self, expression: str, at: datetime) -> list[tuple[Mapping[str, str], float]]:
        """The vector that ``expression`` gives, as labels and value."""

    def exemplars(
        self, selector: str, start: datetime, end: datetime
    ) -> list[tuple[Mapping[str, str], list[Exemplar]]]:
        """Exemplars of the selected series, by their labels."""


@dataclass(frozen=True, kw_only=True)
class SlowQuery:
    """An operation of a query, as it went in the window.

    Args:
        query: the page's slug; empty for the agent's own operations, which have no target.
        operation: the RPC.
        p95: seconds.
        rate: operations a second; ``errors`` of them failed, as a ratio.
        target: seconds; ``None`` where the page has none.
        trace_id: of the slowest operation that is known by its trace, which took ``traced`` seconds; may be empty.
    """

    query: str
    operation: str
    p95: float
    rate: float
    errors: float
    target: float | None
    trace_id: str = ""
    traced: float | None = None

    @property
    def over(self) -> bool:
        """Whether it misses its target."""
        return self.target is not None and self.p95 >= self.target


def slowest(daemon: Asked, targets: Sequence[QueryTarget], *, at: datetime, window: timedelta) -> tuple[SlowQuery, ...]:
    """Every operation that was seen in the window up to ``at``, the slowest first.

    Raises:
        RunbookdError: the daemon couldn't be asked.
    """
    span = f"[{round(window.total_seconds())}s]"
    latency = f"histogram_quantile(0.95, sum by (le, {_BY}) (rate({_SERIES}_bucket{span})))"
    rate = _by_key(daemon.query(f"sum by ({_BY}) (rate({_SERIES}_count{span}))", at))
    failing = _by_key(daemon.query(f'sum by ({_BY}) (rate({_SERIES}_count{{error_type!=""}}{span}))', at))
    traces = _slowest_traces(daemon.exemplars(f"{_SERIES}_bucket", at - window, at))
    wanted = {target.query: target.target for target in targets}
    found = []
    for key, p95 in _by_key(daemon.query(latency, at)).items():
        if math.isnan(p95) or not rate.get(key):
            continue
        exemplar = traces.get(key)
        found.append(
            SlowQuery(
                query=key[0],
                operation=key[1],
                p95=p95,
                rate=rate[key],
                errors=failing.get(key, 0.0) / rate[key],
                target=wanted.get(key[0]),
                trace_id=exemplar.trace_id if exemplar else "",
                traced=exemplar.value if exemplar else None,
            )
        )
    return tuple(sorted(found, key=lambda slow: (-slow.p95, slow.query, slow.operation)))


def _by_key(vector: Sequence[tuple[Mapping[str, str], float]]) -> dict[Key, float]:
    return {_key(labels): value for labels, value in vector}


def _slowest_traces(series: Sequence[tuple[Mapping[str, str], list[Exemplar]]]) -> dict[Key, Exemplar]:
    best: dict[Key, Exemplar] = {}
    for labels, exemplars in series:
        for exemplar in exemplars:
            key = _key(labels)
            if exemplar.trace_id and (key not in best or exemplar.value > best[key].value):
                best[key] = exemplar
    return best


def _key(labels: Mapping[str, str]) -> Key:
    return labels.get("db_query_summary", _AGENT), labels.get("db_operation_name", "")
