"""One evaluation: plans at the same steps, a memo by node.

The engine makes it. Rules of one tick share one, so that an expression that twenty rules have in common is computed
once. Every value is a vector or a scalar over all steps, whether there is one or eleven thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.faults import Refused, RefusedReason
from agent.promql import aggregation, functions, histograms, labelling, matching, windows
from agent.promql.budget import Budget
from agent.promql.expressions import (
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Edge,
    Kind,
    Negate,
    Node,
    Number,
    Select,
    Subquery,
    Text,
    Window,
    reads,
)
from agent.promql.plan import Plan
from agent.promql.remarks import SORT_IN_RANGE, Answer, Level, Remark, Remarks, bad_quantiles, no_counters
from agent.promql.sharing import SharedSlopes
from agent.promql.tables import NO_SERIES, Block, Bools, Floats, Indices, SeriesTable, empty, without_name
from agent.promql.values import Element, Matrix, Scalar, Series, Value, Vector
from agent.promql.values import Text as TextValue
from agent.samples import ColumnView, Labels, Matcher, Part, Selection, SeriesStore
from agent.samples.columns import present as present_cells

Result = Block | Floats | str

_MAX_POINTS = 1_000_000

# PromQL's arithmetic is IEEE's: infinities and NaN are values, nothing to warn of.
_ieee = np.errstate(all="ignore")


@dataclass(frozen=True, slots=True)
class Selected:
    """A selection and the table of its labels, to which all is bound that was derived from them."""

    selection: Selection
    table: SeriesTable


class Source(Protocol):
    """What an evaluation needs of the engine."""

    store: SeriesStore
    lookback: int
    subquery_step: int

    def selected(self, matchers: tuple[Matcher, ...]) -> Selected: ...


class Evaluation:
    """Plans evaluated at the same steps, sharing what they have in common. For one thread."""

    def __init__(
        self,
        engine: Source,
        steps: NDArray[np.int64],
        budget: Budget,
        *,
        end: int | None = None,
        within: Evaluation | None = None,
    ) -> None:
        self._engine = engine
        self._steps = steps
        self._end = int(steps[-1]) if end is None else end
        self._budget = budget
        self._memo: dict[Node, Result] = {}
        # Names of the metrics that anything here was computed from; None for a selector that names none.
        self._read: set[str | None] = set() if within is None else within._read
        self._views: dict[tuple[str, int, int], ColumnView] = {}
        self._slopes = SharedSlopes()
        # What the operands of subqueries are at the subqueries' own steps, by first, last and distance.
        self._grids: dict[tuple[int, int, int], Evaluation] = {}
        self._outermost: Evaluation = self if within is None else within._outermost
        self._remarks: Remarks = Remarks() if within is None else within._remarks

    # --- results --------------------------------------------------------------------------------------------------

    @_ieee
    def value(self, plan: Plan) -> Value:
        """The plan's value at the first step.

        Raises:
            Permanent: the data can't be put through the expression.
            Refused: it would take more samples than the budget has.
            Transient: it takes longer than the budget allows.
        """
        self._budget.renew()
        root = plan.root
        if isinstance(root, Text):
            return TextValue(root.value)
        if isinstance(root, Window | Subquery):
            return self._samples(root)
        if root.kind is Kind.SCALAR:
            return Scalar(float(self._scalar(root)[0]))
        elements = self._elements(root)
        return Vector(tuple(sorted(elements, key=lambda each: each.labels) if not _orders(root) else elements))

    @_ieee
    def elements(self, root: Node) -> list[Element]:
        """The elements at the first step, of a vector or of a scalar as Prometheus's rules see it.

        Raises:
            Permanent, Refused, Transient: as :meth:`value`.
        """
        self._budget.renew()
        return self._elements(root)

    def _elements(self, root: Node) -> list[Element]:
        if root.kind is Kind.SCALAR:
            return [Element((), float(self._scalar(root)[0]))]
        block = self._vector(root)
        rows = block.present[:, 0].nonzero()[0]
        values = block.values[:, 0]
        if isinstance(root, Call) and root.function in ("sort", "sort_desc"):
            rows = _in_order(rows, values, descending=root.function == "sort_desc")
        elif isinstance(root, Aggregate) and root.operator in ("topk", "bottomk"):
            rows = _in_order(rows, values, descending=root.operator == "topk")
        return [Element(block.table.labels[row], float(values[row])) for row in rows]

    @_ieee
    def matrix(self, plan: Plan) -> Matrix:
        """The plan's values at all steps; series without any are left out.

        Raises:
            Permanent, Refused, Transient: as :meth:`value`.
        """
        self._budget.renew()
        stamps = self._steps / 1000.0
        if plan.kind is Kind.SCALAR:
            return Matrix((Series((), stamps, np.asarray(self._scalar(plan.root))),))
        block = self._vector(plan.root)
        found: Bools = np.logical_or.reduce(block.present, axis=1)
        whole: Bools = np.logical_and.reduce(block.present, axis=1)
        order = sorted(np.flatnonzero(found).tolist(), key=lambda row: block.table.labels[row])
        return Matrix(
            tuple(
                # Nearly all series have a value at every step: nothing to pick then, and nothing to copy.
                Series(block.table.labels[row], stamps, block.values[row])
                if whole[row]
                else Series(block.table.labels[row], stamps[block.present[row]], block.values[row][block.present[row]])
                for row in order
            )
        )

    def answer(self, plan: Plan, value: Value) -> Answer:
        """``value``, which was computed of ``plan`` here, with what there is to remark."""
        warnings, infos = (self._remarks.on(plan.root, plan.text, plan.places, level) for level in Level)
        return Answer(value, warnings, infos)

    def forget(self, metrics: frozenset[str]) -> None:
        """Drop what was computed from ``metrics``: they have new samples at this moment."""
        if None not in self._read and self._read.isdisjoint(metrics):
            return  # alerts become series after every group, and few rules read them
        self._views.clear()
        self._slopes.forget()
        self._grids.clear()
        for node in [node for node in self._memo if reads(node, metrics)]:
            del self._memo[node]
            self._remarks.forget(node)

    # --- evaluation -----------------------------------------------------------------------------------------------

    def _vector(self, node: Node) -> Block:
        result = self._evaluate(node)
        assert isinstance(result, Block)
        return result

    def _scalar(self, node: Node) -> Floats:
        result = self._evaluate(node)
        assert isinstance(result, np.ndarray)
        return result

    def _evaluate(self, node: Node) -> Result:
        known = self._memo.get(node)
        if known is None:
            self._budget.check()
            known = self._memo[node] = self._compute(node)
            if isinstance(known, Block):
                self._budget.spend(known.values.size)
        return known

    def _compute(self, node: Node) -> Result:
        match node:
            case Select():
                return self._select(node)
            case Number():
                return np.full(len(self._steps), node.value)
            case Text():
                return node.value
            case Binary():
                return self._binary(node)
            case Aggregate():
                return self._aggregate(node)
            case Call():
                return self._call(node)
            case Negate():
                if node.kind is Kind.SCALAR:
                    return -self._scalar(node.operand)
                block = self._vector(node.operand)
                return without_name(Block(block.table, -block.values, block.present))
            case _:
                raise AssertionError(f"{type(node).__name__} has no value of its own")

    def _select(self, node: Select) -> Block:
        """The latest sample of each series at each step."""
        selected = self._selected(node)
        parts = selected.selection.parts
        shape = (len(selected.table), len(self._steps))
        if len(parts) == 1:
            view, rows, fresh = self._latest(parts[0], node)
            if len(fresh) == len(rows):  # all series of one source, at all steps: nothing to put together
                cells = view.rows(rows, parts[0].columns).T
                return Block(selected.table, cells, present_cells(cells))
        values = np.zeros(shape)
        present = np.zeros(shape, dtype=np.bool_)
        for part in parts:
            view, rows, fresh = self._latest(part, node)
            if len(fresh):
                cells = view.rows(rows[fresh], part.columns).T
                into = np.ix_(part.positions, fresh)
                values[into] = cells
                present[into] = present_cells(cells)
        return Block(selected.table, values, present)

    def _selected(self, node: Select) -> Selected:
        self._read.add(node.metric)
        return self._engine.selected(node.matchers)

    def _moments(self, node: Select | Subquery) -> NDArray[np.int64]:
        """When a selector looks, at each step."""
        if node.at is None:
            return self._steps - node.offset
        query = self._outermost  # its end is the one that was asked for: the last step may fall short of it
        at = int(query._steps[0]) if node.at is Edge.START else query._end if node.at is Edge.END else int(node.at)
        return np.full(len(self._steps), at - node.offset, dtype=np.int64)

    def _latest(self, part: Part, node: Select) -> tuple[ColumnView, Indices, Indices]:
        """Rows of a source to look at, the newest of them at each step, and the steps at which it is fresh enough."""
        moments = self._moments(node)
        lookback = self._engine.lookback
        view = self._view(part, int(moments[0]) - lookback, int(moments[-1]))
        if len(moments) == 1:  # what the view holds is what is fresh, and its last row is the newest
            rows = np.full(1, len(view) - 1, dtype=np.intp)
            return view, rows, np.zeros(min(1, len(view)), dtype=np.intp)
        rows = np.searchsorted(view.times, moments, "right") - 1
        if not len(view):
            return view, rows, np.zeros(0, dtype=np.intp)
        return view, rows, np.flatnonzero((rows >= 0) & (view.times[np.maximum(rows, 0)] > moments - lookback))

    def _sample_times(self, node: Select) -> Floats:
        """Unix seconds of the samples that :meth:`_select` finds."""
        selected = self._selected(node)
        times = np.zeros((len(selected.table), len(self._steps)))
        for part in selected.selection.parts:
            view, rows, fresh = self._latest(part, node)
            if len(fresh):
                times[np.ix_(part.positions, fresh)] = view.times[rows[fresh]] / 1000.0
        return times

    def _view(self, part: Part, after: int, until: int) -> ColumnView:
        key = (part.source.name, after, until)
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = self._engine.store.view(part, after, until)
        return view

    def _over_window(self, kind: windows.WindowKind, node: Window | Subquery, parameters: NDArray[np.float64]) -> Block:
        """With the metrics' names, whatever the function."""
        if isinstance(node, Window):
            return self._over_samples(kind, node, parameters)
        return self._over_grid(kind, node, parameters)

    def _over_samples(self, kind: windows.WindowKind, node: Window, parameters: NDArray[np.float64]) -> Block:
        selected = self._selected(node.select)
        moments = self._moments(node.select)
        parts = selected.selection.parts
        if len(parts) == 1:  # in the order of the table: nothing to put together
            return Block(selected.table, *self._of_part(kind, node, parts[0], moments, parameters))
        shape = (len(selected.table), len(moments))
        values = np.zeros(shape)
        present = np.zeros(shape, dtype=np.bool_)
        for part in parts:
            values[part.positions], present[part.positions] = self._of_part(kind, node, part, moments, parameters)
        return Block(selected.table, values, present)

    def _of_part(
        self,
        kind: windows.WindowKind,
        node: Window,
        part: Part,
        moments: NDArray[np.int64],
        parameters: NDArray[np.float64],
    ) -> windows.Outcome:
        view = self._view(part, int(moments[0]) - node.length, int(moments[-1]))
        self._budget.spend(len(view) * len(part.columns))
        if kind.counter is not None and len(moments) == 1:
            shared = self._slopes.of(kind.counter, part, view, moments, node.length)
            if shared is not None:
                return shared
        return windows.evaluate(
            kind, view, part.columns, moments, node.length, parameters, now=self._steps, tick=self._budget.check
        )

    def _over_grid(self, kind: windows.WindowKind, node: Subquery, parameters: NDArray[np.float64]) -> Block:
        table, view = self._grid(node)
        if not len(view) or not len(table):
            return empty(len(self._steps))
        columns = np.arange(len(table), dtype=np.intp)
        moments = self._moments(node)
        values, present = windows.evaluate(
            kind, view, columns, moments, node.length, parameters, now=self._steps, tick=self._budget.check
        )
        return Block(table, values, present)

    def _grid(self, node: Subquery) -> tuple[SeriesTable, ColumnView]:
        """The operand of a subquery at every point that any step looks at."""
        moments = self._moments(node)
        step = node.step or self._engine.subquery_step
        # Points are multiples of the step, whatever the query's own start: as in Prometheus, a dashboard that moves
        # by a second sees the same points.
        first = ((int(moments[0]) - node.length) // step + 1) * step
        last = int(moments[-1]) // step * step
        count = (last - first) // step + 1
        if count < 1:
            return NO_SERIES, ColumnView([])
        if count > _MAX_POINTS:
            raise Refused(
                RefusedReason.LIMIT,
                f"a subquery of {count} points",
                hint=f"use a step that makes at most {_MAX_POINTS}",
            )
        key = (first, last, step)
        inner = self._grids.get(key)
        if inner is None:
            points = first + np.arange(count, dtype=np.int64) * step
            inner = self._grids[key] = Evaluation(self._engine, points, self._budget, within=self)
        operand = node.operand
        block = functions.to_vector(inner._scalar(operand)) if operand.kind is Kind.SCALAR else inner._vector(operand)
        return block.table, ColumnView.of(inner._steps, block.values.T, block.present.T)

    def _samples(self, node: Window | Subquery) -> Matrix:
        """The raw samples of a range selector, as an instant query of one returns them."""
        found = []
        for labels, view, columns in self._readings(node):
            cells = view.block(0, len(view), columns)
            there = present_cells(cells)
            for column, identity in enumerate(labels):
                rows: Indices = np.flatnonzero(there[:, column])
                if len(rows):
                    found.append(Series(identity, view.times[rows] / 1000.0, cells[rows, column]))
        return Matrix(tuple(sorted(found, key=lambda series: series.labels)))

    def _readings(self, node: Window | Subquery) -> Iterator[tuple[list[Labels], ColumnView, Indices]]:
        if isinstance(node, Subquery):
            table, view = self._grid(node)
            yield list(table.labels), view, np.arange(len(table), dtype=np.intp)
            return
        selected = self._selected(node.select)
        until = int(self._moments(node.select)[0])
        for part in selected.selection.parts:
            labels = [selected.table.labels[position] for position in part.positions]
            yield labels, self._view(part, until - node.length, until), part.columns

    def _binary(self, node: Binary) -> Result:
        if node.kind is Kind.SCALAR:
            values, _ = matching.operate(node, self._scalar(node.left), self._scalar(node.right))
            return values
        if node.left.kind is Kind.SCALAR:
            return matching.with_scalar(node, self._vector(node.right), self._scalar(node.left), scalar_on_left=True)
        if node.right.kind is Kind.SCALAR:
            return matching.with_scalar(node, self._vector(node.left), self._scalar(node.right), scalar_on_left=False)
        left, right = self._vector(node.left), self._vector(node.right)
        if node.operator in SET_OPERATORS:
            return matching.of_sets(node, left, right)
        return matching.between_vectors(node, left, right)

    def _aggregate(self, node: Aggregate) -> Block:
        block = self._vector(node.operand)
        if isinstance(node.parameter, Text):
            return aggregation.count_values(block, node.labels, node.without, node.parameter.value, self._budget)
        parameter = None if node.parameter is None else self._scalar(node.parameter)
        if node.operator == "quantile" and parameter is not None:
            self._remark_all(node, bad_quantiles(parameter, 0))
        groups = aggregation.grouping(block.table, node.labels, node.without)
        return aggregation.aggregate(node.operator, block, groups, parameter, self._budget.check)

    def _call(self, node: Call) -> Result:
        name, arguments = node.function, node.arguments
        if name in windows.FUNCTIONS:
            return self._window_call(node)
        if name in functions.FUNCTIONS:
            return self._mapped_call(name, arguments)
        match name:
            case "time":
                return self._steps / 1000.0
            case "pi":
                return np.full(len(self._steps), np.pi)
            case "scalar":
                return functions.to_scalar(self._vector(arguments[0]))
            case "vector":
                return functions.to_vector(self._scalar(arguments[0]))
            case "sort" | "sort_desc":
                if len(self._outermost._steps) > 1:
                    self._remarks.add(node, SORT_IN_RANGE)
                return self._vector(arguments[0])
            case "timestamp":
                return self._timestamp(arguments[0])
            case "histogram_quantile" | "histogram_fraction":
                return self._of_histogram(node)
            case "label_replace" | "label_join":
                texts = tuple(each.value for each in arguments if isinstance(each, Text))
                return labelling.rewrite(name, self._vector(arguments[0]), texts)
            case "absent":
                return self._absent(arguments[0], self._vector(arguments[0]))
            case "absent_over_time":
                kind = windows.FUNCTIONS["last_over_time"]  # keeps names: nothing can clash that is only counted
                window = arguments[0]
                assert isinstance(window, Window | Subquery)
                found = self._over_window(kind, window, np.zeros((0, len(self._steps))))
                return self._absent(window.select if isinstance(window, Window) else window, found)
            case _:
                raise AssertionError(f"{name} passed the adapter without an implementation")

    def _window_call(self, node: Call) -> Block:
        kind = windows.FUNCTIONS[node.function]
        window = node.arguments[kind.range_at]
        assert isinstance(window, Window | Subquery)
        others = [self._scalar(each) for each in node.arguments if each is not window]
        parameters = np.array(others) if others else np.zeros((0, len(self._steps)))
        block = self._over_window(kind, window, parameters)
        if node.function in ("rate", "increase"):
            self._remark_all(node, no_counters(block.table, block.present, 0))
        elif node.function == "quantile_over_time" and block.present.any():
            self._remark_all(node, bad_quantiles(parameters[0], 0))
        return block if kind.keeps_name else without_name(block)

    def _of_histogram(self, node: Call) -> Block:
        *shares, buckets = node.arguments
        numbers = [self._scalar(each) for each in shares]
        block, remarks = histograms.evaluate(node.function, numbers, self._vector(buckets), self._budget.check)
        self._remark_all(node, remarks)
        return block

    def _remark_all(self, node: Node, remarks: Iterable[Remark]) -> None:
        for remark in remarks:
            self._remarks.add(node, remark)

    def _mapped_call(self, name: str, arguments: tuple[Node, ...]) -> Block:
        if not arguments and name in functions.DEFAULT_TO_NOW:
            block = functions.to_vector(self._steps / 1000.0)
        else:
            block = self._vector(arguments[0])
        scalars = tuple(self._scalar(each) for each in arguments[1:])
        return functions.map_values(functions.FUNCTIONS[name], block, scalars)

    def _timestamp(self, argument: Node) -> Block:
        block = self._vector(argument)
        if isinstance(argument, Select):
            times = self._sample_times(argument)
        else:
            times = np.broadcast_to(self._steps / 1000.0, block.values.shape)
        return without_name(Block(block.table, times, block.present))

    def _absent(self, argument: Node, found: Block) -> Block:
        missing = np.logical_not(found.present.any(axis=0)).reshape(1, -1)
        table = SeriesTable((labelling.if_absent(argument.matchers) if isinstance(argument, Select) else (),))
        return Block(table, np.ones((1, len(self._steps))), missing)


def _orders(root: Node) -> bool:
    """Whether the expression itself puts its elements in an order."""
    if isinstance(root, Call):
        return root.function in ("sort", "sort_desc")
    return isinstance(root, Aggregate) and root.operator in ("topk", "bottomk")


def _in_order(rows: Indices, values: Floats, *, descending: bool) -> Indices:
    keys = values[rows]
    missing = np.isnan(keys)
    return rows[np.lexsort((np.where(missing, 0.0, -keys if descending else keys), missing))]
