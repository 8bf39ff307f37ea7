"""The third way back: a proven backup of before the run is put back as a diff over the run's collections.

The backup knows nothing of documents that did not exist yet, so the diff leaves them. Where the migration's file is at
hand as it ran, those that the migration created are worked out again from the documents as they are once the backup is
back (:mod:`agent.migration.creations`) and taken away, wherever the migration put them. What is left is listed, with
what can be said of it: a person decides.

Nothing is remembered from one attempt to the next: done again after it was stopped, the diff has less to write and
fewer documents to take away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Protocol

from agent.faults import Permanent, PermanentReason, Transient, TransientReason
from agent.firestore import CollectionGroup, RawDocument, WriteState
from agent.migration.changes import changes_of
from agent.migration.creations import find_creations
from agent.migration.database import Database
from agent.migration.definition import Definition
from agent.migration.journal import SetAside
from agent.migration.runs import RunRecord
from agent.telemetry import Progress, ProgressSink

LISTED = 1000
"""Documents beside the backup's own that are named; the rest are counted."""

_UNTOLD = (
    "{backup} does not have it: a user or the migration created it since, which {name}.py as it ran would tell; delete"
    " it by hand if it is the migration's"
)
_NOT_ITS_OWN = (
    "{backup} does not have it, and the migration does not make it of anything that {backup} has: a user created it"
    " since, or the document that it was made from; delete it by hand if it is not wanted"
)
_CHANGED = (
    "created by the migration, and not as the migration makes it of the backup's documents: it, or what it was made"
    " from, was written since; delete it by hand if nobody needs what it holds"
)


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What putting a backup back as a diff did.

    Args:
        documents: written back.
        kept: left as they are, with the reason: somebody changed them meanwhile, or the database refused.
        extra: relative names of documents that the backup does not have; they were left alone.
    """

    documents: int
    kept: tuple[SetAside, ...]
    extra: frozenset[str]


class BackupSource(Protocol):
    """Backups, as a last way back."""

    def newest(self, before: datetime) -> tuple[str, datetime] | None:
        """Id and read_time of the newest proven backup from before a moment."""

    def restore(
        self, backup: str, collections: tuple[str, ...], progress: ProgressSink, cancelled: Callable[[], bool]
    ) -> Restored:
        """Write what differs in these collections."""


@dataclass(frozen=True, kw_only=True)
class PutBackFindings:
    """What was done.

    Args:
        restored: documents written back.
        removed: documents that the migration had created and that are gone.
        kept: documents left as they are, with the reason: all that the backup has, :data:`LISTED` of the others.
        unlisted: how many of the others are not named.
        extra: how many others there are.
    """

    restored: int
    removed: int
    kept: tuple[SetAside, ...]
    unlisted: int
    extra: int


def put_back(
    source: BackupSource,
    backup: str,
    record: RunRecord,
    definition: Definition | None,
    *,
    database: Database,
    progress: ProgressSink,
    cancelled: Callable[[], bool],
) -> PutBackFindings:
    """Put ``backup`` back over the collections of a run. May be called again after it was stopped.

    Args:
        definition: the run's file as it ran; without it nothing is taken away.

    Raises:
        Permanent: CANCELLED; and what the source raises.
        Transient: documents could not be taken away.
    """
    restored = source.restore(backup, tuple(part.collection for part in record.collections), progress, cancelled)
    why = _UNTOLD.format(backup=backup, name=record.name)
    removed = 0
    left: dict[str, str] = {}
    rest: Set[str] = restored.extra
    if definition is not None:
        why = _NOT_ITS_OWN.format(backup=backup)
        cleared = _Clearing(definition, record, restored, database, progress, cancelled).run()
        removed, left, rest = cleared.removed, cleared.changed, cleared.rest
    left |= dict.fromkeys(sorted(rest - left.keys()), why)
    listed = tuple(
        SetAside(name=path, collection=path.split("/")[-2], why=why) for path, why in islice(left.items(), LISTED)
    )
    return PutBackFindings(
        restored=restored.documents,
        removed=removed,
        kept=(*restored.kept, *listed),
        unlisted=len(left) - len(listed),
        extra=len(left),
    )


class _Clearing:
    """Taking away what the migration created, page by page of what it created them from."""

    def __init__(
        self,
        definition: Definition,
        record: RunRecord,
        restored: Restored,
        database: Database,
        progress: ProgressSink,
        cancelled: Callable[[], bool],
    ) -> None:
        self._definition = definition
        self._record = record
        self._database = database
        self._progress = progress
        self._cancelled = cancelled
        self._extra = restored.extra
        self._kept = {item.name for item in restored.kept}
        self._covered = {part.collection for part in record.collections}
        self.removed = 0
        self.rest = set(restored.extra)  # that nothing is known of
        self.changed: dict[str, str] = {}  # and why it is left

    def run(self) -> _Clearing:
        read_time = self._database.server_time()
        done = 0
        for part in self._record.collections:
            for page in self._database.pages(CollectionGroup(id=part.collection), read_time):
                if self._cancelled():
                    raise Permanent(
                        PermanentReason.CANCELLED,
                        f"the undo of {self._record.id} was stopped",
                        hint="do the same again: it goes on where it stopped",
                    )
                self._take_away(page)
                done += len(page)
                self._progress(
                    Progress(operation="undo", stage=f"created from {part.collection}", done=done, total=max(done, 1))
                )
        return self

    def _take_away(self, page: Sequence[RawDocument]) -> None:
        address = self._database.address
        creates = [
            change
            for raw in page
            if self._is_origin(address.relative(raw.name))
            for change in changes_of(self._definition, raw, address).creates
            if not self._is_the_backups(address.relative(change.write.name))
        ]
        found = find_creations(self._database, creates, self._record.pre_read_time)
        self.changed |= {address.relative(raw.name): _CHANGED for raw in found.changed}
        unsure: dict[str, str] = {}
        for outcome in self._database.write(found.removals, origin="undo", parallel=4) if found.removals else ():
            if outcome.state is WriteState.APPLIED:
                self._gone(outcome.name)
            elif outcome.state is WriteState.FAILED:
                raise Transient(
                    TransientReason.UNAVAILABLE,
                    f"{address.relative(outcome.name)}, which the migration created, could not be deleted:"
                    f" {outcome.message}",
                    hint="do the same again: it goes on where it stopped",
                )
            else:
                unsure[outcome.name] = outcome.message or str(outcome.reason)
        # A delete whose answer was lost is refused when it is sent again: the document says what became of it.
        for name, now in self._database.get(list(unsure)).items() if unsure else ():
            if now is None:
                self._gone(name)
            else:
                self.changed[address.relative(name)] = f"created by the migration; deleting it failed: {unsure[name]}"

    def _is_origin(self, path: str) -> bool:
        """Whether a document of the run's collections is as it was before the run: as the backup has it.

        To take a user's new document for an origin would mean to take away what the user's application made of it.
        """
        return path not in self._extra and path not in self._kept

    def _is_the_backups(self, path: str) -> bool:
        """Whether it stays because the backup has it, even if a user deleted it and the migration made it anew."""
        return path.split("/")[-2] in self._covered and path not in self._extra

    def _gone(self, name: str) -> None:
        path = self._database.address.relative(name)
        self.removed += 1
        self.rest.discard(path)
        self.changed.pop(path, None)
