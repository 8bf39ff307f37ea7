"""A plain gRPC client for the tests of the embedded server: real messages, no client library between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest

from agent.firestore import protos
from agent.firestore.protos import SERVICE, Document, StructuredQuery, Value, Write

_OWNER = (("authorization", "Bearer owner"),)  # the emulator wants it for listing collections; the sandbox ignores it
_STREAMS = frozenset({"BatchGetDocuments", "RunQuery", "RunAggregationQuery"})


class Wire:
    """Calls RPCs of one database by name."""

    def __init__(self, host: str, project: str) -> None:
        self.database = f"projects/{project}/databases/(default)"
        self.root = f"{self.database}/documents"
        self._channel = grpc.insecure_channel(host, options=[("grpc.max_receive_message_length", -1)])

    def close(self) -> None:
        self._channel.close()

    def call(self, method: str, request: Any, reply: type[Any] | None = None) -> Any:
        """The reply (a list of them, for a streaming method), parsed."""
        reply = reply or getattr(protos, f"{method}Response")
        make = self._channel.unary_stream if method in _STREAMS else self._channel.unary_unary
        stub = make(f"/{SERVICE}/{method}", lambda message: bytes(message.SerializeToString()), reply.FromString)
        answer = stub(request, timeout=30, metadata=_OWNER)
        return list(answer) if method in _STREAMS else answer

    def refused(self, method: str, request: Any, reply: type[Any] | None = None) -> tuple[str, str]:
        """Status name and text of a call that has to fail."""
        with pytest.raises(grpc.RpcError) as failure:
            self.call(method, request, reply)
        return failure.value.code().name, failure.value.details() or ""

    def commit(self, *writes: Write, **options: Any) -> Any:
        return self.call("Commit", protos.CommitRequest(database=self.database, writes=writes, **options))

    def commit_refused(self, *writes: Write, **options: Any) -> tuple[str, str]:
        return self.refused("Commit", protos.CommitRequest(database=self.database, writes=writes, **options))

    def set(self, path: str, fields: dict[str, Value] | None = None, **write: Any) -> Write:
        """A write that makes ``fields`` the document."""
        return Write(update=Document(name=f"{self.root}/{path}", fields=fields or {}), **write)

    def put(self, **documents: dict[str, Value]) -> Any:
        """Commit documents; ``a__b`` stands for the path ``a/b``. The commit time."""
        return self.commit(
            *(self.set(path.replace("__", "/"), fields) for path, fields in documents.items())
        ).commit_time

    def delete(self, path: str, **write: Any) -> Write:
        return Write(delete=f"{self.root}/{path}", **write)

    def get(self, path: str, **options: Any) -> Any:
        return self.call("GetDocument", protos.GetDocumentRequest(name=f"{self.root}/{path}", **options), Document)

    def page(self, collection: str, parent: str = "", **options: Any) -> Any:
        return self.call("ListDocuments", self.page_request(collection, parent, **options))

    def page_request(self, collection: str, parent: str = "", **options: Any) -> Any:
        return protos.ListDocumentsRequest(parent=self._parent(parent), collection_id=collection, **options)

    def query(
        self,
        collection: str = "",
        *,
        parent: str = "",
        descendants: bool = False,
        where: Any = None,
        order: Sequence[str] = (),
        limit: int | None = None,
        **options: Any,
    ) -> list[str]:
        """Paths of the documents a query finds, in order; ``-field`` orders descending."""
        request = self.query_request(
            collection, parent=parent, descendants=descendants, where=where, order=order, limit=limit, **options
        )
        found = self.call("RunQuery", request)
        return [r.document.name.removeprefix(self.root + "/") for r in found if r.HasField("document")]

    def query_request(
        self,
        collection: str = "",
        *,
        parent: str = "",
        descendants: bool = False,
        where: Any = None,
        order: Sequence[str] = (),
        limit: int | None = None,
        **options: Any,
    ) -> Any:
        query = StructuredQuery(where=where)
        query.from_.add(collection_id=collection, all_descendants=descendants)
        for field in order:
            direction = StructuredQuery.DESCENDING if field.startswith("-") else StructuredQuery.ASCENDING
            query.order_by.add(direction=direction).field.field_path = field.removeprefix("-")
        if limit is not None:
            query.limit.value = limit
        return protos.RunQueryRequest(parent=self._parent(parent), structured_query=query, **options)

    def _parent(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root


def where(path: str, op: str, value: Value) -> Any:
    """A filter that compares one field."""
    field = StructuredQuery.FieldReference(field_path=path)
    condition = StructuredQuery.FieldFilter(field=field, op=getattr(StructuredQuery.FieldFilter, op), value=value)
    return StructuredQuery.Filter(field_filter=condition)


def both(*filters: Any) -> Any:
    """A filter that is the conjunction of ``filters``."""
    composite = StructuredQuery.CompositeFilter(op=StructuredQuery.CompositeFilter.AND, filters=filters)
    return StructuredQuery.Filter(composite_filter=composite)


@pytest.fixture(name="where")
def where_filter() -> Callable[[str, str, Value], Any]:
    """Makes a filter that compares one field."""
    return where


@pytest.fixture(name="both")
def both_filter() -> Callable[..., Any]:
    """Makes the conjunction of filters."""
    return both


@pytest.fixture
def connect() -> Iterator[Callable[[str, str], Wire]]:
    """Makes clients of any host, closed afterwards."""
    made: list[Wire] = []

    def connect(host: str, project: str) -> Wire:
        made.append(Wire(host, project))
        return made[-1]

    yield connect
    for wire in made:
        wire.close()


@pytest.fixture
def wire(sandbox: Any, project: str, connect: Callable[[str, str], Wire]) -> Wire:
    """A client of the sandbox, with a database of its own."""
    return connect(sandbox.host, project)


@pytest.fixture
def either(backend: Any, project: str, connect: Callable[[str, str], Wire]) -> Wire:
    """A client of the sandbox, then of Google's emulator, with a database of its own."""
    return connect(backend.host, project)
