"""Backtests: a recorded history, what it would have led to, and histories that a real Prometheus has kept."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from agent.alerting import load_rules
from agent.alerting.recordings import Recording, read_recording, recording_of
from agent.faults import Permanent, Transient
from agent.rehearsal import Migration, backtest
from agent.rehearsal.history import asker, fetched
from agent.runbook import Policy, load_runbook
from agent.samples import Sample, labels_of
from tests.conftest import binary, free_port

ROOT = Path(__file__).parents[2]
START = 1_767_225_600
RULES = """groups:
  - name: one
    interval: 1s
    rules:
      - alert: TooManyErrors
        expr: errors > scalar(limit)
        for: 10s
        labels: {severity: critical, matrix: error_rate, condition: error_rate}
      - alert: NeverSpokenOf
        expr: nothing_of_that_name > 1
      - alert: Watchdog
        expr: vector(1)
        labels: {severity: none}
"""
LIMIT = [Sample(labels_of("limit", {}), 5.0)]
TRAFFIC = labels_of("db_client_operation_duration_seconds_count", {"db_query_summary": "q"})
ERRORS = labels_of("errors", {})


def moment(second: float) -> datetime:
    return datetime.fromtimestamp(START + second, UTC)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_runbook(ROOT / "runbooks" / "firestore-operations.md")


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def history(*, active: bool = False) -> Recording:
    """Five minutes, every 5 s, with too many errors from 1m to 2m; perhaps a run under watch from 50 s on."""
    seconds = range(0, 301, 5)
    series = {
        ERRORS: [(START + second, 8.0 if 60 <= second < 120 else 1.0) for second in seconds],
        TRAFFIC: [(START + second, 50.0 * second) for second in seconds],
    }
    if active:
        runs = labels_of("runbookd_migration_active", {})
        series[runs] = [(START + second, 1.0 if second >= 50 else 0.0) for second in seconds]
    return recording_of(series)


def test_an_incident_fires_pages_and_is_a_persons_decision(rules: Path, policy: Policy) -> None:
    """At 1m the errors rise, at 1m10s people are called; there is no migration to blame, so nothing is rolled back."""
    found = backtest(load_rules([rules]), history(), policy, thresholds=LIMIT)
    watchdog, errors = found.fired
    assert not watchdog.pages
    assert errors.pages
    assert (errors.rule, errors.action) == ("TooManyErrors", "immediate_rollback")
    assert (errors.fired_at, errors.resolved_at) == (moment(70), moment(120))
    triggers = [each for each in found.paged if each.kind == "trigger"]
    assert {(each.at, each.condition, each.severity) for each in triggers} == {(moment(70), "error_rate", "critical")}
    assert {each.at for each in found.paged if each.kind == "resolve"} == {moment(120)}
    (decided,) = found.decided
    assert (decided.at, decided.verdict, decided.rolls_back) == (moment(70), "inconclusive", False)
    assert "no migration run" in decided.reasons[0]
    assert found.unseen == ("NeverSpokenOf",)


@pytest.mark.parametrize("told", ["by its samples", "by a person"])
def test_a_migration_before_it_would_have_been_rolled_back(rules: Path, policy: Policy, told: str) -> None:
    """Whether the recording tells of the run or a person does."""
    run = None if told == "by its samples" else Migration(started=moment(50), ended=moment(58))
    found = backtest(load_rules([rules]), history(active=run is None), policy, thresholds=LIMIT, migration=run)
    decided = [each for each in found.decided if each.rolls_back]
    assert [(each.at, each.row, each.verdict) for each in decided] == [(moment(70), "error_rate", "rollback")]


def test_what_is_before_the_beginning_only_fills_windows(rules: Path, policy: Policy) -> None:
    """Looks begin where they are asked to."""
    found = backtest(load_rules([rules]), history(), policy, thresholds=LIMIT, start=moment(130))
    assert [each.rule for each in found.fired] == ["Watchdog"]
    assert (found.start, found.end) == (moment(130), moment(300))


# --- from a Prometheus --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that was given the history as blocks."""
    folder = tmp_path_factory.mktemp("history")
    lines = [
        f"{'db_client_operation_duration_seconds_count' if labels is TRAFFIC else 'errors'}"
        f"{'{db_query_summary=' + chr(34) + 'q' + chr(34) + '}' if labels is TRAFFIC else ''} {value} {at}"
        for labels, samples in history().series.items()
        for at, value in samples
    ]
    text = ["# TYPE errors gauge", *[line for line in lines if line.startswith("errors")]]
    text += ["# TYPE db_client_operation_duration_seconds_count gauge", *[each for each in lines if each[0] == "d"]]
    (folder / "history.om").write_text("\n".join([*text, "# EOF", ""]))
    tool = binary("promtool", "prometheus")
    command = [tool, "tsdb", "create-blocks-from", "openmetrics", "history.om", "data"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / "prometheus.yml").write_text("")
    port = free_port()
    server = subprocess.Popen(
        [
            binary("prometheus", "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=10y",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _until_ready(url)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


def _until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/-/ready", timeout=2.0).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    pytest.fail("Prometheus did not become ready")


@pytest.mark.prometheus
def test_a_history_from_a_prometheus_is_the_recorded_one(rules: Path, policy: Policy, prometheus: str) -> None:
    """Sample by sample, and with the same outcome; series that no rule reads are not asked for."""
    loaded = load_rules([rules])
    found = fetched(loaded, asker(prometheus), start=moment(0), end=moment(300))
    assert found.series == {ERRORS: history().series[ERRORS]}
    fired = backtest(loaded, found, policy, thresholds=LIMIT).fired
    assert fired == backtest(loaded, history(), policy, thresholds=LIMIT).fired


@pytest.mark.prometheus
def test_a_prometheus_without_any_of_it_says_so(rules: Path, prometheus: str) -> None:
    """A history that does not speak of the rules' metrics is a mistake, not a quiet time."""
    later = datetime.fromtimestamp(START, UTC) + timedelta(days=2)
    with pytest.raises(Permanent, match="has no sample of anything that the rules read"):
        fetched(load_rules([rules]), asker(prometheus), start=later, end=later + timedelta(minutes=5))


def test_a_prometheus_that_is_not_there_says_so(rules: Path) -> None:
    """It may be back in a moment, so it is worth another try."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Transient, match="does not answer"):
        fetched(load_rules([rules]), asker(url), start=moment(0), end=moment(10))


def test_what_a_prometheus_refuses_is_quoted(rules: Path) -> None:
    """Its own words, with what to do."""

    def refuse(path: str, parameters: object) -> httpx.Response:
        del path, parameters
        return httpx.Response(422, json={"status": "error", "error": "too many samples"})

    with pytest.raises(Permanent, match="too many samples") as caught:
        fetched(load_rules([rules]), refuse, start=moment(0), end=moment(10))
    assert "--from" in caught.value.hint


def test_a_recorded_file_and_the_history_are_one_thing(tmp_path: Path) -> None:
    """What a backtest takes is a recording, whichever way it came."""
    path = tmp_path / "h.om"
    path.write_text(f"errors 1 {START}\n# EOF\n")
    assert read_recording(path).series == recording_of({ERRORS: [(float(START), 1.0)]}).series
