"""Journeys: scripts that go on to people and rollbacks, and say what they expected and got."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.alerting.scripts import Assertion
from agent.faults import Misconfigured
from agent.rehearsal import is_journey, run_journey

ROOT = Path(__file__).parents[2]
RULES = """
groups:
  - name: one
    interval: 1s
    rules:
      - alert: Errors
        expr: errors > 5
        for: 3s
        labels: {severity: critical, matrix: error_rate, condition: error_rate}
"""
HEAD = f"""
rule_files: [rules.yaml]
evaluation_interval: 1s
runbook: {ROOT / "runbooks" / "firestore-operations.md"}
journeys:
"""
ERRORS = """
  - name: errors
    interval: 1s
    input_series:
      - {series: 'errors', values: '0x9 8x20 0x60'}
      - {series: 'db_client_operation_duration_seconds_count{db_query_summary="q"}', values: '0+50x100'}
"""


def play(folder: Path, body: str) -> tuple[Assertion, ...]:
    (folder / "rules.yaml").write_text(RULES)
    path = folder / "errors.journey.yaml"
    path.write_text(HEAD + ERRORS + body)
    return run_journey(path)


def test_from_samples_to_a_rollback_and_its_end(tmp_path: Path) -> None:
    """At 13 s the page and the decision, then the recovery in the page's order, and the resolve that says why.

    These rules have no watchdog, so there is no heartbeat.
    """
    found = play(
        tmp_path,
        """
    world: {migration: {run: run-1, started: 5s}, put_back: 7s}
    steps:
      - {at: 12s, alerts: {Errors: pending}, notified: [], decided: [], recovery: none, maintenance: off}
      - at: 13s
        alerts: {Errors: firing}
        heartbeat: off
        notified:
          - {at: 13s, kind: trigger, severity: critical, rules: Errors}
          - {at: 13s, kind: update, title: Rolling back run run-1}
        decided: [{at: 13s, row: error_rate, verdict: rollback, run: run-1, means: undo, pace: immediate}]
        recovery: running
      - {at: 15s, maintenance: on}
      - {at: 40s, recovery: done, maintenance: off, alerts: {Errors: inactive}}
      - {at: 41s, notified: [{kind: update, title: put back}, {kind: resolve, rules: Errors, title: over after}]}
""",
    )
    assert [each for each in found if not each.passed] == []
    assert {each.kind for each in found} == {"alerts", "notified", "decided", "recovery", "maintenance", "heartbeat"}


@pytest.mark.parametrize("second", [11, 13, 14, 18, 23, 26])
def test_a_kill_at_any_moment_changes_nothing_but_time(tmp_path: Path, second: int) -> None:
    """The same page, one rollback, one end; what was under way is carried on by the next process."""
    found = play(
        tmp_path,
        f"""
    world: {{migration: {{run: run-1, started: 5s}}, put_back: 7s}}
    steps:
      - {{at: {second}s, do: kill, for: 2s}}
      - at: 60s
        decided: [{{row: error_rate, verdict: rollback, run: run-1}}]
        recovery: done
        maintenance: off
        alerts: {{Errors: inactive}}
""",
    )
    assert [each for each in found if not each.passed] == []


def test_a_journey_says_what_it_expected_and_got(tmp_path: Path) -> None:
    """One record an expectation; a page too many is a failure as one too few."""
    nothing, wrong = play(
        tmp_path,
        """
    steps:
      - {at: 5s, notified: []}
      - {at: 20s, notified: [{kind: trigger, severity: warning}]}
""",
    )
    assert nothing.passed
    assert not wrong.passed
    assert (wrong.kind, wrong.at, wrong.expected) == ("notified", 20.0, "kind trigger, severity warning")
    assert "kind trigger, condition error_rate, severity critical" in wrong.got
    assert "No automatic rollback" in wrong.got


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    steps: []", "a journey needs steps"),
        ("    steps: [{at: 1s, notfied: []}]", "unknown key 'notfied'"),
        ("    steps: [{at: 1s, do: dance}]", "nobody can 'dance'"),
        ("    steps: [{at: 1s, do: approve}]", "no decision waits"),
        ("    steps: [{at: 20s, notified: [{colour: red}]}]", "unknown key 'colour'"),
        ("    steps: [{at: 20s, notified: none}]", "a list is expected"),
        ("    world: {migratoin: {}}\n    steps: [{at: 1s, recovery: none}]", "unknown key 'migratoin'"),
        ("    test: other\n    steps: [{at: 1s, recovery: none}]", "no test 'other'"),
    ],
)
def test_a_journey_that_can_not_be_played_is_refused(tmp_path: Path, body: str, message: str) -> None:
    """A misspelt expectation must not pass for one that is met."""
    with pytest.raises(Misconfigured) as caught:
        play(tmp_path, body)
    assert message in str(caught.value)


def test_scripts_and_journeys_are_told_apart() -> None:
    """promtool's files stay promtool's."""
    folder = ROOT / "rules" / "tests"
    assert is_journey(folder / "decision-matrix.journey.yaml")
    assert not is_journey(folder / "decision-matrix.test.yaml")
