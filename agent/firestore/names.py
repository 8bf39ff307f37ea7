"""Document names: taking them apart, and the order in which Firestore keeps them.

A *path* here is relative to the database's documents (``users/u1/items/i1``): an even number of segments names a
document, an odd number a collection. Used by scans (ranges, resuming), fingerprints and the sandbox's index.
"""

from __future__ import annotations

import re

_INTEGER_ID = re.compile(r"__id(0|-?[1-9][0-9]*)__")
_MIN, _MAX = -(2**63), 2**63 - 1

SMALLEST_ID = f"__id{_MIN}__"
"""The id that sorts before every other id: with a collection in front, the lower bound of that collection."""

SortKey = tuple[tuple[int, int | str], ...]


def integer_id(segment: str) -> int | None:
    """The number in an id such as ``__id7__`` (Datastore's numeric ids), or ``None`` for an ordinary id."""
    if not segment.startswith("__id"):
        return None
    found = _INTEGER_ID.fullmatch(segment)
    if found is None:
        return None
    number = int(found[1])
    return number if _MIN <= number <= _MAX else None


def sort_key(path: str) -> SortKey:
    """A key that orders paths as Firestore orders ``__name__``.

    Segment by segment; numeric ids before all others and by number; other ids by their UTF-8 bytes, which is the
    order of Python's strings; a document before everything beneath it. (Checked against Google's emulator.)
    """
    return tuple(
        (1, segment) if (number := integer_id(segment)) is None else (0, number) for segment in path.split("/")
    )


def is_document(path: str) -> bool:
    """Whether ``path`` has the shape of a document's path."""
    segments = path.split("/")
    return len(segments) % 2 == 0 and all(segments)


def is_collection(path: str) -> bool:
    """Whether ``path`` has the shape of a collection's path."""
    segments = path.split("/")
    return len(segments) % 2 == 1 and all(segments)


def collection_of(document: str) -> str:
    """Path of the collection that holds ``document``: ``users/u1/items`` for ``users/u1/items/i1``."""
    return document.rpartition("/")[0]


def collection_id(path: str) -> str:
    """Last collection id in ``path``: ``items`` for ``users/u1/items/i1`` and for ``users/u1/items``."""
    segments = path.split("/")
    return segments[-1] if len(segments) % 2 else segments[-2]


def document_id(document: str) -> str:
    """Last segment of a document's path."""
    return document.rpartition("/")[2]


def root_collection(path: str) -> str:
    """First segment: the root collection that ``path`` lies under."""
    return path.partition("/")[0]


def parent_of(collection: str) -> str:
    """Path of the document that ``collection`` hangs under; ``""`` for a root collection."""
    return collection.rpartition("/")[0]
