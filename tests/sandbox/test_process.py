"""The sandbox as a process: it comes up, goes with its parent, and keeps what it said it kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore.protos import Value
from agent.sandbox import start_sandbox

Connect = Callable[[str, str], Any]


def test_answered_commits_survive_a_killed_server(tmp_path: Path, connect: Connect, project: str) -> None:
    """Whatever was acknowledged before kill -9 is there after a restart, and no commit is torn."""
    answered: list[int] = []
    with start_sandbox(tmp_path) as first:
        wire = connect(first.host, project)
        enough = threading.Event()

        def write() -> None:
            number = 0
            try:
                while True:
                    number += 1
                    pair = [wire.set(f"{name}/{number}", {"n": Value(integer_value=number)}) for name in "ab"]
                    wire.commit(*pair)
                    answered.append(number)
                    if number == 50:
                        enough.set()
            except grpc.RpcError:
                return

        writer = threading.Thread(target=write)
        writer.start()
        assert enough.wait(20)
        os.kill(first.pid, signal.SIGKILL)
        writer.join()
    with start_sandbox(tmp_path) as second:
        wire = connect(second.host, project)
        kept = [sorted(int(path[2:]) for path in wire.query(name)) for name in "ab"]
        assert kept[0] == kept[1]
        assert kept[0] in (answered, [*answered, len(answered) + 1])
        wire.put(a__after={})


def test_the_memory_sandbox_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a data folder, not even a killed server leaves files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with start_sandbox() as process:
        os.kill(process.pid, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_it_ends_with_its_parent() -> None:
    """A parent that is killed takes its sandbox along."""
    script = (
        "import os, signal; from agent.sandbox import start_sandbox; s = start_sandbox();"
        "print(s.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    child = int(parent.stdout)
    ended = threading.Event()

    def wait() -> None:
        # Not our child, so it can't be waited for; its end closes the descriptor of /proc.
        while os.path.exists(f"/proc/{child}/exe"):  # noqa: PTH110 - a dangling link is what we look for
            ended.wait(0.02)
        ended.set()

    watcher = threading.Thread(target=wait, daemon=True)
    watcher.start()
    watcher.join(10)
    assert ended.is_set()


def test_it_serves_by_hand_until_told_to_stop() -> None:
    """Started from a shell it says its address and ends at SIGTERM with exit code 0."""
    server = subprocess.Popen(
        [sys.executable, "-m", "agent.sandbox"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    with server.stdout as output:
        assert json.loads(output.readline())["host"].startswith("127.0.0.1:")
        server.terminate()
        assert server.wait(10) == 0


def test_a_port_in_use_is_said(sandbox: Any) -> None:
    """The error names the port and the way out."""
    port = int(sandbox.host.rpartition(":")[2])
    with pytest.raises(Misconfigured, match=str(port)) as refusal:
        start_sandbox(port=port)
    assert refusal.value.reason is MisconfiguredReason.PORT_IN_USE


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The error comes out of the process as it went in."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Misconfigured, match="can't keep its data") as refusal:
        start_sandbox(tmp_path / "file" / "data")
    assert refusal.value.reason is MisconfiguredReason.NOT_WRITABLE
