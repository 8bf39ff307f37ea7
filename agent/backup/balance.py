"""What an earlier backup tells about how a database divides evenly among those who read it side by side.

Two scans, two measures. A full backup moves every byte, so its ranges are to be equal in bytes: the server can be asked
for numbers of documents, and their mean size is known from the last time. An incremental's scan brings names and times
alone, so its ranges are to be equal in documents, and the last full backup's own segments say where to cut.

Pure functions of what a manifest says. Wrong figures, old ones say, cost balance and never a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from agent.backup.segments import Segment
from agent.firestore.names import root_collection

_LOPSIDED = 2.0
"""A stretch of so many times its share is one that most readers would wait for."""


def mean_sizes(segments: Sequence[Segment]) -> dict[str, float]:
    """Mean bytes of a document under each root collection, as far as it can be told.

    Args:
        segments: of the documents of a backup of the whole database. One that holds documents of several root
            collections counts for those at its two ends if nothing else tells of them; what lies between is not known.
    """
    alone: dict[str, list[int]] = {}
    shared: dict[str, list[int]] = {}
    for segment in segments:
        first, last = root_collection(segment.first), root_collection(segment.last)
        found = alone if first == last else shared
        for root in {first, last}:
            tally = found.setdefault(root, [0, 0])
            tally[0] += segment.documents
            tally[1] += segment.raw_bytes
    return {root: size / documents for root, (documents, size) in (shared | alone).items() if documents}


def even_cuts(segments: Sequence[Segment], parts: int) -> list[str]:
    """First names of about ``parts`` stretches of about equally many documents, the first one's included.

    Args:
        segments: of the documents of a backup of the whole database, in order.

    Returns:
        Nothing where the segments are too large for that: then the server had better be asked.
    """
    total = sum(segment.documents for segment in segments)
    share = total / max(1, parts)
    if not total or max(segment.documents for segment in segments) > _LOPSIDED * share:
        return []
    # A segment goes to the stretch that its middle lies in.
    ends = accumulate(segment.documents for segment in segments)
    stretches = ((end - segment.documents / 2) // share for segment, end in zip(segments, ends, strict=True))
    begun = {stretch: segment.first for stretch, segment in reversed([*zip(stretches, segments, strict=True)])}
    return list(reversed(begun.values()))
