"""Leases: a living process holds, a dead one doesn't."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.backup.leases import is_living, new_lease, process_identity, read_lease
from agent.faults import Permanent

NOW = datetime(2025, 9, 10, 8, 0, tzinfo=UTC)


def test_our_own_lease_lives_until_it_expires() -> None:
    """A lease holds while its process lives and its time has not run out; it survives storage."""
    lease = new_lease("restore", NOW, "projects/p/databases/d")
    assert read_lease(lease.to_bytes(), lease.file) == lease
    assert is_living(lease, NOW)
    assert not is_living(lease, NOW + timedelta(days=1))


def test_the_lease_of_a_dead_process_is_dead() -> None:
    """A process that is gone, or whose pid another one has now, holds nothing."""
    lease = new_lease("create", NOW)
    assert not is_living(lease, NOW, lambda _: None)
    assert not is_living(lease, NOW, lambda pid: f"{pid}@another start")


def test_a_lease_of_another_machine_counts_until_it_expires() -> None:
    """Elsewhere nobody can look whether the process lives."""
    lease = replace(new_lease("create", NOW), machine="elsewhere")
    assert is_living(lease, NOW, lambda _: None)
    assert not is_living(lease, NOW + timedelta(hours=2), lambda _: None)


def test_identity_of_processes() -> None:
    """A process is itself, a killed one is nobody, even before its parent has collected it."""
    assert process_identity(os.getpid()) == process_identity(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process_identity(child.pid) is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_identity(child.pid) is None
    child.communicate()


def test_a_damaged_lease_is_refused() -> None:
    """A lease that is not what was written is corruption."""
    with pytest.raises(Permanent):
        read_lease(new_lease("create", NOW).to_bytes().replace(b"create", b"delete"), "lease.json")
