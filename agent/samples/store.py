"""The series store: sources write readings into it, PromQL and the API read windows out of it.

One writer and any number of readers: the lock is held while a reading is filed or a selection is resolved, never
while values are copied or computed with.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from agent.samples.columns import LATEST, ColumnView, Floats, Indices, Millis, SourceColumns, present
from agent.samples.index import LabelIndex
from agent.samples.labels import METRIC_NAME, Exemplar, Labels, Sample
from agent.samples.matchers import Matcher

_log = logging.getLogger(__name__)

_CHUNK_ROWS = 240
_EXEMPLARS_KEPT = 8
_SWEEP_EVERY_MS = 60_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the store keeps at most.

    A sample takes 8 bytes, and a reading 8 more. So 6 h at one reading in 5 s are 35 KB a series, at one a second
    173 KB: a gigabyte holds some 31,000 series of the first kind, or 6,200 of the second.

    Args:
        retention: seconds; older samples go, in steps of a chunk.
        readings: readings kept of one source, i.e. samples of one series: 21,600 are 6 h at one a second.
        series: series of all sources together. Those that ended longest ago make room for new ones; where none has
            ended, new ones are refused and counted, and the series that are there go on.
        size: bytes of all samples; what would exceed it shortens the retention.
        chunk: readings in a chunk, the step in which old samples are dropped.
    """

    retention: float = 6 * 3600.0
    readings: int = 21_600
    series: int = 50_000
    size: int = 1 << 30
    chunk: int = _CHUNK_ROWS


@dataclass(frozen=True, kw_only=True)
class StoreStatistics:
    """How full the store is, and what it turned away or gave up since it was made.

    Args:
        made_room: series that had ended and were forgotten before their time, for new ones.
        cut_short: chunks that were dropped before their time, for want of memory.
    """

    series: int
    sources: int
    size_bytes: int
    refused_for_limit: int
    refused_as_duplicate: int
    refused_as_late: int
    made_room: int
    cut_short: int


@dataclass(frozen=True, slots=True)
class Part:
    """The series of a selection that come from one source.

    Args:
        columns: where they are in the source.
        positions: where they are in :attr:`Selection.labels`.
    """

    source: SourceColumns
    columns: Indices
    positions: Indices


@dataclass(frozen=True, slots=True)
class Selection:
    """The series that satisfy some matchers; valid while the store's ``version`` is the same."""

    version: int
    labels: tuple[Labels, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Readings:
    """Some readings of one source, as they are written down.

    Args:
        times: ms, ascending.
        values: (readings x series); cells without a sample hold the absent value.
    """

    source: str
    labels: tuple[Labels, ...]
    times: Millis
    values: Floats


@dataclass(slots=True)
class _Series:
    labels: Labels
    source: SourceColumns
    column: int


class SeriesStore:
    """Samples in memory, by source, series and time.

    A label set belongs to one source. Another source that delivers it takes it over once it is stale there (its
    older samples are then forgotten); while it is alive there, the newcomer's samples are dropped and counted.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._lock = threading.RLock()
        self._sources: dict[str, SourceColumns] = {}
        self._series: dict[int, _Series] = {}
        self._ids: dict[Labels, int] = {}
        self._by_column: dict[tuple[str, int], int] = {}
        self._index = LabelIndex()
        self._exemplars: dict[int, deque[Exemplar]] = {}
        self._next_id = 0
        self._version = 0
        self._swept = 0
        self._ended: dict[str, int] = {}
        self._crowded = False
        self._over_limit = 0
        self._made_room = 0
        self._cut_short = 0
        self._duplicates = 0
        self._late = 0

    @property
    def version(self) -> int:
        """Changes whenever the set of series does; what was derived from a selection is valid until then."""
        return self._version

    def ingest(
        self, source: str, timestamp: float, samples: Iterable[Sample], *, counters: Container[str] = ()
    ) -> None:
        """File one reading of ``source`` at ``timestamp`` (unix seconds).

        Series of the source's last reading that are missing now end here (staleness). A reading that is not later
        than the last one of its source is dropped and counted: its moment is already filed.

        Args:
            counters: names of metrics that count from zero. A series of one that was never seen before, while the
                source's last reading had others of its metric, was zero then: it is filed so, and its first increase
                is not lost.
        """
        batch = list(samples)
        labels = [sample.labels for sample in batch]
        time = round(timestamp * 1000)
        values = np.array([sample.value for sample in batch], dtype=np.float64)
        with self._lock:
            target = self._source(source)
            if time <= target.newest:
                self._late += len(batch)
                return
            if labels == target.shape:
                columns, kept = target.shape_columns, values
            else:
                born = self._born(target, labels, counters)
                columns, kept = self._resolve(target, labels, values)
                filed = [self._series[self._ids[each]].column for each in born if each in self._ids]
                if filed:
                    target.start_at_zero(np.array(filed, dtype=np.intp))
            target.append(time, columns, kept)
            self._ended.pop(source, None)
            for sample in batch:
                if sample.exemplar is not None:
                    self._keep_exemplar(sample.labels, sample.exemplar)
            if time - self._swept > _SWEEP_EVERY_MS:
                self._sweep(time)

    def stale(self, source: str, timestamp: float) -> None:
        """End all series of ``source``: it is gone, or can't be read."""
        nothing = np.zeros(0, dtype=np.intp)
        with self._lock:
            target = self._source(source)
            target.append(max(round(timestamp * 1000), target.newest + 1), nothing, np.zeros(0))
            target.shape, target.shape_columns = [], nothing
            self._ended.setdefault(source, target.newest)

    def silent_since(self, source: str, at: float, patience: float) -> float | None:
        """Since when (unix seconds) ``source`` delivers nothing, ``None`` while it speaks.

        Args:
            at: now, unix seconds.
            patience: seconds without a reading that are still no silence, unless the source is known to have ended.
        """
        with self._lock:
            known = self._sources.get(source)
            if known is None:
                return None
            ended = self._ended.get(source)
            if ended is None and at * 1000 - known.newest > patience * 1000:
                ended = known.newest
            return None if ended is None else ended / 1000

    def rewind(self, now: float) -> int:
        """Forget every reading later than ``now`` (unix seconds): the clock they were taken by has been put back.

        Without it a source could file nothing until the clock has caught up with what it filed last.

        Returns:
            how many readings went.
        """
        with self._lock:
            until = round(now * 1000)
            self._swept = min(self._swept, until)
            self._ended = {source: min(ended, until) for source, ended in self._ended.items()}
            self._version += 1
            return sum(source.cut(until) for source in self._sources.values())

    def select(self, matchers: Sequence[Matcher]) -> Selection:
        """The series that satisfy all ``matchers``, dead ones within the retention included."""
        with self._lock:
            found = [self._series[series] for series in self._index.select(matchers)]
            version = self._version
        by_source: dict[str, list[tuple[int, int]]] = {}
        for position, series in enumerate(found):
            by_source.setdefault(series.source.name, []).append((position, series.column))
        parts = tuple(
            Part(
                self._sources[name],
                np.array([column for _, column in members], dtype=np.intp),
                np.array([position for position, _ in members], dtype=np.intp),
            )
            for name, members in by_source.items()
        )
        return Selection(version, tuple(series.labels for series in found), parts)

    def view(self, part: Part, after: int, until: int) -> ColumnView:
        """Rows of a part's source with ``after < time <= until`` (ms since the epoch)."""
        with self._lock:
            return part.source.view(after, until)

    def exemplars(self, matchers: Sequence[Matcher], since: float) -> list[tuple[Labels, Exemplar]]:
        """Kept exemplars of the selected series that are not older than ``since`` (unix seconds)."""
        with self._lock:
            return [
                (self._series[series].labels, exemplar)
                for series in self._index.select(matchers)
                for exemplar in self._exemplars.get(series, ())
                if exemplar.timestamp >= since
            ]

    def readings(self, after: int, until: int = LATEST) -> list[Readings]:
        """Copies of the readings with ``after < time <= until`` (ms), source by source, series without any left out."""
        with self._lock:
            members: dict[str, list[_Series]] = {}
            for series in self._series.values():
                members.setdefault(series.source.name, []).append(series)
            views = {name: self._sources[name].view(after, until) for name in members}
        # What a view holds does not change, so it is copied without keeping writers waiting.
        return [found for name in members if (found := _written_down(name, members[name], views[name])) is not None]

    def restore(self, found: Iterable[Readings], now: float) -> int:
        """File what an earlier process had read, in order of time; for a store that nothing has been filed in yet.

        Readings past retention, and those of the future (the clock was put back), are left out. Every source then
        ends: what was read last is history, and not what is so now.

        Returns:
            how many samples were filed.
        """
        until = round(now * 1000)
        oldest = until - round(self._limits.retention * 1000)
        with self._lock:
            counts: dict[str, int] = {}
            for each in found:
                counts[each.source] = counts.get(each.source, 0) + self._restore(each, oldest, until)
            for name in (name for name, count in counts.items() if count):
                source = self._sources[name]
                source.append(source.newest + 1, np.zeros(0, dtype=np.intp), np.zeros(0))
                self._ended[name] = source.newest
            return sum(counts.values())

    def _restore(self, found: Readings, oldest: int, until: int) -> int:
        rows = np.flatnonzero((found.times > oldest) & (found.times <= until))
        there = present(found.values)
        wanted = np.flatnonzero(there[rows].any(axis=0)) if len(rows) else rows
        source = self._source(found.source)
        self._reserve([found.labels[position] for position in wanted])
        columns = [self._column(source, found.labels[position]) for position in wanted]
        kept = np.array([position for position, column in zip(wanted, columns, strict=True) if column is not None])
        targets = np.array([column for column in columns if column is not None], dtype=np.intp)
        count = 0
        for row in rows if len(kept) else ():
            time, here = int(found.times[row]), there[row][kept]
            if time > source.newest:
                source.append(time, targets[here], found.values[row][kept[here]])
                count += int(here.sum())
        return count

    def series(self, matchers: Sequence[Matcher]) -> list[Labels]:
        """Label sets of the selected series, sorted."""
        with self._lock:
            return sorted(self._series[series].labels for series in self._index.select(matchers))

    def label_names(self) -> list[str]:
        with self._lock:
            return self._index.names()

    def label_values(self, name: str) -> list[str]:
        with self._lock:
            return self._index.values(name)

    def metric_names(self) -> list[str]:
        return self.label_values(METRIC_NAME)

    def statistics(self) -> StoreStatistics:
        with self._lock:
            return StoreStatistics(
                series=len(self._series),
                sources=len(self._sources),
                size_bytes=sum(source.size_bytes for source in self._sources.values()),
                refused_for_limit=self._over_limit,
                refused_as_duplicate=self._duplicates,
                refused_as_late=self._late,
                made_room=self._made_room,
                cut_short=self._cut_short,
            )

    def _source(self, name: str) -> SourceColumns:
        source = self._sources.get(name)
        if source is None:
            source = self._sources[name] = SourceColumns(name, height=self._limits.chunk)
        return source

    def _resolve(
        self, source: SourceColumns, labels: list[Labels], values: np.typing.NDArray[np.float64]
    ) -> tuple[Indices, np.typing.NDArray[np.float64]]:
        """Columns of ``labels`` in ``source``, and the values that may be filed."""
        self._reserve(labels)
        columns = []
        filed = []
        for position, each in enumerate(labels):
            column = self._column(source, each)
            if column is not None:
                columns.append(column)
                filed.append(position)
        found = np.array(columns, dtype=np.intp)
        if len(columns) == len(labels):
            source.shape, source.shape_columns = labels, found
            return found, values
        source.shape = []
        return found, values[np.array(filed, dtype=np.intp)]

    def _born(self, source: SourceColumns, labels: list[Labels], counters: Container[str]) -> list[Labels]:
        """Which of ``labels`` begin here and have counted from zero since the source's last reading."""
        fresh = [each for each in labels if each not in self._ids and _name(each) in counters]
        if not fresh:
            return []
        metrics = {_name(each) for each in source.shape}
        return [each for each in fresh if _name(each) in metrics]

    def _column(self, source: SourceColumns, labels: Labels) -> int | None:
        series = self._ids.get(labels)
        if series is not None:
            known = self._series[series]
            if known.source is source:
                return known.column
            if known.source.living(known.column):
                self._duplicates += 1
                return None
            self._drop(known.source, [known.column])
        if len(self._series) >= self._limits.series:
            self._over_limit += 1
            return None
        column = source.new_column()
        series = self._next_id
        self._next_id += 1
        self._series[series] = _Series(labels, source, column)
        self._ids[labels] = series
        self._by_column[(source.name, column)] = series
        self._index.add(series, labels)
        self._version += 1
        return column

    def _forget(self, series: int) -> None:
        known = self._series.pop(series)
        del self._ids[known.labels]
        del self._by_column[(known.source.name, known.column)]
        self._index.remove(series, known.labels)
        self._exemplars.pop(series, None)
        known.source.shape = []
        self._version += 1

    def _keep_exemplar(self, labels: Labels, exemplar: Exemplar) -> None:
        series = self._ids.get(labels)
        if series is None:
            return
        kept = self._exemplars.setdefault(series, deque(maxlen=_EXEMPLARS_KEPT))
        if not kept or kept[-1] != exemplar:
            kept.append(exemplar)

    def _reserve(self, labels: Sequence[Labels]) -> None:
        """Make room for those of ``labels`` that are new, at the expense of the series that ended longest ago."""
        new = sum(each not in self._ids for each in labels)
        missing = len(self._series) + new - self._limits.series
        if not new or missing <= 0 or self._crowded:
            return
        wanted = set(labels)
        ended = sorted(
            (each.source.last_seen(each.column), series)
            for series, each in self._series.items()
            if not each.source.living(each.column) and each.labels not in wanted
        )
        gone = [self._series[series] for _, series in ended[: max(missing, self._limits.series // 16)]]
        for source in {id(each.source): each.source for each in gone}.values():
            self._drop(source, [each.column for each in gone if each.source is source])
        self._made_room += len(gone)
        self._crowded = len(gone) < missing  # looked through again with the next sweep

    def _sweep(self, now: int) -> None:
        """Drop what is past retention, in all sources: one that fell silent must not stay for ever."""
        self._swept = now
        self._crowded = False
        oldest = now - round(self._limits.retention * 1000)
        for source in self._sources.values():
            self._drop(source, source.trim(oldest=oldest, rows=self._limits.readings))
        while self._sources and sum(source.size_bytes for source in self._sources.values()) > self._limits.size:
            source = min(self._sources.values(), key=lambda each: each.oldest_end)
            if source.oldest_end == LATEST:
                return  # nothing left but what is being filled
            self._drop(source, source.trim(oldest=source.oldest_end + 1, rows=self._limits.readings))
            if not self._cut_short:
                _log.warning(
                    "the samples take more memory than they may; they are kept for less than the retention",
                    extra={"bytes": self._limits.size, "series": len(self._series)},
                )
            self._cut_short += 1

    def _drop(self, source: SourceColumns, columns: Sequence[int]) -> None:
        if columns:
            source.erase(columns)
        for column in columns:
            self._forget(self._by_column[(source.name, column)])


def _written_down(name: str, members: Sequence[_Series], view: ColumnView) -> Readings | None:
    values = view.block(0, len(view), np.array([each.column for each in members], dtype=np.intp))
    held = np.flatnonzero(present(values).any(axis=0))
    if not len(held):
        return None
    labels = tuple(members[position].labels for position in held.tolist())
    return Readings(name, labels, view.times.copy(), np.ascontiguousarray(values[:, held]))


def _name(labels: Labels) -> str:
    return next((value for name, value in labels if name == METRIC_NAME), "")
