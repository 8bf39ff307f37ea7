"""A rule loop on a manual clock, with samples as a test's timeline dictates them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.alerting import Alert, RuleEvaluator, StoredExemplars, TickResult, load_rules
from agent.clock import ManualClock
from agent.promql import Engine
from agent.samples import Exemplar, Sample, SeriesStore, labels_of
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

Values = Mapping[str, float]
START = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """Samples, rules and state; the daemon in it can be killed and started again.

    Time is in seconds since the beginning; ``feed`` says what a source delivers at a second.
    """

    def __init__(self, folder: Path, rules: str) -> None:
        self.folder = folder
        self.clock = ManualClock(START)
        self.telemetry = quiet_telemetry()
        self.store = SeriesStore()
        self.path = folder / "rules.yaml"
        self.path.write_text(rules)
        self._state = StateFile(folder / "state.db")
        self.evaluator = self._start()

    @property
    def second(self) -> float:
        return (self.clock.now() - START).total_seconds()

    def _start(self) -> RuleEvaluator:
        return RuleEvaluator(
            rules=load_rules([self.path]),
            engine=Engine(self.store),
            store=self.store,
            state=self._state,
            clock=self.clock,
            telemetry=self.telemetry,
            exemplars=StoredExemplars(self.store),
        )

    def kill(self) -> None:
        """``kill -9`` and a new process: what was in memory alone is gone, samples included."""
        self._state.close()
        self.store = SeriesStore()
        self._state = StateFile(self.folder / "state.db")
        self.evaluator = self._start()

    def reload(self, rules: str) -> None:
        self.path.write_text(rules)
        self.evaluator.replace_rules(load_rules([self.path]))

    def deliver(self, values: Values | None, *, exemplar: Exemplar | None = None) -> None:
        """One reading; ``None`` is a source that can't be read."""
        at = self.clock.now().timestamp()
        if values is None:
            self.store.stale("app", at)
        else:
            self.store.ingest("app", at, [Sample(_labels(name), value, exemplar) for name, value in values.items()])

    def feed(self, source: str, at: float, values: Values) -> None:
        """One reading of another source."""
        self.store.ingest(source, at, [Sample(_labels(name), value) for name, value in values.items()])

    def tick(self) -> TickResult:
        return self.evaluator.tick(self.clock.now())

    def run(self, seconds: int, feed: Callable[[float], Values | None]) -> list[tuple[float, str, str]]:
        """Deliver and tick once a second; the changes as (second, alert, state)."""
        changes = []
        for _ in range(seconds):
            self.deliver(feed(self.second))
            result = self.tick()
            changes += [(self.second, alert.rule, str(alert.state)) for alert in result.changes]
            self.clock.advance(1)
        return changes

    def alert(self, name: str) -> Alert:
        (found,) = [alert for alert in self.evaluator.active() if alert.rule == name]
        return found

    def states(self) -> dict[str, str]:
        return {alert.rule: str(alert.state) for alert in self.evaluator.active()}

    def wait(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    def close(self) -> None:
        self._state.close()


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    name, _, inner = text.partition("{")
    pairs = dict(pair.split("=", 1) for pair in inner.rstrip("}").split(",") if pair)
    return labels_of(name, pairs)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[[str], World]]:
    made: list[World] = []

    def make(rules: str) -> World:
        made.append(World(tmp_path, rules))
        return made[-1]

    yield make
    for each in made:
        each.close()


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)
