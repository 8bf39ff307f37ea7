"""Recorded samples at the command line: queries and backtests, without a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Configure, Run

START = 1_767_225_600


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Two minutes; after one of them the probe of the database fails."""
    lines = [
        f'runbookd_probe_success{{probe="database",job="runbookd"}} {1 if second < 60 else 0} {START + second}'
        for second in range(121)
    ]
    path = tmp_path / "incident.om"
    path.write_text("\n".join([*lines, "# EOF", ""]))
    return path


def test_an_expression_over_recorded_samples(run: Run, configure: Configure, recorded: Path) -> None:
    """At the recording's end, or at a moment that is given."""
    ask = ("--config", configure(), "rules", "eval", "runbookd_probe_success", "--data", recorded, "--json")
    (last,) = json.loads(run(*ask).out)["result"]
    assert last["value"] == [START + 120, "0"]
    (early,) = json.loads(run(*ask, "--at", "2026-01-01T00:00:30").out)["result"]
    assert early["value"][1] == "1"


def test_a_backtest_of_the_shipped_rules(run: Run, configure: Configure, recorded: Path) -> None:
    """The probe fails at 1m and its rule would have paged at 1m30s; thresholds come from the page."""
    config = configure()
    done = run("--config", config, "rules", "backtest", "--data", recorded, "--json")
    assert done.code == 0, done.err
    paged = [each for each in json.loads(done.out) if each["pages"]]
    assert [each["rule"] for each in paged] == ["ProbeFailing"]
    assert paged[0]["fired_at"].startswith("2026-01-01T00:01:30")
    assert "ProbeFailing" in run("--config", config, "rules", "backtest", "--data", recorded).out
