"""A worker process for the kill tests: one action on one run, a line on stdout for each sign of progress."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.firestore import DatabaseAddress, Firestore
from agent.migration import Migrations, Preconditions, RunSettings, UndoSettings
from agent.telemetry import Progress, quiet_telemetry
from tests.migration.world import fresh_restore_point


def main(host: str, project: str, folder: str, action: str, run_id: str) -> None:
    telemetry = quiet_telemetry()
    address = DatabaseAddress(project=project, host=host)
    with Firestore(address, telemetry=telemetry, origin="test") as firestore:
        migrations = Migrations(
            firestore=firestore,
            definitions=Path(folder) / "definitions",
            data_dir=Path(folder) / "data",
            telemetry=telemetry,
            preconditions=Preconditions(restore_point=fresh_restore_point),
            settings=RunSettings(batch_size=10, parallel=3),
            undo_settings=UndoSettings(parallel=3),
        )

        def say(progress: Progress) -> None:
            sys.stdout.write(f"{progress.stage} {progress.done}\n")
            sys.stdout.flush()

        if action == "run":
            migrations.run("0001", progress=say)
        elif action == "resume":
            migrations.resume(run_id, progress=say)
        else:
            migrations.undo(run_id, progress=say)


if __name__ == "__main__":
    main(*sys.argv[1:])
