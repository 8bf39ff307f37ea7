"""Liveness, readiness, the page's four endpoints and the exposition."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from agent.telemetry.catalogue import DB_OPERATION_DURATION, DOCUMENTS_WRITTEN
from tests.api.conftest import World


def test_healthz_follows_the_rule_loop(world: World) -> None:
    """200 while it ticks, 503 once it has stalled."""
    assert world.client.get("/healthz").status_code == 200
    world.bodies.alive = False
    answer = world.client.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"status": "stalled"})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_for_a_prometheus_hear_of_a_loop_that_stalls(world: World, method: str) -> None:
    """As in Prometheus while all is well; a stalled rule loop is not healthy, and queries are answered all the same."""
    for stalled, code in ((False, 200), (True, 503)):
        world.bodies.alive = not stalled
        world.bodies.problems = {"probe database": "no answer"} if stalled else {}
        assert world.client.request(method, "/-/healthy").status_code == code
        assert world.client.request(method, "/-/ready").status_code == 200


def test_readyz_names_what_is_not_ready(world: World) -> None:
    """The body tells a person which part is wrong."""
    assert world.client.get("/readyz").json() == {"status": "ready", "problems": {}}
    world.bodies.problems = {"probe database": "no answer"}
    answer = world.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["problems"] == {"probe database": "no answer"}


@pytest.mark.parametrize(("status", "code"), [("ok", 200), ("degraded", 200), ("unreachable", 503)])
def test_database_health_is_a_check_for_load_balancers(world: World, status: str, code: int) -> None:
    """Only a database that can't be reached fails the check."""
    world.bodies.health = {"status": status}
    answer = world.client.get("/api/database/health")
    assert (answer.status_code, answer.json()) == (code, {"status": status})


def test_the_pages_endpoints_give_the_daemons_bodies(world: World) -> None:
    """The addresses that the page names, each with its body."""
    world.bodies.backups = {"backups": 3}
    world.bodies.metrics = {"series": 7}
    assert world.client.get("/api/database/migration-status").json() == {"run": None, "recovery": None}
    assert world.client.get("/api/database/backup-status").json() == {"backups": 3}
    assert world.client.get("/api/database/metrics").json() == {"series": 7}


def test_every_endpoint_that_the_page_names_is_there(world: World) -> None:
    """The page and the product can't drift: each of its addresses answers."""
    endpoints = world.page.health_endpoints
    assert endpoints
    for endpoint in endpoints:
        assert world.client.request(endpoint.method, endpoint.path).status_code == 200, endpoint.path


def test_a_body_that_fails_is_an_error_with_a_reason(world: World) -> None:
    """A bug in one body is that endpoint's 500 and nobody else's."""

    def fail() -> dict[str, str]:
        raise OSError("disk I/O error")

    client = world.broken(backup_status=fail)
    assert client.get("/api/database/backup-status").status_code == 500
    assert client.get("/api/database/health").status_code == 200


def test_the_exposition_is_read_by_both_parsers(world: World) -> None:
    """Plain text by default; OpenMetrics with the exemplar where it is asked for."""
    world.telemetry.add(DOCUMENTS_WRITTEN, 5, {"origin": "undo"})
    with world.telemetry.span("an operation"):
        world.telemetry.record(DB_OPERATION_DURATION, 0.42, {"db.query.summary": "user_lookup"})
    plain = world.client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert {family.name for family in prometheus(plain.text)} >= {"firestore_documents_written"}
    rich = world.client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert rich.headers["content-type"].startswith("application/openmetrics-text")
    read: Any = openmetrics.text_string_to_metric_families
    exemplars = [sample.exemplar for family in read(rich.text) for sample in family.samples if sample.exemplar]
    assert len(exemplars) == 1


def test_an_unknown_address_says_so_in_our_words(world: World) -> None:
    """The same three fields as every other error."""
    answer = world.client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.json().keys() == {"error", "reason", "hint"}
