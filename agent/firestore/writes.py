"""The values that go into and come out of the ledger writer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from agent.faults import Permanent, PermanentReason, Reason
from agent.firestore.document import with_name
from agent.firestore.envelope import Moment
from agent.firestore.patches import Patch
from agent.firestore.protobuf import delimited
from agent.firestore.protos import Precondition

_NS = 1_000_000_000
# Of https://github.com/googleapis/googleapis/blob/master/google/firestore/v1/write.proto and common.proto.
_UPDATE, _DELETE, _UPDATE_MASK, _CURRENT_DOCUMENT = b"\x0a", b"\x12", b"\x1a", b"\x22"
_UPDATE_TIME = b"\x12"  # of a Precondition


class WriteKind(StrEnum):
    """What a write does."""

    SET = "set"
    """The whole document becomes ``fields``; created if it wasn't there."""
    DELETE = "delete"
    """Nothing is there any more."""


@dataclass(frozen=True, slots=True)
class MustExistAt:
    """Only if the document was last changed at exactly ``update_time`` (nanoseconds since the epoch)."""

    update_time: int


@dataclass(frozen=True, slots=True)
class MustExist:
    """Only if there is a document."""


@dataclass(frozen=True, slots=True)
class MustNotExist:
    """Only if there is none."""


Condition = MustExistAt | MustExist | MustNotExist


class PlannedWrite(NamedTuple):
    """One intended change of one document.

    Args:
        name: full name.
        fields: for SET: the fields as :attr:`agent.firestore.document.RawDocument.fields` or
            :func:`agent.firestore.values.encode_fields` give them.
        precondition: checked by the server in the same instant as the change.
        patch: instead of ``fields``: what is to become of ``base``. If the precondition pins that version
            (:class:`MustExistAt`), the patch is all that is sent.
        base: the ``Document`` message that ``patch`` is a patch of.
    """

    name: str
    kind: WriteKind = WriteKind.SET
    fields: bytes = b""
    precondition: Condition | None = None
    patch: Patch | None = None
    base: bytes = b""

    @property
    def whole(self) -> bytes:
        """All fields that the document is to have."""
        return self.fields if self.patch is None else self.patch.applied_to(self.base)

    def encoded(self) -> bytes:
        """The ``Write`` message."""
        patch, condition = self.patch, self.precondition
        if self.kind is not WriteKind.SET:
            made = delimited(_DELETE, self.name.encode())
        elif patch is not None and isinstance(condition, MustExistAt):
            made = delimited(_UPDATE, with_name(self.name, patch.fields)) + delimited(_UPDATE_MASK, patch.mask)
        else:
            made = delimited(_UPDATE, with_name(self.name, self.whole))
        return made if condition is None else made + delimited(_CURRENT_DOCUMENT, _encoded(condition))


class WriteState(StrEnum):
    """How a write ended; every write ends in exactly one of these."""

    APPLIED = "applied"
    """The database holds what was planned."""
    CONFLICT = "conflict"
    """The precondition didn't hold; the document was left as it is."""
    REJECTED = "rejected"
    """The server will never take it (too large, malformed); the document was left as it is."""
    FAILED = "failed"
    """Given up; whether the document was changed is unknown if the outcome is ``ambiguous``."""


class WriteOutcome(NamedTuple):
    """The end of one write.

    Args:
        update_time: of the document, nanoseconds since the epoch; only of an APPLIED SET.
        reason: why it is not APPLIED; also the metric label.
        message: the same in words.
        ambiguous: an attempt broke off without an answer before this end was reached. A CONFLICT or FAILED that is
            ambiguous may have been applied and then overwritten by somebody else.
    """

    write: PlannedWrite
    state: WriteState
    update_time: int | None = None
    reason: Reason | None = None
    message: str = ""
    ambiguous: bool = False

    @property
    def name(self) -> str:
        return self.write.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Writes that go out in one request; no two of the same document.

    Args:
        number: counts from 1 within a run.
        size: bytes of the encoded writes.
    """

    number: int
    writes: tuple[PlannedWrite, ...]
    encoded: tuple[bytes, ...]
    size: int


class BatchObserver(Protocol):
    """Told around each batch, always from the thread that iterates the run, never two at once."""

    def before(self, batch: Batch) -> None:
        """``batch`` has not been sent; an exception keeps it from being sent and ends the run."""

    def after(self, batch: Batch, outcomes: tuple[WriteOutcome, ...]) -> None:
        """Every write of ``batch`` has ended, in the order of ``batch.writes``; also called while a run breaks off.

        An exception ends the run, after the outcomes of everything already sent.
        """


@dataclass(kw_only=True)
class Ledger:
    """Totals of a run.

    Args:
        planned: writes taken from the caller.
        sent: writes given to a sender.
        withheld: writes taken but never sent, because the run broke off.
    """

    planned: int = 0
    sent: int = 0
    applied: int = 0
    conflicts: int = 0
    rejected: int = 0
    failed: int = 0
    withheld: int = 0

    def count(self, outcome: WriteOutcome) -> None:
        """Enter one end."""
        match outcome.state:
            case WriteState.APPLIED:
                self.applied += 1
            case WriteState.CONFLICT:
                self.conflicts += 1
            case WriteState.REJECTED:
                self.rejected += 1
            case WriteState.FAILED:
                self.failed += 1

    def check(self) -> None:
        """Whether the books balance.

        Raises:
            Permanent: UNBALANCED: a write has no end, or two. A run like that must not pass for complete.
        """
        ended = self.applied + self.conflicts + self.rejected + self.failed
        if ended != self.sent or self.sent + self.withheld != self.planned:
            raise Permanent(
                PermanentReason.UNBALANCED,
                f"{self.planned} writes planned, {self.sent} sent and {self.withheld} withheld; {ended} have ended",
                hint="treat the run as incomplete and report a bug",
            )


def _encoded(condition: Condition) -> bytes:
    match condition:
        case MustExistAt():
            moment = Moment()
            moment.seconds, moment.nanos = divmod(condition.update_time, _NS)
            return delimited(_UPDATE_TIME, moment.SerializeToString())
        case MustExist():
            return Precondition(exists=True).SerializeToString()
        case MustNotExist():
            return Precondition(exists=False).SerializeToString()
