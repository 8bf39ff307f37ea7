"""The ledger writer's two RPCs over a real channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agent.faults import RunbookdError
from agent.firestore.channel import Wire
from agent.firestore.document import RawDocument
from agent.firestore.envelope import BatchWriteEnvelope
from agent.firestore.errors import from_status
from agent.firestore.protos import BatchWriteResponse
from agent.firestore.scopes import nanoseconds

Get = Callable[[Sequence[str]], Mapping[str, RawDocument | None]]


class BatchWritePort:
    """A :class:`agent.firestore.delivery.WritePort`.

    Args:
        get: reads documents as they are now, retried.
        summary: ``db.query.summary`` of the writes.
    """

    def __init__(self, channel: Wire, get: Get, *, summary: str = "") -> None:
        self._channel = channel
        self._get = get
        self._summary = summary

    def batch_write(self, encoded: Sequence[bytes]) -> list[int | RunbookdError | None]:
        address = self._channel.address
        request = BatchWriteEnvelope(database=address.root, writes=encoded)
        reply = BatchWriteResponse.FromString(
            self._channel.unary("BatchWrite", request.SerializeToString(), summary=self._summary)
        )
        ends: list[int | RunbookdError | None] = []
        for result, status in zip(reply.write_results, reply.status, strict=False):
            if status.code:
                ends.append(from_status(status.code, status.message, operation="BatchWrite", address=address))
            else:
                ends.append(nanoseconds(result.update_time) if result.HasField("update_time") else None)
        return ends

    def get(self, names: Sequence[str]) -> Mapping[str, RawDocument | None]:
        return self._get(names)
