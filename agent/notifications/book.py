"""Open incidents and the notifications that announce them, written together.

The notifier decides what is to be said; the book writes it. An incident changes in the same transaction in which the
notifications about that change enter the outbox, so that a crash leaves either both or neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from agent.notifications.channel import Kind, Message, Notification
from agent.notifications.incidents import Incident
from agent.notifications.outbox import Outbox
from agent.notifications.register import IncidentRegister
from agent.notifications.routing import Route
from agent.runbook import ChannelKind
from agent.state import StateFile, Transaction


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whose incidents these are.

    Args:
        prefix: beginning of every dedup_key.
        source: the database, as people call it.
    """

    prefix: str
    source: str


class IncidentBook:
    """What people have been told and are still owed.

    ``lock`` is held by whoever reads an incident in order to change it. It comes before the state file's own lock;
    the rule loop, recovery and the delivery workers all take them in this order.
    """

    def __init__(self, *, state: StateFile, outbox: Outbox, subject: Subject, new_id: Callable[[], str]) -> None:
        self.lock = threading.RLock()
        self._state = state
        self._outbox = outbox
        self._subject = subject
        self._new_id = new_id
        self._register = IncidentRegister(state)
        self._open = dict(self._register.open_incidents())

    def open(self) -> Mapping[str, Incident]:
        """Open incidents by condition, as of now."""
        return dict(self._open)

    def find(self, condition: str) -> Incident | None:
        """The open incident of ``condition``, if there is one."""
        return self._open.get(condition)

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """A transaction after whose failure memory says again what the disk says."""
        try:
            with self._state.transaction() as tx:
                yield tx
        except BaseException:
            self._open = dict(self._register.open_incidents())
            raise

    def begin(
        self,
        condition: str,
        message: Message,
        target: Route,
        now: datetime,
        *,
        rules: Collection[str] = (),
        blind: bool = False,
        pins: tuple[str, ...] = (),
    ) -> None:
        """Open an incident and trigger its channels; those that are missing are recorded as failed."""
        with self.writing() as tx:
            incident = Incident(
                number=self._register.number(tx, condition, now),
                condition=condition,
                dedup_key=f"{self._subject.prefix}/{condition}",
                opened_at=now,
                severity=message.severity,
                title=message.title,
                rules=frozenset(rules),
                blind=blind,
                last_sent_at=now,
                pins=pins,
                trace_id=message.trace_id,
            )
            for channel in target.missing:
                missed = self._addressed(incident, message, Kind.TRIGGER, channel, now)
                self._outbox.add_failed(tx, missed, "this channel is not configured")
            self.announce(incident, message, Kind.TRIGGER, target.channels, now)

    def announce(
        self,
        incident: Incident,
        message: Message,
        kind: Kind,
        channels: Collection[ChannelKind],
        now: datetime,
        *,
        report: bool = False,
    ) -> None:
        """Write ``incident`` as it is now, and ``message`` about it to ``channels``; a RESOLVE closes it.

        A channel that hears of the incident for the first time gets a trigger, whatever the others get, and is owed
        a resolve from then on.
        """
        told = replace(
            incident,
            sequence=incident.sequence + 1,
            channels=tuple(dict.fromkeys((*incident.channels, *channels))),
        )
        with self.writing() as tx:
            self._register.save(tx, told, resolved_at=now if kind is Kind.RESOLVE else None)
            for channel in channels:
                first = channel not in incident.channels
                addressed = self._addressed(told, message, Kind.TRIGGER if first else kind, channel, now, report=report)
                self._outbox.add(tx, addressed)
            if kind is Kind.RESOLVE:
                self._open.pop(told.condition, None)
            else:
                self._open[told.condition] = told

    def save(self, incident: Incident) -> None:
        """Write ``incident`` without telling anybody."""
        with self.writing() as tx:
            self._register.save(tx, incident)
            self._open[incident.condition] = incident

    def announce_loose(
        self, subject: str, message: Message, channels: Collection[ChannelKind], now: datetime, *, report: bool = False
    ) -> None:
        """Write ``message``, which belongs to no incident; those of one subject keep their order."""
        with self.writing() as tx:
            for channel in channels:
                loose = Notification(
                    id=self._new_id(),
                    dedup_key=f"{self._subject.prefix}/change/{subject}",
                    incident=0,
                    sequence=0,
                    channel=channel,
                    kind=Kind.CHANGE,
                    condition=subject,
                    source=self._subject.source,
                    created_at=now,
                    message=message,
                    report=report,
                )
                self._outbox.add(tx, loose)

    def _addressed(
        self,
        incident: Incident,
        message: Message,
        kind: Kind,
        channel: ChannelKind,
        now: datetime,
        *,
        report: bool = False,
    ) -> Notification:
        return Notification(
            id=self._new_id(),
            dedup_key=incident.dedup_key,
            incident=incident.number,
            sequence=incident.sequence,
            channel=channel,
            kind=kind,
            condition=incident.condition,
            source=self._subject.source,
            created_at=now,
            message=message,
            report=report,
        )
