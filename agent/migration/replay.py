"""Reading an undo journal back: what is known of every write, without holding a single before-image.

:func:`replay` checks every frame and keeps places and outcomes; :func:`read_intents` unpacks one frame when its
before-images are needed. Used by resume, undo, validation and reports.
"""

from __future__ import annotations

import json
import os
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

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

_KINDS = {int(kind): kind for kind in Kind}
_STATES = frozenset(int(state) for state in State)
_BUFFER = 1 << 16
"""Bytes of a segment read ahead: a frame is mostly smaller, and of a larger one no more than itself is in memory."""
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
        with path.open("rb", buffering=_BUFFER) as file:
            for kind, offset, payload in frames_of(file, path, told):
                _take(told, kind, path, offset, payload)
    return told


def read_intents(place: IntentFrame) -> list[Intent]:
    """The intents of one frame, in the order of their sequence numbers.

    Raises:
        Permanent: CORRUPT if the frame changed since it was replayed.
    """
    with place.path.open("rb") as file:
        file.seek(place.offset)
        found = _read_frame(file, FRAME.size + place.length)
    if found is None:
        raise Permanent(PermanentReason.CORRUPT, f"{place.path} is damaged at byte {place.offset}")
    payload = memoryview(found[1])
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


def frames_of(file: BinaryIO, path: Path, told: Replay) -> Iterator[tuple[Kind, int, bytes]]:
    """Kind, offset and payload of the frames of one segment, one in memory at a time.

    Args:
        file: the segment. What is appended to it meanwhile is not looked at.
        path: its name, for the error.
        told: learns if the end is torn.

    Raises:
        Permanent: CORRUPT if a whole frame follows what is none.
    """
    end = file.seek(0, os.SEEK_END)
    at = file.seek(0)
    while at < end:
        found = _read_frame(file, end - at)
        if found is None:
            if _sound_after(file, at + 1, end):
                raise Permanent(
                    PermanentReason.CORRUPT,
                    f"{path} is damaged at byte {at}, with sound records after it",
                    hint="copy the segment back from backup storage",
                )
            told.torn = True
            return
        kind, payload = found
        yield kind, at, payload
        at += FRAME.size + len(payload)


def _read_frame(file: BinaryIO, left: int) -> tuple[Kind, bytes] | None:
    """Kind and payload of the frame that begins where ``file`` is, or ``None`` if no whole, sound one does.

    The header is checked by itself, so that nothing is read by a length that is none.

    Args:
        left: bytes that there are from here on.
    """
    start = file.read(FRAME.size) if left >= FRAME.size else b""
    if len(start) < FRAME.size:
        return None
    magic, kind, length, checksum, start_checksum = FRAME.unpack(start)
    if magic != MAGIC or kind not in _KINDS or zlib.crc32(start[:7]) != start_checksum or length > left - FRAME.size:
        return None
    payload = file.read(length)
    if len(payload) != length or zlib.crc32(payload, kind) != checksum:
        return None
    return _KINDS[kind], payload


def _sound_after(file: BinaryIO, at: int, end: int) -> bool:
    """Whether any whole frame follows: then what is wrong here is damage and not the tail of a killed session."""
    while at < end:
        file.seek(at)
        window = file.read(min(_BUFFER, end - at))
        if len(window) < len(MAGIC):
            return False
        place = window.find(MAGIC)
        while place >= 0:
            file.seek(at + place)
            if _read_frame(file, end - at - place) is not None:
                return True
            place = window.find(MAGIC, place + 1)
        # The next window begins with the last byte of this one, which may be the first of the magic.
        at += len(window) - 1
    return False


def _take(told: Replay, kind: Kind, path: Path, offset: int, payload: bytes) -> None:
    match kind:
        case Kind.HEADER:
            told.header = Header(**_json(payload))
        case Kind.RANGES:
            for entry in _json(payload):
                told.ranges[entry["index"]] = ScanRange(**entry)
        case Kind.INTENTS:
            first, count, scan_range, last_length = INTENTS.unpack_from(payload)
            last = payload[INTENTS.size : INTENTS.size + last_length].decode()
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


def _json(payload: bytes) -> Any:
    return json.loads(payload)
