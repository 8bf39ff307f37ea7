"""What the rules judge by: for each metric of the page its value now, read from the rules themselves.

So what is shown, and what a run slows down for, is what is judged, whatever the rule files say. Called by the views
and, while a migration runs, by the tick, which publishes its load (:class:`agent.migration.LoadFile`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

from agent.alerting import AlertState, RuleEvaluator
from agent.clock import Clock
from agent.faults import RunbookdError
from agent.migration import Load
from agent.promql import Engine
from agent.runbook import Policy

LATENCY = "query_latency_p95"
ERRORS = "error_rate"


class Judged:
    """Values by metric of the page; the largest where there are more.

    Args:
        policy: the one in force.
    """

    def __init__(self, *, rules: RuleEvaluator, engine: Engine, policy: Callable[[], Policy], clock: Clock) -> None:
        self._rules = rules
        self._engine = engine
        self._policy = policy
        self._clock = clock

    def values(self, only: Collection[str] = ()) -> Mapping[str, float]:
        """Of these metrics, or of all; those without data are left out."""
        shared = self._engine.at(self._clock.now().timestamp())
        found: dict[str, float] = {}
        for rule in self._rules.rules.alerts:
            metric = rule.labels["metric"].text if "metric" in rule.labels else ""
            if not metric or (only and metric not in only):
                continue
            try:
                elements = shared.elements(rule.expression.witness or rule.expression.root)
            except RunbookdError:
                continue  # the rule's own health says so
            for element in elements:
                if math.isfinite(element.value):
                    found[metric] = max(found.get(metric, element.value), element.value)
        return found

    def load(self) -> Load:
        """What a running migration minds."""
        values = self.values((LATENCY, ERRORS))
        return Load(latency=values.get(LATENCY), errors=values.get(ERRORS), reversal=self._reversal())

    def _reversal(self) -> str:
        """What an alert says that a rollback follows; from pending on, so that a run may yet avert it."""
        policy = self._policy()
        for alert in self._rules.active():
            row = policy.row(alert.labels.get("matrix", ""))
            holds = alert.state in (AlertState.PENDING, AlertState.FIRING) and not alert.blind
            if holds and row is not None and row.rolls_back:
                return alert.summary
        return ""
