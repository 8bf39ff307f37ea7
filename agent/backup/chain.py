"""A backup together with everything it builds on, read as one: the state of the database at its read_time.

A full backup is a chain of one. An incremental's chain is its full backup and every incremental in between; the
newest word on each name wins. Everything streams in ``__name__`` order, one segment of each member in memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from agent.backup.catalogue import Catalogue
from agent.backup.differences import Key
from agent.backup.manifest import Manifest
from agent.backup.segments import Segment, documents_of
from agent.faults import Permanent, PermanentReason
from agent.firestore import Collection, CollectionGroup, NameRange, RawDocument, Scope
from agent.firestore.names import SortKey, sort_key

ReadSegment = Callable[[Manifest, Segment], bytes]


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document out of a backup, with its relative name."""

    path: str
    document: RawDocument


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The members of a chain.

    Args:
        members: the self-contained backup first, the one asked for last.
        read: the checked bytes of a segment.
    """

    members: tuple[Manifest, ...]
    read: ReadSegment

    @property
    def newest(self) -> Manifest:
        """The backup that the chain is the state of."""
        return self.members[-1]

    @property
    def scopes(self) -> list[CollectionGroup | NameRange]:
        """What it covers, as scans: within each, :meth:`documents` and a live scan have the same order."""
        only = self.newest.only
        return [CollectionGroup(id=collection) for collection in only] if only else [NameRange()]

    def documents(self, scope: Scope) -> Iterator[StoredDocument]:
        """The documents of ``scope`` at the newest member's read_time, in ``__name__`` order."""
        for path, document in self._merged(scope):
            if document is not None:
                yield StoredDocument(path, document)

    def remembered(self, scope: Scope) -> Iterator[Key]:
        """Names and update times of the documents of the first member, in ``__name__`` order, from its index."""
        first = self.members[0]
        for path, document in self._stream(first, first.index, scope):
            yield path, document.update_time

    def newer(self) -> dict[str, int | None]:
        """What the members after the first say: update time by name, ``None`` for what was deleted.

        All of it at once, because increments are small: about 150 bytes for each document that they hold.
        """
        found: dict[str, int | None] = {}
        for member in self.members[1:]:
            found.update(
                (path, document.update_time) for path, document in self._stream(member, member.segments, NameRange())
            )
            found.update((path, None) for path, _ in self._stream(member, member.deletes, NameRange()))
        return found

    def _merged(self, scope: Scope) -> Iterator[tuple[str, RawDocument | None]]:
        """The newest word on each name; ``None`` where it was deleted."""
        if len(self.members) == 1:
            yield from self._stream(self.newest, self.newest.segments, scope)
            return
        streams = []
        for age, manifest in enumerate(reversed(self.members)):
            streams.append(_keyed(self._stream(manifest, manifest.segments, scope), age))
            streams.append(_keyed(((path, None) for path, _ in self._stream(manifest, manifest.deletes, scope)), age))
        last = ""
        for _, _, path, document in heapq.merge(*streams, key=lambda item: (item[0], item[1])):
            if path != last:
                yield path, document
                last = path

    def _stream(
        self, manifest: Manifest, segments: Iterable[Segment], scope: Scope
    ) -> Iterator[tuple[str, RawDocument]]:
        wanted = _Filter(scope)
        prefix = len(f"{manifest.database}/documents/")
        for segment in segments:
            if not wanted.touches(segment):
                continue
            everything = wanted.covers(segment)
            for raw in documents_of(segment, self.read(manifest, segment), manifest.compression):
                document = RawDocument(raw)
                path = document.name[prefix:]
                if everything or wanted.has(path):
                    yield path, document


def load_chain(catalogue: Catalogue, backup: str, read: ReadSegment | None = None) -> Chain:
    """The chain of ``backup``.

    Raises:
        Permanent: ``NOT_FOUND`` or ``CORRUPT`` if it, or a backup that it builds on, is missing, damaged or another
            one than it was built on.
    """
    members = [catalogue.manifest(backup)]
    while parent := members[-1].parent:
        child = members[-1]
        if any(member.id == parent for member in members):
            raise Permanent(PermanentReason.CORRUPT, f"{backup} builds on itself through {parent}")
        try:
            manifest = catalogue.manifest(parent)
        except Permanent as error:
            raise Permanent(
                error.reason,  # type: ignore[arg-type]  # a Permanent's reason is one
                f"{child.id} builds on {parent}, which can't be used: {error.message}",
                hint="restore another backup; `runbookd backup list` shows those with an intact chain",
            ) from error
        if manifest.sha256 != child.parent_sha256:
            raise Permanent(
                PermanentReason.CORRUPT, f"{child.id} was built on another {parent} than the one that is there"
            )
        members.append(manifest)
    return Chain(members=tuple(reversed(members)), read=read or catalogue.read)


_Keyed = tuple[SortKey, int, str, RawDocument | None]


def _keyed(stream: Iterable[tuple[str, RawDocument | None]], age: int) -> Iterator[_Keyed]:
    for path, document in stream:
        yield sort_key(path), age, path, document


class _Filter:
    """Which segments and which documents of them belong to a scope."""

    def __init__(self, scope: Scope) -> None:
        first = last = ""
        self._path = self._collection = ""
        match scope:
            case Collection(path=path):
                self._path, self._collection = path, path.rpartition("/")[2]
            case CollectionGroup(id=collection, first=first, last=last):
                self._collection = collection
            case NameRange(first=first, last=last):
                pass
        self._first = sort_key(first) if first else None
        self._last = sort_key(last) if last else None

    def touches(self, segment: Segment) -> bool:
        """Whether anything in the segment may belong to the scope."""
        if self._collection and self._collection not in segment.collections:
            return False
        if self._first is not None and sort_key(segment.last) < self._first:
            return False
        return self._last is None or sort_key(segment.first) < self._last

    def covers(self, segment: Segment) -> bool:
        """Whether everything in the segment belongs to the scope."""
        return (
            not self._path
            and (not self._collection or segment.collections == (self._collection,))
            and self._within(segment.first)
            and self._within(segment.last)
        )

    def has(self, path: str) -> bool:
        """Whether the document belongs to the scope."""
        if self._path:
            return path.rpartition("/")[0] == self._path
        if self._collection and path.rsplit("/", 2)[-2] != self._collection:
            return False
        return self._within(path)

    def _within(self, path: str) -> bool:
        if self._first is None and self._last is None:
            return True
        key = sort_key(path)
        return (self._first is None or key >= self._first) and (self._last is None or key < self._last)
