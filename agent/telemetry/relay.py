"""Figures of worker processes, summed into the daemon's own.

A worker reports its cumulative families every second over its pipe; the daemon keeps the latest report of each
live worker and the sum of those that ended. Counters and histograms add up; a gauge is what a live worker last said,
and vanishes with it, because the last value of a dead process is a lie.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypedDict

from prometheus_client.core import Exemplar, Metric

_Labels = tuple[tuple[str, str], ...]


class RelayedSample(TypedDict):
    """One sample, JSON-able. ``exemplar`` is ``[labels, value, unix seconds]`` or absent."""

    name: str
    labels: dict[str, str]
    value: float
    exemplar: list[Any] | None


class RelayedFamily(TypedDict):
    """One metric family, JSON-able; ``type`` is counter, gauge or histogram."""

    name: str
    type: str
    help: str
    samples: list[RelayedSample]


def relayed(families: Iterable[Metric]) -> list[RelayedFamily]:
    """``families`` in the form that travels over a worker's pipe."""
    return [
        RelayedFamily(
            name=family.name,
            type=family.type,
            help=family.documentation,
            samples=[
                RelayedSample(
                    name=sample.name,
                    labels=dict(sample.labels),
                    value=sample.value,
                    exemplar=[dict(sample.exemplar.labels), sample.exemplar.value, sample.exemplar.timestamp]
                    if sample.exemplar
                    else None,
                )
                for sample in family.samples
            ],
        )
        for family in families
    ]


@dataclass(slots=True)
class _Sum:
    help: str
    type: str
    values: dict[tuple[str, _Labels], float] = field(default_factory=dict)
    exemplars: dict[tuple[str, _Labels], Exemplar] = field(default_factory=dict)

    def add(self, name: str, labels: _Labels, value: float, exemplar: Exemplar | None) -> None:
        key = (name, labels)
        # A gauge that two processes report (the daemon from a run record, the run's worker by itself) is one figure.
        self.values[key] = value if self.type == "gauge" else self.values.get(key, 0.0) + value
        if exemplar is not None:
            known = self.exemplars.get(key)
            if known is None or _at(exemplar) >= _at(known):
                self.exemplars[key] = exemplar


class Relay:
    """Latest reports of live workers, sums of ended ones; thread-safe."""

    def __init__(self) -> None:
        self._live: dict[str, list[RelayedFamily]] = {}
        self._ended: dict[str, _Sum] = {}
        self._lock = threading.Lock()

    def absorb(self, worker: str, families: Iterable[RelayedFamily]) -> None:
        report = list(families)
        with self._lock:
            self._live[worker] = report

    def retire(self, worker: str) -> None:
        with self._lock:
            for family in self._live.pop(worker, ()):
                if family["type"] != "gauge":
                    _add(self._ended, family)

    def merged(self, own: Iterable[Metric]) -> list[Metric]:
        """``own`` families plus those of all workers, sorted by name."""
        own = list(own)
        with self._lock:
            if not self._live and not self._ended:
                return own
            sums: dict[str, _Sum] = {}
            for family in relayed(own):
                _add(sums, family)
            for name, ended in self._ended.items():
                total = sums.setdefault(name, _Sum(ended.help, ended.type))
                for (sample, labels), value in ended.values.items():
                    total.add(sample, labels, value, ended.exemplars.get((sample, labels)))
            for report in self._live.values():
                for family in report:
                    _add(sums, family)
        return [_family(name, total) for name, total in sorted(sums.items())]


def _add(sums: dict[str, _Sum], family: RelayedFamily) -> None:
    total = sums.setdefault(family["name"], _Sum(family["help"], family["type"]))
    for sample in family["samples"]:
        found = sample["exemplar"]
        exemplar = Exemplar(found[0], found[1], found[2]) if found else None
        total.add(sample["name"], tuple(sample["labels"].items()), sample["value"], exemplar)


def _at(exemplar: Exemplar) -> float:
    return float(exemplar.timestamp or 0.0)


def _family(name: str, total: _Sum) -> Metric:
    family = Metric(name, total.help, total.type)
    for (sample, labels), value in total.values.items():
        family.add_sample(sample, dict(labels), value, exemplar=total.exemplars.get((sample, labels)))
    return family
