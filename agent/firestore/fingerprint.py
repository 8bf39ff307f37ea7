"""One number that says whether two databases hold the same documents.

Called before and after a migration and its undo, and by deep verification of a backup. Two databases (or one at two
times) have equal fingerprints exactly if the same paths hold the same contents; times don't count, and neither does
the project, so that a copy compares with its original.

A document's digest is SHA-256 over its path, a zero byte, and its canonical fields; the fingerprint is the sum of
the digests modulo 2^256, so documents may be added in any order, by any number of readers, and subtotals add up. It
finds damage and bugs; it is not meant to withstand a forger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from agent.firestore.client import Firestore
from agent.firestore.document import RawDocument, canonical
from agent.firestore.names import collection_id, root_collection
from agent.firestore.scopes import Collection

_MODULUS = 2**256


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Digest and number of documents, in all and by collection id.

    Args:
        digest: 64 hex digits.
        documents: how many went in.
        collections: the same for each collection id (``items``, wherever it occurs), without further subtotals.
    """

    digest: str
    documents: int
    collections: Mapping[str, Fingerprint] = field(default_factory=dict)

    def differences(self, other: Fingerprint) -> list[str]:
        """Collection ids whose documents differ; empty exactly if the fingerprints are equal."""
        ids = sorted({*self.collections, *other.collections})
        return [id_ for id_ in ids if self.collections.get(id_) != other.collections.get(id_)]


class Fingerprinter:
    """Collects documents; one per reader, combined with :meth:`merge`.

    Args:
        exclude: root collections that don't count, e.g. transient ones.
    """

    def __init__(self, exclude: Iterable[str] = ()) -> None:
        self._exclude = frozenset(exclude)
        self._sums: dict[str, int] = {}
        self._counts: dict[str, int] = {}

    def add(self, document: RawDocument) -> None:
        """Count ``document`` in, unless it lies under an excluded collection."""
        # .../documents/<path>: the fifth slash ends the database's part of the name.
        path = document.name.split("/", 5)[5]
        if root_collection(path) in self._exclude:
            return
        digest = hashlib.sha256(path.encode() + b"\0" + canonical(document.fields)).digest()
        id_ = collection_id(path)
        self._sums[id_] = (self._sums.get(id_, 0) + int.from_bytes(digest)) % _MODULUS
        self._counts[id_] = self._counts.get(id_, 0) + 1

    def merge(self, other: Fingerprinter) -> None:
        """Count in everything that ``other`` has collected."""
        for id_, value in other._sums.items():
            self._sums[id_] = (self._sums.get(id_, 0) + value) % _MODULUS
            self._counts[id_] = self._counts.get(id_, 0) + other._counts[id_]

    def result(self) -> Fingerprint:
        """The fingerprint of everything so far."""
        return Fingerprint(
            digest=_hex(sum(self._sums.values()) % _MODULUS),
            documents=sum(self._counts.values()),
            collections={
                id_: Fingerprint(digest=_hex(value), documents=self._counts[id_])
                for id_, value in sorted(self._sums.items())
            },
        )


def fingerprint(documents: Iterable[RawDocument], *, exclude: Iterable[str] = ()) -> Fingerprint:
    """The fingerprint of ``documents``, in any order.

    Args:
        exclude: root collections that don't count.
    """
    collected = Fingerprinter(exclude)
    for document in documents:
        collected.add(document)
    return collected.result()


def take_fingerprint(
    firestore: Firestore, *, read_time: datetime | None = None, exclude: Iterable[str] = ()
) -> Fingerprint:
    """The fingerprint of a whole database at one moment, by the fastest scan there is.

    Args:
        read_time: pin; ``None``: now, by the server's clock.
        exclude: root collections that don't count; not even read where that can be avoided.
    """
    at = read_time or firestore.server_time()
    left_out = frozenset(exclude)
    collected = Fingerprinter(left_out)
    for scope in firestore.ranges(1, at):
        if isinstance(scope, Collection) and root_collection(scope.path) in left_out:
            continue
        for document in firestore.documents(scope, at):
            collected.add(document)
    return collected.result()


def _hex(value: int) -> str:
    return format(value, "064x")
