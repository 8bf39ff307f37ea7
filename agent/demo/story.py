"""The story: a good database, a bad migration, and everybody asleep.

:class:`Story` sets the scene, starts the same daemon that ``runbookd run`` starts, follows it through a migration
that goes wrong half-way, and proves at the end that the documents are as they were. Called by ``runbookd demo`` and
by the end-to-end tests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console

from agent.daemon.daemon import Daemon
from agent.decisions import Verdict
from agent.demo.narration import Narrator
from agent.demo.scene import Scene, project_name
from agent.demo.timeline import Check, Timeline, header, title_width, verdict
from agent.faults import Permanent, PermanentReason
from agent.firestore import DatabaseAddress, Fingerprint, Firestore, take_fingerprint
from agent.notifications import Delivery, Kind
from agent.recovery import RecoveryState
from agent.runbook import ChannelKind, Policy
from agent.sandbox import APPLICATION_CALLER, seed
from agent.sandbox.injection import Fault, FaultKind
from agent.scheduling import Running
from agent.telemetry import Progress, quiet_telemetry

DaemonFactory = Callable[[Path, Narrator], Daemon]
"""Makes a daemon from a settings file."""

MIGRATION = "0001_schema_version"
# Long enough that every query of the page has its thirty operations for a latency baseline.
_WARM_UP_S = 12.0
_QUIET_AFTER_S = 15.0


class FaultChoice(StrEnum):
    """What goes wrong half-way."""

    ERRORS = "errors"
    CORRUPTION = "corruption"
    LATENCY = "latency"
    NONE = "none"


FAULTS: dict[FaultChoice, tuple[Fault, str]] = {
    FaultChoice.ERRORS: (
        Fault(kind=FaultKind.ERRORS, share=0.6, caller=APPLICATION_CALLER),
        "the application's new release can't read migrated documents: 60 % of such reads fail",
    ),
    FaultChoice.LATENCY: (
        Fault(kind=FaultKind.LATENCY, share=0.6, delay=0.8, caller=APPLICATION_CALLER),
        "reads of migrated documents take 0.8 s longer",
    ),
    FaultChoice.CORRUPTION: (
        Fault(kind=FaultKind.CORRUPTION, share=0.05),
        "5 % of the documents that the migration writes arrive damaged",
    ),
}
CONDITIONS = {
    FaultChoice.ERRORS: "error_rate",
    FaultChoice.LATENCY: "performance_degradation",
    FaultChoice.CORRUPTION: "data_corruption",
}


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What to play.

    Args:
        scale: 1 is the first user's 306,725 documents.
        emulator: ``host:port`` of a Firestore to play on instead of the sandbox.
        page, rules, migrations: the same files that the daemon of a real deployment reads.
        patience: seconds that any one stage may take before the story gives up.
    """

    folder: Path
    page: Path
    rules: str
    migrations: Path
    scale: float = 0.1
    fault: FaultChoice = FaultChoice.ERRORS
    emulator: str | None = None
    rate: float = 50.0
    port: int = 0
    patience: float = 1200.0


class Story:
    """One performance; a context manager. :meth:`play` returns the verdict, the daemon stays up until the exit."""

    def __init__(self, options: DemoOptions, policy: Policy, console: Console, daemon_of: DaemonFactory) -> None:
        self.options = options
        self.policy = policy
        self.console = console
        self.timeline = Timeline(console=console, now=time.monotonic)
        self.narrator = Narrator(self.timeline, policy, self._progressed)
        self.scene = Scene(folder=options.folder, emulator=options.emulator, project=project_name())
        self.daemon: Daemon | None = None
        self._daemon_of = daemon_of
        self._half_way = threading.Event()
        self._excluded: tuple[str, ...] = ()

    def __enter__(self) -> Story:
        self.scene.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self.timeline.stop()
        try:
            if self.daemon is not None:
                self.daemon.stop()
        finally:
            self.scene.__exit__(*details)

    @property
    def url(self) -> str:
        """The status page."""
        server = self.daemon.server if self.daemon is not None else None
        return server.url if server is not None else ""

    # --- the acts ---------------------------------------------------------------------------------------------

    def play(self) -> list[Check]:
        """Everything, from an empty database to the verdict."""
        options = self.options
        self.console.print(
            header(
                "runbookd demo: the page runs itself",
                [
                    ("page", str(options.page)),
                    ("scale", f"{options.scale:g}"),
                    ("fault", FAULTS[options.fault][1] if options.fault in FAULTS else "none"),
                ],
                title_width(self.console.width),
            )
        )
        self.timeline.start()
        address = self._set_the_scene()
        before = self._fingerprint(address, "Fingerprint before")
        daemon = self._start_daemon()
        self._back_up(daemon)
        migration = self._migrate(daemon)
        if options.fault is FaultChoice.NONE:
            checks = self._uneventful(daemon, migration, before, address)
        else:
            checks = self._eventful(daemon, before, address)
        self.timeline.stop()
        self.console.print()
        self.console.print(verdict(checks))
        return checks

    def _set_the_scene(self) -> DatabaseAddress:
        began = self.timeline.clock
        address = self.scene.open()
        report = seed(str(address.host), address.project, self.options.scale, self.timeline.progress)
        self.timeline.clear("seed")
        self.timeline.add(
            f"Database seeded: {report.documents:,} documents, {report.bytes / 1e6:,.0f} MB",
            f"{self.scene.backend}; {report.documents / report.seconds:,.0f} documents/s",
            seconds=self.timeline.clock - began,
        )
        self.scene.populate(rate=self.options.rate)
        self.timeline.add(
            "Application traffic is on",
            f"{', '.join(target.title.lower() for target in self.policy.query_targets)}; "
            f"{self.options.rate:g} operations/s",
        )
        return address

    def _fingerprint(self, address: DatabaseAddress, title: str) -> Fingerprint:
        began = self.timeline.clock
        with Firestore(address, telemetry=quiet_telemetry(), origin="proof") as firestore:
            found = take_fingerprint(firestore, exclude=self._transient())
        self.timeline.add(
            f"{title}: {found.digest[:16]}…",
            f"name and bytes of {found.documents:,} documents",
            seconds=self.timeline.clock - began,
        )
        return found

    def _transient(self) -> tuple[str, ...]:
        return (
            *(plan.collection for plan in self.policy.migration_order if plan.documents is None),
            "_config",
            "_migrations",
        )

    def _start_daemon(self) -> Daemon:
        began = self.timeline.clock
        config = self.scene.configuration(
            page=self.options.page,
            rules=self.options.rules,
            migrations=self.options.migrations,
            port=self.options.port,
        )
        self.daemon = self._daemon_of(config, self.narrator)
        self.narrator.watch(self.daemon.parts.notifier)
        self.daemon.start()
        jobs = ", ".join(
            f"{job.removeprefix('backup-')} {due:%a %H:%M}"
            for job, due in sorted(self.daemon.parts.scheduler.due_times().items(), key=lambda item: item[1])
        )
        rules = sum(len(group.rules) for group in self.daemon.parts.rules.rules.groups)
        self.timeline.add(
            f"Daemon is up: {rules} rules, {len(self.policy.backups)} scheduled backups",
            f"status page {self.url}; next (UTC): {jobs}",
            seconds=self.timeline.clock - began,
        )
        return self.daemon

    def _back_up(self, daemon: Daemon) -> None:
        stage = self.policy.deployment[0] if self.policy.deployment else None
        budget = stage.duration.total_seconds() if stage is not None and stage.duration is not None else None
        began = self.timeline.clock
        report = daemon.backup("full")
        self.timeline.clear("backup")
        self.timeline.clear("verify")
        self.timeline.add(
            f"Full backup taken and verified: {report['id']}",
            f"{report['documents']:,} documents, {report['raw_bytes'] / 1e6:,.0f} MB in "
            f"{report['stored_bytes'] / 1e6:,.0f} MB, all at {str(report['read_time'])[11:19]}",
            seconds=self.timeline.clock - began,
            budget=budget,
            mark="good",
        )

    def _migrate(self, daemon: Daemon) -> Running:
        left = _WARM_UP_S - (self.timeline.clock - self._traffic_since())
        if left > 0:
            time.sleep(left)  # a person would wait too: without traffic there is no latency to compare with
        running = daemon.migrate(MIGRATION)
        self.timeline.add(f"Migration {MIGRATION} starts", "in a worker process, with its undo journal")
        return running

    def _traffic_since(self) -> float:
        return next((entry.at for entry in self.timeline.entries if entry.title.startswith("Application")), 0.0)

    def _progressed(self, progress: Progress) -> None:
        if progress.operation == "migration" and progress.total and progress.done * 2 >= progress.total:
            self._half_way.set()

    def _eventful(self, daemon: Daemon, before: Fingerprint, address: DatabaseAddress) -> list[Check]:
        fault, words = FAULTS[self.options.fault]
        if not self._wait_half_way(daemon):
            raise Permanent(PermanentReason.CANCELLED, "the migration did not get half-way; see the log above")
        assert self.scene.proxy is not None
        self.scene.proxy.inject(fault)
        self.narrator.fault_at = self.timeline.clock
        self.timeline.add("Half-way: the fault begins", words, mark="news")
        began = self.timeline.clock
        self.narrator.wait_for(lambda: self.narrator.recovered, self.options.patience)
        self.timeline.clear("migration")
        incident = self._incident()
        recovery = self.narrator.recovery
        if recovery is not None and recovery.state is RecoveryState.DONE:
            self.narrator.wait_for(lambda: self.narrator.quiet, 180)
            self.narrator.wait_for(lambda: self.narrator.settled(incident) and not self.scene.pagerduty.open_alerts, 60)
        self.timeline.add("Calm again", "from the fault to the resolved page", seconds=self.timeline.clock - began)
        after = self._fingerprint(address, "Fingerprint after")
        return self._verdict(before, after)

    def _wait_half_way(self, daemon: Daemon) -> bool:
        deadline = self.timeline.clock + self.options.patience
        while not self._half_way.wait(0.2):
            busy = any(running.operation == "migrate" for running in daemon.parts.supervisor.running())
            if not busy or self.timeline.clock > deadline:
                return self._half_way.is_set()
        return True

    def _uneventful(
        self, daemon: Daemon, migration: Running, before: Fingerprint, address: DatabaseAddress
    ) -> list[Check]:
        began = self.timeline.clock
        outcome = migration.wait(self.options.patience)
        self.timeline.clear("migration")
        if outcome is None:
            raise Permanent(PermanentReason.CANCELLED, "the migration did not end in time")
        report = outcome.unwrap()
        written = sum(part["counts"]["written"] for part in report["record"]["collections"])
        wrong = sum(part["mismatched"] for part in report["record"]["collections"])
        checked = sum(part["checked"] for part in report["record"]["collections"])
        self.timeline.add(
            f"Migration done: {written:,} documents",
            f"{checked:,} read back and compared, {wrong:,} differ",
            seconds=self.timeline.clock - began,
            mark="good",
        )
        self.narrator.wait_for(lambda: bool(self.narrator.fired), _QUIET_AFTER_S)
        after = self._fingerprint(address, "Fingerprint after")
        fired = [alert.rule for _, alert in self.narrator.fired]
        return [
            Check(title="Every document migrated", passed=written == before.documents, detail=f"{written:,}"),
            Check(title="Read back as written", passed=wrong == 0, detail=f"{checked:,} compared"),
            Check(
                title="Documents changed by the migration",
                passed=after.digest != before.digest and after.documents == before.documents,
                detail=f"{before.digest[:16]}… became {after.digest[:16]}…",
            ),
            Check(title="No alert fired", passed=not fired, detail=", ".join(fired) or "none"),
            Check(
                title="Nothing was rolled back",
                passed=self.narrator.recovery is None,
                detail=self.narrator.recovery.id if self.narrator.recovery else "no recovery",
            ),
            Check(
                title="Nobody was paged",
                passed=not self._pages(ChannelKind.PAGERDUTY, daemon),
                detail="no trigger reached PagerDuty",
            ),
        ]

    # --- the verdict --------------------------------------------------------------------------------------------

    def _incident(self) -> str:
        rollback = next((d for _, d in self.narrator.decisions if d.verdict is Verdict.ROLLBACK), None)
        return rollback.incident if rollback is not None else ""

    def _pages(self, channel: ChannelKind, daemon: Daemon) -> list[Delivery]:
        return [
            delivery
            for delivery in daemon.parts.notifier.deliveries()
            if delivery.channel is channel and delivery.kind is Kind.TRIGGER
        ]

    def _verdict(self, before: Fingerprint, after: Fingerprint) -> list[Check]:
        checks = [
            Check(
                title="Every document is as it was",
                passed=after == before,
                detail=f"{after.documents:,} documents, {after.digest[:16]}…"
                if after == before
                else f"differs in {', '.join(before.differences(after))}",
            )
        ]
        recovery = self.narrator.recovery
        wanted = CONDITIONS[self.options.fault]
        decided = [d for _, d in self.narrator.decisions if d.verdict is Verdict.ROLLBACK]
        checks.append(
            Check(
                title="Decided by the page's matrix",
                passed=len(decided) == 1 and decided[0].condition == wanted,
                detail=", ".join(f"{d.title} → {d.pace} rollback" for d in decided) or "no rollback was decided",
            )
        )
        late = [] if recovery is None else [step.title for step in recovery.steps if step.over_budget]
        done = recovery is not None and recovery.state is RecoveryState.DONE
        whole = self._whole_story()
        over = recovery is not None and recovery.budget is not None and whole is not None and whole > recovery.budget
        took = (
            f"{whole:.1f} s of {recovery.budget:g} s, from the fault" if recovery and whole and recovery.budget else ""
        )
        checks.append(
            Check(
                title="Every stage met the page's budget",
                passed=done and not late and not over,
                detail=f"{took}{'; late: ' + ', '.join(late) if late else ''}" if done else "the rollback did not end",
            )
        )
        checks.append(self._page_check(decided[0].incident if decided else ""))
        return checks

    def _whole_story(self) -> float | None:
        """Seconds from the fault to the end of the recovery: detection counts, too."""
        recovery, fault = self.narrator.recovery, self.narrator.fault_at
        end = next((entry.at for entry in self.timeline.entries if entry.title == "Rollback done"), None)
        return end - fault if recovery is not None and fault is not None and end is not None else None

    def _page_check(self, incident: str) -> Check:
        """One incident, one dedup_key: every trigger and the resolve carry it, and nothing is left open."""
        events = [event for event in self.scene.pagerduty.received if event.dedup_key.endswith(f"/{incident}")]
        triggered = [event for event in events if event.action == "trigger"]
        resolved = [event for event in events if event.action == "resolve"]
        keys = {event.dedup_key for event in (*triggered, *resolved)}
        still_open = self.scene.pagerduty.open_alerts
        return Check(
            title="Paged and resolved under one dedup_key",
            passed=bool(triggered) and bool(resolved) and len(keys) == 1 and not still_open,
            detail=", ".join(sorted(keys)) + (f"; still open: {', '.join(still_open)}" if still_open else "")
            if keys
            else "no page arrived",
        )
