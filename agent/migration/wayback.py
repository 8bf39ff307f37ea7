"""The ways back, the gentlest first: which one an undo takes, and what it takes to take it.

1. The run's journal: exactly what the migration wrote. A damaged or lost one is mended first with the copies of its
   segments in backup storage.
2. Firestore's own old versions, within the hour (:mod:`agent.migration.rescue`).
3. The last proven backup of before the run, written as a diff over the run's collections
   (:mod:`agent.migration.putback`). It can't tell the migration's writes from those of users, so it has to be allowed
   explicitly; of the documents that the backup does not have, those go that the migration is seen to have created.

Called by :class:`agent.migration.facade.Migrations`, and so by the command line and by the daemon's rollback.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.clock import Clock, rfc3339
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason
from agent.migration.chronicle import Entry, Event
from agent.migration.database import Database
from agent.migration.definition import Definition
from agent.migration.journal import JournalWriter
from agent.migration.putback import BackupSource, put_back
from agent.migration.replay import Replay, replay
from agent.migration.rescue import in_reach, undo_by_read_time
from agent.migration.runs import RunRecord, Runs, RunState
from agent.migration.undo import UndoFindings, UndoSession, UndoSettings, undo
from agent.telemetry import ProgressSink, Telemetry

SegmentSource = Callable[[str], Mapping[str, bytes]]
"""Copies of a run's journal segments in backup storage, by file name; empty where there are none."""


def no_copies(_run_id: str) -> Mapping[str, bytes]:
    """For deployments without an off-host storage."""
    return {}


@dataclass(frozen=True, kw_only=True)
class WayBack:
    """Undoes runs of one database.

    Args:
        definition_of: the run's file as it ran, ``None`` if it is not there any more.
        journal: opens the run's journal for appending, given what it says.
        copies: of journal segments.
        backups: ``None``: there are none.
    """

    database: Database
    runs: Runs
    definition_of: Callable[[RunRecord], Definition | None]
    journal: Callable[[RunRecord, Replay | None], AbstractContextManager[JournalWriter]]
    settings: UndoSettings
    telemetry: Telemetry
    clock: Clock
    copies: SegmentSource = no_copies
    backups: BackupSource | None = None

    def told(self, record: RunRecord) -> Replay | None:
        """What the run's journal says; ``None`` if the run was killed before its first document.

        Raises:
            Permanent: NOT_FOUND; CORRUPT.
        """
        try:
            told = replay(self.runs.journal(record.id))
        except Permanent as error:
            if error.reason is PermanentReason.NOT_FOUND and record.counts.scanned == 0:
                return None
            raise
        if told.next_sequence < record.counts.written:
            # Before-images are on disk before anything else knows of them: what is not there was lost later.
            raise Permanent(
                PermanentReason.CORRUPT,
                f"the journal of {record.id} ends after {told.next_sequence:,} writes of {record.counts.written:,}",
                hint="copy its last segments back from backup storage",
            )
        return told

    def take(
        self, record: RunRecord, *, from_backup: bool, progress: ProgressSink, cancelled: Callable[[], bool]
    ) -> tuple[RunRecord, UndoFindings]:
        """Undo the run by the gentlest way that is open.

        Args:
            from_backup: the third way is allowed.

        Raises:
            Refused: NOT_CONFIRMED if only the third way is open and it is not allowed; NO_RESTORE_POINT if none is.
            Permanent, Transient: see :func:`agent.migration.undo.undo`.
        """
        try:
            told = self._told_or_mended(record)
        except Permanent as error:
            if error.reason not in (PermanentReason.NOT_FOUND, PermanentReason.CORRUPT):
                raise
            return self._without_journal(record, str(error), from_backup, progress, cancelled)
        self._note(record, "by the journal")
        with self.journal(record, told) as journal:
            return undo(
                UndoSession(
                    definition=self.definition_of(record),
                    record=record,
                    told=told,
                    database=self.database,
                    journal=journal,
                    runs=self.runs,
                    settings=self.settings,
                    telemetry=self.telemetry,
                    clock=self.clock,
                    progress=progress,
                    cancelled=cancelled,
                )
            )

    # --- inside -----------------------------------------------------------------------------------------------

    def _told_or_mended(self, record: RunRecord) -> Replay:
        try:
            return self.told(record) or Replay()
        except Permanent:
            copies = self.copies(record.id)
            if not copies:
                raise
            mended = self.runs.journal(record.id)
            mended.mkdir(parents=True, exist_ok=True)
            _put(mended, copies.items())
            self._note(record, f"{len(copies)} segments of its journal came back from backup storage")
            return self.told(record) or Replay()

    def _without_journal(
        self,
        record: RunRecord,
        why: str,
        from_backup: bool,
        progress: ProgressSink,
        cancelled: Callable[[], bool],
    ) -> tuple[RunRecord, UndoFindings]:
        began = self.clock.monotonic()
        definition = self.definition_of(record)
        if definition is not None and in_reach(record, self.database):
            record = self._undoing(record, f"by old versions in the database, because {why}")
            found = undo_by_read_time(
                definition,
                record,
                database=self.database,
                progress=progress,
                cancelled=cancelled,
            )
            undone, kept, unlisted = found.undone, found.kept, 0
        else:
            backup, read_time = self._backup(record, definition is not None, from_backup)
            record = self._undoing(record, f"by {backup} of {rfc3339(read_time)}, because {why}")
            assert self.backups is not None
            back = put_back(
                self.backups,
                backup,
                record,
                definition,
                database=self.database,
                progress=progress,
                cancelled=cancelled,
            )
            undone, kept, unlisted = back.restored + back.removed, back.kept, back.unlisted
            if back.removed:
                self._note(record, f"{back.removed:,} documents that the migration had created were removed")
            if definition is None:
                self._note(
                    record,
                    f"what the migration created in other collections is not looked for: {record.name}.py as it ran"
                    " would tell where",
                )
            if back.extra:
                self._note(record, f"{back.extra:,} documents that {backup} does not have were left alone")
        record = dataclasses.replace(
            record,
            state=RunState.UNDONE,
            undo_finished=self.clock.now(),
            undone=record.undone + undone,
            kept=len(kept) + unlisted,
        )
        self.runs.save(record)
        seconds = self.clock.monotonic() - began
        return record, UndoFindings(
            undone=undone,
            merged=0,
            kept=kept,
            verified=0,
            write_seconds=seconds,
            by_journal=False,
            unlisted=unlisted,
        )

    def _backup(self, record: RunRecord, has_definition: bool, allowed: bool) -> tuple[str, datetime]:
        """The backup to put back.

        Raises:
            Refused: there is none, or it is not allowed.
        """
        late = "Firestore no longer serves the state of before the run"
        lost = late if has_definition else f"so is {record.name}.py as it ran"
        found = self.backups.newest(record.pre_read_time) if self.backups is not None else None
        if found is None:
            raise Refused(
                RefusedReason.NO_RESTORE_POINT,
                f"the journal of {record.id} is lost, {lost}, and no proven backup is older than the run",
                hint=f"look for {record.restore_point or 'a backup'} elsewhere, and restore it by hand",
            )
        if not allowed:
            backup, read_time = found
            raise Refused(
                RefusedReason.NOT_CONFIRMED,
                f"the journal of {record.id} is lost, and {lost}; putting {backup} back also takes back what users"
                f" wrote since {rfc3339(read_time)}",
                hint=f"runbookd migrate undo {record.id} --from-backup",
            )
        return found

    def _undoing(self, record: RunRecord, how: str) -> RunRecord:
        record = dataclasses.replace(
            record, state=RunState.UNDOING, undo_started=record.undo_started or self.clock.now()
        )
        self.runs.save(record)
        self._note(record, how)
        return record

    def _note(self, record: RunRecord, how: str) -> None:
        entry = Entry(at=self.clock.now(), event=Event.UNDO, detail=how)
        self.runs.chronicle(record.id).note(entry)


def _put(folder: Path, copies: Iterable[tuple[str, bytes]]) -> None:
    """Copies in place of what is there; what is there may be longer only in a segment that was never closed."""
    for name, data in copies:
        path = folder / Path(name).name
        fresh = path.with_suffix(".copy")
        fresh.write_bytes(data)
        fresh.replace(path)
