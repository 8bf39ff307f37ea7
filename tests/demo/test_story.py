"""The main job, end to end, small: a bad migration is rolled back by itself, and the proof holds."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from agent.cli.demo import daemon_of
from agent.demo import DemoOptions, FaultChoice, Story
from agent.runbook import load_runbook

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "runbooks" / "firestore-operations.md"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "fault",
    [
        FaultChoice.CORRUPTION,
        pytest.param(FaultChoice.ERRORS, marks=pytest.mark.slow),
        pytest.param(FaultChoice.LATENCY, marks=pytest.mark.slow),
        pytest.param(FaultChoice.NONE, marks=pytest.mark.slow),
    ],
)
def test_the_story_ends_as_the_page_says(fault: FaultChoice, tmp_path: Path) -> None:
    """Every check of the verdict passes: documents, decision, budgets, page."""
    stream = io.StringIO()
    options = DemoOptions(
        folder=tmp_path,
        page=PAGE,
        rules=str(ROOT / "rules" / "*.yaml"),
        migrations=ROOT / "migrations",
        scale=0.02,
        fault=fault,
    )
    with Story(options, load_runbook(PAGE), Console(file=stream, width=110), daemon_of) as story:
        checks = story.play()
    assert all(check.passed for check in checks), stream.getvalue()
