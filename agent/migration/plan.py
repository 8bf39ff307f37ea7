"""What a migration would do, how long it and its undo would take, and whether it may start: all pure.

:class:`agent.migration.facade.Migrations` gathers the facts; :func:`make_plan` turns them into a :class:`Plan`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from agent.faults import Refused
from agent.migration.definition import Definition
from agent.migration.facts import Facts, Rate, Sampled, StampedField
from agent.migration.gates import Gate, preflight
from agent.migration.pace import ramp_seconds

_ENOUGH_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class CollectionPlan:
    """One collection of a plan."""

    collection: str
    documents: int
    priority: str
    estimate_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would run, and whether it may."""

    name: str
    revision: str
    title: str
    checksum: str
    made: datetime
    collections: tuple[CollectionPlan, ...]
    documents: int
    rate: Rate | None
    estimate_seconds: float | None
    undo_rate: Rate | None
    undo_estimate_seconds: float | None
    undo_budget_seconds: float | None
    restore_point: str
    sampled: Sampled
    gates: tuple[Gate, ...]

    @property
    def allowed(self) -> bool:
        """Whether every gate says yes."""
        return all(gate.passed for gate in self.gates)

    def require(self) -> None:
        """Nothing, if the migration may start.

        Raises:
            Refused: with the reason of the first gate that says no, and all of them in the message.
        """
        closed = [gate for gate in self.gates if not gate.passed]
        if not closed:
            return
        raise Refused(
            closed[0].reason,
            f"{self.name} does not start: " + "; ".join(f"{gate.name}: {gate.detail}" for gate in closed),
            hint="; ".join(gate.remedy for gate in closed),
        )


def make_plan(definition: Definition, facts: Facts) -> Plan:
    """The plan of one migration under these facts."""
    names = in_order(definition, facts.order)
    rate = _capped(facts.rate, facts.rate_limit)
    collections = tuple(
        CollectionPlan(
            collection=name,
            documents=facts.counts.get(name, 0),
            priority=facts.priorities.get(name, ""),
            estimate_seconds=_seconds(facts.counts.get(name, 0), rate),
        )
        for name in names
    )
    documents = sum(part.documents for part in collections)
    return Plan(
        name=definition.name,
        revision=definition.revision,
        title=definition.title,
        checksum=definition.checksum,
        made=facts.now,
        collections=collections,
        documents=documents,
        rate=rate,
        estimate_seconds=_longest(_seconds(documents, rate), facts),
        undo_rate=facts.undo_rate,
        undo_estimate_seconds=_seconds(documents, facts.undo_rate),
        undo_budget_seconds=facts.undo_budget.total_seconds() if facts.undo_budget else None,
        restore_point=facts.restore_point.id if facts.restore_point else "",
        sampled=facts.sampled,
        gates=preflight(definition, facts, documents),
    )


def in_order(definition: Definition, order: Sequence[str]) -> tuple[str, ...]:
    """The definition's collections: by the runbook's priority, unlisted ones last; or as the file lists them."""
    if definition.keep_order:
        return definition.collections
    position = {name: index for index, name in enumerate(order)}
    return tuple(sorted(definition.collections, key=lambda name: position.get(name, len(position))))


def stamped_fields(
    collection: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]
) -> tuple[StampedField, ...]:
    """Top-level fields that a transform gave to every sampled document and that could heat an index.

    Args:
        collection: id of the collection.
        pairs: for each document that changed, in name order: its fields before, after, and after a second transform
            of the same document.
    """
    if len(pairs) < _ENOUGH_SAMPLES:
        return ()
    common = set.intersection(
        *({key for key, value in after.items() if before.get(key, _MISSING) != value} for before, after, _ in pairs)
    )
    found: list[StampedField] = []
    for path in sorted(common):
        values = [after[path] for _, after, _ in pairs]
        differs = all(again.get(path, _MISSING) != after[path] for _, after, again in pairs)
        rises = _monotonic(values)
        if differs or rises:
            found.append(StampedField(collection=collection, path=path, rises=rises, now=differs))
    return tuple(found)


_MISSING = object()


def _monotonic(values: Sequence[Any]) -> bool:
    """Strictly rising or falling numbers or times; a constant is not: its index entries lie in name order."""
    if any(isinstance(value, bool | str | bytes | list | dict) for value in values):
        return False
    try:
        rising = all(first < second for first, second in pairwise(values))
        falling = all(first > second for first, second in pairwise(values))
    except TypeError:
        return False
    return rising or falling


def _longest(seconds: float | None, facts: Facts) -> float | None:
    """A new collection takes its time, however fast everything else goes."""
    if seconds is None:
        return None
    return max([seconds, *(ramp_seconds(many, facts.ramp) for many in facts.fresh.values())])


def _capped(rate: Rate | None, limit: float | None) -> Rate | None:
    if limit is None or (rate is not None and rate.documents_per_second <= limit):
        return rate
    return Rate(documents_per_second=limit, source="the run's own limit")


def _seconds(documents: int, rate: Rate | None) -> float | None:
    return documents / rate.documents_per_second if rate else None
