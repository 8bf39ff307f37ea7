"""The only place that constructs: settings in, a daemon out."""

from __future__ import annotations

import glob
import logging
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agent.alerting import RuleEvaluator, RuleSet, SilenceBook, StoredExemplars, load_rules
from agent.alerting.templates import Surroundings
from agent.backup import BackupHistory
from agent.clock import Clock, SystemClock
from agent.daemon.assembly import (
    address_of,
    backups_of,
    load_file,
    load_policy,
    newest_backup_of,
    open_firestore,
    storages_of,
)
from agent.daemon.backup_jobs import BackupJobs
from agent.daemon.change import ChangeWatch
from agent.daemon.daemon import Daemon, Parts
from agent.daemon.evidence import EvidenceGatherer
from agent.daemon.judged import Judged
from agent.daemon.maintenance import MaintenanceWatch
from agent.daemon.observer import Observer
from agent.daemon.probes import probes_of
from agent.daemon.recoveries import Recoveries
from agent.daemon.rollback import RollbackActions
from agent.daemon.run_keeper import RunKeeper
from agent.decisions import Decisions, Limits
from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore import Firestore
from agent.firestore.retry import NO_RETRY
from agent.migration import Runs
from agent.notifications import Channel, EmailChannel, Heartbeat, Notifier, PagerDutyChannel, SlackChannel
from agent.promql import Engine
from agent.recovery import RecoveryJournal, RecoveryRunner
from agent.runbook import Policy
from agent.samples import Limits as StoreLimits
from agent.samples import SampleArchive, SampleKeeper, SeriesStore
from agent.scheduling import Scheduler, Supervisor, drill_plan, job_plans
from agent.settings import NotificationSettings, Settings
from agent.signals import BaselineRecorder, Freshness, InstrumentSource, ProbeRunner, Scraper, observe_policy
from agent.state import StateFile
from agent.telemetry import Telemetry

if TYPE_CHECKING:
    from agent.signals.cloud_monitoring import CloudMonitoringSource

_log = logging.getLogger(__name__)


def rule_files(settings: Settings) -> tuple[Path, ...]:
    """The rule files that the settings' patterns name.

    Raises:
        Misconfigured: a pattern matches nothing: a daemon without rules watches nothing.
    """
    found: list[Path] = []
    for pattern in settings.rules:
        matches = sorted(Path(name) for name in glob.glob(pattern))  # noqa: PTH207 - patterns may be absolute
        if not matches:
            raise Misconfigured(
                MisconfiguredReason.RULES, f"no rule file matches {pattern!r}", hint="correct `rules` in the settings"
            )
        found += matches
    return tuple(dict.fromkeys(found))


def rules_of(settings: Settings) -> RuleSet:
    """All rules of the deployment."""
    return load_rules(rule_files(settings))


def channels_of(settings: NotificationSettings, policy: Policy) -> tuple[Channel, ...]:
    """The channels that are configured."""
    found: list[Channel] = []
    if settings.pagerduty.routing_key is not None:
        found.append(
            PagerDutyChannel(
                routing_key=settings.pagerduty.routing_key.get_secret_value(),
                service=policy.channels.pagerduty,
                url=settings.pagerduty.url,
                status_url=settings.status_url,
            )
        )
    if settings.slack.webhook_url is not None:
        found.append(
            SlackChannel(webhook_url=settings.slack.webhook_url.get_secret_value(), channel=policy.channels.slack)
        )
    email = settings.email
    if email.host is not None:
        found.append(
            EmailChannel(
                host=email.host,
                port=email.port,
                sender=email.sender,
                recipients=email.to,
                username=email.username,
                password=email.password.get_secret_value() if email.password else None,
                starttls=email.starttls,
            )
        )
    return tuple(found)


def heartbeat_of(settings: NotificationSettings, clock: Clock) -> Heartbeat | None:
    """The dead-man's switch, if one is configured.

    Raises:
        Misconfigured: its address is no https address.
    """
    if settings.heartbeat_url is None:
        return None
    return Heartbeat(settings.heartbeat_url.get_secret_value(), clock=clock, interval=settings.heartbeat_interval)


def limits_of(settings: Settings) -> Limits:
    """Figures of the decision guards."""
    return Limits(
        observation=timedelta(minutes=settings.migration.watch_minutes),
        cooldown=timedelta(minutes=settings.recovery.cooldown_minutes),
        daily_limit=settings.recovery.daily_limit,
    )


def cloud_monitoring_of(
    settings: Settings, *, store: SeriesStore, freshness: Freshness, clock: Clock
) -> CloudMonitoringSource | None:
    """The reader of Google's own metrics, if it is switched on.

    Raises:
        Misconfigured: it is, and there are no credentials.
    """
    wanted = settings.signals.cloud_monitoring
    if not wanted.enabled:
        return None
    from agent.signals.cloud_monitoring import CloudMonitoringSource  # slow to load: see agent.signals

    address = address_of(settings)
    return CloudMonitoringSource(
        project=address.project,
        database=address.database,
        interval=wanted.interval,
        store=store,
        freshness=freshness,
        clock=clock,
    )


def _data_folder(settings: Settings) -> Path:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(
            MisconfiguredReason.NOT_WRITABLE,
            f"the data folder {folder} can't be made ({error.strerror})",
            hint="give this user write permission on it, or set data_dir to another one",
        ) from error
    if not os.access(folder, os.W_OK):
        raise Misconfigured(
            MisconfiguredReason.NOT_WRITABLE,
            f"the data folder {folder} can't be written",
            hint="give this user write permission on it, or set data_dir to another one",
        )
    return folder


def build(
    settings: Settings,
    *,
    config: Path | None,
    telemetry: Telemetry,
    observer: Observer | None = None,
    clock: Clock | None = None,
) -> Daemon:
    """A daemon for ``settings``; nothing runs before :meth:`Daemon.start`.

    Args:
        config: the settings file, for the worker processes; ``None``: they read the environment alone.

    Raises:
        Misconfigured: page, rules, settings, data folder or credentials need a person first.
    """
    clock = clock or SystemClock()
    observer = observer or Observer()
    current = [load_policy(settings)]

    def policy() -> Policy:
        return current[0]

    rules = rules_of(settings)
    folder = _data_folder(settings)
    state = StateFile(folder / "state.db")
    observe_policy(policy, telemetry)

    firestore = open_firestore(settings, telemetry, origin="control", clock=clock)
    prober = Firestore(
        address_of(settings),
        telemetry=telemetry,
        origin="probe",
        deadline=settings.signals.probe.timeout,
        retry=NO_RETRY,
        clock=clock,
    )
    backups = backups_of(settings, policy(), firestore, telemetry, clock=clock)
    newest_backup = newest_backup_of(backups)
    runs = Runs(folder / "migrations")

    store = SeriesStore(StoreLimits(retention=settings.signals.retention_hours * 3600.0))
    engine = Engine(store, monotonic=clock.monotonic)
    freshness = Freshness(clock=clock, telemetry=telemetry)
    instruments = InstrumentSource(telemetry=telemetry, store=store, freshness=freshness, clock=clock)
    scraper = Scraper(settings.signals.scrape, store=store, freshness=freshness, clock=clock, telemetry=telemetry)
    cloud_monitoring = cloud_monitoring_of(settings, store=store, freshness=freshness, clock=clock)
    maintenance = MaintenanceWatch(prober, telemetry)
    probes = ProbeRunner(
        probes_of(
            prober,
            lambda: policy().migrated_collections,
            maintenance=maintenance,
            timeout=settings.signals.probe.timeout,
        ),
        interval=settings.signals.probe.interval,
        clock=clock,
        telemetry=telemetry,
        freshness=freshness,
    )
    evaluator = RuleEvaluator(
        rules=rules,
        engine=engine,
        store=store,
        state=state,
        clock=clock,
        telemetry=telemetry,
        exemplars=StoredExemplars(store),
        around=Surroundings(url=settings.notifications.status_url),
    )
    watch = ChangeWatch(
        newest=runs.latest,
        baseline=BaselineRecorder(engine=engine, state=state, telemetry=telemetry),
        watch=timedelta(minutes=settings.migration.watch_minutes),
        telemetry=telemetry,
    )

    decisions = Decisions(policy=policy(), state=state, clock=clock, telemetry=telemetry, limits=limits_of(settings))
    silences = SilenceBook(state)
    notifier = Notifier(
        policy=policy(),
        channels=channels_of(settings.notifications, policy()),
        state=state,
        clock=clock,
        telemetry=telemetry,
        project=settings.database.project,
        database=settings.database.database,
        status_url=settings.notifications.status_url,
        silenced=lambda alert: silences.silenced(alert, clock.now()),
        acknowledged=lambda alert: silences.acknowledgement(alert) is not None,
    )
    supervisor = Supervisor(
        command=[sys.executable, "-m", "agent.daemon.worker"],
        config=str(config) if config else None,
        telemetry=telemetry,
        clock=clock,
        stuck_after=policy().stuck_after,
    )
    journal = RecoveryJournal(state)
    recoveries = Recoveries(decisions=decisions, notifier=notifier, journal=journal, observer=observer)
    actions = RollbackActions(
        policy=policy,
        settings=settings.recovery,
        firestore=firestore,
        runs=runs,
        supervisor=supervisor,
        probes=probes,
        newest_backup=newest_backup,
        restore_approved=lambda run_id: decisions.restraint().approval(run_id, clock.now()) is not None,
        clock=clock,
    )
    runner = RecoveryRunner(
        policy=policy,
        actions=actions,
        journal=journal,
        clock=clock,
        telemetry=telemetry,
        retries=settings.recovery.retries,
        stop_requested=decisions.stop_requested,
        listener=recoveries.heard,
        progress=observer.progressed,
    )
    recoveries.use(runner)
    backup_jobs = BackupJobs(
        policy=policy,
        workers=supervisor,
        history=BackupHistory(state),
        backups=backups,
        clock=clock,
        telemetry=telemetry,
        progress=observer.progressed,
    )

    def reload() -> None:
        fresh_policy = load_policy(settings)
        evaluator.replace_rules(rules_of(settings))
        current[0] = fresh_policy
        decisions.replace_policy(fresh_policy)
        notifier.replace_policy(fresh_policy)
        _log.info("the page and the rules were read again")

    return Daemon(
        Parts(
            settings=settings,
            policy=policy,
            clock=clock,
            telemetry=telemetry,
            state=state,
            firestore=firestore,
            prober=prober,
            storages=storages_of(settings),
            backups=backups,
            maintenance=maintenance,
            runs=runs,
            store=store,
            sample_keeper=SampleKeeper(
                SampleArchive(folder / "samples", retention=settings.signals.retention_hours * 3600.0),
                store,
                clock=clock,
            ),
            engine=engine,
            rules=evaluator,
            freshness=freshness,
            instruments=instruments,
            scraper=scraper,
            cloud_monitoring=cloud_monitoring,
            probes=probes,
            watch=watch,
            judged=Judged(rules=evaluator, engine=engine, policy=policy, clock=clock),
            load=load_file(settings, clock),
            run_keeper=RunKeeper(
                runs=runs,
                supervisor=supervisor,
                stuck_after=lambda: policy().stuck_after,
                obstacle=lambda run_id: recoveries.current() or decisions.stop_requested(run_id),
                resume=lambda run_id: supervisor.start("resume", {"run_id": run_id}, progress=observer.progressed),
                tell=notifier.change,
                clock=clock,
                telemetry=telemetry,
            ),
            evidence=EvidenceGatherer(
                policy=policy,
                engine=engine,
                probes=probes,
                watch=watch,
                runs=runs,
                newest_backup=newest_backup,
                recovery=recoveries.current,
                maintenance=maintenance.known,
            ),
            decisions=decisions,
            notifier=notifier,
            silences=silences,
            heartbeat=heartbeat_of(settings.notifications, clock),
            supervisor=supervisor,
            scheduler=Scheduler(file=folder / "jobs.db", handler=backup_jobs.run_due, missed=backup_jobs.missed),
            jobs=(*job_plans(policy().backups), drill_plan()),
            backup_jobs=backup_jobs,
            recovery_journal=journal,
            recovery_runner=runner,
            recovery_actions=actions,
            recoveries=recoveries,
            observer=observer,
            reload=reload,
        )
    )
