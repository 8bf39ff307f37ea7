"""One change at a time, and no stale lock."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.clock import ManualClock, SystemClock
from agent.faults import Refused, RefusedReason
from agent.scheduling import ChangeLock


def test_a_second_change_is_refused_and_told_why(tmp_path: Path) -> None:
    """The message names the purpose and the process of the holder."""
    with ChangeLock(tmp_path / "change.lock", purpose="migration run-1", clock=SystemClock()):
        clock = ManualClock()
        with (
            pytest.raises(Refused, match="migration run-1") as caught,
            ChangeLock(tmp_path / "change.lock", purpose="undo", clock=clock, patience=5.0),
        ):
            pass
        assert clock.monotonic() >= 5.0
    assert caught.value.reason is RefusedReason.ALREADY_RUNNING


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    """kill -9 releases it: the lock is the kernel's, not a file's existence."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from agent.clock import SystemClock\n"
        "from agent.scheduling import ChangeLock\n"
        "ChangeLock(Path(sys.argv[1]), purpose='x', clock=SystemClock()).__enter__()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "change.lock"
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -signal.SIGKILL
    with ChangeLock(path, purpose="undo", clock=SystemClock()):
        pass
