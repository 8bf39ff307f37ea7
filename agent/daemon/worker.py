"""Entry of the worker processes: ``python -m agent.daemon.worker``; see :mod:`agent.scheduling.worker`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from agent.daemon.operations import RECOVERING, operations_of
from agent.scheduling import Assignment, Operation, serve
from agent.settings import load_settings
from agent.telemetry import Telemetry, start_logging, start_telemetry


def _operations(assignment: Assignment, telemetry: Telemetry) -> Mapping[str, Operation]:
    settings = load_settings(Path(assignment.config) if assignment.config else None)
    start_logging(settings.log_level)
    return operations_of(settings, telemetry)


def main() -> int:
    """Serve one operation; returns the exit code."""
    start_logging()
    return serve(_operations, telemetry=start_telemetry("worker"), urgent=RECOVERING)


if __name__ == "__main__":
    sys.exit(main())
