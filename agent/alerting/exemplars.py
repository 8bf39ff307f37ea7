"""Finding an operation that shows what an alert is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from agent.promql import Select
from agent.samples import METRIC_NAME, Exemplar, Matcher, MatchOperator, SeriesStore

_RECENT = 120.0
_HISTOGRAM_PARTS = ("_count", "_sum", "_bucket")


class Exemplars(Protocol):
    """Looks up a trace for an alert."""

    def __call__(self, selectors: Sequence[Select], labels: Mapping[str, str], at: float) -> str:
        """Trace id of an operation behind the alert, or ``""``.

        Args:
            selectors: what the alert's expression reads, left to right.
            labels: the alert's own.
            at: unix seconds.
        """


def no_exemplars(selectors: Sequence[Select], labels: Mapping[str, str], at: float) -> str:
    """For engines without traces."""
    del selectors, labels, at
    return ""


class StoredExemplars:
    """Exemplars that came with samples: of the first selector that has any, the one with the largest value.

    A ratio names what is wrong before what it is a share of, so the first selector is the failures; and of latencies
    the largest is the one worth looking at.
    """

    def __init__(self, store: SeriesStore) -> None:
        self._store = store

    def __call__(self, selectors: Sequence[Select], labels: Mapping[str, str], at: float) -> str:
        for select in selectors:
            found = [
                exemplar
                for series, exemplar in self._store.exemplars(_buckets(select), at - _RECENT)
                if exemplar.trace_id and all(labels.get(name, value) == value for name, value in series)
            ]
            if found:
                return max(found, key=_weight).trace_id
        return ""


def _weight(exemplar: Exemplar) -> tuple[float, float]:
    return (exemplar.value, exemplar.timestamp)


def _buckets(select: Select) -> tuple[Matcher, ...]:
    """``select`` turned to the buckets of its histogram, which alone carry exemplars."""
    name = select.metric
    if name is None or not name.endswith(_HISTOGRAM_PARTS):
        return select.matchers
    family = name.rpartition("_")[0]
    return tuple(
        Matcher(MatchOperator.EQUAL, METRIC_NAME, f"{family}_bucket") if matcher.name == METRIC_NAME else matcher
        for matcher in select.matchers
    )
