"""Running a migration: collection by collection, scanned at a pinned read_time, chunks migrated side by side.

One thread reads ahead; a few transform, journal and write (:mod:`agent.migration.batches`). What is settled is
checkpointed in the journal, so that :func:`migrate` continues exactly where a killed session stopped.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.firestore import CollectionGroup, RawDocument
from agent.migration.batches import Batches, BatchSettings, created_by_earlier_sessions
from agent.migration.checkpoint import Remainder, Watermark, remainder, settle_unknown
from agent.migration.database import Database
from agent.migration.definition import Definition
from agent.migration.journal import Counts, JournalWriter, ScanRange, SetAside
from agent.migration.pace import Pace
from agent.migration.readback import Checked, ReadBack
from agent.migration.replay import Replay
from agent.migration.runs import CollectionProgress, RunRecord, Runs, RunState
from agent.telemetry import Progress, ProgressSink, Telemetry

OPERATION = "migration"

_CHUNK_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a run works.

    Args:
        batch_size: documents per chunk, journal frame and request.
        parallel: chunks on their way at once.
        validate: read a sample of each batch back.
        rate_limit: documents per second; ``None``: as fast as the database takes them.
        set_aside_limit: a run stops when more documents than this have to be set aside.
        repin_after: a scan changes to a new read_time after this long; versions are readable for an hour.
        batches: see :class:`agent.migration.batches.BatchSettings`.
    """

    batch_size: int = 500
    parallel: int = 4
    validate: bool = True
    rate_limit: float | None = None
    set_aside_limit: int = 100
    repin_after: timedelta = timedelta(minutes=45)
    batches: BatchSettings = field(default_factory=BatchSettings)

    @property
    def chunk(self) -> int:
        """Documents per chunk: at a low rate fewer than a batch may hold, so that progress shows every few seconds."""
        if self.rate_limit is None:
            return self.batch_size
        return max(1, min(self.batch_size, int(self.rate_limit * _CHUNK_SECONDS)))


@dataclass(frozen=True, kw_only=True)
class RunFindings:
    """What a session saw besides the figures in the record.

    Args:
        set_aside: documents left alone, with reasons; those of earlier sessions included.
        mismatched: the first names of documents that were read back and differ from what was written.
        not_checked: documents of samples that could not be read back.
        settled: writes of a killed session whose outcome had to be asked of the database.
    """

    set_aside: tuple[SetAside, ...] = ()
    mismatched: tuple[str, ...] = ()
    not_checked: int = 0
    settled: int = 0


@dataclass(frozen=True, kw_only=True)
class Session:
    """One process's work on a run, and what it works with.

    Args:
        record: as saved; its collections are in the order in which they run.
        told: the journal of earlier sessions; ``None`` for the first.
    """

    definition: Definition
    record: RunRecord
    told: Replay | None
    database: Database
    journal: JournalWriter
    runs: Runs
    settings: RunSettings
    telemetry: Telemetry
    clock: Clock
    progress: ProgressSink
    cancelled: Callable[[], bool]


def migrate(session: Session) -> tuple[RunRecord, RunFindings]:
    """Run, or go on running, until everything is done.

    Returns:
        The record in its final state, saved.

    Raises:
        Permanent: CANCELLED, TOO_MANY_FAILURES, DISK_FULL, UNBALANCED; the record says so and the run can be resumed.
        Transient: the database did not answer for longer than the retries last; the run can be resumed.
    """
    return _Run(session).run()


def scan(
    database: Database, scan_range: ScanRange, *, after: str, repin_after: timedelta, clock: Clock
) -> Iterator[RawDocument]:
    """The documents of a range behind ``after`` (a full name, or empty), in name order, each once.

    Pinned to one read_time as long as that stays readable: a scan that outlives it goes on behind its last document
    at a new one.
    """
    address = database.address
    while True:
        first = after or scan_range.after
        scope = CollectionGroup(
            id=scan_range.collection,
            first=address.relative(first) if first else "",
            last=address.relative(scan_range.until) if scan_range.until else "",
        )
        pinned = clock.monotonic()
        for raw in database.documents(scope, database.server_time()):
            if raw.name == first:
                continue
            yield raw
            after = raw.name
            if clock.monotonic() - pinned > repin_after.total_seconds():
                break
        else:
            return


class _Run:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._record = session.record
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._aside: dict[str, SetAside] = {}
        self._began = session.clock.monotonic()
        self._before = session.record.seconds
        self._saved = self._began
        self._settled = 0

    def run(self) -> tuple[RunRecord, RunFindings]:
        session = self._session
        with ExitStack() as stack:
            stack.enter_context(
                session.telemetry.span("migration.run", {"run.id": self._record.id, "migration": self._record.name})
            )
            read_back = self._read_back(stack)
            try:
                self._go(read_back)
            except BaseException as error:
                self._end(_state_after(error), error)
                raise
            finally:
                session.journal.sync()
        for part in self._record.collections if read_back else ():
            found = read_back.found(part.collection) if read_back else Checked()
            self._record = self._record.with_collection(
                dataclasses.replace(part, checked=found.checked, mismatched=found.mismatched)
            )
        self._end(RunState.DONE, None)
        return self._record, RunFindings(
            set_aside=tuple(self._aside.values()),
            mismatched=tuple(read_back.mismatched) if read_back else (),
            not_checked=read_back.skipped if read_back else 0,
            settled=self._settled,
        )

    def _read_back(self, stack: ExitStack) -> ReadBack | None:
        session = self._session
        if not session.settings.validate:
            return None
        known = {
            part.collection: Checked(checked=part.checked, mismatched=part.mismatched)
            for part in self._record.collections
        }
        return stack.enter_context(ReadBack(database=session.database, telemetry=session.telemetry, collections=known))

    def _go(self, read_back: ReadBack | None) -> None:
        session = self._session
        left = Remainder()
        told = session.told
        if told is not None:
            self._settled = settle_unknown(told, session.database, session.journal)
            left = remainder(told)
            self._aside = {item.name: item for item in told.aside}
            self._take_over(told)
        if told is None or not told.ranges:
            session.journal.ranges(self._ranges())
        batches = Batches(
            definition=session.definition,
            database=session.database,
            journal=session.journal,
            read_back=read_back,
            settings=session.settings.batches,
            pace=Pace(session.settings.rate_limit, session.clock, session.cancelled),
            clock=session.clock,
            created=created_by_earlier_sessions(left.created),
            seed=self._record.id,
        )
        for scan_range in self._ranges():
            self._collection(scan_range, batches, left, read_back)

    def _ranges(self) -> list[ScanRange]:
        return [
            ScanRange(index=index, collection=part.collection) for index, part in enumerate(self._record.collections)
        ]

    def _take_over(self, told: Replay) -> None:
        """The journal's sums are exact; those of the record may be a second older than the kill."""
        for scan_range in told.ranges.values():
            part = self._part(scan_range.collection)
            counts = told.counts.get(scan_range.index, Counts())
            self._record = self._record.with_collection(dataclasses.replace(part, counts=counts))

    def _part(self, collection: str) -> CollectionProgress:
        return next(part for part in self._record.collections if part.collection == collection)

    def _collection(self, scan_range: ScanRange, batches: Batches, left: Remainder, read_back: ReadBack | None) -> None:
        session = self._session
        collection = scan_range.collection
        part = self._part(collection)
        self._update(dataclasses.replace(part, started=part.started or session.clock.now(), finished=None), save=True)
        watermark = Watermark(scan_range.index, session.journal)
        room = threading.Semaphore(session.settings.parallel * 2)

        def work(number: int, documents: Sequence[RawDocument]) -> None:
            try:
                if self._failure is None and not session.cancelled():
                    counts, aside = self._chunk(batches, scan_range, left, documents)
                    self._finished(scan_range, watermark, number, documents[-1].name, counts, aside, read_back)
            except BaseException as error:  # noqa: BLE001 - raised again by the reading thread
                self._fail(error)
            finally:
                room.release()

        with (
            session.telemetry.span("migration.collection", {"collection": collection}),
            ThreadPoolExecutor(session.settings.parallel, thread_name_prefix="migrate") as pool,
        ):
            documents = scan(
                session.database,
                scan_range,
                after=left.after.get(scan_range.index, ""),
                repin_after=session.settings.repin_after,
                clock=session.clock,
            )
            self._report(collection)
            for number, chunk in enumerate(_chunks(documents, session.settings.chunk)):
                room.acquire()
                if self._failure is not None:
                    break
                if session.cancelled():
                    break
                pool.submit(work, number, chunk)
        if session.cancelled():
            self._fail(Permanent(PermanentReason.CANCELLED, f"{self._record.id} was stopped"))
        if self._failure is not None:
            raise self._failure
        self._update(dataclasses.replace(self._part(collection), finished=session.clock.now()), save=True)

    def _chunk(
        self, batches: Batches, scan_range: ScanRange, left: Remainder, documents: Sequence[RawDocument]
    ) -> tuple[Counts, list[SetAside]]:
        """Migrate what earlier sessions have not; documents that the run itself created are none of its business."""
        due = [raw for raw in documents if raw.name not in left.done and raw.name not in batches.created]
        already = sum(raw.name in left.done for raw in documents)
        counts = Counts(scanned=already, written=already)
        if not due:
            return counts, []
        more, aside = batches.migrate(scan_range.index, scan_range.collection, due)
        return counts + more, aside

    def _finished(
        self,
        scan_range: ScanRange,
        watermark: Watermark,
        number: int,
        last_name: str,
        counts: Counts,
        aside: Sequence[SetAside],
        read_back: ReadBack | None,
    ) -> None:
        with self._lock:
            watermark.finished(number, last_name, counts)
            self._aside.update({item.name: item for item in aside})
            part = self._part(scan_range.collection)
            found = read_back.found(scan_range.collection) if read_back else Checked()
            self._update(
                dataclasses.replace(
                    part, counts=part.counts + counts, checked=found.checked, mismatched=found.mismatched
                )
            )
            too_many = len(self._aside) > self._session.settings.set_aside_limit
            first = next(iter(self._aside.values()), None)
        self._report(scan_range.collection)
        if too_many and first is not None:
            raise Permanent(
                PermanentReason.TOO_MANY_FAILURES,
                f"{len(self._aside)} documents had to be set aside, the first is {first.name} ({first.why})",
                hint=f"undo the run, correct {self._session.definition.path.name} and try it with --dry-run",
            )

    def _report(self, collection: str) -> None:
        self._session.progress(
            Progress(
                operation=OPERATION,
                stage=collection,
                done=self._record.counts.scanned,
                total=max(self._record.total, self._record.counts.scanned),
            )
        )

    def _update(self, part: CollectionProgress, *, save: bool = False) -> None:
        now = self._session.clock.monotonic()
        self._record = dataclasses.replace(self._record.with_collection(part), seconds=self._before + now - self._began)
        if save or now - self._saved >= 1.0:
            self._saved = now
            self._session.runs.save(self._record, durable=save)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error

    def _end(self, state: RunState, error: BaseException | None) -> None:
        clock = self._session.clock
        self._record = dataclasses.replace(
            self._record,
            state=state,
            finished=clock.now(),
            seconds=self._before + clock.monotonic() - self._began,
            error=str(error) if error is not None and state is RunState.FAILED else "",
        )
        self._session.runs.save(self._record)


def _state_after(error: BaseException) -> RunState:
    stopped = isinstance(error, KeyboardInterrupt | SystemExit) or (
        isinstance(error, Permanent) and error.reason is PermanentReason.CANCELLED
    )
    return RunState.CANCELLED if stopped else RunState.FAILED


def _chunks(documents: Iterator[RawDocument], size: int) -> Iterator[list[RawDocument]]:
    chunk: list[RawDocument] = []
    for raw in documents:
        chunk.append(raw)
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
