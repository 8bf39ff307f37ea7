"""Workers: what they say is heard, how they end is known, and no end is silent."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent.clock import ManualClock, SystemClock
from agent.faults import Permanent, PermanentReason, Refused, RefusedReason, Transient, TransientReason
from agent.scheduling import Supervisor
from agent.telemetry import Progress, Telemetry, quiet_telemetry

PROGRAM = Path(__file__).with_name("worker_program.py")


@pytest.fixture
def telemetry() -> Telemetry:
    return quiet_telemetry()


@pytest.fixture
def supervisor(telemetry: Telemetry) -> Iterator[Supervisor]:
    found = Supervisor(
        command=[sys.executable, str(PROGRAM)],
        config=None,
        telemetry=telemetry,
        clock=SystemClock(),
        stuck_after=timedelta(minutes=5),
    )
    yield found
    found.stop(grace=5.0)


def _total(telemetry: Telemetry, name: str) -> float:
    return sum(sample.value for family in telemetry.families() for sample in family.samples if sample.name == name)


def test_a_report_progress_and_figures_come_back(supervisor: Supervisor, telemetry: Telemetry) -> None:
    """The last progress, the report and every count reach the daemon."""
    seen: list[Progress] = []
    report = supervisor.run("count", {"upto": 1000}, progress=seen.append)
    assert report == {"counted": 1000}
    assert (seen[-1].done, seen[-1].total) == (1000, 1000)
    assert _total(telemetry, "firestore_documents_written_total") == 1000
    assert supervisor.running() == ()


def test_an_error_comes_back_as_the_same_error(supervisor: Supervisor) -> None:
    """Kind, reason and hint survive the pipe, so that the daemon decides as if it had happened here."""
    with pytest.raises(Refused, match="somebody holds it: release it") as caught:
        supervisor.run("refuse")
    assert caught.value.reason is RefusedReason.HELD


def test_what_is_in_no_hurry_leaves_the_processor_to_the_rules(supervisor: Supervisor) -> None:
    """A backup has a lower priority than the daemon; what a rollback waits for has the daemon's own."""
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert supervisor.run("urgent") == {"nice": ours}
    assert supervisor.run("priority") == {"nice": min(19, ours + 10)}


def test_a_worker_has_two_heaps(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody wants more: threads with heaps of their own keep what they have freed."""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert supervisor.run("heaps") == {"heaps": "2"}
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    assert supervisor.run("heaps") == {"heaps": "3"}


def test_a_bug_is_reported(supervisor: Supervisor) -> None:
    """An exception nobody foresaw is a permanent internal error."""
    with pytest.raises(Permanent, match="ZeroDivisionError") as caught:
        supervisor.run("bug")
    assert caught.value.reason is PermanentReason.INTERNAL


def test_a_killed_worker_is_noticed(supervisor: Supervisor) -> None:
    """SIGKILL (or the OOM killer) ends in a retryable error that names the operation."""
    with pytest.raises(Transient, match="worker of crash ended with status -9") as caught:
        supervisor.run("crash")
    assert caught.value.reason is TransientReason.WORKER_DIED


def test_cancel_stops_at_a_safe_point(supervisor: Supervisor) -> None:
    """A worker that is asked to stop says how it ended."""
    started = threading.Event()
    running = supervisor.start("wait", progress=lambda _: started.set())
    assert started.wait(20)
    running.cancel()
    outcome = running.wait(20)
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error.reason is PermanentReason.CANCELLED


def test_a_worker_whose_daemon_died_stops(supervisor: Supervisor) -> None:
    """The end of standard input is a request to stop: no orphan writes on for hours."""
    started = threading.Event()
    running = supervisor.start("wait", progress=lambda _: started.set())
    assert started.wait(20)
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.wait(20) is not None


def test_no_progress_for_the_pages_five_minutes_is_stuck(telemetry: Telemetry) -> None:
    """The page's figure, measured on the monotonic clock."""
    clock = ManualClock()
    supervisor = Supervisor(
        command=[sys.executable, str(PROGRAM)],
        config=None,
        telemetry=telemetry,
        clock=clock,
        stuck_after=timedelta(minutes=5),
    )
    started = threading.Event()
    running = supervisor.start("wait", progress=lambda _: started.set())
    try:
        assert started.wait(20)
        clock.advance(299)
        assert supervisor.stuck() == ()
        clock.advance(2)
        assert supervisor.stuck() == (running,)
        assert _total(telemetry, "runbookd_workers_stuck") == 1
    finally:
        running.kill()
        running.wait(20)
