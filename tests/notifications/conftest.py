"""A notifier with three vendors, on a clock that moves when told to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.alerting import Alert
from agent.clock import ManualClock
from agent.notifications import Notifier, RetryPlan
from agent.runbook import ChannelKind, Policy, load_runbook
from agent.state import StateFile
from agent.telemetry import quiet_telemetry
from tests.notifications.scene import START, FakeChannel

PAGE = Path(__file__).parents[2] / "runbooks" / "firestore-operations.md"

MakeNotifier = Callable[..., Notifier]


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load_runbook(PAGE)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateFile]:
    file = StateFile(tmp_path / "state.sqlite")
    yield file
    file.close()


@pytest.fixture
def pager() -> FakeChannel:
    return FakeChannel(ChannelKind.PAGERDUTY)


@pytest.fixture
def slack() -> FakeChannel:
    return FakeChannel(ChannelKind.SLACK)


@pytest.fixture
def mail() -> FakeChannel:
    return FakeChannel(ChannelKind.EMAIL)


@pytest.fixture
def silenced() -> set[str]:
    """Fingerprints that somebody has silenced."""
    return set()


@pytest.fixture
def acknowledged() -> set[str]:
    """Fingerprints of alerts that somebody has in hand."""
    return set()


@pytest.fixture
def make(
    policy: Policy,
    clock: ManualClock,
    state: StateFile,
    pager: FakeChannel,
    slack: FakeChannel,
    mail: FakeChannel,
    silenced: set[str],
    acknowledged: set[str],
) -> MakeNotifier:
    """Makes notifiers over the same state file, one after the other, as restarts of a process do."""

    def is_silenced(alert: Alert) -> bool:
        return alert.fingerprint in silenced

    def make(*channels: FakeChannel, plan: RetryPlan | None = None, file: StateFile | None = None) -> Notifier:
        return Notifier(
            policy=policy,
            channels=channels or (pager, slack, mail),
            state=file or StateFile(state.path),
            clock=clock,
            telemetry=quiet_telemetry(),
            project="moshimoshi-prod",
            status_url="https://runbookd.example.com",
            trace_url="https://traces.example.com/{trace_id}",
            silenced=is_silenced,
            acknowledged=lambda alert: alert.fingerprint in acknowledged,
            plan=plan,
            chance=random.Random(1),
        )

    return make


@pytest.fixture
def notifier(make: MakeNotifier, state: StateFile) -> Notifier:
    return make(file=state)
