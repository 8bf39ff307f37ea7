"""Progress keeps the number of mastered words, so that statistics need not read the lists.

Beyond a transform this file shows a ``validate``, whose word sets a document aside instead of writing it; an
``invariants``, whose sums validation compares before and after; and an ``undo``: if a learner's progress was changed
after the migration, a rollback keeps the learner's words and takes only the counter away.
"""

from __future__ import annotations

from agent.migration import Document

collections = ("progress",)
reads_both_shapes = True


def transform(document: Document) -> Document | None:
    count = len(document.get("masteredWords", ()))
    if document.get("masteredCount") == count:
        return None
    return document.with_fields(masteredCount=count)


def validate(document: Document) -> str | None:
    words = document.get("masteredWords", ())
    if len(set(words)) != len(words):
        return "a word is mastered twice"
    return None


def invariants(document: Document) -> dict[str, float]:
    return {"mastered words": len(document.get("masteredWords", ()))}


def undo(document: Document, before: Document | None) -> Document | None:
    if before is None or before.has("masteredCount"):
        return None
    return document.without("masteredCount")
