"""Preflight: the questions that a migration has to pass before it may start; pure.

Each gate answers with what it saw and, where it says no, with what it would take to pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.clock import rfc3339
from agent.faults import RefusedReason
from agent.firestore import NEW_COLLECTION
from agent.migration.definition import Definition
from agent.migration.facts import Facts
from agent.migration.pace import ramp_seconds

HOT_FIELD_LIMIT = 500.0
"""Writes per second that Firestore sustains on an indexed field whose values only rise or fall (its own figure)."""

_HALF_WAY = ("running", "paused", "cancelled", "failed", "undoing")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One question, answered.

    Args:
        name: the question in a few words.
        passed: the answer.
        detail: what was seen.
        reason, remedy: of a no: its code, and what it would take to pass.
    """

    name: str
    passed: bool
    detail: str
    reason: RefusedReason = RefusedReason.NOT_CONFIRMED
    remedy: str = ""


def preflight(definition: Definition, facts: Facts, documents: int) -> tuple[Gate, ...]:
    """Every gate's answer.

    Args:
        documents: how many the migration would visit.
    """
    return (
        _free(definition, facts),
        _unchanged(definition, facts),
        _not_done(definition, facts),
        _not_rolled_back(definition, facts),
        _restore_point(facts),
        _undo_in_budget(facts, documents),
        _no_hot_field(definition, facts),
        _ramped(facts),
        _readers(definition, facts),
    )


def _yes(name: str, detail: str) -> Gate:
    return Gate(name=name, passed=True, detail=detail)


def _no(name: str, detail: str, reason: RefusedReason, remedy: str) -> Gate:
    return Gate(name=name, passed=False, detail=detail, reason=reason, remedy=remedy)


def _free(definition: Definition, facts: Facts) -> Gate:
    name, run = "no run is open", facts.history.run
    if facts.history.alive:
        return _no(name, f"{run} is running", RefusedReason.ALREADY_RUNNING, f"wait for {run}, or stop it")
    if facts.history.state == "undoing":
        reason = RefusedReason.ALREADY_RUNNING
        return _no(name, f"the undo of {run} stopped half-way", reason, f"runbookd migrate undo {run}")
    if facts.history.state in _HALF_WAY:
        failed = facts.history.state == "failed"
        return _no(
            name,
            f"{run} {'failed' if failed else 'stopped'} half-way",
            RefusedReason.FAILED_BEFORE if failed else RefusedReason.ALREADY_RUNNING,
            f"runbookd migrate resume {run}, or runbookd migrate undo {run}",
        )
    return _yes(name, f"no run of {definition.name} is half-way")


def _unchanged(definition: Definition, facts: Facts) -> Gate:
    name = "file unchanged since it ran"
    if facts.history.state == "done" and facts.history.checksum != definition.checksum:
        return _no(
            name,
            f"{definition.path.name} was changed after {facts.history.run} had run it",
            RefusedReason.CHANGED_DEFINITION,
            "put the change into a new migration with the next number",
        )
    return _yes(name, f"checksum {definition.checksum[:12]}")


def _not_done(definition: Definition, facts: Facts) -> Gate:
    name = "not done already"
    done = facts.history.state == "done" and facts.history.checksum == definition.checksum
    if done and not facts.again:
        return _no(
            name,
            f"{facts.history.run} ran {definition.name} to its end",
            RefusedReason.ALREADY_RAN,
            "nothing is left to do; say --again if it has to run once more",
        )
    return _yes(name, "it may run again" if done else "it has not run to its end")


def _not_rolled_back(definition: Definition, facts: Facts) -> Gate:
    name = "not rolled back before"
    if facts.history.state == "undone" and not facts.again:
        return _no(
            name,
            f"{facts.history.run} of revision {definition.revision} was rolled back",
            RefusedReason.FAILED_BEFORE,
            "find out why, then say --again",
        )
    return _yes(name, "it was, and may run again" if facts.history.state == "undone" else "it was not")


def _restore_point(facts: Facts) -> Gate:
    name, point = "restore point", facts.restore_point
    reason = RefusedReason.NO_RESTORE_POINT
    remedy = "runbookd backup create --type full, then runbookd backup verify"
    if point is None:
        return _no(name, "there is no backup to go back to", reason, remedy)
    if not point.verified:
        return _no(
            name,
            f"{point.id} has not been verified",
            RefusedReason.NOT_VERIFIED,
            f"runbookd backup verify {point.id}",
        )
    age = (facts.now - point.read_time).total_seconds()
    most = facts.restore_point_max_age.total_seconds()
    if age > most:
        old = f"{point.id} holds the state of {rfc3339(point.read_time)}, {_duration(age)} ago"
        return _no(name, f"{old}; {_duration(most)} is the most", reason, remedy)
    return _yes(name, f"{point.id}, verified, {_duration(age)} old")


def _undo_in_budget(facts: Facts, documents: int) -> Gate:
    name, reason = "undo fits the budget", RefusedReason.UNDO_OVER_BUDGET
    if facts.undo_budget is None:
        return _yes(name, "the runbook sets no budget for it")
    if documents == 0:
        return _yes(name, "there is nothing to undo")
    if facts.undo_rate is None:
        return _no(
            name,
            "nobody knows how fast this database takes writes",
            reason,
            "let the plan measure it: runbookd migrate plan",
        )
    rate, budget = facts.undo_rate.documents_per_second, facts.undo_budget.total_seconds()
    figures = (
        f"{documents:,} documents at {rate:,.0f}/s ({facts.undo_rate.source}) take {_duration(documents / rate)}"
        f" of {_duration(budget)}"
    )
    if documents / rate > budget:
        if facts.disarmed:
            return _yes(name, f"{figures}; it does not, so this run is not rolled back by itself: {facts.disarmed}")
        fit = f"{budget * rate:,.0f} documents fit at this rate"
        remedy = f"migrate fewer collections at a time: {fit}; or --disarm REASON: no automatic rollback"
        return _no(name, figures, reason, remedy)
    return _yes(name, figures)


def _no_hot_field(definition: Definition, facts: Facts) -> Gate:
    name = "no hot field"
    hot = [field for field in facts.sampled.stamped if field.path not in definition.unindexed]
    if not hot:
        return _yes(name, f"none on {facts.sampled.documents} sampled documents")
    path = hot[0].path
    if facts.rate_limit is not None and facts.rate_limit <= HOT_FIELD_LIMIT:
        return _yes(name, f"{path} rises, but the run is capped below the ceiling")
    what = "the time of the write" if hot[0].now else "a value that only rises or falls"
    return _no(
        name,
        f"{hot[0].collection}.{path} gets {what} on every document; with an index on it Firestore takes"
        f" {HOT_FIELD_LIMIT:.0f} writes/s",
        RefusedReason.HOT_FIELD,
        f"exempt {path} from indexing and say unindexed = ({path!r},) in the file, or cap the run at"
        f" {HOT_FIELD_LIMIT:.0f} documents/s",
    )


def _ramped(facts: Facts) -> Gate:
    name = "new collections are ramped"
    if not facts.fresh:
        return _yes(name, f"none is created in, on {facts.sampled.documents} sampled documents")
    rule = f"{NEW_COLLECTION.per_second:.0f}/s, half as much more every {NEW_COLLECTION.every / 60:.0f} min"
    slowest = max(facts.fresh, key=lambda collection: facts.fresh[collection])
    about = f"about {facts.fresh[slowest]:,.0f} documents in {slowest}, which is empty"
    if facts.ramp.per_second > NEW_COLLECTION.per_second or facts.ramp.growth > NEW_COLLECTION.growth:
        return _no(
            name,
            f"{about}, at {facts.ramp.per_second:,.0f}/s from the start; Firestore takes {rule}",
            RefusedReason.RAMP,
            f"set migration.new_collection_rate to {NEW_COLLECTION.per_second:.0f} at most",
        )
    took = _duration(ramp_seconds(facts.fresh[slowest], facts.ramp))
    return _yes(name, f"{about}, in {took} at least: {facts.ramp.per_second:,.0f}/s, and half as much more every 5 min")


def _readers(definition: Definition, facts: Facts) -> Gate:
    name = "readers can take it"
    if definition.reads_both_shapes:
        return _yes(name, "the application reads both shapes")
    if facts.maintenance:
        return _yes(name, "maintenance mode is on")
    return _no(
        name,
        "the file does not say that the application reads both shapes, and it is serving",
        RefusedReason.NEEDS_MAINTENANCE,
        "runbookd maintenance on, or make readers accept both and say reads_both_shapes = True",
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
