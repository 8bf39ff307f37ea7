"""What a migration would do, how long it and its undo would take, and whether it may start: all pure.

:class:`agent.migration.facade.Migrations` gathers the facts (:class:`Facts`); :func:`make_plan` turns them into a
:class:`Plan`; each gate answers with what it saw and, where it says no, with what it would take to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from agent.clock import rfc3339
from agent.faults import Refused, RefusedReason
from agent.migration.definition import Definition

HOT_FIELD_LIMIT = 500.0
"""Writes per second that Firestore sustains on an indexed field whose values only rise or fall (its own figure)."""

_ENOUGH_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class RestorePoint:
    """A backup that the database could be restored from.

    Args:
        id: the backup's.
        read_time: the instant whose state it holds.
        verified: its checksums were read back and found right.
    """

    id: str
    read_time: datetime
    verified: bool


RestorePointSource = Callable[[], RestorePoint | None]
"""Tells the newest backup, verified or not; ``None`` if there is none."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A throughput.

    Args:
        documents_per_second: positive.
        source: where the figure comes from, for people: ``"measured on run-..."``.
    """

    documents_per_second: float
    source: str


@dataclass(frozen=True, kw_only=True)
class StampedField:
    """A field that the transform sets on every sampled document.

    Args:
        collection, path: where.
        rises: its values only rise, or only fall, in the order in which the documents were transformed.
        now: its values are the time of the transform, or differ when one document is transformed twice.
    """

    collection: str
    path: str
    rises: bool
    now: bool


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What the transform did to a sample of the documents."""

    documents: int = 0
    changed: int = 0
    failures: tuple[str, ...] = ()
    stamped: tuple[StampedField, ...] = ()


@dataclass(frozen=True, kw_only=True)
class History:
    """What is known of earlier runs of the revision, from the database's own record and this machine's.

    Args:
        state: of the latest run: ``done``, ``failed``, ``undone``, ``running``, ...; empty if it never ran.
        run: its id.
        checksum: of the file as it ran.
        alive: a process works on it now.
    """

    state: str = ""
    run: str = ""
    checksum: str = ""
    alive: bool = False


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a plan rests on.

    Args:
        counts: documents by collection.
        order: collection ids in the runbook's priority order.
        priorities: the runbook's word for each collection.
        rate, undo_rate: measured throughput; ``None`` if nothing has been measured.
        rate_limit: documents/s at which the run is capped; ``None``: uncapped.
        undo_budget: what the runbook allows for the undo; ``None``: it does not say.
        restore_point: the newest backup.
        maintenance: maintenance mode is on.
        again: somebody said explicitly that a revision which ran or failed may run again.
    """

    now: datetime
    counts: Mapping[str, int]
    order: Sequence[str] = ()
    priorities: Mapping[str, str]
    rate: Rate | None = None
    undo_rate: Rate | None = None
    rate_limit: float | None = None
    undo_budget: timedelta | None = None
    restore_point: RestorePoint | None = None
    restore_point_max_age: timedelta = timedelta(hours=24)
    maintenance: bool = False
    history: History = History()
    sampled: Sampled = Sampled()
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One question that preflight asks.

    Args:
        name: the question in two or three words.
        passed: the answer.
        detail: what was seen.
        reason, remedy: where the answer is no: its code, and what it would take to pass.
    """

    name: str
    passed: bool
    detail: str
    reason: RefusedReason | None = None
    remedy: str = ""


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
        reason = closed[0].reason
        assert reason is not None
        raise Refused(
            reason,
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
        estimate_seconds=_seconds(documents, rate),
        undo_rate=facts.undo_rate,
        undo_estimate_seconds=_seconds(documents, facts.undo_rate),
        undo_budget_seconds=facts.undo_budget.total_seconds() if facts.undo_budget else None,
        restore_point=facts.restore_point.id if facts.restore_point else "",
        sampled=facts.sampled,
        gates=tuple(gate(definition, facts, documents) for gate in _GATES),
    )


def in_order(definition: Definition, order: Sequence[str]) -> tuple[str, ...]:
    """The definition's collections: by the runbook's priority, unlisted ones last; or as the file lists them."""
    if definition.keep_order:
        return definition.collections
    position = {name: index for index, name in enumerate(order)}
    return tuple(sorted(definition.collections, key=lambda name: position.get(name, len(position))))


def _not_running(definition: Definition, facts: Facts, documents: int) -> Gate:
    del documents
    history = facts.history
    if history.alive:
        return Gate(
            name="not running already",
            passed=False,
            detail=f"{history.run} is running",
            reason=RefusedReason.ALREADY_RUNNING,
            remedy=f"wait for {history.run}, or stop it",
        )
    if history.state in ("running", "paused", "cancelled", "undoing"):
        verb = "undo" if history.state == "undoing" else "resume"
        return Gate(
            name="not running already",
            passed=False,
            detail=f"{history.run} stopped half-way",
            reason=RefusedReason.ALREADY_RUNNING,
            remedy=f"runbookd migrate {verb} {history.run}"
            + ("" if verb == "undo" else f", or runbookd migrate undo {history.run}"),
        )
    return Gate(name="not running already", passed=True, detail=f"no run of {definition.name} is open")


def _unchanged(definition: Definition, facts: Facts, documents: int) -> Gate:
    del documents
    history = facts.history
    if history.state == "done" and history.checksum != definition.checksum:
        return Gate(
            name="file unchanged since it ran",
            passed=False,
            detail=f"{definition.path.name} was changed after {history.run} had run it",
            reason=RefusedReason.CHANGED_DEFINITION,
            remedy="put the change into a new migration with the next number",
        )
    return Gate(name="file unchanged since it ran", passed=True, detail=f"checksum {definition.checksum[:12]}")


def _not_done(definition: Definition, facts: Facts, documents: int) -> Gate:
    del documents
    history = facts.history
    if history.state == "done" and history.checksum == definition.checksum and not facts.again:
        return Gate(
            name="not done already",
            passed=False,
            detail=f"{history.run} ran {definition.name} to its end",
            reason=RefusedReason.ALREADY_RAN,
            remedy="nothing is left to do; say --again if it has to run once more",
        )
    return Gate(name="not done already", passed=True, detail="it has not run to its end")


def _not_failed(definition: Definition, facts: Facts, documents: int) -> Gate:
    del documents
    history = facts.history
    if history.state == "failed":
        return Gate(
            name="did not fail before",
            passed=False,
            detail=f"{history.run} failed half-way and is not undone",
            reason=RefusedReason.FAILED_BEFORE,
            remedy=f"runbookd migrate resume {history.run}, or runbookd migrate undo {history.run}",
        )
    if history.state == "undone" and not facts.again:
        return Gate(
            name="did not fail before",
            passed=False,
            detail=f"{history.run} of revision {definition.revision} was rolled back",
            reason=RefusedReason.FAILED_BEFORE,
            remedy="find out why, then say --again",
        )
    return Gate(name="did not fail before", passed=True, detail="no run of it failed or was rolled back")


def _restore_point(definition: Definition, facts: Facts, documents: int) -> Gate:
    del definition, documents
    name = "restore point"
    point = facts.restore_point
    remedy = "runbookd backup create --type full, then runbookd backup verify"
    if point is None:
        return Gate(
            name=name,
            passed=False,
            detail="there is no backup to go back to",
            reason=RefusedReason.NO_RESTORE_POINT,
            remedy=remedy,
        )
    if not point.verified:
        return Gate(
            name=name,
            passed=False,
            detail=f"{point.id} has not been verified",
            reason=RefusedReason.NOT_VERIFIED,
            remedy=f"runbookd backup verify {point.id}",
        )
    age = facts.now - point.read_time
    if age > facts.restore_point_max_age:
        return Gate(
            name=name,
            passed=False,
            detail=f"{point.id} holds the state of {rfc3339(point.read_time)}, {_duration(age.total_seconds())} ago;"
            f" {_duration(facts.restore_point_max_age.total_seconds())} is the most",
            reason=RefusedReason.NO_RESTORE_POINT,
            remedy=remedy,
        )
    return Gate(name=name, passed=True, detail=f"{point.id}, verified, {_duration(age.total_seconds())} old")


def _undo_in_budget(definition: Definition, facts: Facts, documents: int) -> Gate:
    del definition
    name = "undo fits the budget"
    if facts.undo_budget is None:
        return Gate(name=name, passed=True, detail="the runbook sets no budget for it")
    budget = facts.undo_budget.total_seconds()
    if facts.undo_rate is None:
        return Gate(
            name=name,
            passed=False,
            detail="nobody knows how fast this database takes writes",
            reason=RefusedReason.UNDO_OVER_BUDGET,
            remedy="let the plan measure it (probe), or run a rehearsal: runbookd drill",
        )
    needed = documents / facts.undo_rate.documents_per_second
    figures = (
        f"{documents:,} documents at {facts.undo_rate.documents_per_second:,.0f}/s ({facts.undo_rate.source}) take"
        f" {_duration(needed)} of {_duration(budget)}"
    )
    if needed > budget:
        return Gate(
            name=name,
            passed=False,
            detail=figures,
            reason=RefusedReason.UNDO_OVER_BUDGET,
            remedy="migrate fewer collections at a time:"
            f" {budget * facts.undo_rate.documents_per_second:,.0f} documents fit at this rate",
        )
    return Gate(name=name, passed=True, detail=figures)


def _no_hot_field(definition: Definition, facts: Facts, documents: int) -> Gate:
    del documents
    name = "no hot field"
    hot = [
        field
        for field in facts.sampled.stamped
        if (field.rises or field.now) and field.path not in definition.unindexed
    ]
    if not hot:
        return Gate(name=name, passed=True, detail=f"none on {facts.sampled.documents} sampled documents")
    if facts.rate_limit is not None and facts.rate_limit <= HOT_FIELD_LIMIT:
        return Gate(name=name, passed=True, detail=f"{hot[0].path} rises, but the run is capped below the ceiling")
    field = hot[0]
    why = "the time of the write" if field.now else "a value that only rises"
    return Gate(
        name=name,
        passed=False,
        detail=f"{field.collection}.{field.path} gets {why} on every document; with an index on it Firestore takes"
        f" {HOT_FIELD_LIMIT:.0f} writes/s",
        reason=RefusedReason.HOT_FIELD,
        remedy=f"exempt {field.path} from indexing and say unindexed = ({field.path!r},) in the file, or cap the run"
        f" at {HOT_FIELD_LIMIT:.0f} documents/s",
    )


def _shapes(definition: Definition, facts: Facts, documents: int) -> Gate:
    del documents
    name = "readers can take it"
    if definition.reads_both_shapes:
        return Gate(name=name, passed=True, detail="the application reads both shapes")
    if facts.maintenance:
        return Gate(name=name, passed=True, detail="maintenance mode is on")
    return Gate(
        name=name,
        passed=False,
        detail="the file does not say that the application reads both shapes, and it is serving",
        reason=RefusedReason.NEEDS_MAINTENANCE,
        remedy="runbookd maintenance on, or make readers accept both and say reads_both_shapes = True",
    )


_GATES: tuple[Callable[[Definition, Facts, int], Gate], ...] = (
    _not_running,
    _unchanged,
    _not_done,
    _not_failed,
    _restore_point,
    _undo_in_budget,
    _no_hot_field,
    _shapes,
)


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


def _capped(rate: Rate | None, limit: float | None) -> Rate | None:
    if limit is None or (rate is not None and rate.documents_per_second <= limit):
        return rate
    return Rate(documents_per_second=limit, source="the run's own limit")


def _seconds(documents: int, rate: Rate | None) -> float | None:
    return documents / rate.documents_per_second if rate else None


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
