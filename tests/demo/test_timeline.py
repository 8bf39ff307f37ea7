"""The timeline: columns a person can read on any terminal, and figures that are right."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from agent.demo.timeline import Check, Timeline, budget_text, duration, verdict
from agent.telemetry import Progress


def _timeline(width: int) -> tuple[Timeline, io.StringIO, list[float]]:
    stream, now = io.StringIO(), [100.0]
    return Timeline(console=Console(file=stream, width=width), now=lambda: now[0]), stream, now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.034, "0.03 s"), (1.0, "1.0 s"), (99.94, "99.9 s"), (125.0, "2 min 5 s"), (300.0, "5 min")],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    """Two digits below a second, one below a hundred, then minutes."""
    assert duration(seconds) == text


def test_budgets_read_as_on_the_page() -> None:
    """Whole minutes as minutes."""
    assert (budget_text(30.0), budget_text(180.0), budget_text(300.0)) == ("30 s", "3 min", "5 min")


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_clock_and_budget_are_whole_on_any_width(width: int) -> None:
    """A narrow terminal folds the words, never the figures."""
    timeline, stream, now = _timeline(width)
    now[0] += 65.43
    timeline.add("Put the documents back " * 4, "all of them", seconds=12.3, budget=180.0, level=1)
    text = stream.getvalue()
    assert "01:05.4" in text
    assert "12.3 s" in text
    assert "of 3 min" in text


def test_an_entry_knows_when_it_is_late() -> None:
    """Over its budget is over; without one it can't be."""
    timeline, _, _ = _timeline(80)
    assert timeline.add("a", seconds=31.0, budget=30.0).over_budget
    assert not timeline.add("b", seconds=29.0, budget=30.0).over_budget
    assert not timeline.add("c", seconds=9999.0).over_budget


def test_progress_without_a_terminal_prints_nothing() -> None:
    """A log gets lines, not bars."""
    timeline, stream, _ = _timeline(80)
    timeline.start()
    timeline.progress(Progress(operation="backup", stage="users", done=5, total=10))
    timeline.clear("backup")
    timeline.stop()
    assert stream.getvalue().strip() == ""


def test_the_verdict_says_what_failed() -> None:
    """One line a check, with its detail."""
    stream = io.StringIO()
    Console(file=stream, width=100).print(
        verdict(
            [
                Check(title="Every document is as it was", passed=True, detail="30,672 documents"),
                Check(title="Paged and resolved", passed=False, detail="no page arrived"),
            ]
        )
    )
    good, bad = stream.getvalue().splitlines()
    assert good.split()[0] == "ok"
    assert bad.split()[0] == "FAILED"
    assert "no page arrived" in bad
