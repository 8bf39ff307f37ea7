"""Cutting the database into parts that can be read side by side.

A cut is just a document's name; any set of names is a valid cut of the one kindless scan, so a bad cut costs balance
and never a document. PartitionQuery's cursors are the cuts (:mod:`agent.firestore.cuts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from agent.firestore.names import SMALLEST_ID, sort_key
from agent.firestore.scopes import Collection, NameRange, Scope

_TOO_MANY_COLLECTIONS = 100


def plan(
    *,
    parts: int,
    roots: Sequence[str],
    count: Callable[[Scope], int],
    cuts: Callable[[str, int], list[str]],
    pageable: bool,
    sizes: Mapping[str, float] | None = None,
) -> list[Scope]:
    """Disjoint scopes that together are everything, in the order of names.

    Args:
        parts: how many of about equal size are wanted, in bytes as far as ``sizes`` tells them, else in documents;
            small collections may make it more.
        roots: ids of all root collections at the read_time.
        count: number of documents in a scope at the read_time.
        cuts: paths that cut that root collection into that many pieces, some maybe outside it.
        pageable: whether a flat collection is better left whole, to be read by ListDocuments.
        sizes: mean bytes of a document under a root collection, of those for which it is known.
    """
    if not roots:
        return [NameRange(expected=0)]
    ordered = sorted(roots, key=sort_key)
    if len(ordered) > _TOO_MANY_COLLECTIONS:
        return [NameRange()]
    starts = ["", *(f"{root}/{SMALLEST_ID}" for root in ordered[1:]), ""]
    ranges = []
    for first, last in pairwise(starts):
        ranges.append(NameRange(first=first, last=last, expected=count(NameRange(first=first, last=last))))
    weights = _weights({root: found.expected or 0 for root, found in zip(ordered, ranges, strict=True)}, sizes or {})
    target = sum(weights.values()) / max(1, parts)
    scopes: list[Scope] = []
    for root, found in zip(ordered, ranges, strict=True):
        expected = found.expected or 0
        # As many documents directly in the collection as under it at any depth: nothing is nested, and pages of the
        # collection are all there is. Both counts are of the same instant, so this is proof and not a guess.
        if pageable and expected and count(Collection(path=root)) == expected:
            scopes.append(Collection(path=root, expected=expected))
        elif expected > 1 and weights[root] > target:
            scopes.extend(_divided(found, cuts(root, min(expected, math.ceil(weights[root] / target)))))
        else:
            scopes.append(found)
    return scopes


def _weights(documents: Mapping[str, int], sizes: Mapping[str, float]) -> dict[str, float]:
    """What each root collection weighs; those of unknown size as much a document as the others on the average."""
    known = {root: count for root, count in documents.items() if sizes.get(root)}
    counted = sum(known.values())
    mean = sum(count * sizes[root] for root, count in known.items()) / counted if counted else 1.0
    return {root: count * (sizes.get(root) or mean) for root, count in documents.items()}


def _divided(whole: NameRange, cuts: Sequence[str]) -> list[NameRange]:
    low = sort_key(whole.first) if whole.first else None
    high = sort_key(whole.last) if whole.last else None
    inside = sorted(
        {cut for cut in cuts if (low is None or sort_key(cut) > low) and (high is None or sort_key(cut) < high)},
        key=sort_key,
    )
    share = (whole.expected or 0) // (len(inside) + 1)
    return [
        NameRange(first=first, last=last, expected=share)
        for first, last in pairwise([whole.first, *inside, whole.last])
    ]
