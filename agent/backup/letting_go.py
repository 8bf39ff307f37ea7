"""Letting go of the backups from before a database shrank: the word of a person that it was no accident.

Retention keeps the newest backup that holds ten times what newer ones do, whatever its age, because after an accident
it is all there is (:data:`agent.backup.retention.SHRUNKEN`). Where the data was moved or deleted on purpose, somebody
says so here. The word is noted, with name and reason, beside that backup and beside every older one, so that none of
them takes its place; all of them are then left to their age. It says nothing of newer ones: if the database shrinks
again, what it holds now is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from agent.backup.catalogue import Catalogue
from agent.backup.cleaning import Rules
from agent.backup.records import LetGo
from agent.backup.retention import Verdict, Why, decide_retention
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason


@dataclass(frozen=True, kw_only=True)
class Shrinkage:
    """What is let go of, and what stays instead.

    Args:
        backup: the newest backup that is let go of.
        documents: how many the database held then.
        since: the newest verified backup of the whole database.
        documents_since: how many it held then.
        backups: ids of all that are let go of, oldest first, ``backup`` last.
        verdicts: what the next clean does to ``backup``, copy by copy.
    """

    backup: str
    documents: int
    since: str
    documents_since: int
    backups: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


def shrinkage_since(catalogue: Catalogue, backup: str, rules: Rules, *, now: datetime) -> Shrinkage:
    """What letting go of ``backup`` means; nothing is changed.

    Raises:
        RunbookdError: a storage does not answer; nothing is decided on half the facts.
        Permanent: ``NOT_FOUND``; ``INVALID`` if it is not kept for holding more than newer ones.
        Refused: ``LAST_GOOD`` if it is needed whatever it holds.
    """
    catalogue.entry(backup)
    candidates = rules.candidates(catalogue.entries(everywhere=True))
    verdicts = decide_retention(candidates, retention=rules.retention, now=now)
    held = [verdict.id for verdict in verdicts if verdict.why is Why.LAST_SUBSTANTIAL]
    if backup not in held[:1]:
        raise _not_the_one(backup, held, next((one for one in verdicts if one.id == backup), None))
    by_id = {one.id: one for one in candidates}
    last = by_id[backup]
    good = next(one for one in verdicts if one.keep and one.why in (Why.LAST_GOOD, Why.LAST_PROVEN, Why.LAST_AT_ALL))
    if good.why is Why.LAST_AT_ALL:
        raise Refused(
            RefusedReason.LAST_GOOD,
            f"no backup of the whole database is verified; {backup} may be all there is",
            hint=f"verify what is newer first: runbookd backup verify {good.id}",
        )
    older = [
        one
        for one in candidates
        if not (one.foreign or one.limited or one.damaged or one.let_go) and one.read_time <= last.read_time
    ]
    gone = {one.id for one in older}
    after = decide_retention(
        [replace(one, let_go="now") if one.id in gone else one for one in candidates],
        retention=rules.retention,
        now=now,
    )
    return Shrinkage(
        backup=backup,
        documents=last.documents,
        since=good.id,
        documents_since=by_id[good.id].documents,
        backups=tuple(one.id for one in sorted(older, key=lambda one: (one.read_time, one.id == backup, one.id))),
        verdicts=tuple(verdict for verdict in after if verdict.id == backup),
    )


def note_shrinkage(catalogue: Catalogue, found: Shrinkage, note: LetGo) -> None:
    """Note somebody's word beside each backup that it is about, the one it was given for last.

    So long as that one has no note, nothing has changed: a call that was cut off is made again.
    """
    for backup in found.backups:
        catalogue.let_go(backup, note)


def _not_the_one(backup: str, held: list[str], verdict: Verdict | None) -> Permanent | Refused:
    if verdict is not None and verdict.why in (Why.LAST_GOOD, Why.LAST_PROVEN, Why.LAST_AT_ALL):
        return Refused(
            RefusedReason.LAST_GOOD,
            f"{backup} can't be let go of: it is {verdict.why}",
            hint="prove a newer one, and this one is needed no longer: runbookd backup verify latest --deep",
        )
    if held:
        return Permanent(
            PermanentReason.INVALID,
            f"{backup} is not the newest backup that is kept because the database shrank since; {held[0]} is",
            hint=f"runbookd backup let-go {held[0]} --reason WHY lets go of it and of all that are older",
        )
    why = f"it is {'kept' if verdict.keep else 'to be removed'}: {verdict.why}" if verdict else "it has no copy"
    return Permanent(
        PermanentReason.INVALID,
        f"{backup} is not kept because the database shrank since; {why}",
        hint="runbookd backup clean says why each backup is kept",
    )
