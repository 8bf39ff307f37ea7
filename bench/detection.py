"""How long it takes from the first failing operation until PagerDuty has the page.

    python -m bench detection

Ten daemons' rule loops at once, each with the shipped rules at one pass a second, a file for its state and the real
``pagerduty`` client towards a receiver on loopback. Each sees an application at 200 operations a second of which, from
one moment on, every fifth fails; the moments are spread over the second. The matrix row's rule asks for more than 5 %
over 10 s, for 12 s: most of what is measured here is the rule's own patience. Then a race: see :mod:`bench.race`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

from agent.alerting import RuleEvaluator, RuleSet, load_rules
from agent.clock import SystemClock
from agent.daemon.loop import Loop
from agent.notifications import Notifier, PagerDutyChannel
from agent.promql import Engine
from agent.runbook import Policy, load_runbook
from agent.samples import Sample, SeriesStore, labels_of
from agent.sandbox.receivers import PagerDutyReceiver
from agent.signals import Freshness, InstrumentSource, observe_policy
from agent.state import StateFile
from agent.telemetry import quiet_telemetry
from bench.measure import Measure, Setup, Table, Target
from bench.race import race

_ROOT = Path(__file__).parents[1]
_LANES = 10
_OPERATIONS = 200.0  # a second
_FAILING = 0.2
_WARM_UP_S = 3.0
_HISTORY_S = 60
_PATIENCE_S = 60.0
# Of the time that the page gives the whole recovery, noticing may take a tenth.
_SHARE_OF_BUDGET = 0.1
_COUNT = "db_client_operation_duration_seconds_count"
_OK = labels_of(_COUNT, {"job": "application", "db_operation_name": "RunQuery"})
_FAILED = labels_of(_COUNT, {"job": "application", "db_operation_name": "RunQuery", "error_type": "unavailable"})


class Lane:
    """One daemon's senses, judgement and voice."""

    def __init__(self, number: int, *, rules: RuleSet, policy: Policy, pagerduty: str, folder: Path) -> None:
        self.project = f"lane-{number}"
        self._clock = SystemClock()
        telemetry = quiet_telemetry()
        self._state = StateFile(folder / f"{number}.db")
        self._store = SeriesStore()
        observe_policy(lambda: policy, telemetry)
        self._instruments = InstrumentSource(
            telemetry=telemetry,
            store=self._store,
            freshness=Freshness(clock=self._clock, telemetry=telemetry),
            clock=self._clock,
        )
        self._rules = RuleEvaluator(
            rules=rules,
            engine=Engine(self._store),
            store=self._store,
            state=self._state,
            clock=self._clock,
            telemetry=telemetry,
        )
        self._notifier = Notifier(
            policy=policy,
            channels=[PagerDutyChannel(routing_key="0" * 32, url=pagerduty)],
            state=self._state,
            clock=self._clock,
            telemetry=telemetry,
            project=self.project,
        )
        self._loop = Loop(self._tick, interval=1.0, clock=self._clock, telemetry=telemetry)
        began = self._clock.now()
        self._began = began.timestamp() - _HISTORY_S
        self.stepped_at = began + timedelta(seconds=_WARM_UP_S + number / _LANES)

    def start(self) -> None:
        """Healthy history first, so that the window of the rule is full; then the loop."""
        for second in range(_HISTORY_S):
            at = self._began + second
            self._store.ingest("application", at, self._reading(at))
        self._notifier.start()
        self._loop.start()

    def close(self) -> None:
        self._loop.stop()
        self._notifier.stop()
        self._state.close()

    def _tick(self) -> None:
        self._instruments.collect()
        now = self._clock.now()
        self._store.ingest("application", now.timestamp(), self._reading(now.timestamp()))
        result = self._rules.tick(now)
        self._notifier.alerts_changed(result.changes, result.active, now)

    def _reading(self, at: float) -> Iterator[Sample]:
        failed = _FAILING * _OPERATIONS * max(0.0, at - self.stepped_at.timestamp())
        yield Sample(_OK, _OPERATIONS * (at - self._began) - failed)
        yield Sample(_FAILED, failed)


def measure(setup: Setup) -> list[Measure]:
    """Median and longest of the lanes; scale, backend and rounds play no part: no database is asked."""
    rules = load_rules([_ROOT / "rules"])
    policy = load_runbook(_ROOT / "runbooks" / "firestore-operations.md")
    budget = next(row.budget for row in policy.matrix if row.condition == "error_rate")
    target = Target(limit=budget.total_seconds() * _SHARE_OF_BUDGET, at_least=False) if budget else None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        receiver = stack.enter_context(PagerDutyReceiver())
        lanes = [
            stack.enter_context(
                closing(Lane(number, rules=rules, policy=policy, pagerduty=receiver.base_url, folder=folder))
            )
            for number in range(_LANES)
        ]
        for lane in lanes:
            lane.start()
        deadline = time.monotonic() + _PATIENCE_S
        seconds = [_seconds_until_paged(lane, receiver, deadline - time.monotonic()) for lane in lanes]
    table = Table("detection", setup)
    table.add("failing operations to page, median", statistics.median(seconds), "s", target)
    table.add("failing operations to page, longest", max(seconds), "s", target)
    race(table)
    return table.measures


def _seconds_until_paged(lane: Lane, receiver: PagerDutyReceiver, patience: float) -> float:
    event = receiver.wait_for(
        lambda event: event.action == "trigger" and f"/{lane.project}/" in event.dedup_key, timeout=max(patience, 1.0)
    )
    return (event.received_at - lane.stepped_at).total_seconds()
