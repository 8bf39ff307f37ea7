"""The room's facade: from what fires to who is told, each step on disk before it happens.

The rule loop calls :meth:`Notifier.alerts_changed` after every pass, recovery and the decisions' caller call
:meth:`Notifier.note` and its siblings. An incident and the notifications that announce it are written in one
transaction; the dispatcher then delivers them, in this process or in the one after a crash.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from agent.alerting import Alert
from agent.clock import Clock
from agent.decisions import duration
from agent.notifications.book import IncidentBook, Subject
from agent.notifications.channel import Channel, Kind, Message, Notification, Urgency
from agent.notifications.delivery import Delivery, delivery_of
from agent.notifications.dispatcher import Dispatcher
from agent.notifications.incidents import (
    Action,
    Incident,
    audible,
    by_condition,
    condition_of,
    needs_update,
    unsettled_conditions,
)
from agent.notifications.message import Composer
from agent.notifications.outbox import Outbox, OutboxEntry, RetryPlan
from agent.notifications.routing import Route, among, route, standing_channels
from agent.runbook import ChannelKind, Policy
from agent.state import StateFile
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import OUTBOX_PENDING

_log = logging.getLogger(__name__)

# The incident under which a stuck recovery pages. It has a key of its own: on the incident that the recovery is about,
# somebody has pressed "acknowledge", and PagerDuty doesn't call again for an acknowledged one.
RECOVERY = "recovery"

_REPEAT = timedelta(hours=4)
_KEEP = timedelta(days=90)
_NO_DETAILS: Mapping[str, str] = {}


class Notifier:
    """Tells people.

    Its methods may be called from any thread, but not inside a transaction of the state file: the notifier's own lock
    comes first.

    Args:
        policy: the runbook.
        channels: those that are configured, one of a kind.
        state: where incidents and the outbox are kept.
        project, database: whose alerts these are; part of every dedup_key.
        status_url, trace_url: put into messages, see :class:`~agent.notifications.message.Composer`.
        silenced: whether somebody has silenced an alert.
        acknowledged: whether somebody has an alert in hand, so that it needs no reminders.
        repeat: time after which an incident that goes on is mentioned again.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        channels: Sequence[Channel],
        state: StateFile,
        clock: Clock,
        telemetry: Telemetry,
        project: str,
        database: str = "(default)",
        status_url: str = "",
        trace_url: str = "",
        silenced: Callable[[Alert], bool] = lambda _: False,
        acknowledged: Callable[[Alert], bool] = lambda _: False,
        repeat: timedelta = _REPEAT,
        plan: RetryPlan | None = None,
        chance: random.Random | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._policy = policy
        self._channels = {channel.kind: channel for channel in channels}
        self._clock = clock
        self._silenced = silenced
        self._acknowledged = acknowledged
        self._repeat = repeat
        source = project if database == "(default)" else f"{project}/{database}"
        self._composer = Composer(policy=policy, source=source, status_url=status_url, trace_url=trace_url)
        self._outbox = Outbox(state, plan)
        self._book = IncidentBook(
            state=state,
            outbox=self._outbox,
            subject=Subject(prefix=f"runbookd/{project}/{database}", source=source),
            new_id=new_id,
        )
        self._lock = self._book.lock
        self._dispatcher = Dispatcher(
            outbox=self._outbox,
            channels=self._channels,
            clock=clock,
            telemetry=telemetry,
            chance=chance or random.Random(),
            on_failure=self._delivery_failed,
        )
        telemetry.observe(OUTBOX_PENDING, self._pending_series)
        self._outbox.prune(clock.now() - _KEEP)
        self._give_up_orphans()

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start delivering, beginning with what an earlier process left."""
        self._dispatcher.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """Deliver what is due and stop; False if a vendor hung (its notifications stay in the outbox)."""
        return self._dispatcher.stop(timeout)

    def deliver_due(self) -> int:
        """Deliver what is due on the calling thread; for tests and one-off commands, instead of :meth:`start`."""
        return self._dispatcher.deliver_due()

    def replace_policy(self, policy: Policy) -> None:
        """Route and write by another edition of the runbook from now on."""
        with self._lock:
            self._policy = policy
            self._composer = replace(self._composer, policy=policy)

    # --- what happens -----------------------------------------------------------------------------------------------

    def alerts_changed(self, changes: Sequence[Alert], active: Sequence[Alert], now: datetime) -> None:
        """Bring the incidents up to date with the alerts.

        Call it after every pass over the rules, also when nothing changed: reminders are due by time, and what a
        crash left undone is made good here. Call it only with restored or evaluated alerts: an incident whose alerts
        are not among ``active`` is resolved, also when its rule has vanished.

        Args:
            changes: alerts whose state changed in this pass; resolved ones say when an incident ended.
            active: every alert that is pending, firing or recovering.
        """
        groups, unsettled = by_condition(active), unsettled_conditions(active)
        with self._lock:
            for condition in sorted({*groups, *self._book.open()}):
                ends = [
                    alert.resolved_at for alert in changes if condition_of(alert) == condition and alert.resolved_at
                ]
                self._settle(
                    condition,
                    groups.get(condition, ()),
                    max(ends, default=now),
                    now,
                    unsettled=condition in unsettled,
                )

    def note(
        self,
        condition: str,
        text: str,
        severity: Urgency | str = Urgency.INFO,
        details: Mapping[str, str] = _NO_DETAILS,
        *,
        cure: str = "",
        trace_id: str = "",
    ) -> None:
        """News on an incident: a decision, or a rollback that started or ended.

        On an open incident it is an update to everyone who was told of it, and a new page if ``severity`` is higher
        than theirs. Without one it is a change event: said, but nobody is called.

        Args:
            condition: the incident's ``condition`` label.
            text: one short line; it is what a phone shows.
            cure: what will have ended the trouble if it ends now; the resolve says so.
        """
        now = self._clock.now()
        with self._lock:
            incident = self._book.find(condition)
            if incident is None:
                self.change(condition, text, details, trace_id=trace_id)
                return
            urgency = Urgency(severity)
            message = self._composer.note(
                title=text,
                text=f"About: {incident.title}, open for {duration(now - incident.opened_at)}.",
                severity=max(urgency, incident.severity, key=lambda item: item.rank),
                details=details,
                trace_id=trace_id or incident.trace_id,
            )
            kind = Kind.TRIGGER if urgency.rank > incident.severity.rank else Kind.UPDATE
            told = replace(incident, severity=message.severity, cure=cure or incident.cure, last_sent_at=now)
            self._announce(told, message, kind, incident.channels, now)

    def change(self, subject: str, text: str, details: Mapping[str, str] = _NO_DETAILS, *, trace_id: str = "") -> None:
        """Say that something was changed (a migration started or ended) without calling anybody.

        Args:
            subject: what it is about, e.g. a migration run's id; changes of one subject keep their order.
        """
        with self._lock:
            channels = among(standing_channels(self._policy), self._channels).channels
            self._change(subject, text, details, channels, trace_id)

    def recovery_started(
        self,
        recovery_id: str,
        text: str,
        details: Mapping[str, str] = _NO_DETAILS,
        *,
        condition: str = "",
        trace_id: str = "",
    ) -> None:
        """A recovery has begun: a note on its incident and a change event."""
        with self._lock:
            self._recovery_news(recovery_id, text, details, condition, "", trace_id)

    def recovery_stuck(
        self,
        recovery_id: str,
        text: str,
        details: Mapping[str, str] = _NO_DETAILS,
        *,
        condition: str = "",
        trace_id: str = "",
    ) -> None:
        """Call people: a recovery can't go on by itself. It stays open until :meth:`recovery_ended`.

        Args:
            text: what is stuck and in which state the system was left, in one line.
            condition: the incident that the recovery was started for; it gets a note, too.
        """
        now = self._clock.now()
        pin = _pin(recovery_id)
        with self._lock:
            known = self._book.find(RECOVERY)
            if known is not None and pin in known.pins:
                return
            message = self._composer.note(
                title=f"{text} on {self._composer.source}",
                text="Maintenance mode stays on and runbookd waits: a person has to finish or abort the recovery.",
                severity=Urgency.CRITICAL,
                details={"recovery": recovery_id, **details},
                trace_id=trace_id,
            )
            target = among(standing_channels(self._policy), self._channels)
            if known is None:
                self._begin(RECOVERY, message, target, now, pins=(pin,))
            else:
                told = replace(known, pins=(*known.pins, pin), last_sent_at=now)
                self._announce(told, message, Kind.TRIGGER, target.channels, now)
            if self._book.find(condition) is not None:
                self.note(condition, text, Urgency.CRITICAL, details, trace_id=trace_id)

    def recovery_ended(
        self,
        recovery_id: str,
        text: str,
        details: Mapping[str, str] = _NO_DETAILS,
        *,
        condition: str = "",
        cured: bool = True,
        trace_id: str = "",
    ) -> None:
        """A recovery has ended, well or not: a note, a change event, and the end of its page if it had been stuck.

        Args:
            cured: ``text`` is what will have ended the trouble.
        """
        now = self._clock.now()
        pin = _pin(recovery_id)
        with self._lock:
            stuck = self._book.find(RECOVERY)
            if stuck is not None and pin in stuck.pins:
                left = tuple(other for other in stuck.pins if other != pin)
                self._book.save(replace(stuck, pins=left, cure=text))
                self._settle(RECOVERY, (), now, now)
            self._recovery_news(recovery_id, text, details, condition, text if cured else "", trace_id)

    # --- what is known ----------------------------------------------------------------------------------------------

    def incidents(self) -> tuple[Incident, ...]:
        """Open incidents, oldest first."""
        with self._lock:
            return tuple(sorted(self._book.open().values(), key=lambda incident: incident.number))

    def pending(self) -> Mapping[ChannelKind, int]:
        """Notifications written down and not yet delivered, by channel."""
        return self._outbox.pending()

    def deliveries(self, *, incident: int | None = None, limit: int = 200) -> tuple[Delivery, ...]:
        """What was sent to whom and when it arrived, oldest first."""
        entries = self._outbox.entries(incident=incident, limit=limit)
        return tuple(delivery_of(entry, self._target(entry.notification.channel)) for entry in entries)

    # --- inside: incidents ------------------------------------------------------------------------------------------

    def _settle(
        self, condition: str, firing: Sequence[Alert], ended: datetime, now: datetime, *, unsettled: bool = False
    ) -> None:
        incident = self._book.find(condition)
        silenced = frozenset(alert.fingerprint for alert in firing if self._silenced(alert))
        action, reason = needs_update(
            incident,
            firing,
            now,
            repeat=self._repeat,
            unsettled=unsettled,
            silenced=silenced,
            acknowledged=frozenset(alert.fingerprint for alert in firing if self._acknowledged(alert)),
        )
        if action is Action.NONE:
            return
        _log.info("incident %s: %s", condition, reason, extra={"condition": condition, "action": action})
        if incident is not None and action is Action.RESOLVE:
            message = self._composer.resolved(incident, max(ended, incident.opened_at))
            self._announce(incident, message, Kind.RESOLVE, incident.channels, now)
            return
        heard = audible([alert for alert in firing if alert.fingerprint not in silenced])
        target = route(heard, self._policy, self._channels)
        if incident is None:
            message = self._composer.firing(heard, now)
            self._begin(condition, message, target, now, alerts=heard)
            return
        message = self._composer.still_firing(incident, heard, reason, now)
        told = replace(
            incident,
            severity=message.severity,
            title=message.title if action is Action.TRIGGER else incident.title,
            rules=incident.rules | {alert.rule for alert in heard},
            blind=incident.blind or any(alert.blind for alert in heard),
            last_sent_at=now,
            trace_id=incident.trace_id or message.trace_id,
        )
        channels = tuple(dict.fromkeys((*incident.channels, *target.channels)))
        self._announce(told, message, Kind(action), channels, now)

    def _begin(
        self,
        condition: str,
        message: Message,
        target: Route,
        now: datetime,
        *,
        alerts: Sequence[Alert] = (),
        pins: tuple[str, ...] = (),
    ) -> None:
        if target.missing:
            _log.error(
                "a channel of the runbook is not configured",
                extra={"condition": condition, "missing": target.missing, "instead": target.channels},
            )
            names = ", ".join(target.missing)
            message = replace(message, facts=(*message.facts, ("Not reached", f"{names}: not configured")))
        rules = {alert.rule for alert in alerts}
        blind = any(alert.blind for alert in alerts)
        self._book.begin(condition, message, target, now, rules=rules, blind=blind, pins=pins)
        self._dispatcher.wake()

    def _announce(
        self, incident: Incident, message: Message, kind: Kind, channels: Sequence[ChannelKind], now: datetime
    ) -> None:
        self._book.announce(incident, message, kind, channels, now)
        self._dispatcher.wake()

    def _recovery_news(
        self, recovery_id: str, text: str, details: Mapping[str, str], condition: str, cure: str, trace_id: str
    ) -> None:
        if self._book.find(condition) is None:
            self.change(recovery_id, text, details, trace_id=trace_id)
            return
        self.note(condition, text, Urgency.INFO, details, cure=cure, trace_id=trace_id)
        # PagerDuty lists changes apart from alerts, beside every incident of the service. Elsewhere the note is enough.
        if ChannelKind.PAGERDUTY in self._channels:
            self._change(recovery_id, text, details, (ChannelKind.PAGERDUTY,), trace_id)

    def _change(
        self, subject: str, text: str, details: Mapping[str, str], channels: Sequence[ChannelKind], trace_id: str
    ) -> None:
        message = self._composer.note(text, "", Urgency.INFO, details, trace_id)
        self._book.announce_loose(subject, message, channels, self._clock.now())
        self._dispatcher.wake()

    # --- inside: deliveries -----------------------------------------------------------------------------------------

    def _delivery_failed(self, entry: OutboxEntry, error: str, retry_at: datetime | None) -> None:
        # The notifier's lock first, then the state file's: the order in which the rule loop takes them.
        with self._lock:
            with self._book.writing() as tx:
                if retry_at is None:
                    self._outbox.failed(tx, entry, error)
                else:
                    self._outbox.retry(tx, entry, error, retry_at)
                late = entry.attempts + 1 == self._outbox.plan.report_after
                if (retry_at is None or late) and not entry.notification.report:
                    self._report(entry.notification, error, final=retry_at is None)
            self._dispatcher.wake()

    def _report(self, failed: Notification, error: str, *, final: bool) -> None:
        """Tell another channel. Only one level deep: a report that fails is not reported."""
        if failed.kind is Kind.CHANGE:
            return  # nobody was called by it, so nobody is missing
        others = [kind for kind in self._channels if kind is not failed.channel]
        if not others:
            _log.error("no other channel to report on", extra={"channel": failed.channel, "error": error})
            return
        now = self._clock.now()
        message = self._composer.not_delivered(failed, self._target(failed.channel), error, final=final)
        incident = self._book.find(failed.condition)
        if incident is None or incident.number != failed.incident:
            self._book.announce_loose(failed.condition, message, others, now, report=True)
            return
        told = [kind for kind in others if kind in incident.channels]
        self._book.announce(incident, message, Kind.UPDATE, told or others, now, report=True)

    def _give_up_orphans(self) -> None:
        """Notifications for a channel that is no longer configured would wait for ever."""
        now = self._clock.now()
        for kind in self._outbox.pending():
            if kind in self._channels:
                continue
            while (entry := self._outbox.next(kind, now + timedelta(days=1))) is not None:
                self._delivery_failed(entry, "this channel is not configured any more", None)

    def _pending_series(self) -> list[tuple[float, Mapping[str, str]]]:
        pending = self._outbox.pending()
        return [(float(pending.get(kind, 0)), {"channel": str(kind)}) for kind in self._channels]

    def _target(self, kind: ChannelKind) -> str:
        channel = self._channels.get(kind)
        return channel.target if channel is not None else "not configured"


def _pin(recovery_id: str) -> str:
    return f"recovery {recovery_id}"
