"""What a migration created, worked out again and taken away: for the ways back that have no journal to tell it.

A transform is a pure function, so what it makes of a document as it was before the run can be computed at any time.
What is found there is taken away only where it is sure to be the migration's: it was created after the run began, and
it holds exactly what the migration makes. A document that stood there before the run is none of the migration's, which
never overwrites one.

Called by :mod:`agent.migration.rescue` and :mod:`agent.migration.putback`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.firestore import MustExistAt, PlannedWrite, RawDocument, WriteKind
from agent.migration.changes import PlannedChange, is_as_meant
from agent.migration.database import Database
from agent.migration.settlement import nanoseconds


@dataclass(frozen=True, kw_only=True)
class Creations:
    """What became of documents that a migration creates.

    Args:
        removals: the deletes of those that are as the migration made them, each under the precondition that nobody
            writes the document meanwhile.
        changed: those that were created since the run began and hold something else.
    """

    removals: tuple[PlannedWrite, ...]
    changed: tuple[RawDocument, ...]


def find_creations(database: Database, creates: Sequence[PlannedChange], since: datetime) -> Creations:
    """Look at what stands where the migration creates documents.

    Args:
        creates: what transforms ask for, see :func:`agent.migration.changes.changes_of`.
        since: when the run began, by the server's clock.
    """
    began = nanoseconds(since)
    found = database.get([change.write.name for change in creates]) if creates else {}
    removals: dict[str, PlannedWrite] = {}
    changed: dict[str, RawDocument] = {}
    for change in creates:
        now = found[change.write.name]
        if now is None or now.create_time <= began:
            continue
        if is_as_meant(change.intent, now):
            condition = MustExistAt(now.update_time)
            removals[now.name] = PlannedWrite(name=now.name, kind=WriteKind.DELETE, precondition=condition)
        else:
            changed[now.name] = now
    # Of several documents that would create the same one, one did; what another would have made says nothing.
    unlike = [raw for name, raw in changed.items() if name not in removals]
    return Creations(removals=tuple(removals.values()), changed=tuple(unlike))
