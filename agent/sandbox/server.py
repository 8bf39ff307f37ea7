"""``google.firestore.v1`` over gRPC, on top of the store.

The handlers are plain ``bytes -> bytes``: requests are parsed only as far as they have to be and replies are put
together from stored bytes. Run in a process of its own by ``__main__``; tests may run one in a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore.protos import SERVICE
from agent.sandbox.commits import Commits
from agent.sandbox.composite import Indexes
from agent.sandbox.reads import Reads
from agent.sandbox.status import StatusError
from agent.sandbox.store import Store
from agent.sandbox.transactions import Transactions

_log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 10 * 1024 * 1024  # the service's limit on a request

# Above the limit, so that it is our answer the client gets and not the transport's; the address space of one test.
_TRANSPORT_BYTES = 64 * 1024 * 1024

WORKERS = 32


class SandboxServer:
    """A Firestore server in this process.

    Args:
        store: where the documents are; the caller closes it after :meth:`stop`.
        port: on 127.0.0.1; 0 for any free one.
        indexes: if given, queries that none of them serves are refused, as in production.

    Raises:
        Misconfigured: PORT_IN_USE.
    """

    def __init__(self, store: Store, *, port: int = 0, indexes: Indexes | None = None) -> None:
        transactions = Transactions()
        reads = Reads(store, transactions, indexes)
        commits = Commits(store, transactions)
        unary: dict[str, Callable[[bytes], bytes]] = {
            "GetDocument": reads.get_document,
            "ListDocuments": reads.list_documents,
            "ListCollectionIds": reads.list_collection_ids,
            "PartitionQuery": reads.partition_query,
            "BeginTransaction": commits.begin_transaction,
            "Rollback": commits.rollback,
            "Commit": commits.commit,
            "BatchWrite": commits.batch_write,
            "CreateDocument": commits.create_document,
            "UpdateDocument": commits.update_document,
            "DeleteDocument": commits.delete_document,
        }
        streams: dict[str, Callable[[bytes], Iterator[bytes]]] = {
            "BatchGetDocuments": reads.batch_get_documents,
            "RunQuery": reads.run_query,
            "RunAggregationQuery": reads.run_aggregation_query,
        }
        handlers: dict[str, Any] = {}
        for name, call in unary.items():
            handlers[name] = grpc.unary_unary_rpc_method_handler(_answer(name, call))
        for name, stream in streams.items():
            handlers[name] = grpc.unary_stream_rpc_method_handler(_answers(name, stream))
        for name in ("Listen", "Write"):
            handlers[name] = grpc.stream_stream_rpc_method_handler(_refuse(name))
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="rpc"),
            options=[
                ("grpc.max_receive_message_length", _TRANSPORT_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a port in use is an error, not a shared port
            ],
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError as error:
            raise Misconfigured(
                MisconfiguredReason.PORT_IN_USE,
                f"the sandbox can't listen on 127.0.0.1:{port}",
                hint="choose another --port, or 0 for any free one",
            ) from error
        self.host = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Answer requests from now on."""
        self._server.start()

    def stop(self, grace: float = 0.5) -> None:
        """Finish within ``grace`` seconds what is under way, refuse what comes."""
        self._server.stop(grace).wait()


def _refuse(name: str) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]:
    def handler(_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"The sandbox does not do {name}.")

    return handler


def _answer(name: str, call: Callable[[bytes], bytes]) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def handler(request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            _check_size(request)
            return call(request)
        except Exception as error:  # noqa: BLE001 - the edge of the server: whatever happened becomes a status
            _abort(name, error, context)

    return handler


def _answers(
    name: str, call: Callable[[bytes], Iterator[bytes]]
) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
    def handler(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            _check_size(request)
            yield from call(request)
        except Exception as error:  # noqa: BLE001 - the edge of the server: whatever happened becomes a status
            _abort(name, error, context)

    return handler


def _check_size(request: bytes) -> None:
    if len(request) > MAX_REQUEST_BYTES:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Request payload size exceeds the limit: {MAX_REQUEST_BYTES} bytes.",
        )


def _abort(name: str, error: Exception, context: grpc.ServicerContext) -> NoReturn:
    if isinstance(error, StatusError):
        context.abort(error.code, error.message)
    if isinstance(error, DecodeError):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"The request of {name} is not well formed.")
    _log.exception("%s failed", name)
    context.abort(grpc.StatusCode.INTERNAL, f"{name} failed in the sandbox: {error}")
