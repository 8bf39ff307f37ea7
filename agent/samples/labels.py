"""The identity of a series and one measured value of it.

Sources build :class:`Sample` values, the store files them, PromQL reads them back by :data:`Labels`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

METRIC_NAME = "__name__"
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

Labels = tuple[tuple[str, str], ...]
"""Label pairs sorted by name, the metric's name among them as ``__name__``; no pair has an empty value."""


def labels_of(name: str, pairs: Mapping[str, str]) -> Labels:
    """The labels of the metric ``name`` with ``pairs``; a pair with an empty value is the same as no pair."""
    everything = {**pairs, METRIC_NAME: name}
    return tuple(sorted((key, value) for key, value in everything.items() if value != ""))


def describe(labels: Labels) -> str:
    """``labels`` as PromQL writes them: ``up{job="api"}``; names that are no words in quotes: ``{"my.metric"}``."""
    name = next((value for key, value in labels if key == METRIC_NAME), "")
    pairs = [f'{_named(key)}="{_escaped(value)}"' for key, value in labels if key != METRIC_NAME]
    if name and not _METRIC.fullmatch(name):
        return "{" + ", ".join([f'"{_escaped(name)}"', *pairs]) + "}"
    return f"{name}{{{', '.join(pairs)}}}" if pairs or not name else name


def _named(label: str) -> str:
    return label if _LABEL.fullmatch(label) else f'"{_escaped(label)}"'


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
