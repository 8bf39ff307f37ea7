"""The record of scheduled backups: "1 missed", "2 consecutive", across restarts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.backup import Attempt, BackupHistory, BackupType, Outcome, consecutive_failures, missed_since
from agent.state import StateFile

START = datetime(2025, 9, 10, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def attempt(hours: int, outcome: Outcome, kind: BackupType = BackupType.SNAPSHOT) -> Attempt:
    return Attempt(type=kind, due_at=START + hours * HOUR, outcome=outcome)


def test_counting_in_a_row() -> None:
    """Failures and misses count alike, back to the newest success."""
    ok, failed, missed = Outcome.OK, Outcome.FAILED, Outcome.MISSED
    assert consecutive_failures([]) == 0
    assert consecutive_failures([ok, failed]) == 0
    assert consecutive_failures([failed, ok, failed]) == 1
    assert consecutive_failures([missed, failed, ok]) == 2


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """Two failures before a restart are two failures after it; a success ends the row; types don't mix."""
    state = StateFile(tmp_path / "state.db")
    history = BackupHistory(state)
    history.record(attempt(0, Outcome.OK))
    history.record(attempt(1, Outcome.FAILED))
    history.record(attempt(2, Outcome.FAILED))
    history.record(attempt(2, Outcome.OK, BackupType.FULL))
    state.close()

    state = StateFile(tmp_path / "state.db")
    history = BackupHistory(state)
    assert history.consecutive_failures(BackupType.SNAPSHOT) == 2
    assert history.consecutive_failures(BackupType.FULL) == 0
    assert history.consecutive_failures(BackupType.INCREMENTAL) == 0
    history.record(attempt(3, Outcome.OK))
    assert history.consecutive_failures(BackupType.SNAPSHOT) == 0
    state.close()


def test_an_attempt_is_recorded_once(tmp_path: Path) -> None:
    """A late success of an attempt that was written down as missed replaces the record."""
    state = StateFile(tmp_path / "state.db")
    history = BackupHistory(state)
    history.record(attempt(0, Outcome.MISSED))
    history.record(attempt(0, Outcome.OK))
    assert [one.outcome for one in history.attempts(BackupType.SNAPSHOT)] == [Outcome.OK]
    state.close()


def test_what_was_due_while_nobody_was_there() -> None:
    """Each due time whose successor has come, too, is missed; the latest one may still be made up."""
    assert missed_since(START, START + timedelta(minutes=90), HOUR) == []
    assert missed_since(START, START + timedelta(hours=3, minutes=30), HOUR) == [START + HOUR, START + 2 * HOUR]


def test_misses_of_a_downtime_are_written_down(tmp_path: Path) -> None:
    """A daemon that comes back after a night records what was due, for types that were ever attempted."""
    state = StateFile(tmp_path / "state.db")
    history = BackupHistory(state)
    history.record(attempt(0, Outcome.OK))
    schedule = {BackupType.SNAPSHOT: HOUR, BackupType.FULL: timedelta(days=7)}
    missed = history.record_missed(schedule, START + 5 * HOUR)
    assert [one.due_at for one in missed] == [START + hours * HOUR for hours in (1, 2, 3, 4)]
    assert history.consecutive_failures(BackupType.SNAPSHOT) == 4
    assert history.record_missed(schedule, START + 5 * HOUR) == []
    state.close()


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    """The record does not grow without end."""
    state = StateFile(tmp_path / "state.db")
    history = BackupHistory(state)
    with state.transaction():
        for hours in range(1005):
            history.record(attempt(hours, Outcome.OK))
    assert len(history.attempts(BackupType.SNAPSHOT, 2000)) == 1000
    assert history.attempts(BackupType.SNAPSHOT, 1)[0].due_at == START + 1004 * HOUR
    state.close()
