"""Recordings: the samples of an incident, kept as OpenMetrics text with timestamps.

``promtool tsdb dump-openmetrics`` writes such a file, and so does anything that appends a timestamp to what it scrapes.
``runbookd rules eval``, ``serve`` and ``backtest`` read one into a store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.alerting.scripts import parse_series
from agent.faults import Permanent, PermanentReason
from agent.samples import METRIC_NAME, Exemplar, Labels, Limits, Sample, SeriesStore

EVERYTHING = Limits(retention=10 * 365 * 86_400.0, readings=10**9, series=1_000_000, size=1 << 40)
"""What a store keeps that holds a recording, however old."""

_SERIES = r"[a-zA-Z_:][a-zA-Z0-9_:]*(?:\{(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*\})?"
_LINE = re.compile(rf"({_SERIES}) (\S+)(?: (\S+))?(?: # (\{{.*\}}) (\S+)(?: (\S+))?)?")
_ABOUT = re.compile(r"# (TYPE|HELP|UNIT) (\S+) ?(.*)")
_TRACE = re.compile(r'trace_id="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, kw_only=True)
class About:
    """What a file says of a metric."""

    kind: str = "unknown"
    help: str = ""
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Samples by series, each a list of (unix seconds, value) in the order of time.

    Args:
        exemplars: by series and moment.
        about: by metric family.
    """

    series: Mapping[Labels, Sequence[tuple[float, float]]]
    start: float
    end: float
    exemplars: Mapping[tuple[Labels, float], Exemplar] = field(default_factory=dict)
    about: Mapping[str, About] = field(default_factory=dict)

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(dict(labels).get(METRIC_NAME, "") for labels in self.series)


def recording_of(
    series: Mapping[Labels, Sequence[tuple[float, float]]],
    *,
    exemplars: Mapping[tuple[Labels, float], Exemplar] | None = None,
    about: Mapping[str, About] | None = None,
) -> Recording:
    """Samples in any order as a recording; there is at least one."""
    ordered = {labels: sorted(samples) for labels, samples in series.items() if samples}
    return Recording(
        series=ordered,
        start=min(samples[0][0] for samples in ordered.values()),
        end=max(samples[-1][0] for samples in ordered.values()),
        exemplars=exemplars or {},
        about=about or {},
    )


def read_recording(path: Path) -> Recording:
    """The samples of an OpenMetrics file.

    Raises:
        Permanent: a line is no sample, a sample has no timestamp, or there are no samples.
    """
    series: dict[Labels, list[tuple[float, float]]] = {}
    exemplars: dict[tuple[Labels, float], Exemplar] = {}
    about: dict[str, dict[str, str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, 1, f"it can't be read ({error})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            if said := _ABOUT.fullmatch(line):
                key = {"TYPE": "kind", "HELP": "help", "UNIT": "unit"}[said[1]]
                about.setdefault(said[2], {})[key] = said[3].replace("\\n", "\n").replace('\\"', '"')
            continue
        found = _LINE.fullmatch(line.rstrip())
        if found is None or found[3] is None:
            raise _unreadable(path, number, "no sample with a timestamp in unix seconds")
        try:
            labels, at, value = parse_series(found[1]), float(found[3]), float(found[2])
            if trace := _TRACE.search(found[4] or ""):
                exemplars[(labels, at)] = Exemplar(trace[1], float(found[5]), float(found[6] or at))
        except ValueError as error:
            raise _unreadable(path, number, str(error)) from error
        series.setdefault(labels, []).append((at, value))
    if not series:
        raise _unreadable(path, 1, "no samples at all")
    return recording_of(
        series, exemplars=exemplars, about={name: About(**said) for name, said in about.items() if said}
    )


def fill(store: SeriesStore, recording: Recording, *, without: frozenset[str] = frozenset()) -> None:
    """File a recording, but for the metrics named in ``without``.

    Series that were read at the same moments are one source, as they were when they were recorded.
    """
    together: dict[tuple[float, ...], list[Labels]] = {}
    for labels, samples in recording.series.items():
        if dict(labels).get(METRIC_NAME) not in without:
            together.setdefault(tuple(at for at, _ in samples), []).append(labels)
    for number, (moments, members) in enumerate(together.items()):
        values = [[value for _, value in recording.series[labels]] for labels in members]
        for position, at in enumerate(moments):
            reading = [
                Sample(labels, each[position], recording.exemplars.get((labels, at)))
                for labels, each in zip(members, values, strict=True)
            ]
            store.ingest(f"recording {number}", at, reading)


def store_of(recording: Recording) -> SeriesStore:
    """A store that holds all of ``recording``, however old."""
    store = SeriesStore(EVERYTHING)
    fill(store, recording)
    return store


def _unreadable(path: Path, line: int, problem: str) -> Permanent:
    return Permanent(
        PermanentReason.INVALID,
        f"{path}:{line}: {problem}",
        hint='write it with `promtool tsdb dump-openmetrics`, or as `name{label="value"} 1.5 1767225600`',
    )
