"""Two streams of documents in ``__name__`` order, walked side by side.

An incremental backup joins the live keys with its parent's index, a restore the live documents with the backup's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from agent.faults import Permanent, PermanentReason
from agent.firestore.names import sort_key

L = TypeVar("L")
R = TypeVar("R")


def merge_join(
    left: Iterator[L], right: Iterator[R], left_path: Callable[[L], str], right_path: Callable[[R], str]
) -> Iterator[tuple[L | None, R | None]]:
    """Each path once, in order, with what each side has under it.

    Sort keys cost more than everything else here, so they are made only where the paths differ.

    Raises:
        Permanent: ``INTERNAL`` if a side is seen to be out of order: going on would take documents for missing.
    """
    one, other = next(left, None), next(right, None)
    while one is not None and other is not None:
        path, other_path = left_path(one), right_path(other)
        if path == other_path:
            yield one, other
            one, other = next(left, None), next(right, None)
        elif sort_key(path) < sort_key(other_path):
            yield one, None
            one = _following(left, left_path, path)
        else:
            yield None, other
            other = _following(right, right_path, other_path)
    while one is not None:
        yield one, None
        one = next(left, None)
    while other is not None:
        yield None, other
        other = next(right, None)


T = TypeVar("T")


def _following(stream: Iterator[T], path_of: Callable[[T], str], path: str) -> T | None:
    following = next(stream, None)
    if following is not None and sort_key(path_of(following)) <= sort_key(path):
        raise Permanent(PermanentReason.INTERNAL, f"{path_of(following)} came after {path}: a scan was out of order")
    return following
