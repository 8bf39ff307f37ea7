"""The status page: what it says of the states a deployment can be in, and that it stays up when parts don't."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from html import unescape
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from starlette.testclient import TestClient

from agent.api import ApiServer, Sources, create_app
from agent.samples import Sample, labels_of
from tests.api.conftest import START, World
from tests.conftest import binary


def _words(client: TestClient, path: str = "/?fragment=1") -> str:
    """What a reader sees, without tags."""
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def _state(client: TestClient) -> str:
    found = re.search(r'class="headline ([\w-]+)"', client.get("/?fragment=1").text)
    assert found is not None
    return found[1]


def _fail() -> Any:
    raise OSError("disk I/O error")


def _recovery(world: World, state: str) -> dict[str, Any]:
    step = {"name": "restore_data", "title": "Put the documents back", "detail": "", "over_budget": False}
    return {
        "id": "r-1",
        "state": state,
        "run_id": "run-1",
        "condition": "error_rate",
        "budget_seconds": 300.0,
        "started_at": world.time(0),
        "finished_at": None,
        "problem": "it failed 4 times" if state == "stuck" else "",
        "restore_point": "the run's own journal",
        "steps": [
            {**step, "title": "Stop traffic", "state": "done", "seconds": 0.4, "budget_seconds": 30.0},
            {**step, "state": "running", "seconds": None, "budget_seconds": 180.0},
        ],
    }


def test_says_that_it_is_starting_when_there_is_nothing_yet(world: World) -> None:
    """A page that nobody has fed yet renders, and does not claim that all is well."""
    assert _state(world.client) == "starting"
    assert "None has run yet." in _words(world.client)


def test_says_all_well_after_a_look_that_found_nothing(world: World) -> None:
    """With rules evaluated and nothing firing the headline is calm."""
    world.run(2, error_ratio=0.001)
    assert _state(world.client) == "well"
    assert "All well" in _words(world.client)


def test_an_alert_shows_value_threshold_and_runbook_section(world: World) -> None:
    """A firing alert names what is, what the page allows and where the page says what to do."""
    world.run(5, error_ratio=0.082)
    words = _words(world.client)
    assert _state(world.client) == "firing"
    assert "1 alert firing" in words
    assert "now 8.2% , the page says >1%" in words
    assert 'href="runbook#error-rate"' in world.client.get("/?fragment=1").text


def test_a_pending_alert_is_not_called_firing(world: World) -> None:
    """Before its time an alert is pending, and so is the headline."""
    world.run(2, error_ratio=0.082)
    assert _state(world.client) == "pending"


def test_an_alert_that_is_ending_says_what_was(world: World) -> None:
    """Once the condition is over, the value shown is no longer "now", and nothing is called firing."""
    world.run(3, up=0.0)
    assert "1 alert firing" in _words(world.client)
    world.run(5, up=1.0)
    words = _words(world.client)
    assert "1 alert ending" in words
    assert "TargetDown: was 0" in words


def test_a_recovery_comes_before_what_fires(world: World) -> None:
    """While a rollback runs that is the state, with its step and its budget."""
    world.run(5, error_ratio=0.082)
    world.bodies.migration = {"run": None, "recovery": _recovery(world, "running")}
    words = _words(world.client)
    assert _state(world.client) == "rolling-back"
    assert "Step 2 of 2: Put the documents back, 5s of 5m" in words
    assert "ErrorRateHigh" in words


def test_a_stuck_recovery_comes_before_everything(world: World) -> None:
    """A stuck rollback says why and how to go on."""
    world.bodies.migration = {"run": None, "recovery": _recovery(world, "stuck")}
    words = _words(world.client)
    assert _state(world.client) == "stuck"
    assert "it failed 4 times" in words
    assert "runbookd rollback" in words


@pytest.mark.parametrize("cause", ["stalled", "silent", "unreadable"])
def test_blindness_is_not_health(world: World, cause: str) -> None:
    """A stalled loop, a silent signal and a part that can't be read each make the page say blind."""
    world.run(2, error_ratio=0.001)
    client = world.client
    if cause == "stalled":
        world.bodies.alive = False
    elif cause == "silent":
        world.bodies.problems = {"signal scrape:app": "silent for 90 s"}
    else:
        client = world.broken(automation=_fail)
    assert _state(client) == "blind"


def test_a_failing_probe_is_trouble_not_blindness(world: World) -> None:
    """What our own checks see going wrong is said under its own name."""
    world.run(2, error_ratio=0.001)
    world.bodies.problems = {"probe documents": "the query timed out"}
    assert _state(world.client) == "troubled"
    assert "probe documents: the query timed out" in _words(world.client)


@pytest.mark.parametrize(
    "part",
    ["policy", "database_health", "migration_status", "backup_status", "metrics", "automation", "recent", "schedule"],
)
def test_a_part_that_fails_says_so_and_the_rest_stays(world: World, part: str) -> None:
    """Any one source may raise: the page is there, says which part is not, and shows the alerts."""
    world.run(5, error_ratio=0.082)
    client = world.broken(**{part: _fail})
    words = _words(client)
    assert "Not readable: " in words
    assert "ErrorRateHigh" in words
    assert part == "policy" or "disk I/O error" in words


def test_everything_may_fail_at_once(world: World) -> None:
    """With no source left the page still answers and is blind."""
    parts = ("policy", "alive", "problems", "database_health", "migration_status", "backup_status", "metrics")
    client = world.broken(**dict.fromkeys((*parts, "automation", "recent", "schedule"), _fail))
    assert _state(client) == "blind"


def test_a_hold_and_waiting_approvals_are_in_the_headline(world: World) -> None:
    """Whoever reads the page learns at once that the automation will not act, and how to let it."""
    world.run(2, error_ratio=0.001)
    world.bodies.automation = {
        "hold": {"owner": "Ana", "reason": "load test", "expires_at": world.time(3600)},
        "waiting": [{"id": "d-31", "condition": "data_corruption", "run_id": "run-1"}],
        "rollbacks_today": 0,
        "daily_limit": 3,
        "approver": "Database lead",
        "recent": [],
    }
    words = _words(world.client)
    assert "The automation is held by Ana" in words
    assert "1 decision waiting for an approval" in words
    assert "runbookd automation approve d-31" in words
    assert "runbookd automation release" in words


def test_outbox_and_signals_come_from_the_samples(world: World) -> None:
    """What waits to be delivered and how old each signal is are read from their series."""
    samples = [
        Sample(labels_of("runbookd_outbox_pending", {"channel": "slack"}), 2.0),
        Sample(labels_of("runbookd_signal_age_seconds", {"source": "probe:database"}), 3.0),
    ]
    world.store.ingest("instruments", world.at(0), samples)
    words = _words(world.client)
    assert "slack 2" in words
    assert "probe:database 3s" in words


def test_what_others_wrote_is_text_not_markup(world: World) -> None:
    """A reason, a title or a message with markup in it is shown as written."""
    nasty = "<script>alert(1)</script>"
    world.bodies.automation = {"hold": {"owner": nasty, "reason": nasty, "expires_at": world.time(60)}}
    world.bodies.recent = [{"at": world.time(0), "title": nasty, "detail": nasty, "mark": nasty}]
    assert nasty not in world.client.get("/?fragment=1").text


def test_looks_once_a_second_however_many_watch(world: World) -> None:
    """Ten readers within a second cost one look; the next second there is news."""
    looks = []

    def look() -> dict[str, Any]:
        looks.append(world.clock.now())
        return {}

    client = world.broken(backup_status=look)
    for _ in range(10):
        client.get("/?fragment=1")
    assert len(looks) == 1
    world.clock.advance(1)
    client.get("/?fragment=1")
    assert len(looks) == 2


def test_the_page_needs_nothing_from_elsewhere(world: World) -> None:
    """One request brings it all: no address of another host, a policy that forbids any, a reload without scripts."""
    answer = world.client.get("/")
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert '<noscript><meta http-equiv="refresh"' in answer.text


def test_the_runbook_is_there_with_every_anchor(world: World) -> None:
    """Each fragment that a rule may link to is an element of the page that is served."""
    text = world.client.get("/runbook").text
    assert [anchor for anchor in world.page.anchors if f'id="{anchor}"' not in text] == []


def test_a_runbook_that_is_gone_is_said_to_be_gone(world: World) -> None:
    """If the file has vanished since the start, the link answers with a hint, not with a trace."""
    world.page = world.page.__class__(**{**vars(world.page), "source": "gone.md"})
    answer = world.client.get("/runbook")
    assert answer.status_code == 400
    assert answer.json()["reason"] == "runbook"


@contextmanager
def _served(sources: Sources) -> Iterator[str]:
    server = ApiServer(create_app(sources), host="127.0.0.1", port=0)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@pytest.mark.chromium
def test_a_browser_shows_it_and_brings_news_in(world: World) -> None:
    """Chromium loads the page, runs its script under the page's own policy, and shows news without a reload."""
    chromium = binary("chromium", "chromium")
    world.run(2, error_ratio=0.001)
    world.bodies.schedule = {"backup-snapshot": START + timedelta(hours=1)}
    looks = []

    def alive() -> bool:
        """Well at the first look alone: what is said later only the script can have brought in."""
        looks.append(world.clock.now())
        world.clock.advance(2)
        return len(looks) == 1

    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--virtual-time-budget=8000", "--dump-dom"]
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile, _served(replace(world.sources, alive=alive)) as url:
        done = subprocess.run(
            [chromium, *flags, f"--user-data-dir={profile}", url],
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
    assert "backup snapshot" in done.stdout
    assert "The rule loop has stalled" in done.stdout
    assert "<title>Blind" in done.stdout


def test_a_body_of_another_shape_costs_its_section_alone(world: World) -> None:
    """A body that lacks what its section needs is said to be unshowable; the rest of the page stays."""
    world.run(5, error_ratio=0.082)
    world.bodies.migration = {"run": {"id": "run-1"}, "recovery": None}
    words = _words(world.client)
    assert "migration: this can't be shown now" in words
    assert "ErrorRateHigh" in words
