"""Every document says which shape it has, and what belongs together lies together.

Shape 2: ``schemaVersion`` is 2 everywhere; a learner's name has two parts; a lesson's level is a number; what the
spacing algorithm keeps of a review, an item or a lesson's progress is one map. Fields that queries filter or sort by
(``userId``, ``status``, ``nextReviewAt``, ``lastReviewedAt``) stay where their indexes expect them.
"""

from __future__ import annotations

from agent.migration import Document

collections = ("users", "lessons", "reviews", "review_items", "progress")

# Releases since the spring accept both shapes, so the application keeps serving while this runs.
reads_both_shapes = True

SCHEMA_VERSION = 2


def transform(document: Document) -> Document | None:
    if document.get("schemaVersion") == SCHEMA_VERSION:
        return None
    return _RESHAPE[document.collection](document).with_fields(schemaVersion=SCHEMA_VERSION)


def validate(document: Document) -> str | None:
    if document.get("schemaVersion") != SCHEMA_VERSION:
        return f"schemaVersion is {document.get('schemaVersion')!r}"
    left = [field for field in _OLD_FIELDS[document.collection] if document.has(field)]
    return f"still has {', '.join(left)}" if left else None


def invariants(document: Document) -> dict[str, float]:
    """What the algorithm knows of a learner must neither grow nor shrink by being moved."""
    return {
        "repetitions": document.get("repetitions", document.get("memory.repetitions", 0)),
        "lapses": document.get("lapses", document.get("memory.lapses", 0)),
    }


def _user(document: Document) -> Document:
    name = document.get("displayName")
    if not isinstance(name, str):
        return document
    given, _, family = name.strip().rpartition(" ")
    if not given:
        given, family = family, ""
    return document.without("displayName").with_fields(name={"given": given, "family": family})


def _lesson(document: Document) -> Document:
    level = document.get("level")
    if level is None:
        return document
    return document.without("level").with_fields(jlptLevel=int(level.removeprefix("N")))


def _review(document: Document) -> Document:
    return document.renamed("intervalDays", "schedule.intervalDays").renamed("ease", "schedule.ease")


def _review_item(document: Document) -> Document:
    return (
        document.renamed("repetitions", "memory.repetitions")
        .renamed("lapses", "memory.lapses")
        .renamed("easeFactor", "memory.easeFactor")
    )


def _progress(document: Document) -> Document:
    return document.renamed("percent", "completion.percent").renamed("completed", "completion.completed")


_RESHAPE = {
    "users": _user,
    "lessons": _lesson,
    "reviews": _review,
    "review_items": _review_item,
    "progress": _progress,
}

_OLD_FIELDS = {
    "users": ("displayName",),
    "lessons": ("level",),
    "reviews": ("intervalDays", "ease"),
    "review_items": ("repetitions", "lapses", "easeFactor"),
    "progress": ("percent", "completed"),
}
