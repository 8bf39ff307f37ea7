"""The identity of a series and one measured value of it.

Sources build :class:`Sample` values, the store files them, PromQL reads them back by :data:`Labels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

METRIC_NAME = "__name__"

Labels = tuple[tuple[str, str], ...]
"""Label pairs sorted by name, the metric's name among them as ``__name__``; no pair has an empty value."""


def labels_of(name: str, pairs: Mapping[str, str]) -> Labels:
    """The labels of the metric ``name`` with ``pairs``; a pair with an empty value is the same as no pair."""
    everything = {**pairs, METRIC_NAME: name}
    return tuple(sorted((key, value) for key, value in everything.items() if value != ""))


def describe(labels: Labels) -> str:
    """``labels`` as PromQL writes them: ``up{job="api"}``."""
    name = next((value for key, value in labels if key == METRIC_NAME), "")
    inner = ", ".join(f'{key}="{_escaped(value)}"' for key, value in labels if key != METRIC_NAME)
    return f"{name}{{{inner}}}" if inner or not name else name


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One observed operation that stands for a sample; ``timestamp`` in unix seconds."""

    trace_id: str
    value: float
    timestamp: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The value of one series at the moment its source was read."""

    labels: Labels
    value: float
    exemplar: Exemplar | None = None
