"""The heartbeat: as long as the rules are evaluated, and not a moment longer."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

import httpx
import pytest

from agent.clock import ManualClock
from agent.faults import Misconfigured
from agent.notifications import Heartbeat, Notifier
from tests.notifications.scene import START, FakeChannel, alert

URL = "https://hc.example.com/ping/secret"


@dataclass
class Switch:
    """A dead-man's switch that takes, or refuses, what it is sent."""

    taken: list[str] = field(default_factory=list)
    down: bool = False
    heard: threading.Event = field(default_factory=threading.Event)

    def __call__(self, url: str) -> None:
        if self.down:
            raise httpx.ConnectError(f"no route to {url}")
        self.taken.append(url)
        self.heard.set()


def test_it_beats_while_the_rules_are_evaluated(clock: ManualClock) -> None:
    """A pass in which the watchdog fired keeps it alive for a few seconds; a hanging loop ends it."""
    switch = Switch()
    heartbeat = Heartbeat(URL, clock=clock, send=switch)
    assert not heartbeat.beat()
    heartbeat.ticked(watched=True)
    assert heartbeat.beat()
    clock.advance(60)
    assert not heartbeat.beat()
    heartbeat.ticked(watched=True)
    assert heartbeat.beat()
    assert switch.taken == [URL, URL]


def test_a_loop_without_its_watchdog_is_not_alive(clock: ManualClock) -> None:
    """The loop turns, but alerts do not come out of it: that is no life."""
    heartbeat = Heartbeat(URL, clock=clock, send=Switch())
    heartbeat.ticked(watched=False)
    assert not heartbeat.beat()


def test_a_switch_that_is_down_costs_one_warning_and_no_secret(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one goes out as usual; the address, which is the secret, is in no log."""
    switch = Switch(down=True)
    heartbeat = Heartbeat(URL, clock=clock, send=switch)
    heartbeat.ticked(watched=True)
    with caplog.at_level(logging.INFO):
        heartbeat.beat()
        heartbeat.beat()
        switch.down = False
        heartbeat.beat()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "secret" not in caplog.text
    assert len(switch.taken) == 1


def test_it_runs_beside_the_loop(clock: ManualClock) -> None:
    """Started, it waits for the first pass; stopped, it is over."""
    switch = Switch()
    heartbeat = Heartbeat(URL, clock=clock, interval=0.01, send=switch)
    heartbeat.start()
    heartbeat.ticked(watched=True)
    assert switch.heard.wait(10)
    heartbeat.stop()


def test_an_address_in_the_clear_is_refused(clock: ManualClock) -> None:
    """Whoever reads it could keep the switch quiet."""
    with pytest.raises(Misconfigured, match="https"):
        Heartbeat("http://hc.example.com/ping/secret", clock=clock)


def test_the_watchdog_calls_nobody(notifier: Notifier, clock: ManualClock, pager: FakeChannel) -> None:
    """An alert of severity none makes no incident, however long it fires."""
    watchdog = alert("Watchdog", severity="none", metric="", condition="agent_watchdog", since=START)
    for _ in range(3):
        notifier.alerts_changed((watchdog,), (watchdog,), clock.now())
        notifier.deliver_due()
        clock.advance(24 * 3600)
    assert pager.taken == []
    assert notifier.incidents() == ()
