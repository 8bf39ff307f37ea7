"""Composite indexes: which there are, and making those that are missing.

In production Firestore's Admin API is asked (``google.firestore.admin.v1``). Google's emulator and the sandbox have
none: there, the query that each index is for is asked once, and the server's refusal for want of an index is the
answer. The vendor's admin package is imported here and nowhere else. Called by ``runbookd indexes``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import grpc

from agent.clock import Clock
from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason, RunbookdError
from agent.firestore.address import DatabaseAddress
from agent.firestore.channel import credentials_for, open_channel
from agent.firestore.client import Firestore
from agent.firestore.errors import from_rpc_error
from agent.firestore.queries import Order, Where, structured_query
from agent.firestore.retry import Retrying, RetryPolicy
from agent.runbook import Index

if TYPE_CHECKING:
    CreateIndexRequest: Any
    IndexMessage: Any
    ListIndexesRequest: Any
    ListIndexesResponse: Any
    Operation: Any
else:
    from google.cloud.firestore_admin_v1.types import firestore_admin, index
    from google.longrunning.operations_pb2 import Operation

    CreateIndexRequest = firestore_admin.CreateIndexRequest.pb()
    IndexMessage = index.Index.pb()
    ListIndexesRequest = firestore_admin.ListIndexesRequest.pb()
    ListIndexesResponse = firestore_admin.ListIndexesResponse.pb()

_SERVICE = "google.firestore.admin.v1.FirestoreAdmin"
_DEADLINE = 30.0
_PAGE = 300
_PATIENCE = RetryPolicy(budget=20.0)
_ROLE = "the account needs roles/datastore.indexAdmin (to look: roles/datastore.viewer)"


class IndexState(StrEnum):
    """Where an index stands.

    ``ANSWERED`` is what a server without an Admin API can prove: its query was answered.
    """

    READY = "ready"
    CREATING = "creating"
    NEEDS_REPAIR = "needs_repair"
    MISSING = "missing"
    ANSWERED = "answered"


@dataclass(frozen=True, kw_only=True)
class IndexStatus:
    """An index that the page asks for, as the database has it.

    Args:
        name: resource name, empty where there is none.
        detail: what to do about it, empty where nothing.
    """

    index: Index
    state: IndexState
    name: str = ""
    detail: str = ""

    @property
    def usable(self) -> bool:
        """Whether its query is answered now."""
        return self.state in (IndexState.READY, IndexState.ANSWERED)


class IndexAdmin:
    """The Admin API of one database; a context manager.

    Raises:
        Misconfigured: production without credentials.
    """

    def __init__(self, address: DatabaseAddress, *, clock: Clock, retry: RetryPolicy = _PATIENCE) -> None:
        self.address = address
        self._retrying = Retrying(retry, clock=clock)
        self._channel = open_channel(address, credentials_for(address))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def statuses(self, indexes: Sequence[Index]) -> tuple[IndexStatus, ...]:
        """How each of ``indexes`` stands, in their order.

        Raises:
            Permanent: UNSUPPORTED by an emulator or sandbox.
            RunbookdError: the Admin API couldn't be asked.
        """
        existing = {group: list(self._listed(group)) for group in dict.fromkeys(index.collection for index in indexes)}
        return tuple(_status(index, existing[index.collection]) for index in indexes)

    def create(self, index: Index) -> str:
        """Begin to make an index; it is used once its state is READY, minutes later on a large collection.

        Returns:
            Name of the long-running operation; empty if somebody else has made the same index meanwhile.

        Raises:
            Permanent: UNSUPPORTED by an emulator or sandbox.
            RunbookdError: it was not taken.
        """
        parent = self._group(index.collection)
        request = CreateIndexRequest(parent=parent, index={"query_scope": index.scope})
        for part in index.fields:
            request.index.fields.add(field_path=part.path, order=part.order)
        reply = self._call("CreateIndex", request, parent, unless=grpc.StatusCode.ALREADY_EXISTS)
        return "" if reply is None else str(Operation.FromString(reply).name)

    def _listed(self, group: str) -> Iterator[Any]:
        parent = self._group(group)
        request = ListIndexesRequest(parent=parent, page_size=_PAGE)
        while True:
            reply = ListIndexesResponse.FromString(self._call("ListIndexes", request, parent) or b"")
            yield from reply.indexes
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    def _group(self, collection: str) -> str:
        return f"{self.address.root}/collectionGroups/{collection}"

    def _call(self, method: str, request: Any, parent: str, *, unless: grpc.StatusCode | None = None) -> bytes | None:
        """The reply; ``None`` if the server answered with the status ``unless``."""
        metadata = [("x-goog-request-params", f"parent={quote(parent, safe='')}")]
        if self.address.host is not None:
            metadata.append(("authorization", "Bearer owner"))
        call: Any = self._channel.unary_unary(
            f"/{_SERVICE}/{method}", request_serializer=_bytes_of, response_deserializer=bytes
        )

        def attempt() -> bytes | None:
            try:
                reply: bytes = call(request, timeout=_DEADLINE, metadata=metadata)
            except grpc.RpcError as error:
                if unless is not None and hasattr(error, "code") and error.code() is unless:
                    return None
                raise _translated(error, method, self.address) from error
            return reply

        return self._retrying.call(attempt)


def check_indexes(firestore: Firestore, admin: IndexAdmin, indexes: Sequence[Index]) -> tuple[IndexStatus, ...]:
    """How each of ``indexes`` stands: by the Admin API, or where there is none by asking the query it is for.

    Raises:
        RunbookdError: the database couldn't be asked.
    """
    try:
        return admin.statuses(indexes)
    except Permanent as error:
        if error.reason is not PermanentReason.UNSUPPORTED:
            raise
    return tuple(_asked(firestore, index) for index in indexes)


def _asked(firestore: Firestore, index: Index) -> IndexStatus:
    """Equalities on all fields but the last, which sorts: the shape that needs exactly this index."""
    *equal, last = index.fields
    query = structured_query(
        index.collection,
        group=index.scope == "COLLECTION_GROUP",
        where=[Where(field=part.path, value="") for part in equal],
        order=[Order(field=last.path, descending=last.order == "DESCENDING")],
        limit=1,
    )
    try:
        for _ in firestore.run_query(query):
            pass
    except Misconfigured as error:
        if error.reason is not MisconfiguredReason.MISSING_INDEX:
            raise
        return IndexStatus(index=index, state=IndexState.MISSING, detail=error.hint)
    return IndexStatus(index=index, state=IndexState.ANSWERED)


def _status(index: Index, existing: Sequence[Any]) -> IndexStatus:
    wanted = [(part.path, part.order) for part in index.fields]
    for found in existing:
        scope = IndexMessage.QueryScope.Name(found.query_scope)
        if scope == index.scope and _fields_of(found) == wanted:
            state = _STATES.get(IndexMessage.State.Name(found.state), IndexState.CREATING)
            return IndexStatus(index=index, state=state, name=found.name, detail=_DETAILS.get(state, ""))
    return IndexStatus(index=index, state=IndexState.MISSING, detail=_DETAILS[IndexState.MISSING])


_STATES = {"READY": IndexState.READY, "NEEDS_REPAIR": IndexState.NEEDS_REPAIR}
_DETAILS = {
    IndexState.CREATING: "being made; its queries fail until it is ready",
    IndexState.NEEDS_REPAIR: "making it has failed: delete it (gcloud firestore indexes composite delete), "
    "then runbookd indexes apply",
    IndexState.MISSING: "create it: runbookd indexes apply",
}


def _fields_of(message: Any) -> list[tuple[str, str]]:
    """Without the ``__name__`` that the server adds at the end."""
    fields = [(part.field_path, _kind_of(part)) for part in message.fields]
    return fields[:-1] if fields and fields[-1][0] == "__name__" else fields


def _kind_of(part: Any) -> str:
    kind = part.WhichOneof("value_mode")
    return str(IndexMessage.IndexField.Order.Name(part.order)) if kind == "order" else str(kind)


def _bytes_of(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _translated(error: grpc.RpcError, method: str, address: DatabaseAddress) -> RunbookdError:
    translated = from_rpc_error(error, operation=method, address=address)
    if translated.reason is MisconfiguredReason.CREDENTIALS:
        return Misconfigured(MisconfiguredReason.CREDENTIALS, translated.message, hint=_ROLE)
    if translated.reason is PermanentReason.UNSUPPORTED:
        return Permanent(
            PermanentReason.UNSUPPORTED,
            f"what answers at {address.target} has no Admin API for indexes",
            hint="an emulator answers queries without indexes; unset FIRESTORE_EMULATOR_HOST for production",
        )
    return translated
