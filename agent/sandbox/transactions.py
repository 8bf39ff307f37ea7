"""Transactions, optimistic: reads are remembered, and a commit is refused if what was read has changed since.

Called by the server.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agent.clock import Clock, SystemClock
from agent.sandbox.catalogue import Catalogue, Collection, Scope
from agent.sandbox.status import aborted, invalid
from agent.sandbox.transaction import Commit

_LIFETIME = 270.0  # seconds, as the service documents

_CONTENTION = (
    "Aborted due to cross-transaction contention. This occurs when multiple transactions attempt to access the "
    "same data, requiring Firestore to abort at least one in order to enforce serializability."
)


@dataclass(kw_only=True)
class Transaction:
    """One transaction under way.

    Args:
        read_time: every read of it is answered as of this time; ``None`` until the first read.
    """

    id: bytes
    root: str
    read_only: bool
    started: float
    read_time: int | None = None
    documents: set[tuple[Collection, bytes]] = field(default_factory=set)
    scopes: set[Scope] = field(default_factory=set)


class Transactions:
    """The transactions under way in this server."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._open: dict[bytes, Transaction] = {}
        self._lock = threading.Lock()

    def open(self, root: str, options: Any) -> Transaction:
        """Start one with ``options`` (TransactionOptions)."""
        read_only = options.WhichOneof("mode") == "read_only"
        moment = None
        if read_only and options.read_only.HasField("read_time"):
            moment = options.read_only.read_time.ToMicroseconds()
        now = self._clock.monotonic()
        transaction = Transaction(
            id=secrets.token_bytes(16), root=root, read_only=read_only, started=now, read_time=moment
        )
        with self._lock:
            for stale in [t for t in self._open.values() if now - t.started > _LIFETIME]:
                del self._open[stale.id]
            self._open[transaction.id] = transaction
        return transaction

    def get(self, identity: bytes, root: str) -> Transaction:
        """The transaction called ``identity``.

        Raises:
            StatusError: INVALID_ARGUMENT if there is none (any more).
        """
        with self._lock:
            transaction = self._open.get(identity)
        if transaction is None or transaction.root != root:
            raise invalid("Transaction is invalid or closed.")
        return transaction

    def end(self, identity: bytes, root: str) -> Transaction:
        """Take it off the list: it is committed or rolled back.

        Raises:
            StatusError: INVALID_ARGUMENT if there is none (any more).
        """
        transaction = self.get(identity, root)
        with self._lock:
            self._open.pop(identity, None)
        return transaction


def check_reads(transaction: Transaction, commit: Commit, catalogue: Catalogue) -> None:
    """Refuse to commit if a document or collection was changed since the transaction read it.

    Raises:
        StatusError: ABORTED; the client starts over.
    """
    if transaction.read_time is None:
        return
    changed = any(
        commit.changed_since(transaction.read_time, collection, key) for collection, key in transaction.documents
    ) or any(
        commit.changed_since(transaction.read_time, collection)
        for scope in transaction.scopes
        for collection in scope.collections(catalogue)
    )
    if changed:
        raise aborted(_CONTENTION)


def remember(
    transaction: Transaction | None,
    *,
    documents: Iterable[tuple[Collection, bytes]] = (),
    scopes: Iterable[Scope] = (),
) -> None:
    """Note what a read looked at."""
    if transaction is not None and not transaction.read_only:
        transaction.documents.update(documents)
        transaction.scopes.update(scopes)
