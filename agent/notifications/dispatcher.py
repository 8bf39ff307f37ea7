"""Carries the outbox to the vendors: one worker a channel, so that a vendor that hangs delays nobody else.

The notifier starts and stops it. On stop, what is due is still delivered; what waits for a retry stays on disk and is
due again after the next start.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from agent.clock import Clock
from agent.faults import RunbookdError, Transient
from agent.notifications.channel import Channel, Receipt
from agent.notifications.outbox import Outbox, OutboxEntry
from agent.runbook import ChannelKind
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import NOTIFICATIONS

_log = logging.getLogger(__name__)

_LOOK_AT_LEAST_EVERY = 5.0  # seconds; another process may have added something


class FailureSink(Protocol):
    """Writes a failed attempt down and tells others where they have to know."""

    def __call__(self, entry: OutboxEntry, error: str, retry_at: datetime | None) -> None:
        """``retry_at`` is None if the notification is given up."""


class Dispatcher:
    """Workers over an outbox.

    Args:
        chance: makes the waits uneven.
        on_failure: called for each attempt that failed; it owns the row's state.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        channels: Mapping[ChannelKind, Channel],
        clock: Clock,
        telemetry: Telemetry,
        chance: random.Random,
        on_failure: FailureSink,
    ) -> None:
        self._outbox = outbox
        self._channels = channels
        self._clock = clock
        self._telemetry = telemetry
        self._chance = chance
        self._on_failure = on_failure
        self._wakes = {kind: threading.Event() for kind in channels}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start a worker for each channel; they begin with what an earlier process left."""
        self._stopping.clear()
        self._threads = [
            threading.Thread(target=self._work, args=(kind,), name=f"notify-{kind}", daemon=True)
            for kind in self._channels
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Something was added."""
        for wake in self._wakes.values():
            wake.set()

    def stop(self, timeout: float) -> bool:
        """Deliver what is due and end; False if a vendor still hangs after ``timeout`` seconds.

        Its worker is abandoned then: what it holds stays in the outbox and goes out again after the next start.
        """
        self._stopping.set()
        self.wake()
        deadline = self._clock.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(deadline - self._clock.monotonic(), 0.0))
        hanging = [thread.name for thread in self._threads if thread.is_alive()]
        if hanging:
            _log.warning("stopped while deliveries hang", extra={"workers": hanging})
        self._threads = []
        return not hanging

    def deliver_due(self) -> int:
        """Deliver everything that is due now, channel by channel, on the calling thread; how many attempts it made."""
        attempts = 0
        progress = True
        while progress:  # a failure on one channel may have put a report into another's queue
            progress = False
            for kind in self._channels:
                while self.step(kind):
                    attempts += 1
                    progress = True
        return attempts

    def step(self, kind: ChannelKind) -> bool:
        """Try the next notification of one channel; False if none is due."""
        entry = self._outbox.next(kind, self._clock.now())
        if entry is None:
            return False
        try:
            receipt = self._deliver(entry)
        except Transient as error:
            self._failed(entry, str(error), retry=True, retry_after=error.retry_after)
        except RunbookdError as error:
            self._failed(entry, str(error), retry=False)
        except Exception as error:  # noqa: BLE001
            # Whatever a vendor's package throws must cost this attempt and nothing else: not the worker, and not the
            # notification, which is offered again until its attempts are used up.
            _log.exception("unexpected error while delivering", extra={"channel": kind})
            self._failed(entry, f"{type(error).__name__}: {error}", retry=True)
        else:
            self._outbox.delivered(entry, receipt, self._clock.now())
            self._count(kind, "delivered")
            if receipt.remark:
                _log.warning("delivered with a remark", extra={"channel": kind, "remark": receipt.remark})
        return True

    def _deliver(self, entry: OutboxEntry) -> Receipt:
        notification = entry.notification
        attributes: dict[str, str | int] = {
            "channel": str(notification.channel),
            "kind": str(notification.kind),
            "dedup_key": notification.dedup_key,
            "incident": notification.incident,
            "attempt": entry.attempts + 1,
        }
        if notification.message.trace_id:
            attributes["cause.trace_id"] = notification.message.trace_id
        with self._telemetry.span("notification.deliver", attributes):
            return self._channels[notification.channel].deliver(notification)

    def _failed(self, entry: OutboxEntry, error: str, *, retry: bool, retry_after: float | None = None) -> None:
        plan, attempt = self._outbox.plan, entry.attempts + 1
        again = retry and attempt < plan.attempts
        wait = plan.wait(attempt, retry_after, self._chance)
        _log.warning(
            "notification not delivered",
            extra={
                "channel": entry.notification.channel,
                "attempt": attempt,
                "error": error,
                "next_attempt_in_seconds": wait.total_seconds() if again else None,
            },
        )
        self._on_failure(entry, error, self._clock.now() + wait if again else None)
        self._count(entry.notification.channel, "retried" if again else "failed")

    def _count(self, kind: ChannelKind, outcome: str) -> None:
        self._telemetry.add(NOTIFICATIONS, 1, {"channel": str(kind), "outcome": outcome})

    def _work(self, kind: ChannelKind) -> None:
        wake = self._wakes[kind]
        while True:
            # Asked before the queue is emptied: what was added before the stop is then certain to be seen.
            last_round = self._stopping.is_set()
            try:
                while self.step(kind):
                    pass
                due = self._outbox.due_in(kind, self._clock.now())
            except Exception:  # noqa: BLE001
                # The state file may be locked or its disk full for a while; the worker has to outlive that.
                _log.exception("the outbox can't be read or written", extra={"channel": kind})
                due = None
            if last_round:
                return
            wait = _LOOK_AT_LEAST_EVERY if due is None else min(max(due.total_seconds(), 0.01), _LOOK_AT_LEAST_EVERY)
            wake.wait(wait)
            wake.clear()
