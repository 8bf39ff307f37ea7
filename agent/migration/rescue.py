"""Undo without a journal: the before-images are read from Firestore itself, which serves old versions for an hour.

For each document of the run's collections that has changed since the run began, the version before its latest is put
through the transform: if that gives exactly what is there now, the migration wrote it and it is written back. If not,
somebody else has written since, and the document is kept and listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from agent.faults import Permanent, PermanentReason
from agent.firestore import (
    CollectionGroup,
    MustExistAt,
    MustNotExist,
    PlannedWrite,
    RawDocument,
    WriteState,
)
from agent.migration.changes import PlannedChange, changes_of, digest_of, is_as_meant
from agent.migration.creations import find_creations
from agent.migration.database import Database
from agent.migration.definition import Definition
from agent.migration.journal import SetAside
from agent.migration.runs import RunRecord
from agent.migration.settlement import just_before
from agent.telemetry import Progress, ProgressSink

WINDOW = timedelta(minutes=55)
"""How long after the run began this is tried: Firestore's hour, less what reading takes."""

_KEPT = "differs from what the migration writes: somebody else has written it since"


@dataclass(frozen=True, kw_only=True)
class RescueFindings:
    """What was written back, and what was kept."""

    undone: int
    kept: tuple[SetAside, ...]


def undo_by_read_time(
    definition: Definition,
    record: RunRecord,
    *,
    database: Database,
    progress: ProgressSink,
    cancelled: Callable[[], bool],
) -> RescueFindings:
    """Take a run back whose journal is lost. May be called again after it was stopped.

    Raises:
        Permanent: CANCELLED; READ_TIME_EXPIRED if it takes longer than what is left of the hour.
    """
    return _Rescue(definition, record, database, progress, cancelled).run()


def in_reach(record: RunRecord, database: Database) -> bool:
    """Whether Firestore still serves the state of before the run: by its own clock, ours may have jumped."""
    return database.server_time() - record.pre_read_time <= WINDOW


class _Rescue:
    def __init__(
        self,
        definition: Definition,
        record: RunRecord,
        database: Database,
        progress: ProgressSink,
        cancelled: Callable[[], bool],
    ) -> None:
        self._definition = definition
        self._record = record
        self._database = database
        self._progress = progress
        self._cancelled = cancelled
        self._undone = self._done = 0
        self._kept: dict[str, SetAside] = {}

    def run(self) -> RescueFindings:
        for part in self._record.collections:
            scope = CollectionGroup(id=part.collection)
            for page in self._database.pages(scope, self._record.pre_read_time):
                if self._cancelled():
                    raise Permanent(PermanentReason.CANCELLED, f"the undo of {self._record.id} was stopped")
                self._take_back(page)
                self._done += len(page)
                self._progress(
                    Progress(operation="undo", stage=part.collection, done=self._done, total=self._record.total)
                )
        return RescueFindings(undone=self._undone, kept=tuple(self._kept.values()))

    def _take_back(self, page: Sequence[RawDocument]) -> None:
        current = self._database.get([raw.name for raw in page])
        writes: list[PlannedWrite] = []
        for raw in page:
            now = current[raw.name]
            if now is None or now.update_time != raw.update_time:
                writes.extend(self._reverse(raw, now))
            else:
                # The document itself was not touched, but others may have been made for it.
                changes = changes_of(self._definition, raw, self._database.address)
                if changes.own is None:
                    writes.extend(self._uncreate(changes.creates))
        for outcome in self._database.write(writes, origin="undo", parallel=4) if writes else ():
            if outcome.state is WriteState.APPLIED:
                self._undone += 1
            else:
                self._keep(outcome.name, outcome.message)

    def _reverse(self, raw: RawDocument, now: RawDocument | None) -> Iterator[PlannedWrite]:
        """What takes the migration of one changed document back; nothing where it was not the migration."""
        before = raw
        changes = of_raw = changes_of(self._definition, raw, self._database.address)
        if not _is(changes.own, now) and now is not None:
            previous = self._database.get([raw.name], just_before(now.update_time))[raw.name]
            if previous is not None:
                before = previous
                changes = changes_of(self._definition, before, self._database.address)
        if not _is(changes.own, now):
            if digest_of(now) != digest_of(raw):
                self._keep(raw.name, _KEPT)
            else:
                # As it was: undone by an earlier attempt, which may have ended before it came to what was made of it.
                yield from self._uncreate(of_raw.creates)
            return
        condition = MustExistAt(now.update_time) if now is not None else MustNotExist()
        yield PlannedWrite(name=raw.name, fields=before.fields, precondition=condition)
        yield from self._uncreate(changes.creates)

    def _uncreate(self, creates: Sequence[PlannedChange]) -> Sequence[PlannedWrite]:
        found = find_creations(self._database, creates, self._record.pre_read_time)
        for raw in found.changed:
            self._keep(raw.name, _KEPT)
        return found.removals

    def _keep(self, name: str, why: str) -> None:
        path = self._database.address.relative(name)
        self._kept[name] = SetAside(name=path, collection=path.split("/")[-2], why=why)


def _is(own: PlannedChange | None, now: RawDocument | None) -> bool:
    """Whether ``now`` is what the migration would have made."""
    return own is not None and is_as_meant(own.intent, now)
