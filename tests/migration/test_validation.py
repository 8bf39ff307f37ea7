"""Validation of one collection, and of what a run wrote outside its own collections."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.faults import Permanent, PermanentReason
from agent.firestore import Reference
from agent.migration import Preconditions, QueryCheck, ValidationReport
from tests.migration.world import World, fresh_restore_point, start

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


SUMS = """
    collections = ("counters",)
    reads_both_shapes = True

    def invariants(document):
        return {"n": document.get("n", document.get("count", 0))}

    def transform(document):
        n = document.fields["n"]
        return document.without("n").with_fields(count=n BREAK)
"""


@pytest.mark.parametrize("broken", [False, True])
def test_sums_that_must_not_change_are_added_up(
    world: World, write_definition: Callable[..., Path], broken: bool
) -> None:
    """Over what the run wrote, before and after; a document that a user changed since is in neither sum."""
    world.counters(30)
    total = sum(start(i) for i in range(30))
    write_definition(SUMS.replace("BREAK", "+ (document.id == 'c-0007')" if broken else ""))
    run = world.migrations().run("0001").record.id
    world.put({"counters/c-0003": {"count": 9_999}})

    (part,) = world.migrations().validate(run).collections

    kept = total - start(3)
    assert part.broken == ((f"n: {kept} before, {kept + 1} after",) if broken else ())
    assert part.passed is not broken
    assert part.compared == 29


def test_invariants_that_break_down_are_reported(world: World, write_definition: Callable[..., Path]) -> None:
    """Figures that can't be told are a finding with the line, not a pass."""
    world.counters(3)
    write_definition(SUMS.replace("BREAK", "").replace('document.get("count", 0)', "1 // 0"))
    run = world.migrations().run("0001").record.id
    (part,) = world.migrations().validate(run).collections
    assert not part.passed
    assert "ZeroDivisionError" in part.examples[0]


REFERRING = """
    from agent.firestore import Reference
    from agent.migration import DELETE

    collections = ("items", "orders")
    reads_both_shapes = True

    def transform(document):
        if document.collection == "items":
            return [document.elsewhere(f"archive/{document.id}"), DELETE] if document.get("old") else None
        if document.get("wrong"):
            return document.with_fields(also=Reference(document.get("item").name + "-typo"))
        return document.with_fields(seen=True) if document.get("touch") else None
"""


def test_references_that_lead_nowhere_because_of_the_run(world: World, write_definition: Callable[..., Path]) -> None:
    """Targets that it moved away, and references that it set, are its doing; what dangled before is not."""
    item = world.firestore.address.name("items", "i")
    moved, gone = world.firestore.address.name("items", "m"), world.firestore.address.name("items", "never")
    elsewhere = Reference("projects/other/databases/(default)/documents/items/x")
    world.put(
        {
            "items/i": {"n": 1},
            "items/m": {"old": True},
            "orders/fine": {"item": Reference(item), "abroad": elsewhere, "touch": True},
            "orders/moved": {"lines": [{"item": Reference(moved)}]},
            "orders/before": {"item": Reference(gone), "touch": True},
            "orders/wrong": {"item": Reference(item), "wrong": True},
        }
    )
    write_definition(REFERRING)
    run = world.migrations().run("0001").record.id

    found = {part.collection: part for part in world.migrations().validate(run).collections}

    assert {name: part.dangling for name, part in found.items()} == {"items": 0, "orders": 2, "archive": 0}
    assert found["orders"].examples == (
        "orders/moved: refers to items/m, which is not there",
        "orders/wrong: refers to items/i-typo, which is not there",
    )
    assert not found["orders"].passed
    assert (found["items"].documents, found["items"].expected) == (1, 1)
    assert (found["orders"].documents, found["orders"].expected) == (4, 4)


def test_a_share_of_the_writes_may_be_enough(world: World, write_definition: Callable[..., Path]) -> None:
    """Every document is still held against the definition; of each batch some writes are compared, at least one."""
    run = _ready(world, write_definition)
    report = world.migrations().validate(run, share=0.1)
    assert {part.collection: (part.documents, part.compared) for part in report.collections} == {
        "counters": (30, 3),
        "notes": (5, 1),
    }


def test_the_pages_queries_are_asked_and_must_be_answered(world: World, write_definition: Callable[..., Path]) -> None:
    """An unanswered query fails the validation; one that is slow, or that nobody defined, is only shown."""
    run = _ready(world, write_definition)
    slow = QueryCheck(query="user_lookup", p95=0.2, target=0.05)
    undefined = QueryCheck(query="stats", p95=None, target=0.3, problem="nobody has said what it is")
    failing = QueryCheck(query="queue", p95=None, target=0.1, problem="no index", failed=True)

    def validated(*checks: QueryCheck) -> ValidationReport:
        queries = Preconditions(restore_point=fresh_restore_point, queries=lambda: checks)
        return world.migrations(preconditions=queries).validate(run)

    assert validated(slow, undefined).passed
    assert validated(slow, undefined).queries == (slow, undefined)
    assert not validated(failing).passed
    report = json.loads((world.folder / "reports" / "validation-report-0001_test.json").read_text())
    assert [check["query"] for check in report["queries"]] == ["queue"]
    assert [part["passed"] for part in report["collections"]] == [True, True]
