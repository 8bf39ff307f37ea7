"""Validation of one collection, and of what a run wrote outside its own collections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.faults import Permanent, PermanentReason
from tests.migration.world import World

TWO = """
    collections = ("counters", "notes")
    reads_both_shapes = True

    def transform(document):
        return document.with_fields(seen=True)
"""


def _ready(world: World, write_definition: Callable[..., Path]) -> str:
    world.counters(30)
    world.put({f"notes/n{i}": {"text": "x"} for i in range(5)})
    write_definition(TWO)
    return world.migrations().run("0001").record.id


def test_one_collection_is_held_against_its_newest_run(world: World, write_definition: Callable[..., Path]) -> None:
    """Only that collection is read, and only what the run wrote there is compared."""
    run = _ready(world, write_definition)
    report = world.migrations().validate_collection("notes")
    assert (report.run, report.passed) == (run, True)
    assert [(part.collection, part.documents, part.compared) for part in report.collections] == [("notes", 5, 5)]


def test_all_collections_are_compared_unless_some_are_named(
    world: World, write_definition: Callable[..., Path]
) -> None:
    """Naming none means all of them, in the migration's order."""
    _ready(world, write_definition)
    report = world.migrations().validate("0001")
    assert {part.collection: part.compared for part in report.collections} == {"counters": 30, "notes": 5}


def test_a_collection_that_no_run_changed_is_not_called_sound(
    world: World, write_definition: Callable[..., Path]
) -> None:
    """Nothing to compare with is an error that names the other way, not a pass."""
    _ready(world, write_definition)
    with pytest.raises(Permanent) as unknown:
        world.migrations().validate_collection("users")
    assert unknown.value.reason is PermanentReason.NOT_FOUND
    assert "backup restore" in unknown.value.hint
    with pytest.raises(Permanent) as foreign:
        world.migrations().validate("0001", collections=("users",))
    assert foreign.value.reason is PermanentReason.NOT_FOUND
