"""Running a migration: collection by collection, scanned at a pinned read_time, chunks migrated side by side.

One thread reads ahead (:mod:`agent.migration.reading`); a few transform, journal and write
(:mod:`agent.migration.batches`). What is settled is checkpointed in the journal, so that :func:`migrate` continues
exactly where a killed session stopped.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta

from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.firestore import CollectionGroup, RawDocument
from agent.firestore.rate import NEW_COLLECTION, RateLimit
from agent.migration.batches import Batches, BatchSettings, created_by_earlier_sessions
from agent.migration.checkpoint import Remainder, Watermark, remainder, settle_unknown
from agent.migration.chronicle import Entry, Event
from agent.migration.database import Database
from agent.migration.definition import Definition
from agent.migration.governor import Governor, Standing
from agent.migration.journal import Counts, JournalWriter, ScanRange, SetAside
from agent.migration.pace import Pace
from agent.migration.readback import Checked, ReadBack
from agent.migration.reading import ReadAhead, Source, in_chunks, scan
from agent.migration.replay import Replay
from agent.migration.runs import CollectionProgress, RunRecord, Runs, RunState
from agent.migration.throttle import LoadLimits
from agent.migration.vitals import Vitals, nothing_known
from agent.telemetry import Progress, ProgressSink, Telemetry

OPERATION = "migration"

_CHUNK_SECONDS = 5.0
_CHUNK_BYTES = 1_500_000  # a chunk of documents near their limit of 1 MiB must not fill the memory


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a run works.

    Args:
        batch_size: documents per chunk, journal frame and request.
        parallel: chunks on their way at once.
        validate: read a sample of each batch back.
        rate_limit: documents per second; ``None``: as fast as the database takes them.
        ramp: how fast documents may be created in a collection that was empty before.
        limits: the load at which the run slows down and stops.
        set_aside_limit: a run stops when more documents than this have to be set aside.
        repin_after: a scan changes to a new read_time after this long; versions are readable for an hour.
        batches: see :class:`agent.migration.batches.BatchSettings`.
    """

    batch_size: int = 500
    parallel: int = 6
    validate: bool = True
    rate_limit: float | None = None
    ramp: RateLimit = NEW_COLLECTION
    limits: LoadLimits = field(default_factory=LoadLimits)
    set_aside_limit: int = 100
    repin_after: timedelta = timedelta(minutes=45)
    batches: BatchSettings = field(default_factory=BatchSettings)

    def chunk(self, *, batch_size: int | None = None, rate: float | None = None) -> int:
        """Documents per chunk: at a low rate fewer than a batch may hold, so that progress shows every few seconds.

        Args:
            batch_size, rate: what holds now, instead of the settings'.
        """
        most = batch_size or self.batch_size
        rate = self.rate_limit if rate is None else rate
        return most if rate is None else max(1, min(most, int(rate * _CHUNK_SECONDS)))


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
        vitals: how the database is doing.
        failed: told the end of a session that did not reach the run's, before the error is raised.
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
    vitals: Vitals = nothing_known
    failed: Callable[[RunRecord, RunFindings], None] = lambda _record, _findings: None


def migrate(session: Session) -> tuple[RunRecord, RunFindings]:
    """Run, or go on running, until everything is done.

    Returns:
        The record in its final state, saved.

    Raises:
        Permanent: CANCELLED, TOO_MANY_FAILURES, DISK_FULL, UNBALANCED, UNHEALTHY; the record says so, and the run can
            be resumed.
        Transient: the database did not answer for longer than the retries last; the run can be resumed.
    """
    return _Run(session).run()


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
        self._waiting_since: float | None = None
        self._collection_now = ""

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
                session.failed(self._record, self._findings(read_back))
                raise
            finally:
                session.journal.sync()
        for part in self._record.collections if read_back else ():
            found = read_back.found(part.collection) if read_back else Checked()
            self._record = self._record.with_collection(
                dataclasses.replace(part, checked=found.checked, mismatched=found.mismatched)
            )
        self._end(RunState.DONE, None)
        return self._record, self._findings(read_back)

    def _findings(self, read_back: ReadBack | None) -> RunFindings:
        return RunFindings(
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
        pace = self._pace(left)
        pace.look()
        batches = Batches(
            definition=session.definition,
            database=session.database,
            journal=session.journal,
            read_back=read_back,
            settings=session.settings.batches,
            pace=pace,
            clock=session.clock,
            created=created_by_earlier_sessions(left.created),
            seed=self._record.id,
        )
        ranges = self._ranges()
        sources = [self._source(scan_range, left) for scan_range in ranges]
        with ReadAhead(sources, is_over=self._is_over, is_free=lambda: pace.rate is None) as ahead:
            for scan_range in ranges:
                self._collection(scan_range, ahead.documents(), batches, left, read_back)

    def _source(self, scan_range: ScanRange, left: Remainder) -> Source:
        session = self._session
        part = self._part(scan_range.collection)
        return Source(
            begin=lambda: scan(
                session.database,
                scan_range,
                after=left.after.get(scan_range.index, ""),
                repin_after=session.settings.repin_after,
                clock=session.clock,
            ),
            expected=max(0, part.documents - part.counts.scanned),
        )

    def _pace(self, left: Remainder) -> Pace:
        session = self._session
        created = Counter(name.split("/")[-2] for name in left.created)

        def is_new(collection: str) -> bool:
            """Nobody's documents are in it but those that earlier sessions created."""
            return session.database.count(CollectionGroup(id=collection)) <= created[collection]

        governor = Governor(
            chronicle=session.runs.chronicle(self._record.id),
            vitals=session.vitals,
            limits=session.settings.limits,
            rate=session.settings.rate_limit,
            clock=session.clock,
            tell=self._heard,
        )
        return Pace(governor, session.clock, self._is_over, is_new=is_new, ramp=session.settings.ramp)

    def _is_over(self) -> bool:
        """Nobody needs to wait for a turn any more."""
        return self._failure is not None or self._session.cancelled()

    def _heard(self, standing: Standing) -> None:
        """The run goes on otherwise than before: everybody who looks at its record sees it."""
        with self._lock:
            now = self._session.clock.monotonic()
            if self._waiting_since is not None:
                self._began += now - self._waiting_since  # time in which it may not work is not time that it takes
            self._waiting_since = now if standing.waits else None
            state = RunState.PAUSED if standing.paused else RunState.RUNNING
            self._record = dataclasses.replace(self._record, state=state, pace=standing.words)
            self._session.runs.save(self._record)
        self._report(self._collection_now, paused=standing.paused)

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

    def _collection(
        self,
        scan_range: ScanRange,
        documents: Iterator[RawDocument],
        batches: Batches,
        left: Remainder,
        read_back: ReadBack | None,
    ) -> None:
        session = self._session
        collection = scan_range.collection
        self._collection_now = collection
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
            try:
                self._report(collection)
                pace = batches.pace
                chunks = in_chunks(
                    documents,
                    lambda: session.settings.chunk(batch_size=pace.batch_size, rate=pace.rate),
                    most_bytes=_CHUNK_BYTES,
                )
                for number, chunk in enumerate(chunks):
                    room.acquire()
                    if self._failure is not None:
                        break
                    if session.cancelled():
                        break
                    pool.submit(work, number, chunk)
            except BaseException as error:
                self._fail(error)  # or the pool would wait for threads that wait for their turn
                raise
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

    def _report(self, collection: str, *, paused: bool = False) -> None:
        self._session.progress(
            Progress(
                operation=OPERATION,
                stage=collection,
                done=self._record.counts.scanned,
                total=max(self._record.total, self._record.counts.scanned),
                paused=paused,
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
            pace="",
        )
        self._session.runs.save(self._record)
        detail = f"{state} after {self._record.counts.scanned:,} documents"
        if error is not None:
            detail += f": {error}"
        entry = Entry(at=clock.now(), event=Event.ENDED, detail=detail)
        self._session.runs.chronicle(self._record.id).note(entry)


def _state_after(error: BaseException) -> RunState:
    stopped = isinstance(error, KeyboardInterrupt | SystemExit) or (
        isinstance(error, Permanent) and error.reason is PermanentReason.CANCELLED
    )
    return RunState.CANCELLED if stopped else RunState.FAILED
