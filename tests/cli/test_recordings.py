"""Recorded samples at the command line: queries and backtests, without a daemon."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import ROOT, Configure, Run

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
    found = json.loads(done.out)
    called = [each for each in found["fired"] if each["pages"]]
    assert [each["rule"] for each in called] == ["ProbeFailing"]
    assert called[0]["fired_at"].startswith("2026-01-01T00:01:30")
    assert {each["condition"] for each in found["paged"]} == {"agent_probe"}
    assert found["decided"] == []
    assert "ErrorRateHigh" in found["unseen"]
    shown = run("--config", config, "rules", "backtest", "--data", recorded).out
    assert "ProbeFailing" in shown
    assert "pagerduty would have called" in shown
    assert "does not speak of" in shown


def test_a_backtest_needs_one_history(run: Run, configure: Configure, recorded: Path) -> None:
    """None, or two, are a mistake that is explained."""
    config = configure()
    for arguments in ((), ("--data", recorded, "--prometheus", "http://127.0.0.1:1")):
        done = run("--config", config, "rules", "backtest", *arguments)
        assert done.code == 2
        assert "needs one history" in done.err
    done = run("--config", config, "rules", "backtest", "--prometheus", "http://127.0.0.1:1")
    assert (done.code, "--from" in done.err) == (2, True)
    done = run("--config", config, "rules", "backtest", "--data", recorded, "--migration", "noon")
    assert (done.code, "FROM/TO" in done.err) == (2, True)


JOURNEY = f"""
rule_files: [{ROOT / "rules" / "decision-matrix.yaml"}]
evaluation_interval: 1s
runbook: {ROOT / "runbooks" / "firestore-operations.md"}
journeys:
  - name: damage
    interval: 1s
    input_series: [{{series: runbookd_migration_mismatched_documents, values: '0x5 1x10'}}]
    steps:
      - {{at: 4s, alerts: {{DataCorruption: inactive}}, notified: [], decided: []}}
      - {{at: 9s, alerts: {{DataCorruption: firing}}, notified: [{{kind: trigger}}, {{kind: update}}], recovery: none}}
"""


def test_journeys_run_beside_scripts(run: Run, tmp_path: Path) -> None:
    """One verb for both; each assertion is a record with its place, its time and what there was."""
    journey = tmp_path / "damage.journey.yaml"
    journey.write_text(JOURNEY)
    done = run("rules", "test", ROOT / "rules" / "tests" / "agent.test.yaml", journey, "--json")
    assert done.code == 0, done.err
    kinds = {each["kind"] for each in json.loads(done.out)}
    assert kinds == {"alert", "alerts", "notified", "decided", "recovery"}
    assert set(json.loads(done.out)[0]) == {"file", "test", "kind", "subject", "at", "passed", "expected", "got"}
    journey.write_text(JOURNEY.replace("kind: update", "kind: resolve"))
    done = run("rules", "test", journey)
    assert done.code == 1
    assert "notified at 9 s" in done.err


def test_what_is_rehearsed_is_not_logged_and_everything_else_is(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of a journey is no news of this process; its log is as before when the scripts are through."""
    log = logging.getLogger("agent")
    before = log.level
    journey = tmp_path / "stuck.journey.yaml"
    stuck = "world: {migration: {started: 0s}, failing: [clear_caches], put_back: 1s}\n    steps:\n"
    journey.write_text(JOURNEY[: JOURNEY.index("steps:")] + stuck + "      - {at: 90s, recovery: stuck}\n")
    done = run("rules", "test", journey)
    assert done.code == 0, done.err
    assert [record for record in caplog.records if record.name.startswith("agent.recovery")] == []
    assert log.level == before


@pytest.mark.timeout(120)
def test_a_recording_is_served_to_grafana(configure: Configure, recorded: Path) -> None:
    """A process answers Prometheus's API over the file, with the rules' own series, until it is told to stop."""
    rules = ROOT / "rules" / "agent.yaml"
    command = ["--config", str(configure()), "rules", "serve", "--data", str(recorded), str(rules), "--port", "0"]
    with subprocess.Popen([sys.executable, "-m", "agent.cli", *command], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        url = line.split()[-1].rstrip("/")
        assert "1 series from 2026-01-01 00:00:00Z to 2026-01-01 00:02:00Z" in line
        ask = f"query=runbookd_probe_success&start={START}&end={START + 120}&step=30"
        data = httpx.get(f"{url}/api/v1/query_range?{ask}", timeout=10.0).json()["data"]
        assert [value for _, value in data["result"][0]["values"]] == ["1", "1", "0", "0", "0"]
        now = httpx.post(f"{url}/api/v1/query", data={"query": 'ALERTS{alertname="ProbeFailing"}'}, timeout=10.0).json()
        assert [each["metric"]["alertstate"] for each in now["data"]["result"]] == ["firing"]
        alerts = httpx.get(f"{url}/api/v1/alerts", timeout=10.0).json()["data"]["alerts"]
        assert "ProbeFailing" in {each["labels"]["alertname"] for each in alerts}
        assert httpx.get(f"{url}/-/healthy", timeout=10.0).status_code == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0
