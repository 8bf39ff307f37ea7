"""The daemon: starts its parts in order, runs the tick, stops them in reverse.

Constructed by :mod:`agent.daemon.wiring`, driven by ``runbookd run`` and by the demo.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agent import __version__
from agent.alerting import RuleEvaluator, SilenceBook
from agent.backup import Backups
from agent.clock import Clock
from agent.daemon.backup_jobs import BackupJobs
from agent.daemon.change import ChangeWatch
from agent.daemon.evidence import EvidenceGatherer
from agent.daemon.judged import Judged
from agent.daemon.judgement import Judgement
from agent.daemon.jumps import JumpWatch
from agent.daemon.loop import Loop
from agent.daemon.maintenance import MaintenanceWatch
from agent.daemon.observer import Observer
from agent.daemon.recoveries import Recoveries
from agent.daemon.rollback import RollbackActions
from agent.daemon.run_keeper import RunKeeper
from agent.decisions import ChangeState, Decisions
from agent.faults import Misconfigured, MisconfiguredReason, Refused
from agent.firestore import Firestore
from agent.migration import LoadFile, Runs
from agent.notifications import Heartbeat, Notifier
from agent.promql import Engine
from agent.recovery import RecoveryJournal, RecoveryRunner
from agent.runbook import Policy
from agent.samples import SampleKeeper, SeriesStore
from agent.scheduling import ChangeLock, JobPlan, Running, Scheduler, Supervisor
from agent.settings import Settings
from agent.signals import Freshness, InstrumentSource, ProbeRunner, Scraper
from agent.state import StateFile
from agent.storage import Storage
from agent.telemetry import Progress, Telemetry
from agent.telemetry.catalogue import BUILD_INFO

if TYPE_CHECKING:
    from agent.signals.cloud_monitoring import CloudMonitoringSource

_log = logging.getLogger(__name__)
_STOP_GRACE_S = 20.0
_LOCK_PATIENCE_S = 5.0  # a daemon that is being restarted may still be delivering its last notices


class Server(Protocol):
    """The HTTP server."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(kw_only=True)
class Parts:
    """Everything the daemon consists of; see :func:`agent.daemon.wiring.build`."""

    settings: Settings
    policy: Callable[[], Policy]
    clock: Clock
    telemetry: Telemetry
    state: StateFile
    firestore: Firestore
    prober: Firestore
    storages: tuple[Storage, ...]
    backups: Backups
    maintenance: MaintenanceWatch
    runs: Runs
    store: SeriesStore
    sample_keeper: SampleKeeper
    engine: Engine
    rules: RuleEvaluator
    freshness: Freshness
    instruments: InstrumentSource
    scraper: Scraper
    cloud_monitoring: CloudMonitoringSource | None
    probes: ProbeRunner
    watch: ChangeWatch
    judged: Judged
    load: LoadFile
    run_keeper: RunKeeper
    evidence: EvidenceGatherer
    decisions: Decisions
    notifier: Notifier
    silences: SilenceBook
    heartbeat: Heartbeat | None
    supervisor: Supervisor
    scheduler: Scheduler
    jobs: tuple[JobPlan, ...]
    backup_jobs: BackupJobs
    recovery_journal: RecoveryJournal
    recovery_runner: RecoveryRunner
    recovery_actions: RollbackActions
    recoveries: Recoveries
    observer: Observer
    reload: Callable[[], None]


class Daemon:
    """A running deployment. :meth:`start` and :meth:`stop` once each."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.server: Server | None = None
        self.started_at = parts.clock.now()
        self._loop = Loop(
            self.tick, interval=parts.settings.signals.interval, clock=parts.clock, telemetry=parts.telemetry
        )
        self._jumps = JumpWatch(clock=parts.clock, store=parts.store, telemetry=parts.telemetry)
        self._judgement = Judgement(
            rules=parts.rules,
            silences=parts.silences,
            notifier=parts.notifier,
            evidence=parts.evidence,
            decisions=parts.decisions,
            recoveries=parts.recoveries,
            observer=parts.observer,
            heartbeat=parts.heartbeat,
        )
        self._quit = threading.Event()
        self._lock = ChangeLock(
            parts.settings.data_dir / "daemon.lock",
            purpose="runbookd run",
            clock=parts.clock,
            patience=_LOCK_PATIENCE_S,
        )
        self._locked = False

    # --- life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything: senses first, then judgement, then whatever an earlier process left to do.

        Raises:
            Misconfigured: no database answers, or another daemon works in the same data folder: two would page twice.
        """
        parts = self.parts
        try:
            self._lock.__enter__()
        except Refused as error:
            raise Misconfigured(
                MisconfiguredReason.SETTINGS,
                f"another runbookd runs with the data folder {parts.settings.data_dir}",
                hint="stop it first, or set another data_dir",
            ) from error
        self._locked = True
        parts.firestore.check()
        parts.telemetry.set(BUILD_INFO, 1, {"version": __version__})
        parts.sample_keeper.start()
        parts.freshness.expect("instruments")
        parts.scraper.start()
        if parts.cloud_monitoring is not None:
            parts.cloud_monitoring.start()
        parts.probes.start()
        parts.backup_jobs.caught_up()
        parts.backup_jobs.observe()
        parts.notifier.start()
        if parts.heartbeat is not None:
            parts.heartbeat.start()
        self._loop.start()
        parts.scheduler.start(parts.jobs)
        if self.server is not None:
            self.server.start()
        parts.recoveries.resume()

    def stop(self) -> None:
        """Stop in order: no new work, workers at a safe point, what is due is delivered, files closed."""
        parts = self.parts
        parts.scheduler.stop()
        if not parts.recoveries.wait(0.0):
            _log.warning("stopping during a recovery; the next start carries on with it")
        parts.supervisor.stop(grace=_STOP_GRACE_S)
        parts.recoveries.wait(5.0)
        self._loop.stop()
        if parts.heartbeat is not None:
            parts.heartbeat.stop()
        parts.scraper.stop()
        if parts.cloud_monitoring is not None:
            parts.cloud_monitoring.stop()
        parts.probes.stop()
        parts.sample_keeper.stop()
        if not parts.notifier.stop():
            _log.warning("some notifications are undelivered; they stay in the outbox")
        if self.server is not None:
            self.server.stop()
        parts.firestore.close()
        parts.prober.close()
        parts.telemetry.shutdown()
        parts.state.close()
        if self._locked:
            self._lock.__exit__(None, None, None)

    def quit(self) -> None:
        """Ask :meth:`wait` to return; safe in a signal handler."""
        self._quit.set()

    def wait(self) -> None:
        """Block until :meth:`quit`."""
        self._quit.wait()

    def reload(self) -> None:
        """Read the page and the rules again; on an error the old ones stay in force and the error is raised."""
        self.parts.reload()

    @property
    def alive(self) -> bool:
        """The rule loop ticks."""
        age = self._loop.age
        return age is None or age < max(10 * self.parts.settings.signals.interval, 15.0)

    # --- the tick ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look, judge, tell, decide; queries stand aside meanwhile."""
        with self.parts.engine.way.taken():
            self._tick()

    def _tick(self) -> None:
        parts = self.parts
        self._jumps.look()
        parts.instruments.collect()
        now = parts.clock.now()
        change = parts.watch.refresh(now)
        self._judgement.pass_over(change, now)
        if change is not None and change.state is ChangeState.RUNNING:
            self._publish_load()
        parts.run_keeper.look(parts.watch.record)

    def _publish_load(self) -> None:
        """Tell the run that is going what the rules see, so that it slows down before they call anybody."""
        try:
            self.parts.load.publish(self.parts.judged.load())
        except OSError as error:
            _log.warning("the load can't be published to the running migration", extra={"why": str(error)})

    # --- asked for by people ------------------------------------------------------------------------------------

    def backup(self, kind: str) -> Mapping[str, Any]:
        """Take a backup now, in a worker; raises what went wrong."""
        with self.parts.telemetry.span("backup", {"backup.type": kind}):
            report = self.parts.supervisor.run("backup", {"type": kind}, progress=self._progress)
        self.parts.backup_jobs.observe()
        return report

    def migrate(self, name: str, **arguments: Any) -> Running:
        """Start a migration in a worker; returns at once."""
        with self.parts.telemetry.span("migration", {"migration": name}):
            return self.parts.supervisor.start("migrate", {"name": name, **arguments}, progress=self._progress)

    def resume(self, run_id: str) -> Running:
        """Go on with a run in a worker; returns at once. A pause that is in force stays in force."""
        with self.parts.telemetry.span("migration", {"migration.run": run_id}):
            return self.parts.supervisor.start("resume", {"run_id": run_id}, progress=self._progress)

    def _progress(self, progress: Progress) -> None:
        self.parts.observer.progressed(progress)
