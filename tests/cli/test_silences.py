"""Silences and acknowledgements at the command line, on the state file that a daemon reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.alerting import AlertState, SilenceBook, Timer
from agent.alerting.book import AlertBook, Entry
from agent.state import StateFile
from tests.cli.conftest import Configure, Run

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateFile]:
    file = StateFile(tmp_path / "data" / "state.db")
    yield file
    file.close()


@pytest.fixture
def config(configure: Configure, tmp_path: Path) -> Path:
    return configure(data_dir=str(tmp_path / "data"))


def test_a_silence_from_its_beginning_to_its_end(run: Run, config: Path, state: StateFile) -> None:
    """Added, listed, ended; what it covers is said each time."""
    given = ("condition=error_rate", "severity=~warn.*", "--reason", "load test", "--owner", "kim", "--for", "30 min")
    added = run("--config", config, "silence", "add", *given)
    assert added.code == 0, added.err
    (listed,) = json.loads(run("--config", config, "silence", "list", "--json").out)
    assert listed["owner"] == "kim"
    assert listed["id"] in added.out
    ended = run("--config", config, "silence", "expire", listed["id"], "--owner", "lee")
    assert 'condition="error_rate"' in ended.out
    assert "No silence" in run("--config", config, "silence", "list").out
    (told,) = SilenceBook(state).ended(datetime.now(UTC))
    assert told.ended_by == "lee"


def test_a_silence_that_says_too_little_is_refused(run: Run, config: Path) -> None:
    """No matcher is a usage error, one that means everything is refused by a guard."""
    assert run("--config", config, "silence", "add", "--reason", "x").code == 2
    assert run("--config", config, "silence", "add", "nonsense", "--reason", "x", "--owner", "kim").code == 2
    assert run("--config", config, "silence", "add", "team!=x", "--reason", "x", "--owner", "kim").code == 3
    assert run("--config", config, "silence", "expire", "nothing").code == 1


def test_an_alert_is_taken_in_hand(run: Run, config: Path, state: StateFile) -> None:
    """By the beginning of its id; the list says who has it."""
    entry = Entry(
        rule="r",
        element=(),
        alertname="ErrorRateCritical",
        fingerprint="abc123",
        labels={"severity": "critical"},
        annotations={},
        timer=Timer(state=AlertState.FIRING, value=1.0, active_since=NOW, seen_at=NOW, fired_at=NOW),
    )
    AlertBook(state).save(changed=[entry], refreshed=[], heard=[], gone=[])
    assert run("--config", config, "alerts", "ack", "zzz", "--owner", "kim").code == 1
    done = run("--config", config, "alerts", "ack", "abc", "--owner", "kim")
    assert done.code == 0, done.err
    (listed,) = json.loads(run("--config", config, "alerts", "list", "--json").out)
    assert listed["acknowledgement"]["owner"] == "kim"
    assert listed["silenced"] is False
