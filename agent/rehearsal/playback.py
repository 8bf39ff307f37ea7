"""A recording that answers queries: ``runbookd rules serve`` opens an incident's samples in Grafana afterwards.

Rules, where some are given, are put to it once, from its beginning to its end: what they record and the alerts that
they raise are then among its series, and ``/api/v1/rules`` and ``/api/v1/alerts`` say how things stood at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from agent.alerting import RuleEvaluator, RuleSet, StoredExemplars
from agent.alerting.recordings import EVERYTHING, Recording, fill
from agent.clock import ManualClock
from agent.promql import Engine
from agent.samples import METRIC_NAME, Sample, SeriesStore
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

_THRESHOLDS_EVERY_S = 60.0


class Playback:
    """A recording as the API reads it (:class:`agent.api.Queried`); a context manager.

    Args:
        thresholds: the page's figures as series; those that the recording has go before. Read by rules alone.
        step: seconds between two looks of the rules.
    """

    def __init__(
        self, recording: Recording, *, rules: RuleSet, thresholds: Sequence[Sample] = (), step: float = 1.0
    ) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(TemporaryDirectory()))
        state = StateFile(folder / "state.db")
        self._stack.callback(state.close)
        self._recording = recording
        self.clock = ManualClock(datetime.fromtimestamp(recording.start, UTC))
        self.store = SeriesStore(EVERYTHING)
        self.engine = Engine(self.store)
        self.rules = RuleEvaluator(
            rules=rules,
            engine=self.engine,
            store=self.store,
            state=state,
            clock=self.clock,
            telemetry=quiet_telemetry(),
            exemplars=StoredExemplars(self.store),
        )
        made = frozenset({"ALERTS", "ALERTS_FOR_STATE", *(rule.name for rule in rules.recordings)})
        fill(self.store, recording, without=made if rules.rules else frozenset())
        if rules.rules:
            given = recording.metrics
            self._judge([each for each in thresholds if dict(each.labels)[METRIC_NAME] not in given], step)
        self.clock.advance(max(0.0, recording.end - self.clock.now().timestamp()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def metadata(self) -> dict[str, list[dict[str, Any]]]:
        """What the file says of its metrics, as Prometheus's API has it."""
        return {
            name: [{"type": about.kind, "help": about.help, "unit": about.unit}]
            for name, about in sorted(self._recording.about.items())
        }

    def _judge(self, thresholds: Sequence[Sample], step: float) -> None:
        start, told = self.clock.now(), -_THRESHOLDS_EVERY_S
        for number in range(int((self._recording.end - self._recording.start) / step) + 1):
            now = start + timedelta(seconds=number * step)
            self.clock.advance(max(0.0, (now - self.clock.now()).total_seconds()))
            if thresholds and number * step - told >= _THRESHOLDS_EVERY_S:
                self.store.ingest("page", now.timestamp(), thresholds)
                told = number * step
            self.rules.tick(now)
