"""One batch, from the first attempt to the last write's end.

BatchWrite is not atomic: each write has its own status. Some statuses invite another attempt, some are ends. An
attempt that breaks off without an answer may have been applied, wholly or in part; the writes are then sent again,
and a precondition that no longer holds may mean that our own first attempt changed the document. So a conflict after
such an attempt is looked into: if the document holds our bytes, the write was applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from agent.faults import Permanent, PermanentReason, RunbookdError, Transient, TransientReason
from agent.firestore.document import RawDocument, canonical
from agent.firestore.retry import Retrying
from agent.firestore.writes import Batch, PlannedWrite, WriteKind, WriteOutcome, WriteState


class WritePort(Protocol):
    """The two RPCs that the ledger writer needs."""

    def batch_write(self, encoded: Sequence[bytes]) -> list[int | RunbookdError | None]:
        """One BatchWrite: for each write the resulting update_time (ns), ``None`` (a delete), or its error.

        Raises:
            RunbookdError: the whole request failed; what it changed is unknown if that is :class:`Transient`.
        """

    def get(self, names: Sequence[str]) -> Mapping[str, RawDocument | None]:
        """Documents as they are now."""


class Delivery:
    """Brings one batch to its end; :meth:`run` is called once."""

    def __init__(self, batch: Batch, *, port: WritePort, retrying: Retrying) -> None:
        self._batch = batch
        self._port = port
        self._retrying = retrying
        self._outcomes: dict[int, WriteOutcome] = {}
        self._ambiguous: set[int] = set()
        self.retries: list[TransientReason] = []

    def run(self) -> tuple[tuple[WriteOutcome, ...], RunbookdError | None]:
        """An outcome for each write, in order, and the error that should end the whole run, if there was one."""
        fatal: RunbookdError | None = None
        try:
            self._retrying.call(self._attempt, on_failure=self._again)
        except Transient as error:
            self._give_up(error)
        except RunbookdError as error:
            # Credentials, address: no other batch will fare better.
            fatal = error
            self._give_up(error)
        return tuple(self._outcomes[index] for index in range(len(self._batch.writes))), fatal

    def _again(self, error: Transient) -> None:
        if isinstance(error.reason, TransientReason):
            self.retries.append(error.reason)

    def _attempt(self) -> None:
        """Send what has not ended; raise Transient if something still hasn't."""
        open_ = [index for index in range(len(self._batch.writes)) if index not in self._outcomes]
        failure = self._send(open_)
        if failure is not None:
            raise failure

    def _send(self, indexes: list[int]) -> Transient | None:
        try:
            replies = self._port.batch_write([self._batch.encoded[index] for index in indexes])
        except Transient:
            self._ambiguous.update(indexes)
            raise
        except Permanent as error:
            if error.reason is not PermanentReason.INVALID:
                raise
            return self._divide(indexes, error)
        failure: Transient | None = None
        doubtful: dict[int, RunbookdError] = {}
        for index, reply in zip(indexes, replies, strict=False):
            write = self._batch.writes[index]
            if isinstance(reply, Transient):
                failure = reply
                if reply.reason is not TransientReason.ABORTED:
                    self._ambiguous.add(index)
            elif isinstance(reply, RunbookdError):
                if _is_conflict(reply, write) and index in self._ambiguous:
                    doubtful[index] = reply
                else:
                    self._end(index, WriteState.CONFLICT if _is_conflict(reply, write) else WriteState.REJECTED, reply)
            else:
                self._applied(index, reply)
        if len(replies) < len(indexes):
            self._ambiguous.update(indexes[len(replies) :])
            failure = Transient(
                TransientReason.SERVER_ERROR,
                f"the server answered {len(replies)} of {len(indexes)} writes",
            )
        if doubtful:
            self._look_into(doubtful)
        return failure

    def _divide(self, indexes: list[int], error: Permanent) -> Transient | None:
        """The server refuses the request for the sake of a write in it: find that write, save the others."""
        if len(indexes) == 1:
            self._end(indexes[0], WriteState.REJECTED, error)
            return None
        middle = len(indexes) // 2
        first = self._send(indexes[:middle])
        second = self._send(indexes[middle:])
        return second or first

    def _look_into(self, doubtful: Mapping[int, RunbookdError]) -> None:
        found = self._port.get([self._batch.writes[index].name for index in doubtful])
        for index, error in doubtful.items():
            write = self._batch.writes[index]
            document = found[write.name]
            if _holds(write, document):
                self._applied(index, document.update_time if document else None)
            else:
                self._end(index, WriteState.CONFLICT, error)

    def _give_up(self, error: RunbookdError) -> None:
        open_ = [index for index in range(len(self._batch.writes)) if index not in self._outcomes]
        unknown = [index for index in open_ if index in self._ambiguous]
        found: Mapping[str, RawDocument | None] = {}
        if unknown:
            try:
                found = self._port.get([self._batch.writes[index].name for index in unknown])
            except RunbookdError:
                found = {}  # the server is still away: the outcome says that it is ambiguous
        for index in open_:
            write = self._batch.writes[index]
            if write.name in found and _holds(write, found[write.name]):
                document = found[write.name]
                self._applied(index, document.update_time if document else None)
            else:
                self._end(index, WriteState.FAILED, error)

    def _applied(self, index: int, update_time: int | None) -> None:
        write = self._batch.writes[index]
        self._outcomes[index] = WriteOutcome(
            write=write,
            state=WriteState.APPLIED,
            update_time=update_time if write.kind is WriteKind.SET else None,
            ambiguous=index in self._ambiguous,
        )

    def _end(self, index: int, state: WriteState, error: RunbookdError) -> None:
        self._outcomes[index] = WriteOutcome(
            write=self._batch.writes[index],
            state=state,
            reason=error.reason,
            message=str(error),
            ambiguous=index in self._ambiguous,
        )


def _is_conflict(error: RunbookdError, write: PlannedWrite) -> bool:
    return write.precondition is not None and error.reason in (PermanentReason.CONFLICT, PermanentReason.NOT_FOUND)


def _holds(write: PlannedWrite, document: RawDocument | None) -> bool:
    """Whether ``document`` is what ``write`` would have left behind."""
    if write.kind is WriteKind.DELETE:
        return document is None
    return document is not None and canonical(document.fields) == canonical(write.whole)
