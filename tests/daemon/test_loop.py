"""The rule loop's plan, and a clock that jumps: forward, back, and over a suspended night."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.alerting import RuleEvaluator, load_rules
from agent.clock import ManualClock
from agent.daemon.jumps import JumpWatch
from agent.daemon.loop import planned
from agent.promql import Engine
from agent.samples import Sample, SeriesStore, labels_of
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

START = datetime(2026, 1, 1, tzinfo=UTC)
RULES = """
groups:
  - name: heat
    interval: 1s
    rules:
      - alert: Hot
        expr: max_over_time(temperature[10s]) > 30
        for: 5s
        keep_firing_for: 3s
"""


@pytest.mark.parametrize(
    ("ended", "due", "missed"),
    [
        (10.1, 11.0, 0),
        (11.0, 11.0, 0),
        (11.9, 11.0, 0),  # late, but its moment has not gone by: it starts at once
        (12.0, 12.0, 1),
        (14.5, 14.0, 3),
    ],
)
def test_a_tick_that_took_too_long_is_not_made_up_for(ended: float, due: float, missed: int) -> None:
    """Ticks stay on their fixed points; what could not be held is counted."""
    assert planned(10.0, ended, 1.0) == (due, missed)


class Night:
    """Rules over one source, watched once a second as the daemon does it; the clock may be put anywhere."""

    def __init__(self, folder: Path) -> None:
        (folder / "rules.yaml").write_text(RULES)
        self.clock = ManualClock(START)
        self.store = SeriesStore()
        self.telemetry = quiet_telemetry()
        self.state = StateFile(folder / "state.db")
        self.jumps = JumpWatch(clock=self.clock, store=self.store, telemetry=self.telemetry)
        self.evaluator = RuleEvaluator(
            rules=load_rules([folder / "rules.yaml"]),
            engine=Engine(self.store),
            store=self.store,
            state=self.state,
            clock=self.clock,
            telemetry=self.telemetry,
        )
        self.jumped: list[timedelta] = []

    def seconds(self, count: int, temperature: float) -> list[str]:
        """The states that were changed to."""
        changes = []
        for _ in range(count):
            jump = self.jumps.look()
            if jump:
                self.jumped.append(jump)
            now = self.clock.now()
            self.store.ingest("app", now.timestamp(), [Sample(labels_of("temperature", {}), temperature)])
            changes += [str(alert.state) for alert in self.evaluator.tick(now).changes]
            self.clock.advance(1)
        return changes

    def counted(self, direction: str) -> float:
        families = {family.name: family for family in self.telemetry.families()}
        samples = families["runbookd_clock_jumps"].samples
        return sum(each.value for each in samples if each.labels == {"direction": direction})


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def test_a_clock_put_back_an_hour_blinds_nobody(night: Night) -> None:
    """What is delivered after the jump is seen at once; time already waited is kept, and the alert fires on time."""
    assert night.seconds(4, 40) == ["pending"]
    night.clock.jump(-3600)
    assert night.seconds(3, 40) == ["firing"]
    assert night.jumped == [timedelta(hours=-1)]
    assert night.store.statistics().refused_as_late == 0
    assert night.seconds(20, 20) == ["recovering", "resolved"]
    assert night.counted("back") == 1


def test_a_clock_put_forward_brings_nothing_closer(night: Night) -> None:
    """An hour that nobody saw is no hour of heat."""
    assert night.seconds(2, 40) == ["pending"]
    night.clock.jump(3600)
    assert night.seconds(3, 40) == []
    assert night.seconds(2, 40) == ["firing"]
    assert night.counted("forward") == 1


def test_a_machine_suspended_over_night_wakes_to_the_same_alerts(night: Night) -> None:
    """The monotonic clock slept, too: a jump of the wall clock, and neither a resolve nor a second firing."""
    assert night.seconds(8, 40) == ["pending", "firing"]
    night.clock.jump(8 * 3600)
    assert night.seconds(5, 40) == []
    (alert,) = night.evaluator.active()
    assert alert.fired_at == START + timedelta(seconds=5)
    assert night.jumped == [timedelta(hours=8)]


def test_a_clock_that_is_slewed_has_not_jumped(night: Night) -> None:
    """Half a second is NTP at work."""
    night.seconds(3, 20)
    night.clock.jump(-0.5)
    night.seconds(3, 20)
    assert night.jumped == []
