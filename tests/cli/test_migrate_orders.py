"""Pausing, pacing and resuming a run from the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.firestore import DatabaseAddress, Firestore
from agent.migration import CollectionProgress, RunRecord, Runs, RunState, find_definition
from agent.sandbox import seed
from agent.telemetry import quiet_telemetry
from tests.cli.conftest import ROOT, Configure, Run


def stopped_run(folder: Path, host: str, project: str) -> str:
    """A run that was stopped before its first document."""
    definition = find_definition(ROOT / "migrations", "0002")
    runs = Runs(folder / "data" / "migrations")
    with Firestore(DatabaseAddress(project=project, host=host), telemetry=quiet_telemetry()) as firestore:
        record = RunRecord(
            id=runs.new_id(definition.revision, datetime.now(UTC)),
            name=definition.name,
            revision=definition.revision,
            database=firestore.address.root,
            checksum=definition.checksum,
            state=RunState.CANCELLED,
            started=datetime.now(UTC),
            pre_read_time=firestore.server_time(),
            collections=(CollectionProgress(collection="progress", documents=49),),
        )
    runs.save(record)
    return record.id


def test_pause_set_and_resume(run: Run, configure: Configure, sandbox: Any, project: str, tmp_path: Path) -> None:
    """Orders have an owner and a reason, stay in force between processes, and stand in the status and the report."""
    seed(sandbox.host, project, 0.004)
    config = configure(database={"project": project, "host": sandbox.host})

    def type_(*arguments: str) -> Any:
        return run("--config", config, "migrate", *arguments)

    nothing = type_("pause", "--owner", "ana", "--reason", "peak hour")
    assert nothing.code == 1
    assert "no migration has run yet" in nothing.err

    run_id = stopped_run(tmp_path, sandbox.host, project)
    assert type_("pause", "--owner", "ana", "--for", "never").code == 2
    paused = type_("pause", "--owner", "ana", "--reason", "peak hour", "--for", "2 hours")
    assert paused.code == 0, paused.err
    assert f"{run_id} is paused until" in paused.out
    assert type_("set", "batch-size", "25", "--owner", "ana", "--reason", "memory").code == 0
    assert type_("set", "rate", "5000", run_id, "--owner", "ana").code == 0
    assert type_("set", "threads", "5", "--owner", "ana").code == 2

    resumed = type_("resume", "--owner", "bo", "--json")

    assert resumed.code == 0, resumed.err
    record = json.loads(resumed.out)["record"]
    assert (record["id"], record["state"]) == (run_id, "done")
    assert sum(part["counts"]["scanned"] for part in record["collections"]) > 0
    report = (tmp_path / "reports" / f"migration-report-{run_id}.md").read_text()
    assert "paused by ana until" in report
    assert "batch size 25, by ana: memory" in report
    assert "go on, by bo" in report
    assert type_("pause", "--owner", "ana").code == 1, "it has ended"
