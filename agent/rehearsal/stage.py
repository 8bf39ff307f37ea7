"""The daemon's judging half on a manual clock and a folder of its own; it may be killed and started again.

Rules, alert states, silences, incidents and outbox, decisions and recoveries are the real ones, on a real state file.
What is played is the world at the ports: samples, the migration, the steps of a recovery, the vendors.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from agent.alerting import Alert, RuleEvaluator, RuleSet, SilenceBook, StoredExemplars, TickResult
from agent.clock import ManualClock
from agent.daemon.judgement import Judgement
from agent.daemon.observer import Observer
from agent.daemon.recoveries import Recoveries
from agent.decisions import ChangeUnderWatch, Decision, Decisions, Evidence
from agent.notifications import Channel, Heartbeat, Notification, Notifier, Receipt
from agent.promql import Engine
from agent.recovery import Recovery, RecoveryJournal, RecoveryRunner
from agent.rehearsal.company import Company
from agent.rehearsal.world import World, WorldActions
from agent.runbook import ChannelKind, Policy
from agent.samples import Limits, Sample, SampleArchive, SampleKeeper, SeriesStore
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

# As often as the daemon saves samples: what a kill costs.
_SAVE_EVERY = timedelta(minutes=1)
# The page's figures stand for the engine's lookback; they are delivered well within it.
_THRESHOLDS_EVERY = timedelta(minutes=1)
# Never asked: a rehearsal only looks whether there is life.
_SWITCH = "https://dead-mans-switch.invalid/rehearsal"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A notification as it reached a vendor, and when.

    Args:
        rules: names of the rules whose alerts its incident had announced by then, this notification included.
    """

    at: datetime
    notification: Notification
    rules: frozenset[str] = frozenset()


@dataclass
class _Mailbox:
    """A vendor that takes everything."""

    kind: ChannelKind
    clock: ManualClock
    notices: list[Notice] | None
    announced: Mapping[int, frozenset[str]]
    target: str = "a rehearsal"

    def deliver(self, notification: Notification) -> Receipt:
        if self.notices is not None:
            rules = self.announced.get(notification.incident, frozenset())
            self.notices.append(Notice(at=self.clock.now(), notification=notification, rules=rules))
        return Receipt(reference=notification.dedup_key)


class _Audience(Observer):
    def __init__(self, decisions: list[Decision]) -> None:
        self._decisions = decisions

    def decided(self, decision: Decision) -> None:
        self._decisions.append(decision)


@dataclass(kw_only=True)
class Stage:
    """One rehearsal.

    Args:
        folder: for the state file and the saved samples.
        thresholds: the page's figures as series.
        channels: vendors whose mail is kept; all are configured.
        keep: bounds of the sample store.
        save: samples are saved by interval, as the daemon does.
    """

    folder: Path
    rules: RuleSet
    policy: Policy
    world: World
    clock: ManualClock
    thresholds: Sequence[Sample] = ()
    channels: Sequence[ChannelKind] = (ChannelKind.PAGERDUTY,)
    keep: Limits | None = None
    save: bool = True
    notices: list[Notice] = field(default_factory=list)
    decided: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        # By the incident's number: a resolve is delivered when its incident is closed already.
        self._announced: dict[int, frozenset[str]] = {}
        self._mailboxes: list[Channel] = [
            _Mailbox(kind, self.clock, self.notices if kind in self.channels else None, self._announced)
            for kind in ChannelKind
        ]
        self.start()

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process on what is in the folder."""
        telemetry = quiet_telemetry()
        self._state = StateFile(self.folder / "state.db")
        self.store = SeriesStore(self.keep)
        archive = SampleArchive(self.folder / "samples")
        archive.load(self.store, now=self.clock.now().timestamp())
        self._keeper = SampleKeeper(archive, self.store, clock=self.clock)
        self._saved_at: datetime | None = None
        self._told_at: datetime | None = None
        self.engine = Engine(self.store)
        self.company = Company(self.clock)
        self.evaluator = RuleEvaluator(
            rules=self.rules,
            engine=self.engine,
            store=self.store,
            state=self._state,
            clock=self.clock,
            telemetry=telemetry,
            exemplars=StoredExemplars(self.store),
        )
        self.silences = SilenceBook(self._state, new_id=lambda: f"silence-{next(self._numbers)}")
        self.decisions = Decisions(policy=self.policy, state=self._state, clock=self.clock, telemetry=telemetry)
        self.notifier = Notifier(
            policy=self.policy,
            channels=self._mailboxes,
            state=self._state,
            clock=self.clock,
            telemetry=telemetry,
            project="rehearsal",
            silenced=lambda alert: self.silences.silenced(alert, self.clock.now()),
            acknowledged=lambda alert: self.silences.acknowledgement(alert) is not None,
            chance=random.Random(0),
            new_id=lambda: f"{next(self._numbers):032x}",
        )
        self.heartbeat = Heartbeat(_SWITCH, clock=self.clock)
        self._journal = RecoveryJournal(self._state)
        observer = _Audience(self.decided)
        self.recoveries = Recoveries(
            decisions=self.decisions,
            notifier=self.notifier,
            journal=self._journal,
            observer=observer,
            beside=self.company.beside,
        )
        runner = RecoveryRunner(
            policy=lambda: self.policy,
            actions=WorldActions(self.world, self.company),
            journal=self._journal,
            clock=self.company,
            telemetry=telemetry,
            stop_requested=self.decisions.stop_requested,
            listener=self.recoveries.heard,
        )
        self.recoveries.use(runner)
        self.judgement = Judgement(
            rules=self.evaluator,
            silences=self.silences,
            notifier=self.notifier,
            evidence=self,
            decisions=self.decisions,
            recoveries=self.recoveries,
            observer=observer,
            heartbeat=self.heartbeat,
        )
        self.recoveries.resume()

    def stop(self, *, killed: bool) -> None:
        """The end of the process: with its samples saved, or killed, and then with those of the last minute lost."""
        if self.save and not killed:
            self._keeper.save()
        self.company.kill()
        self._state.close()

    # --- a pass -----------------------------------------------------------------------------------------------------

    def tick(self) -> TickResult:
        """One pass over the rules and what follows from it; notices are delivered at once."""
        now = self.clock.now()
        self.company.act()
        if self.thresholds and (self._told_at is None or now - self._told_at >= _THRESHOLDS_EVERY):
            self.store.ingest("page", now.timestamp(), self.thresholds)
            self._told_at = now
        result = self.judgement.pass_over(self.world.change(now), now)
        self.company.act()
        self._announced.update((incident.number, incident.rules) for incident in self.notifier.incidents())
        self.notifier.deliver_due()
        if self.save and (self._saved_at is None or now - self._saved_at >= _SAVE_EVERY):
            self._keeper.save()
            self._saved_at = now
        return result

    def gather(self, alerts: Sequence[Alert], change: ChangeUnderWatch | None, now: datetime) -> Evidence:
        """Evidence, as :class:`agent.daemon.judgement.Gatherer` promises it."""
        return self.world.evidence(alerts, change, self.engine, now, recovery=self.recoveries.current())

    @property
    def recovery(self) -> Recovery | None:
        """The newest recovery."""
        return self._journal.latest()
