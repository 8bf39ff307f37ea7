"""The plan's arithmetic, and every gate: what closes it and what it would take to pass."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.faults import Refused, RefusedReason
from agent.firestore import RateLimit, Timestamp
from agent.migration.definition import Definition
from agent.migration.facts import Facts, History, Rate, RestorePoint, Sampled, StampedField
from agent.migration.plan import Plan, make_plan, stamped_fields

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
DEFINITION = Definition(
    revision="0001",
    name="0001_test",
    path=Path("migrations/0001_test.py"),
    checksum="abc",
    title="Test",
    collections=("items", "users", "extra"),
    transform=lambda document: document,
    reads_both_shapes=True,
)
POINT = RestorePoint(id="backup-full-1", read_time=NOW - timedelta(hours=1), verified=True)
FACTS = Facts(
    now=NOW,
    counts={"users": 5_234, "items": 301_491},
    order=("users", "items"),
    priorities={"users": "CRITICAL", "items": "CORE"},
    rate=Rate(documents_per_second=2_000, source="measured on run-1"),
    undo_rate=Rate(documents_per_second=5_000, source="probe"),
    rate_limit=900,
    undo_budget=timedelta(minutes=3),
    restore_point=POINT,
)


def plan(definition: Definition = DEFINITION, **changes: Any) -> Plan:
    return make_plan(definition, dataclasses.replace(FACTS, **changes))


def refusal(planned: Plan) -> tuple[object, str]:
    with pytest.raises(Refused) as refused:
        planned.require()
    return refused.value.reason, str(refused.value)


def test_estimates_by_rate_and_in_the_pages_order() -> None:
    """Collections come in the page's order, unlisted ones last; time follows from the slower of rate and limit."""
    made = plan()
    assert [(part.collection, part.documents, part.priority) for part in made.collections] == [
        ("users", 5_234, "CRITICAL"),
        ("items", 301_491, "CORE"),
        ("extra", 0, ""),
    ]
    assert made.documents == 306_725
    assert made.rate == Rate(documents_per_second=900, source="the run's own limit")
    assert made.estimate_seconds == pytest.approx(306_725 / 900)
    assert made.undo_estimate_seconds == pytest.approx(306_725 / 5_000)
    assert made.allowed
    made.require()


def test_a_file_may_keep_its_own_order() -> None:
    """keep_order is the file's word over the page's."""
    made = plan(dataclasses.replace(DEFINITION, keep_order=True))
    assert [part.collection for part in made.collections] == ["items", "users", "extra"]


CASES = [
    ({"restore_point": None}, RefusedReason.NO_RESTORE_POINT, "backup create"),
    ({"restore_point": dataclasses.replace(POINT, verified=False)}, RefusedReason.NOT_VERIFIED, "verify backup-full-1"),
    (
        {"restore_point": dataclasses.replace(POINT, read_time=NOW - timedelta(hours=25))},
        RefusedReason.NO_RESTORE_POINT,
        "25.0 h ago",
    ),
    (
        {"undo_rate": Rate(documents_per_second=1_000, source="probe")},
        RefusedReason.UNDO_OVER_BUDGET,
        "180,000 documents fit",
    ),
    ({"undo_rate": None}, RefusedReason.UNDO_OVER_BUDGET, "nobody knows how fast"),
    (
        {"fresh": {"archive": 100_000.0}, "ramp": RateLimit(per_second=900, growth=1.5)},
        RefusedReason.RAMP,
        "migration.new_collection_rate to 500 at most",
    ),
    (
        {"fresh": {"archive": 100_000.0}, "ramp": RateLimit(per_second=500, growth=2.0)},
        RefusedReason.RAMP,
        "Firestore takes 500/s, half as much more every 5 min",
    ),
    (
        {
            "rate_limit": None,
            "sampled": Sampled(stamped=(StampedField(collection="items", path="at", rises=True, now=False),)),
        },
        RefusedReason.HOT_FIELD,
        "unindexed = ('at',)",
    ),
    (
        {"history": History(state="done", run="run-1", checksum="other")},
        RefusedReason.CHANGED_DEFINITION,
        "next number",
    ),
    ({"history": History(state="done", run="run-1", checksum="abc")}, RefusedReason.ALREADY_RAN, "--again"),
    ({"history": History(state="undone", run="run-1", checksum="abc")}, RefusedReason.FAILED_BEFORE, "--again"),
    ({"history": History(state="failed", run="run-1"), "again": True}, RefusedReason.FAILED_BEFORE, "resume run-1"),
    ({"history": History(state="running", run="run-1", alive=True)}, RefusedReason.ALREADY_RUNNING, "stop it"),
    ({"history": History(state="running", run="run-1")}, RefusedReason.ALREADY_RUNNING, "resume run-1"),
    ({"history": History(state="undoing", run="run-1")}, RefusedReason.ALREADY_RUNNING, "undo run-1"),
]


@pytest.mark.parametrize(("changes", "reason", "remedy"), CASES)
def test_each_gate_refuses_with_its_reason_and_remedy(changes: dict[str, Any], reason: object, remedy: str) -> None:
    """One thing is not as it must be: exactly one gate says no, why, and what it would take."""
    made = plan(**changes)
    assert sum(not gate.passed for gate in made.gates) == 1
    found, text = refusal(made)
    assert found is reason
    assert remedy in text


def test_readers_of_one_shape_need_maintenance_mode() -> None:
    """Without reads_both_shapes the application must not be serving."""
    definition = dataclasses.replace(DEFINITION, reads_both_shapes=False)
    assert refusal(plan(definition))[0] is RefusedReason.NEEDS_MAINTENANCE
    assert plan(definition, maintenance=True).allowed


@pytest.mark.parametrize(
    "changes",
    [
        {"history": History(state="done", run="run-1", checksum="abc"), "again": True},
        {"history": History(state="undone", run="run-1", checksum="older"), "again": True},
        {"undo_budget": None, "undo_rate": None},
        {"undo_rate": Rate(documents_per_second=1_000, source="probe"), "disarmed": "the team is at the table"},
        {"undo_rate": None, "counts": {}},
        {"fresh": {"archive": 100_000.0}},
        {"fresh": {"archive": 100_000.0}, "ramp": RateLimit(per_second=100)},
        {
            "rate_limit": 450,
            "sampled": Sampled(stamped=(StampedField(collection="items", path="at", rises=True, now=True),)),
        },
    ],
)
def test_what_it_would_take_is_enough(changes: dict[str, Any]) -> None:
    """An explicit word, no budget on the page, or a cap below the ceiling open the gates."""
    assert plan(**changes).allowed


def test_an_exempted_field_is_no_hot_field() -> None:
    """A field without an index may rise."""
    hot = Sampled(stamped=(StampedField(collection="items", path="at", rises=False, now=True),))
    definition = dataclasses.replace(DEFINITION, unindexed=("at",))
    assert plan(definition, rate_limit=None, sampled=hot).allowed


def test_a_run_over_the_budget_may_start_without_its_automatic_rollback_and_says_so() -> None:
    """The budget's gate opens for a reason, which stands in the plan; no other gate does."""
    over: dict[str, Any] = {
        "undo_rate": Rate(documents_per_second=1_000, source="probe"),
        "disarmed": "the team is at the table",
    }
    (gate,) = [gate for gate in plan(**over).gates if gate.name == "undo fits the budget"]
    assert gate.detail.endswith("this run is not rolled back by itself: the team is at the table")
    assert "307 s" in gate.detail or "5 min" in gate.detail
    assert refusal(plan(**over, restore_point=None))[0] is RefusedReason.NO_RESTORE_POINT


def test_a_new_collection_takes_its_time() -> None:
    """The estimate is that of the ramp where that is the slowest part, and the gate says how long."""
    made = plan(rate_limit=None, fresh={"archive": 306_725.0})
    assert made.estimate_seconds == pytest.approx(509, abs=1)
    (gate,) = [gate for gate in made.gates if gate.name == "new collections are ramped"]
    assert "about 306,725 documents in archive, which is empty, in 8 min at least" in gate.detail


def test_all_closed_gates_are_named_at_once() -> None:
    """A person sees everything that is missing, not the first thing only."""
    _, text = refusal(plan(restore_point=None, undo_rate=None))
    assert "restore point: there is no backup" in text
    assert "undo fits the budget" in text


def triples(
    after: list[Any], again: list[Any] | None = None
) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    return [
        ({"kept": number, "n": 0}, {"kept": number, "n": 0, "new": first}, {"kept": number, "n": 0, "new": second})
        for number, (first, second) in enumerate(zip(after, again or after, strict=True))
    ]


@pytest.mark.parametrize(
    ("after", "again", "found"),
    [
        ([2] * 10, None, False),  # a constant: its index entries lie in the order of names
        ([3, 1, 2, 9, 4, 5, 8, 7, 6, 0], None, False),
        (list(range(10)), None, True),
        (list(range(10, 0, -1)), None, True),
        ([Timestamp(n) for n in range(10)], None, True),
        ([f"{n}" for n in range(10)], None, False),
        ([5, 1, 2, 9, 4, 5, 8, 7, 6, 0], [6, 3, 4, 1, 7, 9, 9, 9, 9, 9], True),  # another value at every call: a clock
        (list(range(5)), None, False),  # too few to tell
    ],
)
def test_fields_that_heat_an_index(after: list[Any], again: list[Any] | None, found: bool) -> None:
    """A stamped field is hot if its values only rise or fall, or if they are the time of the transform."""
    assert bool(stamped_fields("items", triples(after, again))) is found
