"""Answers of Prometheus's HTTP API: our values, rules and alerts in its JSON.

Formats follow https://prometheus.io/docs/prometheus/latest/querying/api/ and, where that is silent, what Prometheus
writes: a test compares. Used by :mod:`agent.api.prometheus` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from agent.alerting import Alert, AlertRule, AlertState, GroupStatus, Health, RuleStatus
from agent.clock import rfc3339
from agent.promql import Matrix, Scalar, Text, Value, Vector, format_exponent, format_value
from agent.samples import Exemplar, Labels

TRUNCATED = "results truncated due to limit"
_FIRING = frozenset({AlertState.FIRING, AlertState.RECOVERING})
_HEALTH: Mapping[Health, str] = {Health.UNKNOWN: "unknown", Health.ERROR: "err"}


def stamp(seconds: float) -> float | int:
    """Milliseconds at most, and whole seconds without a fraction."""
    rounded = round(seconds, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def of_value(value: Value, at: float, limit: int, stamp: Callable[[float], Any] = stamp) -> tuple[dict[str, Any], bool]:
    """A query's result, and whether ``limit`` (0: none) cut it short.

    Args:
        stamp: what a moment is written as.
    """
    match value:
        case Vector():
            elements = value.elements[: limit or None]
            vector = [
                {"metric": dict(element.labels), "value": [stamp(at), number(element.value)]} for element in elements
            ]
            return {"resultType": "vector", "result": vector}, len(elements) < len(value.elements)
        case Matrix():
            series = value.series[: limit or None]
            matrix = [
                {
                    "metric": dict(each.labels),
                    "values": [
                        [stamp(moment), number(sample)]
                        for moment, sample in zip(each.timestamps.tolist(), each.values.tolist(), strict=True)
                    ],
                }
                for each in series
            ]
            return {"resultType": "matrix", "result": matrix}, len(series) < len(value.series)
        case Scalar():
            return {"resultType": "scalar", "result": [stamp(at), number(value.value)]}, False
        case Text():
            return {"resultType": "string", "result": [stamp(at), value.value]}, False


def of_exemplars(labels: Labels, exemplars: list[Exemplar], stamp: Callable[[float], Any] = stamp) -> dict[str, Any]:
    """A series and the operations that are known by their trace."""
    return {
        "seriesLabels": dict(labels),
        "exemplars": [
            {
                "labels": {"trace_id": exemplar.trace_id},
                "value": number(exemplar.value),
                "timestamp": stamp(exemplar.timestamp),
            }
            for exemplar in exemplars
        ],
    }


def of_group(status: GroupStatus, rules: list[RuleStatus], *, alerts: bool) -> dict[str, Any]:
    """A group with those of its rules that were asked for."""
    group = status.group
    return {
        "name": group.name,
        "file": group.file,
        "interval": _plain(group.interval.total_seconds()),
        "limit": group.limit,
        "rules": [_of_rule(rule, alerts=alerts) for rule in rules],
        "evaluationTime": status.seconds,
        "lastEvaluation": _moment(status.last_evaluation),
    }


def of_alert(alert: Alert) -> dict[str, Any]:
    """Prometheus knows two states; an alert that recovers still fires."""
    return {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "state": "firing" if alert.state in _FIRING else "pending",
        "activeAt": rfc3339(alert.active_since),
        "value": format_exponent(alert.value),
    }


def number(value: float) -> str:
    """A sample's value: the shortest digits that read back, with an exponent only where it is far from 1."""
    far = math.isfinite(value) and value != 0 and not 1e-6 <= abs(value) < 1e21
    return format_exponent(value) if far else format_value(value)


def _of_rule(status: RuleStatus, *, alerts: bool) -> dict[str, Any]:
    rule = status.rule
    body: dict[str, Any] = {
        "name": rule.name,
        "query": rule.expression.text.strip(),
        "health": _HEALTH.get(status.health, "ok"),
        "evaluationTime": status.seconds,
        "lastEvaluation": _moment(status.last_evaluation),
    }
    if status.error:
        body["lastError"] = status.error
    if not isinstance(rule, AlertRule):
        return {**body, "type": "recording", **({"labels": dict(rule.labels)} if rule.labels else {})}
    states = {alert.state for alert in status.alerts}
    return {
        **body,
        "type": "alerting",
        "state": "firing" if states & _FIRING else "pending" if AlertState.PENDING in states else "inactive",
        "duration": _plain(rule.pending_for.total_seconds()),
        "keepFiringFor": _plain(rule.keep_firing_for.total_seconds()),
        "labels": {name: template.text for name, template in rule.labels.items()},
        "annotations": {name: template.text for name, template in rule.annotations.items()},
        **({"alerts": [of_alert(alert) for alert in status.alerts]} if alerts else {}),
    }


def _plain(seconds: float) -> float | int:
    return int(seconds) if seconds == int(seconds) else seconds


def _moment(moment: datetime | None) -> str:
    return rfc3339(moment) if moment is not None else "0001-01-01T00:00:00Z"
