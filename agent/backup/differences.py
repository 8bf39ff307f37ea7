"""What became of the documents of one range since the parent backup: the keys-only scan against what it remembers.

Called by ``create`` for each range of an incremental; the loop runs for every document of the database. Sort keys
cost more than everything else in it, so they are made only where the names differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agent.faults import Permanent, PermanentReason
from agent.firestore import Collection, NameRange, RawDocument, Scope
from agent.firestore.names import SMALLEST_ID, sort_key

Key = tuple[str, int]
"""A relative name and an update time in nanoseconds since the epoch."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """What one range has to contribute.

    Args:
        documents: documents that the range has now.
        changed: full names of those that are new or changed, in order.
        deleted: relative names of those that the full backup has, no increment changed, and that are gone; in order.
    """

    documents: int
    changed: list[str]
    deleted: list[str]


def spans_of(scopes: Sequence[Scope]) -> list[NameRange]:
    """The stretches of names that scopes stand for: side by side, they are everything.

    A flat collection is scanned as such, and yet its stretch holds all that the parent may know there: documents
    that were beneath it, and root collections that are gone altogether.
    """
    starts = [""]
    for scope in scopes[1:]:
        starts.append(scope.first if isinstance(scope, NameRange) else f"{_path(scope)}/{SMALLEST_ID}")
    return [NameRange(first=first, last=last) for first, last in pairwise([*starts, ""])]


def _path(scope: Scope) -> str:
    return scope.path if isinstance(scope, Collection) else ""


def compare_keys(
    pages: Iterable[list[RawDocument]],
    remembered: Iterator[Key],
    newer: dict[str, int | None],
    *,
    prefix: int,
    advance: Callable[[int, str], None],
) -> Differences:
    """Compare the live names and times with those the parent knows.

    Args:
        pages: the live documents without fields, in ``__name__`` order.
        remembered: what the chain's full backup has in this range, in the same order.
        newer: what its increments say, for all ranges. What is alive is taken out of it, so that what is left over
            when all ranges are through is gone; threads may share it, because their ranges are disjoint.
        prefix: length of what full names have before the relative one.
        advance: told how many documents of which collection were compared.

    Raises:
        Permanent: ``INTERNAL`` if a side is seen to be out of order: going on would take documents for missing.
    """
    documents = 0
    changed: list[str] = []
    deleted: list[str] = []
    known = next(remembered, None)
    last = ""
    for page in pages:
        for document in page:
            path = document.name[prefix:]
            if known is None or known[0] != path:
                key = sort_key(path)
                if last and key <= sort_key(last):
                    raise _out_of_order(path, last)
                while known is not None and known[0] != path and sort_key(known[0]) < key:
                    if known[0] not in newer:
                        deleted.append(known[0])
                    known = _following(remembered, known)
            before = None
            if known is not None and known[0] == path:
                before = known[1]
                known = next(remembered, None)
            if newer:
                before = newer.pop(path, before)
            if before != document.update_time:
                changed.append(document.name)
            last = path
        documents += len(page)
        advance(len(page), last.rsplit("/", 2)[-2])
    while known is not None:
        if known[0] not in newer:
            deleted.append(known[0])
        known = next(remembered, None)
    return Differences(documents=documents, changed=changed, deleted=deleted)


def _following(remembered: Iterator[Key], known: Key) -> Key | None:
    following = next(remembered, None)
    if following is not None and sort_key(following[0]) <= sort_key(known[0]):
        raise _out_of_order(following[0], known[0])
    return following


def _out_of_order(path: str, last: str) -> Permanent:
    return Permanent(PermanentReason.INTERNAL, f"{path} came after {last}: a scan was out of order")
