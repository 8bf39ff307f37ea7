"""The RPCs that change documents, and transactions.

Called by the server; each method takes a serialised request and returns the serialised reply.
"""

from __future__ import annotations

import secrets
import string

from agent.firestore.protobuf import delimited
from agent.firestore.protos import (
    BeginTransactionRequest,
    BeginTransactionResponse,
    CreateDocumentRequest,
    DeleteDocumentRequest,
    Precondition,
    RollbackRequest,
    UpdateDocumentRequest,
    Write,
)
from agent.sandbox import frames
from agent.sandbox.frames import LazyBatch, LazyCommit
from agent.sandbox.keys import database_root, split_document, split_parent
from agent.sandbox.status import StatusError, invalid
from agent.sandbox.store import Store
from agent.sandbox.transactions import Transactions, check_reads
from agent.sandbox.values import parse_field_path, project
from agent.sandbox.writes import Writes, commit_response

MAX_BATCH_WRITES = 500  # of one BatchWrite; a Commit is limited by its size alone

_ID_ALPHABET = string.ascii_letters + string.digits
_OK = b""  # a serialised google.rpc.Status without a code


class Commits:
    """Handlers of the writing RPCs."""

    def __init__(self, store: Store, transactions: Transactions) -> None:
        self._store = store
        self._transactions = transactions
        self._writes = Writes(store)

    def begin_transaction(self, request: bytes) -> bytes:
        given = BeginTransactionRequest.FromString(request)
        transaction = self._transactions.open(database_root(given.database), given.options)
        return BeginTransactionResponse(transaction=transaction.id).SerializeToString()

    def rollback(self, request: bytes) -> bytes:
        given = RollbackRequest.FromString(request)
        self._transactions.end(given.transaction, database_root(given.database))
        return b""

    def commit(self, request: bytes) -> bytes:
        given = LazyCommit.FromString(request)
        root = database_root(given.database)
        transaction = self._transactions.end(given.transaction, root) if given.transaction else None
        if not given.writes and transaction is None:
            return b""
        if transaction is not None and transaction.read_only and given.writes:
            raise invalid("Cannot modify entities in a read-only transaction.")
        prepared = [self._writes.prepare(root, raw) for raw in given.writes]
        with self._store.commit() as commit:
            if transaction is not None:
                check_reads(transaction, commit, self._store.catalogue)
            results = [write.apply(commit) for write in prepared]
        return commit_response(results, commit.time)

    def batch_write(self, request: bytes) -> bytes:
        given = LazyBatch.FromString(request)
        root = database_root(given.database)
        if len(given.writes) > MAX_BATCH_WRITES:
            raise invalid(f"maximum {MAX_BATCH_WRITES} writes allowed per request")
        prepared = [self._writes.prepare(root, raw) for raw in given.writes]
        if len({write.target.name for write in prepared}) < len(prepared):
            raise invalid("the same document cannot be written more than once in a single request")
        results, statuses = [], []
        with self._store.commit() as commit:
            for write in prepared:
                result, status = b"", _OK
                try:
                    result = write.apply(commit)
                except StatusError as error:  # raised before anything of this write is done
                    status = error.proto().SerializeToString()
                results.append(delimited(b"\x0a", result))
                statuses.append(delimited(b"\x12", status))
        return b"".join(results) + b"".join(statuses)

    def create_document(self, request: bytes) -> bytes:
        given = CreateDocumentRequest.FromString(request)
        split_parent(given.parent)
        if not given.collection_id:
            raise invalid("A collection id is required.")
        document_id = given.document_id or "".join(secrets.choice(_ID_ALPHABET) for _ in range(20))
        name = f"{given.parent}/{given.collection_id}/{document_id}"
        write = Write(update=given.document, current_document=Precondition(exists=False))
        write.update.name = name
        return self._one(name, write, given)

    def update_document(self, request: bytes) -> bytes:
        given = UpdateDocumentRequest.FromString(request)
        write = Write(update=given.document)
        if given.HasField("update_mask"):
            write.update_mask.CopyFrom(given.update_mask)
        if given.HasField("current_document"):
            write.current_document.CopyFrom(given.current_document)
        return self._one(given.document.name, write, given)

    def delete_document(self, request: bytes) -> bytes:
        given = DeleteDocumentRequest.FromString(request)
        root, _ = split_document(given.name)
        write = Write(delete=given.name)
        if given.HasField("current_document"):
            write.current_document.CopyFrom(given.current_document)
        self._writes.commit(root, [write.SerializeToString()])
        return b""

    def _one(self, name: str, write: Write, given: CreateDocumentRequest | UpdateDocumentRequest) -> bytes:
        """Commit one update and answer with the document as it then is."""
        root, _ = split_document(name)
        prepared = self._writes.prepare(root, write.SerializeToString())
        with self._store.commit() as commit:
            prepared.apply(commit)
            stored = commit.find(prepared.target.collection, prepared.target.key)
        if stored is None:
            raise invalid("The document vanished within its own commit.")
        if not given.HasField("mask"):
            return frames.message(stored.frame)
        paths = [parse_field_path(path) for path in given.mask.field_paths]
        return project(frames.parse(stored.frame), paths).SerializeToString()
