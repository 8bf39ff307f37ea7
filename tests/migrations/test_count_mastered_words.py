"""The example 0002: a counter, its validation and its merge."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.migration import Definition, Document, load_definition

MIGRATIONS = Path(__file__).parents[2] / "migrations"


@pytest.fixture(scope="module")
def definition() -> Definition:
    return load_definition(MIGRATIONS / "0002_count_mastered_words.py")


def test_counts(definition: Definition) -> None:
    """The counter is the length of the list; a right counter is left alone."""
    document = Document("progress/p", {"masteredWords": ["a", "b"]})
    after = definition.transform(document)
    assert after == document.with_fields(masteredCount=2)
    assert isinstance(after, Document)
    assert definition.transform(after) is None


def test_a_word_mastered_twice_is_a_problem(definition: Definition) -> None:
    """A list with doubles is set aside rather than counted."""
    assert definition.validate is not None
    assert definition.validate(Document("progress/p", {"masteredWords": ["a", "a"]})) == "a word is mastered twice"


def test_undo_takes_the_counter_away_and_keeps_the_learners_words(definition: Definition) -> None:
    """A learner who went on after the migration loses nothing in a rollback."""
    assert definition.undo is not None
    now = Document("progress/p", {"masteredWords": ["a", "b", "c"], "masteredCount": 2})
    before = Document("progress/p", {"masteredWords": ["a", "b"]})
    assert definition.undo(now, before) == Document("progress/p", {"masteredWords": ["a", "b", "c"]})
    assert definition.undo(now, now) is None


def test_no_word_is_counted_away(definition: Definition) -> None:
    """The invariant is the same of both shapes, and that of a document without words is nothing."""
    assert definition.invariants is not None
    document = Document("progress/p", {"masteredWords": ["a", "b"]})
    after = definition.transform(document)
    assert isinstance(after, Document)
    assert definition.invariants(document) == definition.invariants(after) == {"mastered words": 2}
    assert definition.invariants(Document("progress/p", {})) == {"mastered words": 0}
