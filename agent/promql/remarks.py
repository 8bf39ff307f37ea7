"""What the engine remarks on a query that it answers all the same: Prometheus's annotations, in its words.

A remark belongs to the node that was computed, because rules share nodes and a node is computed once; where it stands
in a text is for the plan to say. Wording and conditions are those of Prometheus 3.0 without feature flags.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

import numpy as np

from agent.promql.expressions import CALL, Node, Place, walk
from agent.promql.guard import position
from agent.promql.tables import Bools, Floats, Indices, SeriesTable
from agent.promql.values import Value, format_exponent, format_value
from agent.samples import METRIC_NAME

_COUNTER_ENDINGS = ("_total", "_sum", "_count", "_bucket")


class Level(StrEnum):
    """How much a remark matters."""

    WARNING = "warning"  # the answer may be useless
    INFO = "info"  # the answer may not be what was meant


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to know about an answer.

    Args:
        argument: which argument of the call it is about, or ``CALL``.
    """

    level: Level
    text: str
    argument: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A value, and what Prometheus's API would say beside it, each with its place as ``(line:column)``."""

    value: Value
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()


class Remarks:
    """Remarks by the node that they are about, each once."""

    def __init__(self) -> None:
        self._by_node: dict[Node, dict[Remark, None]] = {}

    def add(self, node: Node, remark: Remark) -> None:
        self._by_node.setdefault(node, {})[remark] = None

    def forget(self, node: Node) -> None:
        """Drop what was said of a node that is to be computed again."""
        self._by_node.pop(node, None)

    def on(self, root: Node, text: str, places: Mapping[Place, tuple[int, ...]], level: Level) -> tuple[str, ...]:
        """What is to be said about ``root``, which was written as ``text``, in the text's order."""
        found: dict[tuple[int, str], None] = {}
        for node in walk(root) if self._by_node else ():
            for remark in self._by_node.get(node, ()):
                for offset in places.get((node, remark.argument), ()) if remark.level is level else ():
                    found[(offset, f"PromQL {level}: {remark.text} ({position(text, offset)})")] = None
        return tuple(text for _, text in sorted(found))


def bad_quantiles(shares: Floats, argument: int) -> Iterable[Remark]:
    """A remark for every share that is none."""
    wrong = shares[~((shares >= 0) & (shares <= 1))]
    for share in dict.fromkeys(short(float(value)) for value in wrong):
        yield Remark(Level.WARNING, f"quantile value should be between 0 and 1, got {share}", argument)


def bad_bounds(bounds: Iterable[tuple[str, str]], argument: int) -> Iterable[Remark]:
    """A remark for every metric and ``le`` that is no number."""
    for metric, bound in bounds:
        where = f" for metric name {quoted(metric)}" if metric else ""
        text = f'bucket label "le" is missing or has a malformed value of {quoted(bound)}{where}'
        yield Remark(Level.WARNING, text, argument)


def no_counters(table: SeriesTable, present: Bools, argument: int) -> Iterable[Remark]:
    """A remark for every metric that does not look like a counter by its name."""
    doubtful = table.derive("no counters", lambda: _no_counters(table))
    for name, rows in doubtful:
        if present[rows].any():
            text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket"
            yield Remark(Level.INFO, f"{text}: {quoted(name)}", argument)


FORCED_MONOTONIC = Remark(
    Level.INFO,
    "input to histogram_quantile needed to be fixed for monotonicity (see "
    "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
    1,
)
SORT_IN_RANGE = Remark(
    Level.WARNING, "sort is ineffective for range queries since results are always ordered by labels", CALL
)


def _no_counters(table: SeriesTable) -> list[tuple[str, Indices]]:
    found: dict[str, list[int]] = {}
    for row, labels in enumerate(table.labels):
        name = next((value for label, value in labels if label == METRIC_NAME), "")
        if name and not name.endswith(_COUNTER_ENDINGS):
            found.setdefault(name, []).append(row)
    return [(name, np.array(rows, dtype=np.intp)) for name, rows in found.items()]


def quoted(text: str) -> str:
    """As Go's ``%q`` does for what is printable."""
    return json.dumps(text, ensure_ascii=False)


def short(value: float) -> str:
    """As Go's ``%g``: an exponent from a million up and below a ten thousandth."""
    near = not isfinite(value) or value == 0 or 1e-4 <= abs(value) < 1e6
    return format_value(value) if near else format_exponent(value)
