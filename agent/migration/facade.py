"""Migrations, as the command line, the worker processes and the daemon's recovery use them.

Everything that outlives a call is on disk (run records, journals) or in the database (``_migrations/{revision}``), so
that any process on the machine may ask for the status of a run, resume it, or undo it after ``kill -9``.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.clock import Clock, SystemClock
from agent.faults import Misconfigured, Permanent, PermanentReason, Refused, RefusedReason
from agent.migration.chronicle import Entry, Event, Wishes, wishes
from agent.migration.database import Database
from agent.migration.definition import Definition, find_definition, load_definitions
from agent.migration.dryrun import dry_run
from agent.migration.facts import Preconditions, RunbookPolicy
from agent.migration.outcomes import DryRunReport, Listed, RunReport, RunStatus, UndoReport, ValidationReport
from agent.migration.plan import Plan, in_order
from agent.migration.putback import BackupSource
from agent.migration.reports import Reports
from agent.migration.run import RunSettings
from agent.migration.runs import CollectionProgress, RunRecord, Runs, RunState
from agent.migration.sampling import Rates
from agent.migration.sessions import Sessions
from agent.migration.survey import Survey
from agent.migration.undo import UndoSettings
from agent.migration.validation import validate
from agent.migration.vitals import Vitals, nothing_known
from agent.migration.wayback import SegmentSource, WayBack, no_copies
from agent.telemetry import ProgressSink, Telemetry, ignore_progress

_LOG = logging.getLogger(__name__)


class Migrations:
    """Plans, runs, resumes and undoes migrations of one database.

    Args:
        definitions: folder of the migration files.
        data_dir: run records and journals go below ``data_dir/migrations``.
        reports: folder for plans and reports; ``None`` writes none.
        on_segment: called with run id and path of each journal segment that is complete, in a thread of its own, e.g.
            to copy it to backup storage. What it raises is logged: the segment itself is safe on this disk.
        segments: copies of a run's journal segments, the other side of ``on_segment``.
        backups: the last way back.
        published: what a daemon's rules see of the database's load.
    """

    def __init__(
        self,
        *,
        firestore: Database,
        definitions: Path,
        data_dir: Path,
        telemetry: Telemetry,
        policy: RunbookPolicy | None = None,
        preconditions: Preconditions | None = None,
        settings: RunSettings | None = None,
        undo_settings: UndoSettings | None = None,
        reports: Path | None = None,
        on_segment: Callable[[str, Path], None] | None = None,
        segments: SegmentSource = no_copies,
        backups: BackupSource | None = None,
        published: Vitals = nothing_known,
        clock: Clock | None = None,
    ) -> None:
        self._database = firestore
        self._definitions = definitions
        self._telemetry = telemetry
        self._policy = policy or RunbookPolicy()
        self._preconditions = preconditions or Preconditions()
        self._settings = settings or RunSettings()
        self._reports = Reports(reports)
        self._clock = clock or SystemClock()
        folder = data_dir / "migrations"
        self._runs = Runs(folder)
        self._rates = Rates(folder / "rates.json")
        self._sessions = Sessions(
            database=firestore,
            runs=self._runs,
            rates=self._rates,
            reports=self._reports,
            telemetry=telemetry,
            clock=self._clock,
            on_segment=on_segment,
            published=published,
        )
        self._way_back = WayBack(
            database=firestore,
            runs=self._runs,
            definition_of=self._definition_as_run,
            journal=self._sessions.journal,
            settings=undo_settings or UndoSettings(),
            telemetry=telemetry,
            clock=self._clock,
            copies=segments,
            backups=backups,
        )
        self._survey = Survey(
            database=firestore,
            runs=self._runs,
            rates=self._rates,
            policy=self._policy,
            preconditions=self._preconditions,
            rate_limit=self._settings.rate_limit,
            ramp=self._settings.ramp,
            clock=self._clock,
        )

    # --- looking ----------------------------------------------------------------------------------------------

    def list(self) -> tuple[Listed, ...]:
        """Every migration file, and what this database knows of it."""
        listed: list[Listed] = []
        for definition in load_definitions(self._definitions):
            history = self._survey.history(definition.revision)
            listed.append(
                Listed(
                    name=definition.name,
                    revision=definition.revision,
                    title=definition.title,
                    state=history.state or "not run",
                    run=history.run,
                )
            )
        return tuple(listed)

    def status(self, run_id: str | None = None) -> RunStatus | None:
        """One run, or the latest; ``None`` if nothing has run yet.

        Raises:
            Permanent: NOT_FOUND.
        """
        record = self._runs.get(run_id) if run_id else self._runs.latest()
        if record is None:
            return None
        alive = self._runs.alive(record)
        working = record.state in (RunState.RUNNING, RunState.PAUSED, RunState.UNDOING)
        return RunStatus(record=record, alive=alive, interrupted=working and not alive)

    def plan(self, name: str, *, again: bool = False, measure: bool = True, disarmed: str = "") -> Plan:
        """What would run, how long it and its undo would take, and whether it may.

        Args:
            again: a revision that ran or was rolled back may run once more.
            measure: if no earlier undo tells how fast the database takes writes, find out with up to 1,000 scratch
                documents below ``_migrations/probe``, deleted at once.
            disarmed: why the automatic rollback is given up, which opens the gate of the undo's budget.

        Raises:
            Misconfigured: there is no such migration, or its file is wrong.
        """
        definition = find_definition(self._definitions, name)
        plan = self._survey.plan(definition, again=again, measure=measure, disarmed=disarmed)
        self._reports.plan(plan)
        return plan

    def validate(
        self,
        name: str,
        *,
        collections: Sequence[str] = (),
        share: float = 1.0,
        progress: ProgressSink = ignore_progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> ValidationReport:
        """Check every document of a migration's collections, everything its latest run wrote, and the page's queries.

        Args:
            name: of a migration or of a run.
            collections: only these, and no queries; empty: all of the migration's.
            share: of the run's writes that are compared with what the transform had made.

        Raises:
            Misconfigured: there is no such migration.
            Permanent: NOT_FOUND, also for a collection that the migration doesn't change; CANCELLED.
        """
        record = self._runs.get(name) if name.startswith("run-") else None
        definition = find_definition(self._definitions, record.name if record else name)
        record = record or self._survey.latest(definition.revision)
        told = self._way_back.told(record) if record else None
        known = in_order(definition, tuple(self._policy.order))
        for unknown in set(collections) - set(known):
            raise Permanent(
                PermanentReason.NOT_FOUND,
                f"{definition.name} doesn't change a collection {unknown!r}",
                hint=f"it changes {', '.join(known)}",
            )
        validated = validate(
            definition,
            known,
            told,
            only=frozenset(collections),
            counts={part.collection: part.documents for part in record.collections} if record else None,
            share=share,
            database=self._database,
            settings=self._settings,
            clock=self._clock,
            progress=progress,
            cancelled=cancelled,
        )
        queries = () if collections else tuple(self._preconditions.queries())
        run = record.id if record else ""
        report = ValidationReport(name=definition.name, run=run, collections=validated, queries=queries)
        self._reports.validation(report.name, report.run, report.collections, report.queries)
        return report

    def validate_collection(
        self,
        collection: str,
        *,
        progress: ProgressSink = ignore_progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> ValidationReport:
        """:meth:`validate` for one collection, against the newest run that changed it.

        Raises:
            Permanent: NOT_FOUND if no run of this machine did; see :meth:`validate`.
        """
        root = self._database.address.root
        for record in reversed(self._runs.all()):
            if record.database == root and any(part.collection == collection for part in record.collections):
                return self.validate(record.id, collections=(collection,), progress=progress, cancelled=cancelled)
        raise Permanent(
            PermanentReason.NOT_FOUND,
            f"no migration has changed the collection {collection!r} from here",
            hint="compare it with a backup instead: runbookd backup restore latest --dry-run",
        )

    # --- doing ------------------------------------------------------------------------------------------------

    def dry_run(
        self,
        name: str,
        *,
        progress: ProgressSink = ignore_progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> DryRunReport:
        """Transform every document and write nothing, neither in the database nor in any run's folder."""
        definition = find_definition(self._definitions, name)
        plan = self._survey.plan(definition, again=True, measure=False)
        findings = dry_run(
            definition,
            [(part.collection, part.documents) for part in plan.collections],
            database=self._database,
            settings=self._settings,
            clock=self._clock,
            progress=progress,
            cancelled=cancelled,
        )
        report = DryRunReport(plan=plan, findings=findings)
        self._reports.dry_run(plan, findings)
        return report

    def run(
        self,
        name: str,
        *,
        batch_size: int | None = None,
        validate: bool | None = None,
        again: bool = False,
        disarmed: str = "",
        progress: ProgressSink = ignore_progress,
        cancelled: Callable[[], bool] = lambda: False,
        started: Callable[[str], None] = lambda _: None,
    ) -> RunReport:
        """Run a migration to its end.

        Args:
            batch_size, validate: instead of the settings'.
            again, disarmed: see :meth:`plan`.
            started: told the run's id before its first write.

        Raises:
            Refused: a gate of the plan says no; nothing was changed.
            Permanent, Transient: see :func:`agent.migration.run.migrate`.
        """
        definition = find_definition(self._definitions, name)
        plan = self._survey.plan(definition, again=again, measure=True, disarmed=disarmed)
        self._reports.plan(plan)
        plan.require()
        now = self._clock.now()
        record = RunRecord(
            id=self._runs.new_id(definition.revision, now),
            name=definition.name,
            revision=definition.revision,
            database=self._database.address.root,
            checksum=definition.checksum,
            state=RunState.RUNNING,
            started=now,
            pre_read_time=self._database.server_time(),
            restore_point=plan.restore_point,
            disarmed=disarmed,
            collections=tuple(
                CollectionProgress(collection=part.collection, documents=part.documents) for part in plan.collections
            ),
        )
        with self._runs.working_on(record.id):
            self._runs.save(record)
            self._sessions.tell(record.id, Event.STARTED, f"{definition.name} on {plan.documents:,} documents")
            started(record.id)
            settings = self._with(batch_size, validate)
            return self._sessions.run(definition, record, None, settings, progress, cancelled)

    def resume(
        self,
        run_id: str,
        *,
        batch_size: int | None = None,
        validate: bool | None = None,
        progress: ProgressSink = ignore_progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> RunReport:
        """Do exactly what a stopped, failed or killed run has left.

        Raises:
            Refused: ALREADY_RUNNING, ALREADY_RAN, CHANGED_DEFINITION; FAILED_BEFORE if it is being or was undone.
            Permanent: NOT_FOUND; CORRUPT if the journal is damaged.
        """
        record = self._runs.get(run_id)
        with self._runs.working_on(run_id):
            record = self._runs.get(run_id)
            definition = self._resumable(record)
            told = self._way_back.told(record)
            record = dataclasses.replace(
                record,
                state=RunState.RUNNING,
                finished=None,
                error="",
                sessions=record.sessions + 1,
                pid=os.getpid(),
                host=socket.gethostname(),
            )
            self._runs.save(record)
            self._sessions.tell(
                record.id, Event.RESUMED, f"session {record.sessions}, behind {record.counts.scanned:,} documents"
            )
            settings = self._with(batch_size, validate)
            return self._sessions.run(definition, record, told, settings, progress, cancelled)

    # --- telling a run what to do --------------------------------------------------------------------------------

    def order(self, entry: Entry, run_id: str | None = None) -> RunRecord:
        """Ask something of a run: to pause, to go on, another batch size, another rate.

        A worker hears it within a second, a resumed one at once: it stays in force until the opposite is asked for.

        Args:
            run_id: ``None`` is the latest run.

        Raises:
            Permanent: NOT_FOUND; INVALID if the run has ended.
        """
        record = self._runs.resumable(run_id)
        self._runs.chronicle(record.id).append(entry)
        return record

    def wishes(self, run_id: str) -> Wishes:
        """What people want of a run now."""
        return wishes(self._runs.chronicle(run_id).read(), self._clock.now())

    # --- undoing ------------------------------------------------------------------------------------------------

    def undo(
        self,
        run_id: str | None = None,
        *,
        from_backup: bool = False,
        progress: ProgressSink = ignore_progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> UndoReport:
        """Take a run back: all of it, or what it has done before it stopped; or go on with an undo that stopped.

        By the gentlest way that is open, see :mod:`agent.migration.wayback`.

        Args:
            run_id: ``None`` is the latest run.
            from_backup: if there is no other way, a backup may be put back, which takes users' later writes back too.

        Raises:
            Refused: ALREADY_RUNNING; without a journal NOT_CONFIRMED or NO_RESTORE_POINT, with the way out.
            Permanent: NOT_FOUND; CANCELLED; CORRUPT: see :func:`agent.migration.undo.undo`.
        """
        record = self._latest(run_id)
        with self._runs.working_on(record.id), self._sessions.timed("undo"):
            record = self._runs.get(record.id)
            began = self._clock.monotonic()
            record = dataclasses.replace(record, pid=os.getpid(), host=socket.gethostname())
            record, findings = self._way_back.take(
                record, from_backup=from_backup, progress=progress, cancelled=cancelled
            )
            seconds = self._clock.monotonic() - began
            done = f"{findings.undone:,} documents as before, {findings.merged:,} merged, {record.kept:,} kept"
            self._sessions.tell(record.id, Event.UNDO, done)
            self._sessions.note_revision(record)
            self._rates.note("undo", findings.undone, findings.write_seconds, record.id)
        report = UndoReport(
            record=record,
            findings=findings,
            seconds=seconds,
            documents_per_second=findings.undone / seconds if seconds > 0 else 0.0,
        )
        self._reports.undo(record, findings, seconds, self._sessions.timeline(record))
        return report

    # --- inside -----------------------------------------------------------------------------------------------

    def _latest(self, run_id: str | None) -> RunRecord:
        record = self._runs.get(run_id) if run_id else self._runs.latest()
        if record is None:
            raise Permanent(PermanentReason.NOT_FOUND, "no migration has run yet")
        return record

    def _with(self, batch_size: int | None, validate: bool | None) -> RunSettings:
        return dataclasses.replace(
            self._settings,
            batch_size=batch_size or self._settings.batch_size,
            limits=self._policy.limits,
            validate=self._settings.validate if validate is None else validate,
        )

    def _resumable(self, record: RunRecord) -> Definition:
        if record.state is RunState.DONE:
            raise Refused(RefusedReason.ALREADY_RAN, f"{record.id} has run to its end")
        if not record.state.resumable:
            raise Refused(
                RefusedReason.FAILED_BEFORE,
                f"{record.id} has been rolled back, or is about to be",
                hint=f"finish that: runbookd migrate undo {record.id}; then run {record.name} with --again",
            )
        definition = find_definition(self._definitions, record.name)
        if definition.checksum != record.checksum:
            raise Refused(
                RefusedReason.CHANGED_DEFINITION,
                f"{definition.path.name} was changed since {record.id} started with it",
                hint=f"put the file back as it was, or undo the run: runbookd migrate undo {record.id}",
            )
        return definition

    def _definition_as_run(self, record: RunRecord) -> Definition | None:
        """The file, if it is still there as it ran: an undo must not depend on it."""
        try:
            definition = find_definition(self._definitions, record.name)
        except Misconfigured:
            return None
        return definition if definition.checksum == record.checksum else None
