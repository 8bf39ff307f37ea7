"""What surrounds the work on a run, whichever call of the facade it is: journal, vitals, revision record, report.

Called by :class:`agent.migration.facade.Migrations`, and its :meth:`Sessions.journal` by the undo.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.clock import Clock
from agent.faults import PermanentReason, RunbookdError
from agent.migration.chronicle import Entry, Event
from agent.migration.database import Database
from agent.migration.definition import Definition
from agent.migration.journal import JournalWriter
from agent.migration.outcomes import RunReport
from agent.migration.replay import Replay
from agent.migration.reports import Reports
from agent.migration.revisions import COLLECTION, Revision, write_revision
from agent.migration.run import RunFindings, RunSettings, Session, migrate
from agent.migration.runs import RunRecord, Runs
from agent.migration.sampling import Rates
from agent.migration.throttle import LoadLimits
from agent.migration.timeline import Moment, timeline
from agent.migration.vitals import OwnVitals, Vitals, nothing_known
from agent.telemetry import ProgressSink, Telemetry
from agent.telemetry.catalogue import OPERATION_DURATION

_LOG = logging.getLogger(__name__)


class Sessions:
    """One process's sessions on the runs of one database; the arguments are the facade's."""

    def __init__(
        self,
        *,
        database: Database,
        runs: Runs,
        rates: Rates,
        reports: Reports,
        telemetry: Telemetry,
        clock: Clock,
        on_segment: Callable[[str, Path], None] | None,
        published: Vitals,
    ) -> None:
        self._database = database
        self._runs = runs
        self._rates = rates
        self._reports = reports
        self._telemetry = telemetry
        self._clock = clock
        self._on_segment = on_segment
        self._published = published

    @contextmanager
    def journal(self, record: RunRecord, told: Replay | None) -> Iterator[JournalWriter]:
        """The run's journal, opened for appending behind what it tells; its segments are copied as they close."""
        with ThreadPoolExecutor(1, thread_name_prefix="journal-copy") as pool:

            def closed(path: Path) -> None:
                if self._on_segment is not None:
                    pool.submit(_logged, self._on_segment, record.id, path)

            with JournalWriter(
                self._runs.journal(record.id),
                run=record.id,
                database=record.database,
                checksum=record.checksum,
                next_sequence=told.next_sequence if told else 0,
                on_closed=closed,
            ) as journal:
                yield journal

    def run(
        self,
        definition: Definition,
        record: RunRecord,
        told: Replay | None,
        settings: RunSettings,
        progress: ProgressSink,
        cancelled: Callable[[], bool],
    ) -> RunReport:
        """One session of a run, to its end; see :func:`agent.migration.run.migrate`."""
        self.note_revision(record)
        try:
            with self.timed("migration"), self._vitals(settings) as vitals, self.journal(record, told) as journal:
                record, findings = migrate(
                    Session(
                        definition=definition,
                        record=record,
                        told=told,
                        database=self._database,
                        journal=journal,
                        runs=self._runs,
                        settings=settings,
                        telemetry=self._telemetry,
                        clock=self._clock,
                        progress=progress,
                        cancelled=cancelled,
                        vitals=vitals,
                        failed=self._report_failure,
                    )
                )
        finally:
            record = self._runs.get(record.id)
            with suppress(RunbookdError):  # the first error is the one to tell; this record is written again by an undo
                self.note_revision(record)
        rate = _rate_of(record)
        if record.sessions == 1:
            self._rates.note("migration", record.counts.scanned, record.seconds, record.id)
        report = RunReport(record=record, findings=findings, documents_per_second=rate)
        self._reports.run(record, findings, rate, self.timeline(record))
        return report

    def _report_failure(self, record: RunRecord, findings: RunFindings) -> None:
        with suppress(RunbookdError):  # why the session failed is what its caller is to hear
            self._reports.run(record, findings, _rate_of(record), self.timeline(record))

    def timeline(self, record: RunRecord) -> tuple[Moment, ...]:
        """What is known of when what happened."""
        return timeline(record, self._runs.chronicle(record.id).read())

    @contextmanager
    def _vitals(self, settings: RunSettings) -> Iterator[Vitals]:
        """Looked after only where there is a limit to mind: it costs a read a second."""
        if settings.limits == LoadLimits():
            yield nothing_known
            return
        name = self._database.address.name(COLLECTION, "probe")
        with OwnVitals(
            database=self._database,
            name=name,
            telemetry=self._telemetry,
            clock=self._clock,
            published=self._published,
        ) as vitals:
            yield vitals

    def tell(self, run_id: str, event: Event, detail: str) -> None:
        """A line in the run's chronicle."""
        self._runs.chronicle(run_id).note(Entry(at=self._clock.now(), event=event, detail=detail))

    def note_revision(self, record: RunRecord) -> None:
        """Tell the database where the run stands."""
        write_revision(
            self._database,
            Revision(
                revision=record.revision,
                name=record.name,
                checksum=record.checksum,
                state=record.state,
                run=record.id,
                host=record.host,
                changed=self._clock.now(),
            ),
        )

    @contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Measure what is done in the block, and how it ends."""
        began = self._clock.monotonic()
        outcome = "failed"
        try:
            yield
            outcome = "done"
        except RunbookdError as error:
            outcome = "cancelled" if error.reason is PermanentReason.CANCELLED else "failed"
            raise
        finally:
            self._telemetry.record(
                OPERATION_DURATION,
                self._clock.monotonic() - began,
                {"operation": operation, "outcome": outcome},
            )


def _rate_of(record: RunRecord) -> float:
    return record.counts.scanned / record.seconds if record.seconds > 0 else 0.0


def _logged(copy: Callable[[str, Path], None], run_id: str, path: Path) -> None:
    try:
        copy(run_id, path)
    except Exception:  # noqa: BLE001 - whatever a copy raises must not touch the run
        _LOG.exception("the journal segment %s could not be copied", path)
