"""Stuck runs: what is one, what is done about it, and what is left to people."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.run_keeper import Care, Watched, care, mark_of
from agent.migration import CollectionProgress, Counts, RunRecord, RunState
from tests.daemon.deployment import ROOT, Deployment, eventually

LIMIT = timedelta(minutes=5)
RECORD = RunRecord(
    id="run-20261123-080000-0001",
    name="0001_test",
    revision="0001",
    database="projects/p/databases/(default)",
    checksum="abc",
    state=RunState.RUNNING,
    started=datetime(2026, 11, 23, 8, 0, tzinfo=UTC),
    pre_read_time=datetime(2026, 11, 23, 8, 0, tzinfo=UTC),
    collections=(CollectionProgress(collection="items", documents=100, counts=Counts(scanned=50, written=50)),),
)


def further(documents: int) -> RunRecord:
    counts = Counts(scanned=documents, written=documents)
    return RECORD.with_collection(dataclasses.replace(RECORD.collections[0], counts=counts))


def watched(since: float = 0.0, **changes: Any) -> Watched:
    seen = Watched(run_id=RECORD.id, mark=mark_of(RECORD), since=since, documents=50)
    return dataclasses.replace(seen, **changes)


def needed(record: RunRecord = RECORD, seen: Watched | None = None, **changes: Any) -> Care:
    given: dict[str, Any] = {"alive": True, "idle": timedelta(minutes=6), "now": 301.0, "stuck_after": LIMIT}
    return care(record, seen or watched(), **{**given, **changes})


def test_a_hanging_process_is_ended_and_its_run_resumed() -> None:
    """Not a second before the page's time is over; first the process, then the rest of its work."""
    assert needed(now=300.0) is Care.NOTHING
    assert needed() is Care.STOP
    assert needed(alive=False) is Care.RESUME


@pytest.mark.parametrize("state", [state for state in RunState if state is not RunState.RUNNING])
def test_only_a_run_that_should_get_on_is_stuck(state: RunState) -> None:
    """Paused, cancelled, failed, done, undoing: somebody decided that, or somebody else has it in hand."""
    assert needed(dataclasses.replace(RECORD, state=state)) is Care.NOTHING


def test_after_three_resumes_without_a_document_people_are_needed() -> None:
    """A run that hangs again and again is not restarted for ever; one that gets on in between is."""
    assert needed(seen=watched(resumes=3)) is Care.PEOPLE
    assert needed(seen=watched(resumes=3), alive=False) is Care.PEOPLE
    later = watched(resumes=3).looked(further(51), 400.0)
    assert (later.resumes, later.since) == (0, 400.0)


def test_what_counts_as_getting_on() -> None:
    """Documents, a new session, another pace; an unchanged record does not, another run begins anew."""
    seen = watched(resumes=1)
    assert seen.looked(RECORD, 99.0) == seen
    assert seen.looked(further(60), 99.0).since == 99.0
    resumed = seen.looked(dataclasses.replace(RECORD, sessions=2), 99.0)
    assert (resumed.since, resumed.resumes) == (99.0, 1)
    other = seen.looked(dataclasses.replace(RECORD, id="run-2"), 99.0)
    assert (other.run_id, other.since, other.resumes) == ("run-2", 99.0, 0)


def test_a_run_of_long_ago_is_left_to_people() -> None:
    """A daemon that is started days later does not go on with a migration that everybody has forgotten."""
    assert needed(alive=False, idle=timedelta(minutes=64)) is Care.RESUME
    assert needed(alive=False, idle=timedelta(minutes=66)) is Care.NOTHING


@pytest.mark.timeout(240)
def test_the_daemon_ends_a_hanging_run_and_carries_it_to_its_end(deployment: Deployment, tmp_path: Path) -> None:
    """A migration started at the command line hangs; the daemon kills it, resumes it, and says so in its report."""
    page = (ROOT / "runbooks" / "firestore-operations.md").read_text(encoding="utf-8")
    assert page.count(">5 minutes") == 1
    (tmp_path / "page.md").write_text(page.replace(">5 minutes", ">3 seconds"), encoding="utf-8")
    config = deployment.config
    text = config.read_text().replace(str(ROOT / "runbooks" / "firestore-operations.md"), str(tmp_path / "page.md"))
    config.write_text(text.replace("max_write_rate: 20000.0", "max_write_rate: 400.0"))
    deployment.json("backup", "create", "--type", "full")
    deployment.start_daemon()
    deployment.url()
    hanging = deployment.start("migrate", "run", "0001_schema_version")

    def under_way() -> bool:
        status = deployment.json("migrate", "status")
        return bool(status and status["record"]["collections"][0]["counts"]["scanned"])

    eventually(under_way, what=lambda: "the run to get going")
    os.kill(hanging.pid, signal.SIGSTOP)
    began = time.monotonic()

    def done() -> bool:
        return str(deployment.json("migrate", "status")["record"]["state"]) == "done"

    eventually(done, what=lambda: f"the run to be resumed and done; the log: {deployment.log()}", timeout=120)
    assert hanging.wait(10) == -signal.SIGKILL
    assert time.monotonic() - began > 3
    status = deployment.json("migrate", "status")
    assert status["record"]["sessions"] == 2
    assert deployment.json("migrate", "validate", "0001_schema_version")["passed"] is True
    report = (tmp_path / "reports" / f"migration-report-{status['record']['id']}.md").read_text()
    assert "stuck: no progress for 0.05 minutes" in report
    assert "stuck: resumed by the daemon, for the first time" in report
