"""The engine: plans in, values out, for instants and for ranges, within limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agent.faults import Refused, RefusedReason
from agent.promql.budget import Budget
from agent.promql.evaluation import Evaluation, Selected
from agent.promql.expressions import Kind
from agent.promql.plan import Plan
from agent.promql.remarks import Answer
from agent.promql.tables import SeriesTable
from agent.promql.values import Matrix, Value
from agent.promql.way import RightOfWay
from agent.samples import Matcher, SeriesStore

MAX_STEPS = 11_001  # Prometheus allows 11,000 steps beyond the first
_SELECTIONS_KEPT = 1_024
# Past the year 30,000 milliseconds and offsets no longer fit; nobody asks for it on purpose.
_FARTHEST_S = 1e12


class Engine:
    """Evaluates plans over a store; thread-safe, and never changes the store.

    Args:
        store: where the samples are.
        lookback: seconds for which a sample stands for its series if nothing newer says otherwise.
        subquery_step: seconds between the points of a subquery that names no step.
        timeout: seconds that one query, or one rule, may take. Less than Prometheus's two minutes: this engine shares
            its process with the rule loop.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        store: SeriesStore,
        *,
        lookback: float = 300.0,
        subquery_step: float = 60.0,
        timeout: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.lookback = round(lookback * 1000)
        self.subquery_step = round(subquery_step * 1000)
        self.timeout = timeout
        self.way = RightOfWay()
        """Taken by the rule loop; :meth:`query` and :meth:`query_range` give it."""
        self._monotonic = monotonic
        self._selected: dict[tuple[Matcher, ...], Selected] = {}
        self._lock = threading.Lock()

    def at(self, moment: float) -> Evaluation:
        """A shared evaluation of any number of plans at ``moment`` (unix seconds); each has a time limit of its own.

        Raises:
            Refused: no clock shows ``moment``.
        """
        return Evaluation(self, _steps(moment, moment, 1.0), self._budget(None, in_a_hurry=True))

    def instant(self, plan: Plan, at: float) -> Value:
        """The value of ``plan`` at ``at`` (unix seconds).

        Raises:
            Permanent: the data can't be put through the expression (duplicate label sets, ambiguous matches).
            Refused: it would take more samples than the engine's limit.
            Transient: it takes longer than the engine's limit.
        """
        return self.at(at).value(plan)

    def range(self, plan: Plan, start: float, end: float, step: float) -> Matrix:
        """The values of ``plan`` from ``start`` to ``end`` every ``step`` (unix seconds; seconds).

        Raises:
            Refused: a bad range, or more steps or samples than the limits.
            Permanent, Transient: as for :meth:`instant`.
        """
        return self._range(plan, start, end, step, self._budget(None, in_a_hurry=True))[1]

    def query(self, plan: Plan, at: float, *, timeout: float | None = None) -> Answer:
        """As :meth:`instant`, with warnings and infos; ``timeout`` (s) may only shorten the engine's own."""
        evaluation = Evaluation(self, _steps(at, at, 1.0), self._budget(timeout))
        return evaluation.answer(plan, evaluation.value(plan))

    def query_range(self, plan: Plan, start: float, end: float, step: float, *, timeout: float | None = None) -> Answer:
        """As :meth:`range`, with warnings and infos; ``timeout`` (s) may only shorten the engine's own."""
        evaluation, matrix = self._range(plan, start, end, step, self._budget(timeout))
        return evaluation.answer(plan, matrix)

    def _range(self, plan: Plan, start: float, end: float, step: float, budget: Budget) -> tuple[Evaluation, Matrix]:
        if plan.kind not in (Kind.VECTOR, Kind.SCALAR):
            raise Refused(
                RefusedReason.UNSUPPORTED_EXPRESSION,
                f"a range query of a {plan.kind}",
                hint="use a scalar or an instant vector",
            )
        evaluation = Evaluation(self, _steps(start, end, step), budget, end=round(end * 1000))
        return evaluation, evaluation.matrix(plan)

    def _budget(self, timeout: float | None, *, in_a_hurry: bool = False) -> Budget:
        seconds = self.timeout if timeout is None else min(timeout, self.timeout)
        give_way = None if in_a_hurry else self.way.give
        return Budget(timeout=seconds, monotonic=self._monotonic, give_way=give_way)

    def selected(self, matchers: tuple[Matcher, ...]) -> Selected:
        """The series that satisfy ``matchers``; the same table until the store's set of series changes."""
        known = self._selected.get(matchers)
        if known is not None and known.selection.version == self.store.version:
            return known
        selection = self.store.select(matchers)
        if known is not None and known.selection.labels == selection.labels:
            # Other series came or went: keep the table, and with it all that was derived from it.
            found = Selected(selection, known.table)
        else:
            found = Selected(selection, SeriesTable(selection.labels))
        with self._lock:
            if len(self._selected) >= _SELECTIONS_KEPT:
                self._selected.clear()
            self._selected[matchers] = found
        return found


def _steps(start: float, end: float, step: float) -> NDArray[np.int64]:
    """Moments in ms."""
    if not (abs(start) < _FARTHEST_S and abs(end) < _FARTHEST_S):
        raise Refused(RefusedReason.LIMIT, f"a query of the time {end:g}", hint="give unix seconds")
    if step <= 0 or end < start:
        raise Refused(RefusedReason.LIMIT, "a range needs a positive step and an end not before its start")
    distance = max(1, round(min(step, _FARTHEST_S) * 1000))
    count = (round(end * 1000) - round(start * 1000)) // distance + 1
    if count > MAX_STEPS:
        raise Refused(
            RefusedReason.LIMIT, f"a range query of {count} steps", hint=f"use a step that makes at most {MAX_STEPS}"
        )
    return round(start * 1000) + np.arange(count, dtype=np.int64) * distance
