"""Backtests: what rules would have said of an incident that was recorded.

``runbookd rules backtest`` and ``rules eval --data`` read a recording (OpenMetrics text with timestamps, as
``promtool tsdb dump-openmetrics`` writes it) into a store and put the rules, or one expression, to it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.alerting.alert import AlertState
from agent.alerting.evaluator import RuleEvaluator
from agent.alerting.rules import RuleSet
from agent.alerting.scripts import parse_series
from agent.clock import ManualClock
from agent.faults import Permanent, PermanentReason
from agent.promql import Engine
from agent.samples import METRIC_NAME, Labels, Limits, Sample, SeriesStore
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*\})?) (\S+)(?: (\S+))?(?: # .*)?")
_THRESHOLDS_EVERY = 60.0
_EVERYTHING = Limits(retention=10 * 365 * 86_400.0, readings=10**9, series=1_000_000, size=1 << 40)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Samples by series, each a list of (unix seconds, value) in the order of time."""

    series: Mapping[Labels, Sequence[tuple[float, float]]]
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Fired:
    """One time that an alert would have fired.

    Args:
        pages: it is meant for people.
        action: what the decision matrix has for it; "" if it is no alert of the matrix.
    """

    rule: str
    labels: Mapping[str, str]
    fired_at: datetime
    resolved_at: datetime | None
    value: float
    pages: bool
    action: str


def read_recording(path: Path) -> Recording:
    """The samples of an OpenMetrics file.

    Raises:
        Permanent: a line is no sample, a sample has no timestamp, or there are no samples.
    """
    series: dict[Labels, list[tuple[float, float]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.rstrip())
        if found is None or found[3] is None:
            raise _unreadable(path, number, "no sample with a timestamp in unix seconds")
        try:
            labels, sample = parse_series(found[1]), (float(found[3]), float(found[2]))
        except ValueError as error:
            raise _unreadable(path, number, str(error)) from error
        series.setdefault(labels, []).append(sample)
    if not series:
        raise _unreadable(path, 1, "no samples at all")
    ordered = {labels: sorted(samples) for labels, samples in series.items()}
    return Recording(
        series=ordered,
        start=min(samples[0][0] for samples in ordered.values()),
        end=max(samples[-1][0] for samples in ordered.values()),
    )


def fill(store: SeriesStore, recording: Recording, *, without: frozenset[str] = frozenset()) -> None:
    """File a recording, but for the metrics named in ``without``."""
    for labels, samples in recording.series.items():
        if dict(labels).get(METRIC_NAME) not in without:
            for at, value in samples:
                store.ingest(str(labels), at, [Sample(labels, value)])


def store_of(recording: Recording) -> SeriesStore:
    """A store that holds all of ``recording``, however old."""
    store = SeriesStore(_EVERYTHING)
    fill(store, recording)
    return store


def backtest(
    rules: RuleSet,
    recording: Recording,
    *,
    thresholds: Sequence[Sample] = (),
    actions: Mapping[str, str] | None = None,
    step: float = 1.0,
) -> tuple[Fired, ...]:
    """Put ``rules`` to every ``step`` seconds of ``recording``; what would have fired, in the order of time.

    Args:
        thresholds: the page's figures as series, if they are not in the recording.
        actions: the decision matrix: by the label ``matrix`` of an alert, what would be done.
    """
    made = frozenset({"ALERTS", "ALERTS_FOR_STATE", *(rule.name for rule in rules.recordings)})
    given = frozenset(dict(sample.labels)[METRIC_NAME] for sample in thresholds)
    store = SeriesStore(_EVERYTHING)
    fill(store, recording, without=made | given)
    start = datetime.fromtimestamp(recording.start, UTC)
    clock = ManualClock(start)
    fired: dict[tuple[str, datetime], Fired] = {}
    refreshed = -_THRESHOLDS_EVERY
    with tempfile.TemporaryDirectory() as folder, closing(StateFile(Path(folder) / "state.db")) as state:
        evaluator = RuleEvaluator(
            rules=rules,
            engine=Engine(store),
            store=store,
            state=state,
            clock=clock,
            telemetry=quiet_telemetry(),
        )
        for number in range(int((recording.end - recording.start) / step) + 1):
            now = start + timedelta(seconds=number * step)
            if thresholds and number * step - refreshed >= _THRESHOLDS_EVERY:
                refreshed = number * step
                store.ingest("thresholds", now.timestamp(), thresholds)
            for alert in evaluator.tick(now).changes:
                if alert.fired_at is not None and alert.state in (AlertState.FIRING, AlertState.RESOLVED):
                    fired[(alert.fingerprint, alert.fired_at)] = Fired(
                        rule=alert.rule,
                        labels=alert.labels,
                        fired_at=alert.fired_at,
                        resolved_at=alert.resolved_at,
                        value=alert.value,
                        pages=alert.calls,
                        action=(actions or {}).get(alert.labels.get("matrix", ""), ""),
                    )
            clock.advance(step)
    return tuple(sorted(fired.values(), key=lambda each: each.fired_at))


def _unreadable(path: Path, line: int, problem: str) -> Permanent:
    return Permanent(
        PermanentReason.INVALID,
        f"{path}:{line}: {problem}",
        hint='write it with `promtool tsdb dump-openmetrics`, or as `name{label="value"} 1.5 1767225600`',
    )
