"""Which collections there are, and in which order their documents interleave.

Collections get a small integer the first time something is written to them and are never forgotten; whether one
*exists* (holds a document) is a question for a view. Called by the store and its views.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from agent.sandbox.keys import AFTER_DESCENDANTS, path_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One collection.

    Args:
        id: the integer that rows carry.
        root: ``projects/p/databases/d``.
        path: below ``documents``, e.g. ``users/ada/progress``.
        name: the last segment, its collection id.
        parent: sort key of the document it lies under, empty at the top.
        prefix: sort key of the path; a document's full key is this and its own.
    """

    id: int
    root: str
    path: str
    name: str
    parent: bytes
    prefix: bytes

    @classmethod
    def of(cls, identity: int, root: str, path: str) -> Collection:
        """The collection at ``path``."""
        segments = path.split("/")
        parent = path_key(segments[:-1])
        return cls(
            id=identity,
            root=root,
            path=path,
            name=segments[-1],
            parent=parent,
            prefix=parent + path_key(segments[-1:]),
        )

    def document_name(self, document_id: str) -> str:
        """The resource name of one of its documents."""
        return f"{self.root}/documents/{self.path}/{document_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A stretch of one collection: document keys from ``low`` (included) to ``high`` (not)."""

    collection: Collection
    low: bytes
    high: bytes


class Catalogue:
    """Every known collection, by path and in name order."""

    def __init__(self) -> None:
        self._by_path: dict[tuple[str, str], Collection] = {}
        self._ordered: dict[str, list[Collection]] = {}
        self._lock = threading.Lock()

    def add(self, collection: Collection) -> None:
        """Make ``collection`` known."""
        with self._lock:
            ordered = list(self._ordered.get(collection.root, ()))
            insort(ordered, collection, key=attrgetter("prefix"))
            # Replaced, not changed: readers iterate over the list they got, without a lock.
            self._ordered[collection.root] = ordered
            self._by_path[collection.root, collection.path] = collection

    def find(self, root: str, path: str) -> Collection | None:
        """The collection at ``path``, if anything was ever written to it."""
        return self._by_path.get((root, path))

    def beneath(self, root: str, parent: bytes) -> Sequence[Collection]:
        """All collections under the document with key ``parent`` (the whole database, if empty), in name order."""
        ordered = self._ordered.get(root, [])
        if not parent:
            return ordered
        start = bisect_left(ordered, parent, key=attrgetter("prefix"))
        end = bisect_left(ordered, parent + AFTER_DESCENDANTS, key=attrgetter("prefix"))
        return ordered[start:end]

    def select(self, root: str, parent: Sequence[str], name: str, *, descendants: bool) -> Sequence[Collection]:
        """The collections a query reads: named ``name`` (any, if empty), directly under ``parent`` or anywhere."""
        if name and not descendants:
            found = self.find(root, "/".join((*parent, name)))
            return [found] if found else []
        owner = path_key(parent)
        below = self.beneath(root, owner)
        if descendants:
            return [c for c in below if c.name == name] if name else below
        return [c for c in below if c.parent == owner]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a query or list looked through, whether or not it held anything then; see ``Catalogue.select``."""

    root: str
    parent: tuple[str, ...]
    name: str
    descendants: bool

    def collections(self, catalogue: Catalogue) -> Sequence[Collection]:
        """The collections in it now."""
        return catalogue.select(self.root, self.parent, self.name, descendants=self.descendants)


def first_segment(key: bytes) -> bytes:
    """The part of ``key`` that is its first segment."""
    if key[0] == 1:
        return key[:9]
    end = key.index(b"\x00")
    while key[end + 1 : end + 2] == b"\xff":  # an escaped NUL, not the end
        end = key.index(b"\x00", end + 1)
    return key[: end + 1]


def in_name_order(collections: Sequence[Collection]) -> Iterator[Run]:
    """Stretches of ``collections`` (sorted by prefix) that, one after the other, are all documents in name order.

    A subcollection's documents come directly after the document they lie under, so a collection is cut there.
    """
    position = 0
    while position < len(collections):
        outer = collections[position]
        end = position + 1
        while end < len(collections) and collections[end].prefix.startswith(outer.prefix):
            end += 1
        low = b""
        position += 1
        while position < end:
            owner = first_segment(collections[position].prefix[len(outer.prefix) :])
            under = outer.prefix + owner
            inner = position
            while inner < end and collections[inner].prefix.startswith(under):
                inner += 1
            yield Run(collection=outer, low=low, high=owner + b"\x00")
            yield from in_name_order(collections[position:inner])
            low = owner + b"\x00"
            position = inner
        yield Run(collection=outer, low=low, high=AFTER_DESCENDANTS)


def clip(run: Run, low: bytes, high: bytes) -> Run | None:
    """The part of ``run`` whose full keys lie from ``low`` (included) to ``high`` (not), if there is one."""
    prefix = run.collection.prefix
    start, stop = run.low, run.high
    if low.startswith(prefix):
        start = max(start, low[len(prefix) :])
    elif low > prefix:
        return None
    if high.startswith(prefix):
        stop = min(stop, high[len(prefix) :])
    elif high < prefix:
        return None
    return Run(collection=run.collection, low=start, high=stop) if start < stop else None
