"""The example 0001, tested as a developer tests a migration: no server, one document at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.firestore import decode_fields
from agent.migration import Definition, Document, load_definition
from agent.sandbox.dataset import documents

MIGRATIONS = Path(__file__).parents[2] / "migrations"


@pytest.fixture(scope="module")
def definition() -> Definition:
    return load_definition(MIGRATIONS / "0001_schema_version.py")


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("users/u", {"displayName": "Ada King Noel"}, {"name": {"given": "Ada King", "family": "Noel"}}),
        ("users/u", {"displayName": "Ada"}, {"name": {"given": "Ada", "family": ""}}),
        ("users/u", {"displayName": None}, {"displayName": None}),
        ("lessons/l", {"level": "N4", "title": "Food"}, {"jlptLevel": 4, "title": "Food"}),
        ("reviews/r", {"ease": 1.5, "intervalDays": 3}, {"schedule": {"ease": 1.5, "intervalDays": 3}}),
        ("reviews/r/review_items/i", {"lapses": 0, "userId": "u"}, {"memory": {"lapses": 0}, "userId": "u"}),
        (
            "users/u/progress/p",
            {"percent": 0.5, "completed": False},
            {"completion": {"percent": 0.5, "completed": False}},
        ),
    ],
)
def test_reshapes(definition: Definition, name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Each collection gets its new shape and the version."""
    assert definition.transform(Document(name, before)) == Document(name, {**after, "schemaVersion": 2})


def test_migrated_documents_are_left_alone(definition: Definition) -> None:
    """A document of the new shape, written by the new release, is not touched."""
    assert (
        definition.transform(Document("users/u", {"name": {"given": "A", "family": "B"}, "schemaVersion": 2})) is None
    )


def test_the_whole_dataset_migrates(definition: Definition) -> None:
    """Every document of the first user's database (at a small scale) is changed once and valid afterwards."""
    seen: set[str] = set()
    for planned in documents("projects/p/databases/d", 0.002):
        document = Document(planned.path, decode_fields(planned.fields))
        if document.collection not in definition.collections:
            continue
        seen.add(document.collection)
        after = definition.transform(document)
        assert isinstance(after, Document)
        assert _validated(definition.validate, after) is None
        assert definition.transform(after) is None
        for field in ("userId", "status", "nextReviewAt", "lastReviewedAt"):
            assert after.get(field) == document.get(field)
    assert seen == set(definition.collections)


def test_validate_names_what_is_left_of_the_old_shape(definition: Definition) -> None:
    """Validation says which fields of the old shape are still there."""
    problem = _validated(definition.validate, Document("lessons/l", {"level": "N5", "schemaVersion": 2}))
    assert problem == "still has level"
    assert _validated(definition.validate, Document("lessons/l", {})) == "schemaVersion is None"


def _validated(validate: Callable[[Document], str | None] | None, document: Document) -> str | None:
    assert validate is not None
    return validate(document)


def test_nothing_that_was_learnt_is_lost(definition: Definition) -> None:
    """The invariants of a document are the same before and after, also where a field is missing."""
    assert definition.invariants is not None
    for fields in ({"repetitions": 3, "lapses": 1}, {"lapses": 2}, {"userId": "u"}):
        before = Document("reviews/r/review_items/i", dict(fields))
        after = definition.transform(before)
        assert isinstance(after, Document)
        assert definition.invariants(before) == definition.invariants(after)
