"""The page's figures as series, so that a rule and a Grafana panel read the threshold from the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from agent.runbook import Policy
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import (
    RUNBOOK_DECISION_THRESHOLD,
    RUNBOOK_QUERY_TARGET,
    RUNBOOK_THRESHOLD,
    RUNBOOK_TIME_BUDGET,
)

_Observed = Iterable[tuple[float, Mapping[str, str]]]


def observe_policy(policy: Callable[[], Policy], telemetry: Telemetry) -> None:
    """Publish thresholds, decision thresholds, query targets and budgets of the policy in force.

    Args:
        policy: the current policy; asked at every collection, so that a reloaded page takes effect at once and a
            threshold that left the page leaves the series.
    """

    def thresholds() -> _Observed:
        for threshold in policy().thresholds:
            yield threshold.warning.value, {"metric": threshold.metric, "level": "warning"}
            yield threshold.critical.value, {"metric": threshold.metric, "level": "critical"}

    def decisions() -> _Observed:
        for row in policy().matrix:
            # A row without a figure ("Data corruption") means: any at all.
            if not row.manual:
                yield row.threshold.value if row.threshold else 0.0, {"condition": row.condition}

    def targets() -> _Observed:
        for target in policy().query_targets:
            yield target.target, {"query": target.query}

    def budgets() -> _Observed:
        for row in policy().matrix:
            if row.budget is not None:
                yield row.budget.total_seconds(), {"condition": row.condition}

    telemetry.observe(RUNBOOK_THRESHOLD, thresholds)
    telemetry.observe(RUNBOOK_DECISION_THRESHOLD, decisions)
    telemetry.observe(RUNBOOK_QUERY_TARGET, targets)
    telemetry.observe(RUNBOOK_TIME_BUDGET, budgets)
