"""The samples of one source, as rows of a matrix: a row per reading, a column per series.

A source delivers all its series at one moment, so one axis of timestamps serves them all (8 bytes a sample) and
reading a window is two binary searches for the whole source, however many series it has. Rows live in chunks of
fixed height; retention drops whole chunks, and with them the series nobody delivered since.

A series that a reading lacks is *absent* there, which is Prometheus's staleness: an absent cell and a stale marker
are the same thing, because a source that was read and did not return a series has ended it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Millis = NDArray[np.int64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

# A NaN that no measurement yields: NaN is a value in PromQL, absence is not.
ABSENT_BITS = np.uint64(0x7FFC_0000_0000_0AB5)
ABSENT = np.array([ABSENT_BITS]).view(np.float64)[0]

_BEGINNING = np.iinfo(np.int64).min
LATEST = int(np.iinfo(np.int64).max)
"""Later than any reading, ms."""


def present(values: Floats) -> Bools:
    """Where ``values`` holds samples."""
    there: Bools = np.ascontiguousarray(values).view(np.uint64) != ABSENT_BITS
    return there


# A full chunk is packed when fewer of its columns than this share hold samples.
_WORTH_PACKING = 0.75
NOWHERE = -1


class _Chunk:
    """Up to ``height`` consecutive rows.

    A chunk that takes rows has a column for every series of its source. One that is full may be packed: columns without
    a sample are left out, so that series that come and go cost what they hold, not their number times the retention.
    ``places`` then says where a series' column is.
    """

    __slots__ = ("fell", "gapped", "places", "rows", "times", "values")

    def __init__(self, height: int, width: int) -> None:
        self.rows = 0
        self.places: NDArray[np.int32] | None = None
        self.times: Millis = np.zeros(height, dtype=np.int64)
        self.values: Floats = np.full((height, width), ABSENT)
        # What lets a counter's increase be read off two samples instead of all of them: no gap, no reset.
        self.gapped: Bools = np.zeros(width, dtype=np.bool_)
        self.fell: Bools = np.zeros(width, dtype=np.bool_)

    def head(self, rows: int) -> _Chunk:
        """The first ``rows`` rows, in arrays of their own and not packed."""
        found = _Chunk(len(self.times), len(self.gapped))
        found.rows = rows
        found.times[:rows] = self.times[:rows]
        for row in range(rows):
            found.values[row] = self.row(row)
        found.gapped[:], found.fell[:] = self.gapped, self.fell
        return found

    def row(self, row: int) -> Floats:
        """A row with a cell for every column of the source."""
        found: Floats = self.values[row]
        if self.places is None:
            return found
        held = self.places != NOWHERE
        found = np.full(len(self.places), ABSENT)
        found[held] = self.values[row, self.places[held]]
        return found

    def pack(self) -> None:
        """Leave out the columns without samples; readers keep the arrays they already hold."""
        if self.places is not None:
            return
        held = np.flatnonzero(present(self.values).any(axis=0))
        width = self.values.shape[1]
        if len(held) < _WORTH_PACKING * width:
            places = np.full(width, NOWHERE, dtype=np.int32)
            places[held] = np.arange(len(held), dtype=np.int32)
            self.values, self.places = np.ascontiguousarray(self.values[:, held]), places

    def erase(self, columns: Indices) -> None:
        """Forget series; their columns may be given to others."""
        known = columns[columns < len(self.gapped)]
        self.gapped[known] = True
        if self.places is None:
            self.values[:, known] = ABSENT
        else:
            placed = self.places[known]
            self.values[:, placed[placed != NOWHERE]] = ABSENT

    @property
    def size_bytes(self) -> int:
        flags = self.gapped.nbytes + self.fell.nbytes + (0 if self.places is None else self.places.nbytes)
        return self.values.nbytes + self.times.nbytes + flags

    def widen(self, width: int) -> None:
        """Make room for new series; readers keep the arrays they already hold."""
        values = np.full((len(self.times), width), ABSENT)
        values[:, : self.values.shape[1]] = self.values
        gapped = np.full(width, self.rows > 0)
        gapped[: len(self.gapped)] = self.gapped
        fell = np.zeros(width, dtype=np.bool_)
        fell[: len(self.fell)] = self.fell
        self.values, self.gapped, self.fell = values, gapped, fell


class SourceColumns:
    """All rows of one source. Not locked: the store is."""

    def __init__(self, name: str, *, height: int) -> None:
        self.name = name
        self._height = height
        self._chunks: list[_Chunk] = []
        self._free: list[int] = []
        self._last: Floats = np.full(0, ABSENT)
        self._last_seen: Millis = np.zeros(0, dtype=np.int64)
        self.newest = int(_BEGINNING)
        self.width = 0
        # The labels of the last reading, in its order, and their columns: the next reading is usually the same.
        self.shape: list[Any] = []
        self.shape_columns: Indices = np.zeros(0, dtype=np.intp)

    @property
    def rows(self) -> int:
        return sum(chunk.rows for chunk in self._chunks)

    @property
    def size_bytes(self) -> int:
        return sum(chunk.size_bytes for chunk in self._chunks)

    @property
    def oldest_end(self) -> int:
        """When the oldest chunk that may go ends, ms: all but the one that takes rows. :data:`LATEST` if none may."""
        return int(self._chunks[0].times[-1]) if len(self._chunks) > 1 else LATEST

    def new_column(self) -> int:
        """A column for a new series."""
        if self._free:
            return self._free.pop()
        column = self.width
        self.width += 1
        if self.width > len(self._last):
            room = max(8, 2 * len(self._last))
            last = np.full(room, ABSENT)
            last[: len(self._last)] = self._last
            seen = np.full(room, _BEGINNING, dtype=np.int64)
            seen[: len(self._last_seen)] = self._last_seen
            self._last, self._last_seen = last, seen
        return column

    def living(self, column: int) -> bool:
        """Whether the last reading held the series."""
        return bool(self._last[column : column + 1].view(np.uint64)[0] != ABSENT_BITS)

    def last_seen(self, column: int) -> int:
        """When the series was last in a reading, ms."""
        return int(self._last_seen[column])

    def erase(self, columns: Sequence[int]) -> None:
        """Forget series altogether and free their columns."""
        gone = np.array(columns, dtype=np.intp)
        for chunk in self._chunks:
            chunk.erase(gone)
        self._last[gone] = ABSENT
        self._last_seen[gone] = _BEGINNING
        self._free.extend(columns)

    def append(self, time: int, columns: Indices, values: Floats) -> None:
        """One reading at ``time`` (ms, later than any before) of the series in ``columns``; the others end."""
        room = len(self._last)
        row = np.full(room, ABSENT)
        row[columns] = values
        if not self._chunks or self._chunks[-1].rows == self._height:
            if self._chunks:
                self._chunks[-1].pack()
            self._chunks.append(_Chunk(self._height, room))
        chunk = self._chunks[-1]
        if chunk.values.shape[1] < room:
            chunk.widen(room)
        missing = row.view(np.uint64) == ABSENT_BITS
        chunk.gapped |= missing
        # Comparisons with absent cells are false: a series that comes back is gapped, and need not have fallen too.
        chunk.fell |= row < self._last
        chunk.times[chunk.rows] = time
        chunk.values[chunk.rows] = row
        chunk.rows += 1
        self._last = row
        self._last_seen[columns] = time
        self.newest = time

    def cut(self, until: int) -> int:
        """Drop the rows later than ``until`` (ms); returns how many. A view that was taken before keeps its rows."""
        dropped = 0
        while self._chunks and int(self._chunks[-1].times[self._chunks[-1].rows - 1]) > until:
            chunk = self._chunks[-1]
            kept = int(np.searchsorted(chunk.times[: chunk.rows], until, "right"))
            dropped += chunk.rows - kept
            if kept:
                self._chunks[-1] = chunk.head(kept)
            else:
                self._chunks.pop()
        if dropped:
            self.newest = int(self._chunks[-1].times[self._chunks[-1].rows - 1]) if self._chunks else int(_BEGINNING)
            room = len(self._last)
            self._last = np.full(room, ABSENT)
            if self._chunks:
                last = self._chunks[-1].row(self._chunks[-1].rows - 1)
                self._last[: len(last)] = last
            np.minimum(self._last_seen, until, out=self._last_seen)
        return dropped

    def start_at_zero(self, columns: Indices) -> None:
        """Let the new series in ``columns`` have been 0 at the last reading; there is one."""
        chunk = self._chunks[-1]
        if chunk.values.shape[1] < len(self._last):
            chunk.widen(len(self._last))
        # In place: no reader knows these columns yet.
        chunk.values[chunk.rows - 1, columns] = 0.0
        self._last[columns] = 0.0
        self._last_seen[columns] = self.newest

    def trim(self, *, oldest: int, rows: int) -> list[int]:
        """Drop chunks that end before ``oldest`` (ms) or exceed ``rows``; columns whose series are gone with them."""
        total = self.rows
        dropped = 0
        for chunk in self._chunks:
            old = int(chunk.times[chunk.rows - 1]) < oldest
            if not old and total - chunk.rows < rows:
                break
            total -= chunk.rows
            dropped += 1
        if not dropped:
            return []
        ended = int(self._chunks[dropped - 1].times[self._chunks[dropped - 1].rows - 1])
        del self._chunks[:dropped]
        gone = (self._last_seen[: self.width] <= ended) & (self._last_seen[: self.width] > _BEGINNING)
        if self._chunks:
            gone &= self._last[: self.width].view(np.uint64) == ABSENT_BITS
        return [int(column) for column in np.flatnonzero(gone)]

    def view(self, after: int, until: int) -> ColumnView:
        """The rows with ``after < time <= until`` (ms)."""
        pieces = []
        for chunk in reversed(self._chunks):
            times = chunk.times[: chunk.rows]
            if times[-1] <= after:
                break
            low = int(np.searchsorted(times, after, "right")) if times[0] <= after else 0
            high = chunk.rows if times[-1] <= until else int(np.searchsorted(times, until, "right"))
            if low < high:
                pieces.append(_Piece(times[low:high], chunk.values[low:high], chunk.gapped, chunk.fell, chunk.places))
        pieces.reverse()
        return ColumnView(pieces)


@dataclass(frozen=True, slots=True)
class _Piece:
    times: Millis
    values: Floats
    gapped: Bools
    fell: Bools
    places: NDArray[np.int32] | None = None


class ColumnView:
    """Consecutive rows of a source; rows are appended but never changed, so a view needs no lock."""

    __slots__ = ("_pieces", "_starts", "times")

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        self._pieces = pieces
        if len(pieces) == 1:
            self.times = pieces[0].times
        else:
            self.times = np.concatenate([piece.times for piece in pieces]) if pieces else np.zeros(0, dtype=np.int64)
        self._starts = list(accumulate((len(piece.times) for piece in pieces), initial=0))

    @classmethod
    def of(cls, times: Millis, values: Floats, there: Bools) -> ColumnView:
        """Samples that were computed instead of filed: ``values`` where ``there``, both (times x series)."""
        cells = np.where(there, values, ABSENT)
        fell: Bools = np.logical_or.reduce(cells[1:] < cells[:-1], axis=0)
        gapped: Bools = np.logical_or.reduce(~there, axis=0)
        return cls([_Piece(times, cells, gapped, fell)])

    def __len__(self) -> int:
        return len(self.times)

    @property
    def width(self) -> int:
        """How many columns it has room for; some may be no series yet, or no more."""
        return max((len(piece.gapped) for piece in self._pieces), default=0)

    def rows(self, rows: Indices, columns: Indices) -> Floats:
        """The given rows (in any order) of the given columns, absent cells included."""
        if len(self._pieces) == 1:
            return _take(self._pieces[0], rows, columns)
        if len(rows) == 1:  # a rule's look: it lies in one piece, and there is nothing to put together
            place = bisect_right(self._starts, int(rows[0])) - 1
            if 0 <= place < len(self._pieces):
                return _take(self._pieces[place], rows - self._starts[place], columns)
        found = np.full((len(rows), len(columns)), ABSENT)
        for piece, start in zip(self._pieces, self._starts[:-1], strict=True):
            inside = np.flatnonzero((rows >= start) & (rows < start + len(piece.times)))
            if len(inside):
                found[inside] = _take(piece, rows[inside] - start, columns)
        return found

    def block(self, low: int, high: int, columns: Indices) -> Floats:
        """Rows ``low`` to ``high`` (exclusive) of the given columns."""
        return self.rows(np.arange(low, high, dtype=np.intp), columns)

    def steady(self, columns: Indices) -> Bools:
        """Which columns surely have neither a gap nor a fall in this view: ``True`` is certain, ``False`` is not."""
        steady = np.ones(len(columns), dtype=np.bool_)
        for piece in self._pieces:
            known = columns < len(piece.gapped)
            inside = np.where(known, columns, 0)
            steady &= known & ~piece.gapped[inside] & ~piece.fell[inside]
        return steady


def _take(piece: _Piece, rows: Indices, columns: Indices) -> Floats:
    values, width = piece.values, len(piece.gapped)
    if piece.places is None and (not len(columns) or int(columns.max()) < width):
        return values[rows[:, None], columns]
    # The chunk is older than some of the series, or packed without them.
    known = np.flatnonzero(columns < width)
    places = columns[known] if piece.places is None else piece.places[columns[known]]
    held = places != NOWHERE
    found = np.full((len(rows), len(columns)), ABSENT)
    found[:, known[held]] = values[rows[:, None], places[held]]
    return found
