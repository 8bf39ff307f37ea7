"""Was this write applied? Asked of the database itself, for writes whose outcome nobody recorded.

After ``kill -9``, a lost connection or a conflict, a journal may hold intents whose outcome is unknown. Looking at
the document as it is now settles most: it is as it was before, or it is what was meant. Where somebody has written
since, the versions in between are looked at one by one, newest first: Firestore serves each for an hour. Only so is a
transform that is not idempotent applied exactly once.

One case is beyond telling: somebody else writing, in that very moment, precisely the bytes that were meant; it counts
as applied. So does a document that was to be created and stood there all along with the very same contents; but its
update_time is of before the run, by which :mod:`agent.migration.undo` knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent.faults import Permanent, PermanentReason
from agent.firestore import RawDocument
from agent.migration.changes import is_as_meant
from agent.migration.database import Database
from agent.migration.journal import Action, Intent, State

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_VERSIONS = 1000


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the database says about one intent.

    Args:
        state: APPLIED, NOT_APPLIED, or UNCLEAR where the versions in between are out of reach.
        update_time: of the write, in ns, where it was applied and was not a delete.
        current: the document now; ``None`` if there is none.
    """

    state: State
    update_time: int
    current: RawDocument | None


def settle(database: Database, intents: Sequence[Intent]) -> list[Settlement]:
    """What became of ``intents``, in their order.

    Raises:
        RunbookdError: the database can't be read.
    """
    current = database.get([intent.name for intent in intents]) if intents else {}
    return [_settle(database, intent, current[intent.name]) for intent in intents]


def _settle(database: Database, intent: Intent, current: RawDocument | None) -> Settlement:
    version = current
    for _ in range(_MAX_VERSIONS):
        if version is None:
            applied = intent.action is Action.DELETE
            return Settlement(State.APPLIED if applied else State.NOT_APPLIED, 0, current)
        if version.update_time == intent.before_time:
            return Settlement(State.NOT_APPLIED, 0, current)
        if is_as_meant(intent, version):
            return Settlement(State.APPLIED, version.update_time, current)
        if version.update_time < intent.before_time:
            return Settlement(State.NOT_APPLIED, 0, current)
        try:
            version = database.get([intent.name], just_before(version.update_time))[intent.name]
        except Permanent as error:
            if error.reason is not PermanentReason.READ_TIME_EXPIRED:
                raise
            break
    return Settlement(State.UNCLEAR, 0, current)


def nanoseconds(moment: datetime) -> int:
    """``moment`` as update_times are given: ns since the epoch."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def just_before(update_time: int) -> datetime:
    """The last instant at which the version before the one of ``update_time`` (ns) was current."""
    return _EPOCH + timedelta(microseconds=(update_time - 1) // 1000)
