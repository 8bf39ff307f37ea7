"""The RPCs that read: single documents, lists, queries, aggregations, collection ids.

Called by the server; each method takes a serialised request and returns the serialised reply, or yields replies.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from typing import Any

from agent.firestore.protobuf import delimited, varint
from agent.firestore.protos import (
    BatchGetDocumentsRequest,
    GetDocumentRequest,
    ListCollectionIdsRequest,
    ListCollectionIdsResponse,
    ListDocumentsRequest,
    PartitionQueryRequest,
    RunAggregationQueryRequest,
    RunQueryRequest,
    StructuredQuery,
)
from agent.sandbox import frames
from agent.sandbox.aggregation import aggregate
from agent.sandbox.catalogue import Collection, Scope, first_segment
from agent.sandbox.composite import Indexes
from agent.sandbox.keys import (
    database_root,
    path_key,
    segment_key,
    split_document,
    split_parent,
)
from agent.sandbox.partition import partition
from agent.sandbox.query import ELEMENTS, Query, plan, projected
from agent.sandbox.status import invalid, not_found
from agent.sandbox.store import Store
from agent.sandbox.transactions import Transaction, Transactions, remember
from agent.sandbox.values import NAME_FIELD, FieldPath, parse_field_path
from agent.sandbox.view import Row, View

DEFAULT_PAGE = 300

_NAMES_ALONE = ((), (NAME_FIELD,))
_DONE = b"\x30\x01"  # RunQueryResponse.done

# A page stays below what a gRPC client accepts by default (4 MiB); the token says where to go on.
_PAGE_BYTES = 3_900_000


class Reads:
    """Handlers of the reading RPCs."""

    def __init__(self, store: Store, transactions: Transactions, indexes: Indexes | None = None) -> None:
        self._store = store
        self._indexes = indexes
        self._transactions = transactions

    @contextmanager
    def _view(self, root: str, request: Any) -> Iterator[tuple[View, Transaction | None]]:
        """The view a request asks for by its consistency selector, and its transaction."""
        transaction = None
        kind = request.WhichOneof("consistency_selector")
        if kind == "transaction":
            transaction = self._transactions.get(request.transaction, root)
        elif kind == "new_transaction":
            transaction = self._transactions.open(root, request.new_transaction)
        moment = None
        if transaction is not None:
            moment = transaction.read_time
        elif kind == "read_time":
            moment = request.read_time.ToMicroseconds()
        with self._store.view(moment) as view:
            if transaction is not None:
                transaction.read_time = view.time
            yield view, transaction

    def _find(self, view: View, root: str, segments: Sequence[str], transaction: Transaction | None) -> Row | None:
        path, key = "/".join(segments[:-1]), segment_key(segments[-1])
        collection = view.catalogue.find(root, path)
        if collection is None and transaction is not None:
            collection = self._store.collection(root, path)  # so that its absence can be remembered
        if collection is None:
            return None
        remember(transaction, documents=[(collection, key)])
        return view.get(collection, key)

    def get_document(self, request: bytes) -> bytes:
        given = GetDocumentRequest.FromString(request)
        root, segments = split_document(given.name)
        with self._view(root, given) as (view, transaction):
            row = self._find(view, root, segments, transaction)
        if row is None:
            raise not_found(f"Document ({given.name}) not found.")
        return frames.message(_masked(row, _mask(given)))

    def batch_get_documents(self, request: bytes) -> Iterator[bytes]:
        given = BatchGetDocumentsRequest.FromString(request)
        root = database_root(given.database)
        mask = _mask(given)
        paths = [split_document(name) for name in given.documents]
        with self._view(root, given) as (view, transaction):
            at = delimited(b"\x22", frames.timestamp(view.time))
            if given.WhichOneof("consistency_selector") == "new_transaction" and transaction is not None:
                yield delimited(b"\x1a", transaction.id) + at
            for name, (found_root, segments) in zip(given.documents, paths, strict=True):
                if found_root != root:
                    raise invalid(f'Document name "{name}" is not in the database "{root}" of the request.')
                row = self._find(view, root, segments, transaction)
                if row is None:
                    yield delimited(b"\x12", name.encode()) + at
                else:
                    yield _masked(row, mask) + at

    def list_documents(self, request: bytes) -> bytes:
        given = ListDocumentsRequest.FromString(request)
        root, parent = split_parent(given.parent)
        size = given.page_size if given.page_size > 0 else DEFAULT_PAGE
        with self._view(root, given) as (view, transaction):
            scope = Scope(root=root, parent=tuple(parent), name=given.collection_id, descendants=False)
            collections = scope.collections(view.catalogue)
            remember(transaction, scopes=[scope])
            if given.order_by not in ("", "__name__", "name", "__name__ asc", "name asc"):
                return _ordered_page(view, given, size)
            after = _read_token(given.page_token)
            low = after + b"\x00" if after else b""
            mask = _mask(given)
            if mask in _NAMES_ALONE:
                pairs = view.nameplates(collections, low=low)
            else:
                pairs = ((c.prefix + row[0], _masked(row, mask)) for c, row in view.walk(collections, low=low))
            if given.show_missing:
                if not collections and given.collection_id:
                    # Nothing was ever written to it directly; it may have documents beneath it all the same.
                    collections = [Collection.of(0, root, "/".join((*parent, given.collection_id)))]
                pairs = merge(pairs, _missing(view, collections, low))
            return _page(pairs, size)

    def list_collection_ids(self, request: bytes) -> bytes:
        given = ListCollectionIdsRequest.FromString(request)
        root, parent = split_parent(given.parent)
        size = given.page_size if given.page_size > 0 else None
        after = _read_token(given.page_token).decode()
        owner = path_key(parent)
        depth = len(parent)
        with self._view(root, given) as (view, _):
            found: set[str] = set()
            for collection in view.catalogue.beneath(root, owner):
                name = collection.path.split("/")[depth]
                if name not in found and name > after and view.holds_documents(collection):
                    found.add(name)
        names = sorted(found)
        page = names if size is None else names[:size]
        token = _token(page[-1].encode()) if len(page) < len(names) else ""
        return ListCollectionIdsResponse(collection_ids=page, next_page_token=token).SerializeToString()

    def run_query(self, request: bytes) -> Iterator[bytes]:
        given = RunQueryRequest.FromString(request)
        query = plan(given.parent, given.structured_query)
        self._prepare(query)
        with self._view(query.scope.root, given) as (view, transaction):
            remember(transaction, scopes=[query.scope])
            at = delimited(b"\x1a", frames.timestamp(view.time))
            if given.WhichOneof("consistency_selector") == "new_transaction" and transaction is not None:
                yield delimited(b"\x12", transaction.id) + at
            # One message is held back, so that the last one can say that it is. Nothing found: it says only that.
            held = None
            for framed in query.run(view):
                if held is None:
                    held = framed + at + _skipped(query.offset)
                    continue
                yield held
                held = framed + at
            yield (held or at) + _DONE

    def run_aggregation_query(self, request: bytes) -> Iterator[bytes]:
        given = RunAggregationQueryRequest.FromString(request)
        query = plan(given.parent, given.structured_aggregation_query.structured_query)
        self._prepare(query)
        with self._view(query.scope.root, given) as (view, transaction):
            remember(transaction, scopes=[query.scope])
            reply = aggregate(query, given.structured_aggregation_query.aggregations, view)
            reply.read_time.FromMicroseconds(view.time)
            if given.WhichOneof("consistency_selector") == "new_transaction" and transaction is not None:
                reply.transaction = transaction.id
        yield reply.SerializeToString()

    def _prepare(self, query: Query) -> None:
        """Refuse ``query`` if production would for want of an index; have the one that answers it here."""
        if self._indexes is not None:
            self._indexes.check(query)
        condition = query.selective
        if condition is not None:
            for collection in query.scope.collections(self._store.catalogue):
                self._store.index(collection, condition.path, elements=condition.op in ELEMENTS)

    def partition_query(self, request: bytes) -> bytes:
        given = PartitionQueryRequest.FromString(request)
        query = plan(given.parent, given.structured_query)
        with self._view(query.scope.root, given) as (view, _):
            return partition(query, given, view).SerializeToString()


def _skipped(offset: int) -> bytes:
    """RunQueryResponse.skipped_results."""
    return b"\x20" + varint(offset) if offset else b""


def _mask(given: Any) -> tuple[FieldPath, ...] | None:
    if not given.HasField("mask"):
        return None
    return tuple(parse_field_path(path) for path in given.mask.field_paths)


def _masked(row: Row, mask: tuple[FieldPath, ...] | None) -> bytes:
    if mask is None:
        return row[3]
    if mask in _NAMES_ALONE:
        return frames.without_fields(row[3], row[1], row[2])
    return projected(row, mask)


def _page(pairs: Iterator[tuple[bytes, bytes]], size: int) -> bytes:
    """A ListDocumentsResponse of at most ``size`` documents, fewer if they are large."""
    parts: list[bytes] = []
    total = 0
    last = b""
    for key, framed in pairs:
        if len(parts) == size or (parts and total + len(framed) > _PAGE_BYTES):
            parts.append(delimited(b"\x12", _token(last).encode()))
            break
        parts.append(framed)
        total += len(framed)
        last = key
    return b"".join(parts)


def _missing(view: View, collections: Sequence[Collection], low: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Documents of ``collections`` that don't exist and have documents beneath them: full key and frame."""
    for collection in collections:
        seen = b""
        for inner in view.catalogue.beneath(collection.root, collection.prefix):
            if inner is collection:
                continue
            key = first_segment(inner.prefix[len(collection.prefix) :])
            full = collection.prefix + key
            if key == seen or full < low or not view.holds_documents(inner):
                continue
            seen = key
            if view.get(collection, key) is None:
                document_id = inner.path[len(collection.path) + 1 :].split("/")[0]
                name = collection.document_name(document_id)
                yield full, delimited(frames.DOCUMENT_TAG, frames.named(name))


def _ordered_page(view: View, given: Any, size: int) -> bytes:
    """A page in another order than by name: a query, continued by offset."""
    query = StructuredQuery(offset=int(_read_token(given.page_token) or b"0"))
    query.from_.add(collection_id=given.collection_id)
    query.limit.value = size + 1
    for element in given.order_by.split(","):
        path, _, direction = element.strip().partition(" ")
        chosen = StructuredQuery.DESCENDING if direction.strip() == "desc" else StructuredQuery.ASCENDING
        query.order_by.add(direction=chosen).field.field_path = "__name__" if path == "name" else path
    if given.HasField("mask"):
        for path in given.mask.field_paths or ["__name__"]:
            query.select.fields.add(field_path=path)
    found = list(plan(given.parent, query).run(view))
    if len(found) > size:
        found[size:] = [delimited(b"\x12", _token(str(query.offset + size).encode()).encode())]
    return b"".join(found)


def _token(position: bytes) -> str:
    return base64.urlsafe_b64encode(b"\x01" + position).decode()


def _read_token(token: str) -> bytes:
    if not token:
        return b""
    try:
        position = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except ValueError:
        position = b""
    if position[:1] != b"\x01":
        raise invalid("invalid page token")
    return position[1:]
