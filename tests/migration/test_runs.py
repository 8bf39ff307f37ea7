"""Run records: readable by every process, true after a crash."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.faults import Misconfigured, Permanent, PermanentReason, Refused, RefusedReason
from agent.migration import CollectionProgress, Counts, RunRecord, Runs, RunState

NOW = datetime(2025, 9, 10, 8, 0, tzinfo=UTC)


def record(run_id: str, **changes: object) -> RunRecord:
    made = RunRecord(
        id=run_id,
        name="0001_test",
        revision="0001",
        database="projects/p/databases/d",
        checksum="abc",
        state=RunState.RUNNING,
        started=NOW,
        pre_read_time=NOW,
        collections=(
            CollectionProgress(collection="users", documents=5, counts=Counts(scanned=3, written=3), started=NOW),
            CollectionProgress(collection="items", documents=7),
        ),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    """Every field survives the file."""
    runs = Runs(tmp_path)
    made = record(runs.new_id("0001", NOW), finished=NOW, error="gone", undone=3)
    runs.save(made)
    assert made.id == "run-20250910-080000-0001"
    assert Runs(tmp_path).get(made.id) == made
    assert (made.total, made.counts) == (12, Counts(scanned=3, written=3))


def test_ids_do_not_collide(tmp_path: Path) -> None:
    """Two runs of one second have different ids, and the later one is the latest."""
    runs = Runs(tmp_path)
    first, second = runs.new_id("0001", NOW), runs.new_id("0001", NOW)
    assert second == "run-20250910-080000-0001-2"
    runs.save(record(first))
    runs.save(record(second, name="0001_other"))
    latest = runs.latest()
    assert latest is not None
    assert latest.id == second
    assert runs.latest("0001_test") == record(first)


def test_one_worker_at_a_time(tmp_path: Path) -> None:
    """A run that is being worked on is alive and held; afterwards it is neither, whatever its record says."""
    runs = Runs(tmp_path)
    made = record(runs.new_id("0001", NOW))
    runs.save(made)
    assert not runs.alive(made)
    with runs.working_on(made.id):
        assert Runs(tmp_path).alive(made)
        with pytest.raises(Refused) as refused, Runs(tmp_path).working_on(made.id):
            pass
        assert refused.value.reason is RefusedReason.ALREADY_RUNNING
    assert not runs.alive(made)


def test_a_run_that_there_is_not(tmp_path: Path) -> None:
    """The message names the runs that there are."""
    runs = Runs(tmp_path)
    runs.save(record(runs.new_id("0001", NOW)))
    with pytest.raises(Permanent, match="the latest are run-20250910-080000-0001") as missing:
        runs.get("run-1")
    assert missing.value.reason is PermanentReason.NOT_FOUND


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """No room for records is said before anything runs."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured):
        Runs(tmp_path / "file" / "runs")
