"""How many documents are asked for at once, so that large ones don't fill a worker's memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.backup.manifest import Tally
from agent.firestore import RawDocument

_MOST = 200
_BYTES = 2_000_000  # of one portion; several are on their way at once
_UNKNOWN = 20_000.0  # bytes of a document of a collection that the parent doesn't have


class Portions(Iterator[Sequence[str]]):
    """Names in portions of up to 200, fewer where the documents are large.

    How large is told by the parent's mean for the collection and by the portion that came last, whichever is more.

    Args:
        names: full names, in order.
        tallies: the parent's, by collection id.
    """

    def __init__(self, names: Sequence[str], tallies: Mapping[str, Tally]) -> None:
        self._names = names
        self._sizes = {name: tally.bytes / tally.documents for name, tally in tallies.items() if tally.documents}
        self._last = 0.0
        self._at = 0

    def __next__(self) -> Sequence[str]:
        if self._at >= len(self._names):
            raise StopIteration
        collection = self._names[self._at].rsplit("/", 2)[-2]
        size = max(self._sizes.get(collection, _UNKNOWN), self._last)
        begin, self._at = self._at, self._at + max(1, min(_MOST, int(_BYTES / max(1.0, size))))
        return self._names[begin : self._at]

    def came(self, documents: Sequence[RawDocument]) -> None:
        """A portion, as it was fetched."""
        self._last = sum(len(document.raw) for document in documents) / max(1, len(documents))
