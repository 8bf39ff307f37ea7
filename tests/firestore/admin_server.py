"""A loopback Admin API that checks the wire format with Google's own classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.cloud.firestore_admin_v1.types import firestore_admin
from google.longrunning.operations_pb2 import Operation

SERVICE = "google.firestore.admin.v1.FirestoreAdmin"


@dataclass
class AdminServer:
    """A loopback FirestoreAdmin that speaks the wire format of Google's own classes, one index a page."""

    indexes: list[Any] = field(default_factory=list)
    requests: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    refusal: tuple[grpc.StatusCode, str] | None = None
    host: str = ""

    def list_indexes(self, request: Any, context: Any) -> Any:
        self._take("ListIndexes", request, context)
        group = request.parent.rpartition("/")[2]
        found = [item for item in self.indexes if f"/collectionGroups/{group}/indexes/" in item.name]
        start = int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(found) else ""
        return firestore_admin.ListIndexesResponse.pb()(indexes=found[start : start + 1], next_page_token=token)

    def create_index(self, request: Any, context: Any) -> Any:
        self._take("CreateIndex", request, context)
        return Operation(name=f"{request.parent.rpartition('/collectionGroups')[0]}/operations/op1")

    def _take(self, method: str, request: Any, context: Any) -> None:
        self.requests.append((method, request, dict(context.invocation_metadata())))
        if self.refusal is not None:
            context.abort(*self.refusal)


@contextmanager
def serving() -> Iterator[AdminServer]:
    """A running server without indexes, on a port of its own."""
    server = AdminServer()
    with ThreadPoolExecutor(2) as pool:
        running = grpc.server(pool)
        handlers = {
            "ListIndexes": _handler(server.list_indexes, firestore_admin.ListIndexesRequest),
            "CreateIndex": _handler(server.create_index, firestore_admin.CreateIndexRequest),
        }
        running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.host = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
        running.start()
        yield server
        running.stop(None).wait()


def _handler(answer: Callable[[Any, Any], Any], request: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=request.pb().FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
