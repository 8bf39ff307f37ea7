"""The agent's own instruments (and its workers') as samples; read by the rule loop before every pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import Metric

from agent.clock import Clock
from agent.samples import Exemplar, Labels, Sample, SeriesStore, labels_of
from agent.signals.freshness import Freshness
from agent.telemetry import Telemetry

SOURCE = "instruments"
# The labels that a Prometheus scraping /metrics would add; the rules must read the same in both places.
TARGET_LABELS: Mapping[str, str] = {"job": "runbookd"}


class InstrumentSource:
    """Copies what telemetry holds into the sample store."""

    def __init__(self, *, telemetry: Telemetry, store: SeriesStore, freshness: Freshness, clock: Clock) -> None:
        self._telemetry = telemetry
        self._store = store
        self._freshness = freshness
        self._clock = clock
        self._cache = LabelCache(TARGET_LABELS)

    def collect(self) -> None:
        """One look at every instrument, stamped with now."""
        at = self._clock.now().timestamp()
        self._store.ingest(SOURCE, at, samples_of(self._telemetry.families(), self._cache))
        self._freshness.delivered(SOURCE)


class LabelCache:
    """Sorted label sets by (name, labels as written): sorting each sample anew costs more than storing it."""

    def __init__(self, target: Mapping[str, str]) -> None:
        self._target = dict(target)
        self._known: dict[tuple[str, tuple[tuple[str, str], ...]], Labels] = {}

    def __call__(self, name: str, labels: Mapping[str, str]) -> Labels:
        key = (name, tuple(labels.items()))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = labels_of(name, {**labels, **self._target})
        return found


def samples_of(families: Iterable[Metric], cache: LabelCache) -> Iterator[Sample]:
    """Families as samples with exemplars."""
    for family in families:
        for sample in family.samples:
            found = sample.exemplar
            exemplar = (
                Exemplar(
                    trace_id=found.labels.get("trace_id", ""),
                    value=found.value,
                    timestamp=float(found.timestamp or 0.0),
                )
                if found is not None
                else None
            )
            yield Sample(cache(sample.name, sample.labels), float(sample.value), exemplar)
