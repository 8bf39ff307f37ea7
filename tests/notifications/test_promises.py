"""The room's promises under chaos: any order of alerts, failures, silences and deaths.

Whatever happens, once vendors answer again: nothing waits, every trigger that a vendor took got its resolve after it,
no resolve came before its trigger, and the vendor's own bookkeeping has nothing left open.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.alerting import Alert
from agent.clock import ManualClock
from agent.notifications import Kind, Notification, Notifier
from agent.runbook import ChannelKind, load_runbook
from agent.state import StateFile
from agent.telemetry import quiet_telemetry
from tests.notifications.conftest import PAGE
from tests.notifications.scene import START, FakeChannel, Killed, alert, unavailable

POLICY = load_runbook(PAGE)
ALERTS = (
    alert("ErrorRateWarning", severity="warning"),
    alert("ErrorRateCritical"),
    alert("MatrixErrorRate", matrix="error_rate"),
    alert("WriteRate", metric="document_write_rate"),
    alert("Storage", metric="storage_usage"),
)


class Chaos(RuleBasedStateMachine):
    """A daemon's life as the notifier sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock(START)
        self.vendors = {kind: FakeChannel(kind) for kind in ChannelKind}
        self.firing: set[int] = set()
        self.silenced: set[str] = set()
        self.files: list[StateFile] = []
        self.notifier = self.born()

    def born(self) -> Notifier:
        file = StateFile(Path(self.folder.name) / "state.sqlite")
        self.files.append(file)
        return Notifier(
            policy=POLICY,
            channels=list(self.vendors.values()),
            state=file,
            clock=self.clock,
            telemetry=quiet_telemetry(),
            project="p",
            silenced=lambda item: item.fingerprint in self.silenced,
            chance=random.Random(0),
        )

    def active(self) -> list[Alert]:
        return [ALERTS[number] for number in sorted(self.firing)]

    @rule(number=st.integers(0, len(ALERTS) - 1))
    def an_alert_changes(self, number: int) -> None:
        self.firing ^= {number}

    @rule(number=st.integers(0, len(ALERTS) - 1))
    def somebody_silences_or_unsilences(self, number: int) -> None:
        self.silenced ^= {ALERTS[number].fingerprint}

    @rule()
    def a_pass_over_the_rules(self) -> None:
        self.notifier.alerts_changed((), self.active(), self.clock.now())

    @rule(text=st.sampled_from(("started", "done")))
    def a_note(self, text: str) -> None:
        self.notifier.note("error_rate", f"Rollback {text}")

    @rule(kind=st.sampled_from(list(ChannelKind)), times=st.integers(1, 6))
    def a_vendor_falters(self, kind: ChannelKind, times: int) -> None:
        self.vendors[kind].plan.extend([unavailable()] * times)

    @rule(kind=st.sampled_from(list(ChannelKind)))
    def killed_after_the_next_delivery(self, kind: ChannelKind) -> None:
        self.vendors[kind].plan.append(Killed())

    @rule(seconds=st.sampled_from((0.5, 5, 60, 5 * 3600)))
    def time_passes_and_workers_work(self, seconds: float) -> None:
        self.clock.advance(seconds)
        try:
            self.notifier.deliver_due()
        except Killed:
            self.notifier = self.born()

    @precondition(lambda self: self.notifier.pending())
    @rule()
    def killed(self) -> None:
        self.notifier = self.born()

    @invariant()
    def no_resolve_before_its_trigger(self) -> None:
        for vendor in self.vendors.values():
            known: set[int] = set()
            for item in first_arrivals(vendor.taken):
                if item.kind is Kind.TRIGGER:
                    known.add(item.incident)
                elif item.kind is Kind.RESOLVE:
                    assert item.incident in known

    @invariant()
    def incidents_of_one_key_follow_one_another(self) -> None:
        for vendor in self.vendors.values():
            for key in {item.dedup_key for item in vendor.taken if item.incident}:
                places = [
                    (item.incident, item.sequence) for item in first_arrivals(vendor.taken) if item.dedup_key == key
                ]
                assert places == sorted(places)

    def teardown(self) -> None:
        for vendor in self.vendors.values():
            vendor.plan.clear()
        self.notifier.alerts_changed((), (), self.clock.now())
        for _ in range(10):
            self.clock.advance(900)
            self.notifier.deliver_due()
        assert self.notifier.pending() == {}
        for vendor in self.vendors.values():
            of = {
                kind: {item.incident for item in vendor.taken if item.kind is kind}
                for kind in (Kind.TRIGGER, Kind.RESOLVE)
            }
            assert of[Kind.TRIGGER] == of[Kind.RESOLVE]
            assert vendors_books(vendor.taken) == set()
        for file in self.files:
            file.close()
        self.folder.cleanup()


def first_arrivals(taken: list[Notification]) -> list[Notification]:
    """Without the repetitions that a crash before the receipt makes."""
    return list({item.id: item for item in taken}.values())


def vendors_books(taken: list[Notification]) -> set[str]:
    """Keys that a vendor like PagerDuty would still show as open, repetitions and all."""
    still_open: set[str] = set()
    for item in taken:
        if item.kind in (Kind.TRIGGER, Kind.UPDATE):
            still_open.add(item.dedup_key)
        elif item.kind is Kind.RESOLVE:
            still_open.discard(item.dedup_key)
    return still_open


TestPromises = Chaos.TestCase
TestPromises.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
