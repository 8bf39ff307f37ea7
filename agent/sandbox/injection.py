"""What a fault does to one message, decided by pure functions.

The faults of a rehearsal are tied to a marker, a string that only migrated documents contain: undo the documents and
the fault has nothing left to bite on, so that a rollback is a cure and not a coincidence. Faults without a marker
(``marker=b""``) are the weather of a bad day: any call may fail, hang or be slow.

Called by :mod:`agent.sandbox.proxy` for every message while a fault is active, and by whoever composes a
:class:`Fault` (the demo, drills, chaos tests).
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from random import Random
from typing import Any

import grpc

from agent.firestore.protobuf import read_varint

READS = (
    "GetDocument",
    "BatchGetDocuments",
    "RunQuery",
    "RunAggregationQuery",
    "ListDocuments",
)
WRITES = ("Commit", "BatchWrite", "Write", "UpdateDocument", "CreateDocument")

# Field numbers that lead from a request to the documents it writes (google/firestore/v1/firestore.proto, write.proto).
_DOCUMENT_PATHS: Mapping[str, tuple[int, ...]] = {
    "Commit": (2, 1),
    "BatchWrite": (2, 1),
    "Write": (3, 1),
    "UpdateDocument": (1,),
    "CreateDocument": (4,),
}
_DOCUMENT_NAME, _DOCUMENT_FIELDS = 1, 2  # document.proto: Document
_ENTRY_VALUE = 2  # the value of a map<string, Value> entry
_INTEGER_VALUE, _MAP_VALUE, _STRING_VALUE = 2, 6, 17  # document.proto: Value

_VARINT, _LENGTH = 0, 2  # protobuf wire types
_FIXED = {1: 8, 5: 4}  # wire type -> bytes


class FaultKind(StrEnum):
    """What goes wrong."""

    ERRORS = "errors"
    LATENCY = "latency"
    CORRUPTION = "corruption"
    BLACKHOLE = "blackhole"


class Direction(StrEnum):
    """Which way a message travels."""

    REQUEST = "request"
    RESPONSE = "response"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. ``Fault(kind=FaultKind.ERRORS)`` is the release that can't read migrated documents.

    Args:
        kind: errors and blackholes end calls, latency delays them, corruption changes what is written.
        marker: bytes that a message must contain to be bitten; empty: every message.
        share: share of the calls (for corruption: of the documents) that are bitten, 0 to 1.
        every: bite each ``every``-th call of the methods instead of a share; 0: use the share.
        delay: seconds, for latency.
        code: gRPC status name, for errors.
        methods: names of the RPCs concerned; ``None``: those the kind is about (reads for errors and latency, writes
            for corruption, all for a blackhole); empty: all.
        caller: part of the user agent of the clients concerned, e.g. the application's; empty: whoever calls.
        direction: ``None``: the kind's own (responses for errors and latency, requests otherwise). An error on the
            response of a write is "applied, but the client never learns it".
        seed: of the dice; the same calls in the same order are bitten again.
    """

    kind: FaultKind
    marker: bytes = b"schemaVersion"
    share: float = 0.6
    every: int = 0
    delay: float = 0.6
    code: str = "UNAVAILABLE"
    methods: tuple[str, ...] | None = None
    caller: str = ""
    direction: Direction | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share is {self.share}, not between 0 and 1")
        if self.code not in grpc.StatusCode.__members__:
            raise ValueError(f"there is no gRPC status {self.code!r}")

    def concerns(self, method: str, caller: str) -> bool:
        """Whether calls of ``method`` (the RPC's bare name) by ``caller`` (its user agent) can be bitten."""
        if self.caller not in caller:
            return False
        if self.methods is not None:
            return not self.methods or method in self.methods
        match self.kind:
            case FaultKind.ERRORS | FaultKind.LATENCY:
                return method in READS
            case FaultKind.CORRUPTION:
                return method in WRITES
            case FaultKind.BLACKHOLE:
                return True

    @property
    def side(self) -> Direction:
        """The direction of the messages that are looked at."""
        if self.direction is not None:
            return self.direction
        return Direction.RESPONSE if self.kind in (FaultKind.ERRORS, FaultKind.LATENCY) else Direction.REQUEST

    def to_json(self) -> str:
        """One line, for the proxy's control channel."""
        return json.dumps({**asdict(self), "marker": self.marker.decode("latin-1")})

    @classmethod
    def from_json(cls, text: str) -> Fault:
        """The inverse of :meth:`to_json`."""
        values: dict[str, Any] = json.loads(text)
        methods, direction = values["methods"], values["direction"]
        return cls(
            **{
                **values,
                "kind": FaultKind(values["kind"]),
                "marker": values["marker"].encode("latin-1"),
                "methods": None if methods is None else tuple(methods),
                "direction": None if direction is None else Direction(direction),
            }
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One message on its way through the proxy.

    Args:
        method: the RPC's bare name, e.g. ``RunQuery``.
        ordinal: number of its call among the calls that the fault concerns since it was injected, from 1.
        caller: the client's user agent.
    """

    method: str
    direction: Direction
    payload: bytes
    ordinal: int = 1
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Pass:
    """Let this message through and look at the next one of the call."""


@dataclass(frozen=True, slots=True)
class Spare:
    """The dice let this call go: don't look at its further messages."""


@dataclass(frozen=True, slots=True)
class Fail:
    """End the call with this status instead of delivering the message."""

    code: grpc.StatusCode
    message: str


@dataclass(frozen=True, slots=True)
class Delay:
    """Deliver the message after ``seconds`` (infinity: never); then don't look at the call again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Replace:
    """Deliver ``payload`` instead, in which ``documents`` documents were damaged."""

    payload: bytes
    documents: int


@dataclass(frozen=True, kw_only=True)
class ProxyStats:
    """What went through, since the proxy started.

    Args:
        calls: calls begun; ``open`` of them have not ended.
        failed: calls that a fault ended.
        delayed: calls that a fault held up.
        corrupted: documents that a fault damaged.
    """

    calls: int = 0
    open: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    failed: int = 0
    delayed: int = 0
    corrupted: int = 0


Verdict = Pass | Spare | Fail | Delay | Replace

_PASS, _SPARE = Pass(), Spare()


def decide(fault: Fault, message: Message, random: Random) -> Verdict:
    """What ``fault`` does to ``message``.

    ``random`` is drawn from once for each call that could be bitten. Corruption doesn't draw: whether a document is
    damaged depends on its name and the fault's seed, so that a batch that is sent again is damaged again in the same
    places.
    """
    if message.direction is not fault.side or not fault.concerns(message.method, message.caller):
        return _PASS
    if fault.marker not in message.payload:
        return _PASS
    if fault.kind is FaultKind.CORRUPTION:
        return _corrupt(fault, message)
    bites = message.ordinal % fault.every == 0 if fault.every else random.random() < fault.share
    if not bites:
        return _SPARE
    match fault.kind:
        case FaultKind.LATENCY:
            return Delay(fault.delay)
        case FaultKind.BLACKHOLE:
            return Delay(math.inf)
        case FaultKind.ERRORS:
            return Fail(grpc.StatusCode[fault.code], f"injected fault: {message.method} may not succeed")


# --- damage -------------------------------------------------------------------------------------------------------

_Span = tuple[int, int]


class _Malformed(ValueError):
    """Not the protobuf message it should be."""


def _corrupt(fault: Fault, message: Message) -> Verdict:
    path = _DOCUMENT_PATHS.get(message.method)
    if path is None:
        return _PASS
    damaged = bytearray(message.payload)
    documents = 0
    try:
        for document in _descend(message.payload, (0, len(message.payload)), path):
            documents += _damage(fault, message.payload, document, damaged)
    except (_Malformed, IndexError):
        return _PASS
    return Replace(bytes(damaged), documents) if documents else _PASS


def _damage(fault: Fault, payload: bytes, document: _Span, damaged: bytearray) -> int:
    """Change one value of ``document`` in ``damaged``, its length kept; 1 if there was one to change."""
    if fault.marker and payload.find(fault.marker, *document) < 0:
        return 0
    name = b""
    candidates: list[tuple[int, _Span]] = []
    for number, _, span in _fields(payload, document):
        if number == _DOCUMENT_NAME:
            name = payload[slice(*span)]
        elif number == _DOCUMENT_FIELDS and not (fault.marker and payload.find(fault.marker, *span) >= 0):
            candidates += _changeable(payload, span)
    # A checksum instead of the dice: stable however batches are cut, and the same in every process.
    chance = zlib.crc32(b"%d " % fault.seed + name)
    if not candidates or chance >= fault.share * 2**32:
        return 0
    kind, (start, end) = candidates[chance % len(candidates)]
    # The lowest bit of a varint's first byte, or of a text's last: neither can change the length, nor make the text
    # invalid UTF-8 (the last byte of a sequence is free within 0x80-0xBF).
    damaged[start if kind == _INTEGER_VALUE else end - 1] ^= 1
    return 1


def _changeable(payload: bytes, entry: _Span) -> Iterator[tuple[int, _Span]]:
    """Texts and integers of a map's entry, those within maps included: a masked write may hold no others."""
    for number, wire_type, value in _fields(payload, entry):
        if number == _ENTRY_VALUE and wire_type == _LENGTH:
            for kind, _, span in _fields(payload, value):
                if kind in (_INTEGER_VALUE, _STRING_VALUE) and span[0] < span[1]:
                    yield kind, span
                elif kind == _MAP_VALUE:
                    for _, _, inner in _fields(payload, span):
                        yield from _changeable(payload, inner)


def _descend(payload: bytes, span: _Span, path: tuple[int, ...]) -> Iterator[_Span]:
    """The spans of all submessages that ``path`` leads to."""
    if not path:
        yield span
        return
    for number, wire_type, inner in _fields(payload, span):
        if number == path[0] and wire_type == _LENGTH:
            yield from _descend(payload, inner, path[1:])


def _fields(payload: bytes, span: _Span) -> Iterator[tuple[int, int, _Span]]:
    """Number, wire type and value span of each field of the message in ``span``."""
    position, end = span
    while position < end:
        key, position = read_varint(payload, position)
        start, wire_type = position, key & 7
        if wire_type == _LENGTH:
            length, start = read_varint(payload, position)
            position = start + length
        elif wire_type == _VARINT:
            _, position = read_varint(payload, position)
        elif wire_type in _FIXED:
            position += _FIXED[wire_type]
        else:
            raise _Malformed
        if position > end:
            raise _Malformed
        yield key >> 3, wire_type, (start, position)
