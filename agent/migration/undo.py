"""Undo by the journal: newest first, only what the migration touched, never over what a user wrote since.

A before-image is written back under the precondition that the document still has the update_time of the migration's
write. Where it has not, somebody changed the document after the migration: it is kept and listed, or merged if the
definition says how. At the end everything undone is read back and compared with its before-image.

Resumable at any point: outcomes go to the same journal, and what was undone without being recorded is recognised by
asking the database, as in a run.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason, RunbookdError, Transient, TransientReason
from agent.firestore import (
    MustExistAt,
    MustNotExist,
    PlannedWrite,
    RawDocument,
    WriteKind,
    WriteState,
    canonical,
)
from agent.migration.changes import NO_DIGEST, digest_of, to_document
from agent.migration.checkpoint import settle_unknown
from agent.migration.database import Database
from agent.migration.definition import Definition, raised_at
from agent.migration.document import DELETE, Document
from agent.migration.journal import Action, Intent, JournalWriter, Result, SetAside, State
from agent.migration.replay import IntentFrame, Replay, read_intents
from agent.migration.runs import RunRecord, Runs, RunState
from agent.migration.settlement import nanoseconds, settle
from agent.telemetry import Progress, ProgressSink, Telemetry
from agent.telemetry.catalogue import MIGRATION_CHECKED, MIGRATION_MISMATCHES

OPERATION = "undo"

_OPEN = (int(State.APPLIED), int(State.KEPT))
_CHANGED = "changed by somebody else after the migration"
_DELETED = "deleted by somebody else after the migration"
_TAKEN = "deleted by the migration, and created anew by somebody else since"
_OUT_OF_REACH = "what happened to it after the migration is no longer readable"


@dataclass(frozen=True, kw_only=True)
class UndoSettings:
    """How an undo works.

    Args:
        parallel: journal frames (batches of the run) on their way at once.
        attempts: how often one batch may fail as a whole, after the writer's own retries; also how often a document
            that is being merged may change meanwhile.
        passes: how often documents that are not right when they are read back are written again.
    """

    parallel: int = 8
    attempts: int = 4
    passes: int = 3


@dataclass(frozen=True, kw_only=True)
class UndoFindings:
    """What an undo did.

    Args:
        undone, merged: documents of this session.
        kept: documents left as their users have them, with the reason.
        verified: documents read back and found as they were before the migration.
        write_seconds: spent writing back, reading back not included.
        settled: writes of a killed session whose outcome had to be asked of the database.
        by_journal: the before-images came from the journal, and not from Firestore's old versions or a backup.
        unlisted: documents that were kept beside those that ``kept`` names.
    """

    undone: int
    merged: int
    kept: tuple[SetAside, ...]
    verified: int
    write_seconds: float
    settled: int = 0
    by_journal: bool = True
    unlisted: int = 0


@dataclass(frozen=True, kw_only=True)
class UndoSession:
    """One process's work on an undo. ``definition`` is needed for merging only."""

    definition: Definition | None
    record: RunRecord
    told: Replay
    database: Database
    journal: JournalWriter
    runs: Runs
    settings: UndoSettings
    telemetry: Telemetry
    clock: Clock
    progress: ProgressSink
    cancelled: Callable[[], bool]


def undo(session: UndoSession) -> tuple[RunRecord, UndoFindings]:
    """Undo what the journal tells, or go on undoing.

    Returns:
        The record in its final state, saved.

    Raises:
        Permanent: CANCELLED; CORRUPT if documents are still not as they were after the last pass.
        Transient: the database did not answer for longer than the retries last; call again.
    """
    return _Undo(session).run()


class _Undo:
    def __init__(self, session: UndoSession) -> None:
        self._session = session
        self._told = session.told
        self._began = nanoseconds(session.record.pre_read_time)
        self._lock = threading.Lock()
        self._done = self._total = 0
        self._undone = self._merged = 0
        self._write_seconds = 0.0
        self._kept: dict[str, SetAside] = {}

    def run(self) -> tuple[RunRecord, UndoFindings]:
        session = self._session
        record = dataclasses.replace(
            session.record,
            state=RunState.UNDOING,
            undo_started=session.record.undo_started or session.clock.now(),
            undo_finished=None,
        )
        session.runs.save(record)
        with session.telemetry.span("migration.undo", {"run.id": record.id, "migration": record.name}) as span:
            settled = settle_unknown(self._told, session.database, session.journal)
            try:
                verified = self._passes()
            finally:
                session.journal.sync()
            span.set_attribute("documents", self._undone)
        states = self._told.states
        record = dataclasses.replace(
            record,
            state=RunState.UNDONE,
            undo_finished=session.clock.now(),
            undone=states.count(State.UNDONE),
            merged=states.count(State.MERGED),
            kept=len(self._kept),
        )
        session.runs.save(record)
        return record, UndoFindings(
            undone=self._undone,
            merged=self._merged,
            kept=tuple(self._kept.values()),
            verified=verified,
            write_seconds=self._write_seconds,
            settled=settled,
        )

    def _passes(self) -> int:
        for _ in range(self._session.settings.passes):
            self._write_back()
            verified, wrong = self._verify()
            if not wrong:
                return verified
        raise Permanent(
            PermanentReason.CORRUPT,
            f"{len(wrong)} documents are not as they were before the migration, the first is {wrong[0]}",
            hint="something changes writes on their way; restore them from the backup of before the run",
        )

    # --- writing back -----------------------------------------------------------------------------------------

    def _write_back(self) -> None:
        open_ = [place for place in reversed(self._told.frames) if self._open(place)]
        self._done, self._total = 0, sum(len(self._open(place)) for place in open_)
        self._report("write back")
        began = self._session.clock.monotonic()
        self._in_parallel(self._undo_frame, open_)
        self._write_seconds += self._session.clock.monotonic() - began

    def _open(self, place: IntentFrame) -> list[int]:
        """Sequences that the migration applied and that are not undone; kept ones are looked at again.

        Not those that found what they were to create there already, from before the run: that is not the migration's.
        """
        states, times = self._told.states, self._told.update_times
        return [s for s in place.sequences if states[s] in _OPEN and not 0 < times[s] <= self._began]

    def _undo_frame(self, place: IntentFrame) -> None:
        intents = read_intents(place)
        pending = {
            intents[s - place.first_sequence].name: (s, intents[s - place.first_sequence]) for s in self._open(place)
        }
        failure: RunbookdError | None = None
        for attempt in range(self._session.settings.attempts):
            pending, failure = self._attempt(pending)
            if not pending:
                return
            self._session.clock.sleep(0.05 * 2**attempt)
        raise failure or Transient(TransientReason.UNAVAILABLE, f"{len(pending)} documents could not be written back")

    def _attempt(
        self, pending: dict[str, tuple[int, Intent]]
    ) -> tuple[dict[str, tuple[int, Intent]], RunbookdError | None]:
        """Write back once; returns what has to be tried again."""
        written_at = self._told.update_times
        open_ = dict(pending)
        results: list[Result] = []
        failure: RunbookdError | None = None
        try:
            for outcome in self._session.database.write(
                [_write(intent, written_at[sequence]) for sequence, intent in pending.values()],
                origin="undo",
                parallel=1,
            ):
                if outcome.state is WriteState.APPLIED:
                    sequence, _ = open_.pop(outcome.name)
                    results.append(Result(sequence, State.UNDONE, outcome.update_time or 0))
                elif outcome.state is not WriteState.CONFLICT:
                    failure = Transient(TransientReason.UNAVAILABLE, outcome.message)
        except Transient as error:
            failure = error
        finally:
            self._take(results)
        again: dict[str, tuple[int, Intent]] = {}
        late: list[Result] = []
        reverse = [_reverse(intent, written_at[sequence]) for sequence, intent in open_.values()]
        found = settle(self._session.database, reverse)
        for (name, (sequence, intent)), reversal, settlement in zip(open_.items(), reverse, found, strict=True):
            current = settlement.current
            if settlement.state is State.APPLIED:
                late.append(Result(sequence, State.UNDONE, settlement.update_time))
            elif settlement.state is State.UNCLEAR:
                late.append(self._keep(sequence, name, _OUT_OF_REACH))
            elif (current.update_time if current else 0) == reversal.before_time:
                again[name] = (sequence, intent)
            else:
                late.append(self._merge(sequence, intent, current))
        self._take(late)
        return again, failure

    def _merge(self, sequence: int, intent: Intent, current: RawDocument | None) -> Result:
        """What to do with a document that somebody changed after the migration."""
        definition = self._session.definition
        if current is None:
            return self._keep(sequence, intent.name, _DELETED)
        if intent.action is Action.DELETE:
            return self._keep(sequence, intent.name, _TAKEN)
        if definition is None or definition.undo is None:
            return self._keep(sequence, intent.name, _CHANGED)
        before = to_document(RawDocument(intent.before), self._session.database.address) if intent.before else None
        for _ in range(self._session.settings.attempts):
            write = self._merged_write(definition, current, before)
            if isinstance(write, str):
                return self._keep(sequence, intent.name, write)
            outcome = next(iter(self._session.database.write([write], origin="undo", parallel=1)))
            if outcome.state is WriteState.APPLIED:
                return Result(sequence, State.MERGED, outcome.update_time or 0)
            current = self._session.database.get([intent.name])[intent.name]
            if current is None:
                return self._keep(sequence, intent.name, _DELETED)
        return self._keep(sequence, intent.name, _CHANGED)

    def _merged_write(
        self, definition: Definition, current: RawDocument, before: Document | None
    ) -> PlannedWrite | str:
        assert definition.undo is not None
        condition = MustExistAt(current.update_time)
        try:
            merged = definition.undo(to_document(current, self._session.database.address), before)
            if merged is None:
                return _CHANGED
            if merged is DELETE:
                return PlannedWrite(name=current.name, kind=WriteKind.DELETE, precondition=condition)
            return PlannedWrite(name=current.name, fields=merged.encoded(), precondition=condition)
        except Exception as error:  # noqa: BLE001 - a merge that fails leaves the user's version, with the reason
            return f"{_CHANGED}; {raised_at(definition, error)}"

    def _keep(self, sequence: int, name: str, why: str) -> Result:
        path = self._session.database.address.relative(name)
        with self._lock:
            self._kept[name] = SetAside(name=path, collection=path.split("/")[-2], why=why)
        return Result(sequence, State.KEPT)

    def _take(self, results: Sequence[Result]) -> None:
        self._session.journal.results(results)
        with self._lock:
            for result in results:
                self._told.note(result)
                self._undone += result.state is State.UNDONE
                self._merged += result.state is State.MERGED
            self._done += len(results)
        self._report("write back")

    # --- reading back -----------------------------------------------------------------------------------------

    def _verify(self) -> tuple[int, list[str]]:
        """Read back what was undone.

        Returns:
            How many documents are as they were, and the paths of those that are not. The latter count as not undone
            from now on. A document that somebody changed after the undo proves nothing and is in neither.
        """
        places = [place for place in self._told.frames if self._undone_in(place)]
        self._done, self._total = 0, sum(len(self._undone_in(place)) for place in places)
        self._report("verify")
        right: dict[str, int] = {}
        wrong: list[str] = []

        def check(place: IntentFrame) -> None:
            found = self._check_frame(place)
            with self._lock:
                for name, is_right in found.items():
                    collection = name.rsplit("/", 2)[1]
                    right[collection] = right.get(collection, 0) + is_right
                    if not is_right:
                        wrong.append(self._session.database.address.relative(name))
                self._done += len(self._undone_in(place))
            self._report("verify")

        self._in_parallel(check, places)
        for collection, count in right.items():
            amiss = sum(path.split("/")[-2] == collection for path in wrong)
            self._session.telemetry.set(MIGRATION_CHECKED, count + amiss, {"collection": collection})
            self._session.telemetry.set(MIGRATION_MISMATCHES, amiss, {"collection": collection})
        return sum(right.values()), wrong

    def _undone_in(self, place: IntentFrame) -> list[int]:
        states, undone = self._told.states, int(State.UNDONE)
        return [s for s in place.sequences if states[s] == undone]

    def _check_frame(self, place: IntentFrame) -> dict[str, bool]:
        intents = read_intents(place)
        undone = {intents[s - place.first_sequence].name: s for s in self._undone_in(place)}
        found = self._session.database.get(list(undone))
        judged: dict[str, bool] = {}
        damaged: list[Result] = []
        for name, sequence in undone.items():
            current = found[name]
            at = current.update_time if current else 0
            if at != self._told.undo_times[sequence]:
                continue
            judged[name] = _is_as_before(current, intents[sequence - place.first_sequence])
            if not judged[name]:
                damaged.append(Result(sequence, State.APPLIED, at))
        self._session.journal.results(damaged)
        with self._lock:
            for result in damaged:
                self._told.note(result)
        return judged

    # --- both -------------------------------------------------------------------------------------------------

    def _in_parallel(self, work: Callable[[IntentFrame], None], places: Sequence[IntentFrame]) -> None:
        stop = threading.Event()

        def guarded(place: IntentFrame) -> None:
            if stop.is_set():
                return
            if self._session.cancelled():
                raise Permanent(PermanentReason.CANCELLED, f"the undo of {self._session.record.id} was stopped")
            work(place)

        with ThreadPoolExecutor(self._session.settings.parallel, thread_name_prefix="undo") as pool:
            try:
                for future in as_completed([pool.submit(guarded, place) for place in places]):
                    future.result()
            finally:
                stop.set()

    def _report(self, stage: str) -> None:
        self._session.progress(Progress(operation=OPERATION, stage=stage, done=self._done, total=self._total))


def _reverse(intent: Intent, update_time: int) -> Intent:
    """The intent of taking ``intent``, applied at ``update_time``, back."""
    match intent.action:
        case Action.UPDATE | Action.EDIT:
            return Intent(Action.UPDATE, intent.name, b"", update_time, _digest_before(intent))
        case Action.CREATE:
            return Intent(Action.DELETE, intent.name, b"", update_time, NO_DIGEST)
        case Action.DELETE:
            return Intent(Action.CREATE, intent.name, b"", 0, _digest_before(intent))


def _write(intent: Intent, update_time: int) -> PlannedWrite:
    """What takes ``intent``, applied at ``update_time``, back."""
    if intent.action is Action.CREATE:
        return PlannedWrite(name=intent.name, kind=WriteKind.DELETE, precondition=MustExistAt(update_time))
    was_there = intent.action is not Action.DELETE and update_time
    condition = MustExistAt(update_time) if was_there else MustNotExist()
    return PlannedWrite(name=intent.name, fields=RawDocument(intent.before).fields, precondition=condition)


def _is_as_before(current: RawDocument | None, intent: Intent) -> bool:
    if current is None or not intent.before:
        return current is None and not intent.before
    before = RawDocument(intent.before).fields
    # A server nearly always sends equal fields in equal order; sorting them takes four times as long as comparing.
    return current.fields == before or canonical(current.fields) == canonical(before)


def _digest_before(intent: Intent) -> bytes:
    return digest_of(RawDocument(intent.before)) if intent.before else NO_DIGEST
