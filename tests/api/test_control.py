"""The control endpoints: who may, what they take, and what they say when they don't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.api import create_app
from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    Refused,
    RefusedReason,
    RunbookdError,
    Transient,
    TransientReason,
)
from tests.api.conftest import TOKEN, World

BEARER = {"Authorization": f"Bearer {TOKEN}"}
ORDERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "hold",
        {"owner": " Ana ", "reason": "load test", "seconds": 60},
        {"owner": "Ana", "reason": "load test", "seconds": 60.0},
    ),
    ("hold", {"owner": "Ana", "reason": "lunch"}, {"owner": "Ana", "reason": "lunch", "seconds": 3600.0}),
    ("release", {"owner": "Ana"}, {"owner": "Ana"}),
    ("approve", {"owner": "Ana", "id": "d-1"}, {"owner": "Ana", "id": "d-1"}),
    ("abort", {"owner": "Ana", "id": "d-1", "reason": "wrong"}, {"owner": "Ana", "id": "d-1", "reason": "wrong"}),
    ("maintenance", {"owner": "Ana", "enabled": True}, {"owner": "Ana", "enabled": True, "message": ""}),
    (
        "pause",
        {"owner": "Ana", "reason": "peak hour", "seconds": 600},
        {"run": "", "owner": "Ana", "reason": "peak hour", "seconds": 600.0},
    ),
    (
        "pause",
        {"owner": "Ana", "reason": "peak hour", "run": "run-1"},
        {"run": "run-1", "owner": "Ana", "reason": "peak hour", "seconds": None},
    ),
    ("resume", {"owner": "Ana"}, {"run": "", "owner": "Ana"}),
    (
        "set",
        {"owner": "Ana", "reason": "memory", "batch_size": 100},
        {"run": "", "owner": "Ana", "reason": "memory", "batch_size": 100, "rate": None},
    ),
    ("reload", {}, {}),
]


@pytest.mark.parametrize(("order", "body", "said"), ORDERS)
def test_an_order_is_carried_out(world: World, order: str, body: dict[str, Any], said: dict[str, Any]) -> None:
    """With the token, each order reaches the daemon with what was said."""
    answer = world.client.post(f"/api/control/{order}", json=body, headers=BEARER)
    assert (answer.status_code, answer.json()) == (200, {"done": order})
    assert world.orders.told == [(order, said)]


def test_reload_needs_no_body(world: World) -> None:
    """``curl -X POST`` with nothing else does it."""
    assert world.client.post("/api/control/reload", headers=BEARER).status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer wrong", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \u00e4".encode()],
)
@pytest.mark.parametrize("body", [b"{}", b"not json"])
def test_without_the_token_nothing_is_read_or_done(world: World, header: str | bytes, body: bytes) -> None:
    """A missing or wrong token is a 401, whatever the body is."""
    headers = {"Authorization": header} if header else {}
    answer = world.client.post("/api/control/hold", content=body, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["reason"] == "unauthorized"
    assert world.orders.told == []


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_configured_token_it_is_closed(tmp_path: Path, token: str | None) -> None:
    """No token in the settings closes the endpoints, for an empty bearer as well; the hint says how to open them."""
    world = World(tmp_path, token=token)
    answer = world.client.post("/api/control/reload", headers={"Authorization": "Bearer "})
    assert answer.status_code == 403
    assert "api.token" in answer.json()["hint"]
    assert world.orders.told == []
    world.close()


def test_a_daemon_that_offers_no_control_is_closed(world: World) -> None:
    """The same 403 where nothing could carry an order out."""
    assert world.broken(control=None).post("/api/control/reload", headers=BEARER).status_code == 403


@pytest.mark.parametrize(
    ("order", "body", "words"),
    [
        ("hold", {"owner": "Ana"}, "reason is missing"),
        ("hold", {"owner": "  ", "reason": "x"}, "owner is empty"),
        ("hold", {"owner": "Ana", "reason": "x", "second": 5}, "second is not known"),
        ("hold", {"owner": "Ana", "reason": "x", "seconds": 0}, "seconds: input should be greater than 0"),
        ("hold", {"owner": "Ana", "reason": "x", "seconds": 1e9}, "seconds: input should be less than"),
        ("hold", {"owner": "Ana", "reason": "x", "seconds": "1h"}, "seconds: input should be a valid number"),
        ("maintenance", {"owner": "Ana", "enabled": "yes"}, "enabled: input should be a valid boolean"),
        ("abort", {}, "owner is missing; id is missing; reason is missing"),
        ("reload", {"now": True}, "now is not known"),
        ("release", [], "the body: input should be an object"),
    ],
)
def test_a_wrong_body_is_explained(world: World, order: str, body: Any, words: str) -> None:
    """422 in plain words, with the fields that are wanted as a hint."""
    answer = world.client.post(f"/api/control/{order}", json=body, headers=BEARER)
    assert answer.status_code == 422
    assert words in answer.json()["error"]
    assert answer.json()["hint"].startswith("send ")
    assert world.orders.told == []


def test_what_is_no_json_is_said_to_be_none(world: World) -> None:
    """A body cut short is named as such."""
    answer = world.client.post("/api/control/hold", content=b'{"owner": ', headers=BEARER)
    assert (answer.status_code, answer.json()["error"]) == (422, "the body is not valid JSON")


def test_a_body_of_any_size_is_not_read(world: World) -> None:
    """What is larger than any order is turned away."""
    answer = world.client.post("/api/control/hold", content=b" " * 100_000, headers=BEARER)
    assert answer.status_code == 413


def test_an_unknown_order_names_the_known_ones(world: World) -> None:
    """404 with the list; and only POST gives orders."""
    answer = world.client.post("/api/control/explode", headers=BEARER)
    assert answer.status_code == 404
    assert "maintenance" in answer.json()["hint"]
    assert world.client.get("/api/control/reload", headers=BEARER).status_code == 405


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused(RefusedReason.NOT_CONFIRMED, "no owner"), 409),
        (Permanent(PermanentReason.NOT_FOUND, "no such decision"), 404),
        (Permanent(PermanentReason.CONFLICT, "it does not wait"), 409),
        (Permanent(PermanentReason.INVALID, "not bound to a run"), 422),
        (Misconfigured(MisconfiguredReason.RUNBOOK, "the page is wrong"), 400),
        (Transient(TransientReason.UNAVAILABLE, "no Firestore answers"), 503),
    ],
)
def test_an_error_of_the_product_says_what_to_do(world: World, error: RunbookdError, status: int) -> None:
    """Its message, its reason and its hint, with a status that says whose turn it is."""
    error.hint = "do this"
    world.orders.fail = error
    answer = world.client.post("/api/control/reload", headers=BEARER)
    assert answer.status_code == status
    assert answer.json() == {"error": error.message, "reason": str(error.reason), "hint": "do this"}


def test_the_token_is_in_no_answer(world: World) -> None:
    """Neither the pages nor an error repeat it."""
    world.orders.fail = ValueError("a bug")
    for answer in (
        world.client.get("/"),
        world.client.get("/readyz"),
        world.client.post("/api/control/reload", headers=BEARER),
    ):
        assert TOKEN not in answer.text
    assert create_app(world.sources) is not None
