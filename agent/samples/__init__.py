"""samples: what was measured, by series and time, in memory and bounded.

Belongs here: labels and matchers, the label index, the columnar store with its retention and limits, staleness,
exemplars, the file that carries samples over a restart. Does not belong here: where samples come from (``signals``),
what is computed from them (``promql``), what a metric means (``telemetry``).
"""

from agent.samples.archive import SampleArchive, SampleKeeper
from agent.samples.columns import ABSENT_BITS, ColumnView
from agent.samples.labels import METRIC_NAME, Exemplar, Labels, Sample, describe, labels_of
from agent.samples.matchers import Matcher, MatchOperator, selector_text
from agent.samples.store import Limits, Part, Selection, SeriesStore, StoreStatistics

__all__ = [
    "ABSENT_BITS",
    "METRIC_NAME",
    "ColumnView",
    "Exemplar",
    "Labels",
    "Limits",
    "MatchOperator",
    "Matcher",
    "Part",
    "Sample",
    "SampleArchive",
    "SampleKeeper",
    "Selection",
    "SeriesStore",
    "StoreStatistics",
    "describe",
    "labels_of",
    "selector_text",
]
