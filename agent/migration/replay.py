"""Reading an undo journal back: what is known of every write, without holding a single before-image.

:func:`replay` checks every frame and keeps places and outcomes; :func:`read_intents` unpacks one frame when its
before-images are needed. Used by resume, undo, validation and reports.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from agent.faults import Permanent, PermanentReason
from agent.migration.journal import (
    FRAME,
    INTENT,
    INTENTS,
    MAGIC,
    RESULT,
    Action,
    Counts,
    Header,
    Intent,
    Kind,
    Result,
    ScanRange,
    SetAside,
    State,
    segments,
)

_KINDS = frozenset(Kind)
_STATES = frozenset(int(state) for state in State)
_APPLIED, _BACK = int(State.APPLIED), (int(State.UNDONE), int(State.MERGED))


@dataclass(frozen=True, kw_only=True)
class IntentFrame:
    """Where the intents of one batch are."""

    path: Path
    offset: int
    length: int
    first_sequence: int
    count: int
    scan_range: int
    last_name: str

    @property
    def sequences(self) -> range:
        return range(self.first_sequence, self.first_sequence + self.count)


@dataclass(kw_only=True)
class Replay:
    """What a journal says, without the before-images: those are read frame by frame when they are needed."""

    header: Header | None = None
    ranges: dict[int, ScanRange] = field(default_factory=dict)
    finished: dict[int, str] = field(default_factory=dict)  # range -> name up to which everything is settled
    counts: dict[int, Counts] = field(default_factory=dict)  # range -> sums
    frames: list[IntentFrame] = field(default_factory=list)
    states: array[int] = field(default_factory=lambda: array("b"))  # by sequence
    update_times: array[int] = field(default_factory=lambda: array("q"))  # by sequence: of the migration's write
    undo_times: array[int] = field(default_factory=lambda: array("q"))  # by sequence: of the undo's write
    aside: list[SetAside] = field(default_factory=list)
    torn: bool = False

    @property
    def next_sequence(self) -> int:
        return len(self.states)

    def result(self, sequence: int) -> Result:
        """The last word on one intent."""
        return Result(sequence, State(self.states[sequence]), self.update_times[sequence])

    def note(self, result: Result) -> None:
        """Take a result over, as if it had been read."""
        self.states[result.sequence] = result.state
        if result.state is State.APPLIED:
            self.update_times[result.sequence] = result.update_time
        elif result.state in (State.UNDONE, State.MERGED):
            self.undo_times[result.sequence] = result.update_time


def replay(folder: Path) -> Replay:
    """Read a journal from its first segment to its last whole frame.

    Raises:
        Permanent: NOT_FOUND if there is no segment; CORRUPT if anything but the tail of a session is damaged.
    """
    found = segments(folder)
    if not found:
        raise Permanent(PermanentReason.NOT_FOUND, f"there is no journal in {folder}")
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        raise Permanent(PermanentReason.CORRUPT, f"a segment of the journal in {folder} is missing")
    told = Replay()
    for _, path in found:
        for kind, offset, payload in _frames(path, told):
            _take(told, kind, path, offset, payload)
    return told


def read_intents(place: IntentFrame) -> list[Intent]:
    """The intents of one frame, in the order of their sequence numbers.

    Raises:
        Permanent: CORRUPT if the frame changed since it was replayed.
    """
    with place.path.open("rb") as file:
        file.seek(place.offset)
        data = file.read(FRAME.size + place.length)
    if _frame_at(data, 0) is None:
        raise Permanent(PermanentReason.CORRUPT, f"{place.path} is damaged at byte {place.offset}")
    payload = memoryview(data)[FRAME.size :]
    last_length = INTENTS.unpack_from(payload)[3]
    body = zstandard.ZstdDecompressor().decompress(payload[INTENTS.size + last_length :])
    intents: list[Intent] = []
    at = 0
    for _ in range(place.count):
        action, name_length, before_length, before_time, digest = INTENT.unpack_from(body, at)
        at += INTENT.size
        name = body[at : at + name_length].decode()
        at += name_length
        intents.append(Intent(Action(action), name, body[at : at + before_length], before_time, digest))
        at += before_length
    return intents


def _frame_at(data: bytes | memoryview, at: int) -> tuple[Kind, int] | None:
    """Kind and payload length of a whole, sound frame at ``at``, or ``None``."""
    if len(data) - at < FRAME.size:
        return None
    magic, kind, length, checksum, start_checksum = FRAME.unpack_from(data, at)
    payload = memoryview(data)[at + FRAME.size : at + FRAME.size + length]
    if (
        magic != MAGIC
        or kind not in _KINDS
        or zlib.crc32(memoryview(data)[at : at + 7]) != start_checksum
        or len(payload) != length
        or zlib.crc32(payload, kind) != checksum
    ):
        return None
    return Kind(kind), length


def _frames(path: Path, told: Replay) -> Iterator[tuple[Kind, int, memoryview]]:
    data = path.read_bytes()
    at = 0
    while at < len(data):
        found = _frame_at(data, at)
        if found is None:
            if _sound_after(data, at + 1):
                raise Permanent(
                    PermanentReason.CORRUPT,
                    f"{path} is damaged at byte {at}, with sound records after it",
                    hint="copy the segment back from backup storage",
                )
            told.torn = True
            return
        kind, length = found
        yield kind, at, memoryview(data)[at + FRAME.size : at + FRAME.size + length]
        at += FRAME.size + length


def _sound_after(data: bytes, at: int) -> bool:
    """Whether any whole frame follows: then what is wrong here is damage and not the tail of a killed session."""
    at = data.find(MAGIC, at)
    while at >= 0:
        if _frame_at(data, at) is not None:
            return True
        at = data.find(MAGIC, at + 1)
    return False


def _take(told: Replay, kind: Kind, path: Path, offset: int, payload: memoryview) -> None:
    match kind:
        case Kind.HEADER:
            told.header = Header(**_json(payload))
        case Kind.RANGES:
            for entry in _json(payload):
                told.ranges[entry["index"]] = ScanRange(**entry)
        case Kind.INTENTS:
            first, count, scan_range, last_length = INTENTS.unpack_from(payload)
            last = bytes(payload[INTENTS.size : INTENTS.size + last_length]).decode()
            told.frames.append(
                IntentFrame(
                    path=path,
                    offset=offset,
                    length=len(payload),
                    first_sequence=first,
                    count=count,
                    scan_range=scan_range,
                    last_name=last,
                )
            )
            if first != len(told.states):
                # The torn tail of a killed session has no successor: the next session starts where replay stopped.
                raise Permanent(
                    PermanentReason.CORRUPT,
                    f"{path}: intents {len(told.states)} to {first - 1} are missing before byte {offset}",
                    hint="copy the segments back from backup storage",
                )
            told.states.frombytes(bytes(count))
            told.update_times.frombytes(bytes(count * told.update_times.itemsize))
            told.undo_times.frombytes(bytes(count * told.undo_times.itemsize))
        case Kind.RESULTS:
            # :meth:`Replay.note` without an object for each: a run of 300,000 documents has as many of these.
            for sequence, state, update_time in RESULT.iter_unpack(payload):
                if state not in _STATES:
                    raise Permanent(
                        PermanentReason.CORRUPT,
                        f"{path}: the outcome {state} at byte {offset} means nothing to this version",
                        hint="use the version of runbookd that wrote the journal",
                    )
                told.states[sequence] = state
                if state == _APPLIED:
                    told.update_times[sequence] = update_time
                elif state in _BACK:
                    told.undo_times[sequence] = update_time
        case Kind.DONE:
            record = _json(payload)
            told.finished[record["range"]] = record["last"]
            before = told.counts.get(record["range"], Counts())
            told.counts[record["range"]] = before + Counts(**record["counts"])
        case Kind.SET_ASIDE:
            told.aside.extend(SetAside(**entry) for entry in _json(payload))


def _json(payload: memoryview) -> Any:
    return json.loads(bytes(payload))
