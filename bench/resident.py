"""Peak memory of real worker processes: the supervisor starts them as the daemon does, a process beside them measures.

python -m bench.resident FILE COMMAND...      # runs COMMAND and writes its peak memory, in kilobytes, into FILE
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent.clock import SystemClock
from agent.scheduling import Supervisor
from agent.telemetry import quiet_telemetry
from bench.measure import Target

WORKER_PEAK = Target(limit=256, at_least=False)
"""What any worker may hold, in megabytes (2^20 bytes)."""

_RUNBOOK = Path(__file__).parents[1] / "runbooks" / "firestore-operations.md"
_KILOBYTES = 1 << 10
_OVERRIDES = ("FIREBASE_PROJECT", "GOOGLE_CLOUD_PROJECT", "BACKUP_STORAGE")  # of what the settings file says


class Workers:
    """Runs operations, each in a worker of its own.

    Args:
        folder: where settings, backups and measurements go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, host: str, project: str, operation: str, **arguments: object) -> tuple[Mapping[str, Any], float]:
        """What the worker reports, and the most memory that it held, in megabytes (2^20 bytes)."""
        settings = self._folder / f"{project}.yaml"
        settings.write_text(
            f"runbook: {_RUNBOOK}\n"
            f"data_dir: {self._folder / 'data'}\n"
            f"database: {{project: {project}, host: '{host}'}}\n"
            f"storage: {{local: {self._folder / 'backups'}}}\n"
            "log_level: ERROR\n",
            encoding="utf-8",
        )
        measured = self._folder / "peak"
        telemetry = quiet_telemetry()
        supervisor = Supervisor(
            command=[
                sys.executable,
                "-m",
                "bench.resident",
                str(measured),
                sys.executable,
                "-m",
                "agent.daemon.worker",
            ],
            config=str(settings),
            telemetry=telemetry,
            clock=SystemClock(),
            stuck_after=timedelta(minutes=5),
        )
        try:
            report = supervisor.run(operation, arguments)
        finally:
            telemetry.shutdown()
        return report, int(measured.read_text()) / _KILOBYTES


def main() -> int:
    """Run a command with this process's own input and output; returns its exit code."""
    environment = {name: value for name, value in os.environ.items() if name not in _OVERRIDES}
    process = subprocess.Popen(sys.argv[2:], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    Path(sys.argv[1]).write_text(str(usage.ru_maxrss), encoding="utf-8")  # kilobytes on Linux
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
