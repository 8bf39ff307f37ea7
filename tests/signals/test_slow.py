"""Slow queries by a daemon's samples: order, targets, traces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from agent.runbook import QueryTarget
from agent.samples import Exemplar
from agent.signals.slow import slowest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Vector = list[tuple[Mapping[str, str], float]]


def _labels(query: str, operation: str) -> dict[str, str]:
    return {"db_operation_name": operation, **({"db_query_summary": query} if query else {})}


class Daemon:
    """Answers the three questions that are asked, from figures by query and operation."""

    def __init__(self, figures: Mapping[tuple[str, str], tuple[float, float, float]]) -> None:
        self._figures = figures
        self.traces: list[tuple[Mapping[str, str], list[Exemplar]]] = []
        self.asked: list[str] = []

    def query(self, expression: str, at: datetime) -> Vector:
        assert at == NOW
        self.asked.append(expression)
        which = 0 if "histogram_quantile" in expression else 2 if "error_type" in expression else 1
        return [(_labels(*key), values[which]) for key, values in self._figures.items()]

    def exemplars(
        self, selector: str, start: datetime, end: datetime
    ) -> list[tuple[Mapping[str, str], list[Exemplar]]]:
        assert (selector, end - start) == ("db_client_operation_duration_seconds_bucket", timedelta(minutes=5))
        return self.traces


TARGETS = [
    QueryTarget(query="user_lookup", title="User lookup", current=0.045, target=0.05),
    QueryTarget(query="queue_generation", title="Queue generation", current=0.087, target=0.1),
]


def test_slowest_first_with_targets_and_errors() -> None:
    """The agent's own operations have no target; a target is missed from the target on."""
    daemon = Daemon(
        {
            ("user_lookup", "BatchGetDocuments"): (0.05, 10.0, 1.0),
            ("queue_generation", "RunQuery"): (0.09, 5.0, 0.0),
            ("", "BatchWrite"): (0.7, 2.0, 0.0),
        }
    )
    found = slowest(daemon, TARGETS, at=NOW, window=timedelta(minutes=5))
    assert [(slow.query, slow.over, slow.errors) for slow in found] == [
        ("", False, 0.0),
        ("queue_generation", False, 0.0),
        ("user_lookup", True, 0.1),
    ]
    assert all("[300s]" in expression for expression in daemon.asked)


def test_an_operation_without_traffic_is_left_out() -> None:
    """Where nothing happened in the window there is no p95."""
    daemon = Daemon({("user_lookup", "RunQuery"): (math.nan, 0.0, 0.0)})
    assert slowest(daemon, TARGETS, at=NOW, window=timedelta(minutes=5)) == ()


def test_the_trace_of_the_slowest_operation_is_shown() -> None:
    """Of all buckets of an operation; exemplars without a trace are no use."""
    daemon = Daemon({("user_lookup", "RunQuery"): (0.1, 1.0, 0.0)})
    labels = _labels("user_lookup", "RunQuery")
    daemon.traces = [
        ({**labels, "le": "0.1"}, [Exemplar("aa", 0.09, 1.0), Exemplar("", 9.0, 1.0)]),
        ({**labels, "le": "0.5"}, [Exemplar("bb", 0.4, 1.0)]),
        (_labels("", "BatchWrite"), [Exemplar("cc", 5.0, 1.0)]),
    ]
    (slow,) = slowest(daemon, TARGETS, at=NOW, window=timedelta(minutes=5))
    assert (slow.trace_id, slow.traced) == ("bb", 0.4)
