"""The workers, on real threads: a vendor that hangs, a stop that drains, a start that takes over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.clock import ManualClock
from agent.notifications import Kind, Notification, Receipt
from agent.runbook import ChannelKind
from tests.notifications.conftest import MakeNotifier
from tests.notifications.scene import FakeChannel, alert, unavailable

LONG = 20.0  # seconds until a test gives up; none of them waits that long


@dataclass
class SignallingChannel(FakeChannel):
    """A vendor that says when it was reached, and that can be made to hang."""

    reached: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    hangs: bool = False

    def deliver(self, notification: Notification) -> Receipt:
        self.reached.set()
        if self.hangs:
            self.let_go.wait(LONG)
        return super().deliver(notification)


def test_a_vendor_that_hangs_delays_nobody_else(make: MakeNotifier, clock: ManualClock) -> None:
    """While PagerDuty hangs Slack gets its message; a bounded stop gives PagerDuty's up and keeps it on disk."""
    pager = SignallingChannel(ChannelKind.PAGERDUTY, hangs=True)
    slack = SignallingChannel(ChannelKind.SLACK)
    notifier = make(pager, slack)
    notifier.start()
    notifier.alerts_changed((), (alert(matrix="error_rate"),), clock.now())
    assert pager.reached.wait(LONG)
    assert slack.reached.wait(LONG)
    stopped = notifier.stop(timeout=0.05)
    assert stopped is False
    assert notifier.pending()[ChannelKind.PAGERDUTY] == 1
    pager.let_go.set()


def test_stopping_delivers_what_is_due(make: MakeNotifier, clock: ManualClock) -> None:
    """A notice written just before the stop still goes out."""
    slack = SignallingChannel(ChannelKind.SLACK)
    notifier = make(slack)
    notifier.start()
    notifier.alerts_changed((), (alert(metric="document_write_rate", value=2100),), clock.now())
    assert notifier.stop(timeout=LONG) is True
    assert slack.kinds == [Kind.TRIGGER]
    assert notifier.pending() == {}


def test_stopping_does_not_wait_for_a_retry(make: MakeNotifier, clock: ManualClock) -> None:
    """What waits for its next attempt stays on disk, and the next process begins with it."""
    slack = SignallingChannel(ChannelKind.SLACK)
    slack.plan.append(unavailable(retry_after=600))
    first = make(slack)
    first.alerts_changed((), (alert(metric="document_write_rate", value=2100),), clock.now())
    first.start()
    assert slack.reached.wait(LONG)
    assert first.stop(timeout=LONG) is True
    assert first.pending() == {ChannelKind.SLACK: 1}
    clock.advance(600)
    second = make(slack)
    second.start()
    assert second.stop(timeout=LONG) is True
    assert slack.kinds == [Kind.TRIGGER]


def test_the_rule_loop_and_the_workers_do_not_wait_for_each_other(make: MakeNotifier, clock: ManualClock) -> None:
    """Incidents open and close from one thread while workers fail, report and deliver on theirs: no deadlock."""
    pager, slack = SignallingChannel(ChannelKind.PAGERDUTY), SignallingChannel(ChannelKind.SLACK)
    pager.plan.extend([unavailable()] * 30)
    notifier = make(pager, slack)
    notifier.start()
    firing = alert(matrix="error_rate")

    def loop(turn: Callable[[], None]) -> None:
        for _ in range(15):
            turn()
            clock.advance(2)

    def alerts() -> None:
        notifier.alerts_changed((), (firing,), clock.now())
        notifier.alerts_changed((), (), clock.now())

    def notes() -> None:
        notifier.note("error_rate", "still at it")
        notifier.deliveries()

    threads = [threading.Thread(target=loop, args=(turn,)) for turn in (alerts, notes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert notifier.stop(timeout=LONG) is True
    clock.advance(3600)
    while notifier.deliver_due():
        clock.advance(600)
    assert notifier.pending() == {}
