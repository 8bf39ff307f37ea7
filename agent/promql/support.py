"""Which names the engine evaluates, gathered from where they are implemented; the adapter refuses all others."""

from __future__ import annotations

from agent.promql import aggregation, functions, histograms, labelling, windows

_IN_THE_ENGINE = ("absent", "absent_over_time", "pi", "scalar", "sort", "sort_desc", "time", "timestamp", "vector")

FUNCTIONS = frozenset(
    [*windows.FUNCTIONS, *functions.FUNCTIONS, *labelling.FUNCTIONS, *histograms.FUNCTIONS, *_IN_THE_ENGINE]
)
AGGREGATIONS = frozenset(aggregation.OPERATORS)
