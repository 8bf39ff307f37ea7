"""What only a directory can get wrong: leftovers, a full disk, permissions."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason
from agent.storage import DirectoryStorage

_KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from agent.storage import DirectoryStorage
def chunks():
    yield b"x" * 100_000
    os.kill(os.getpid(), signal.SIGKILL)
DirectoryStorage(name="local", path=Path(sys.argv[1])).put("a/key", chunks())
"""


def test_a_killed_writer_leaves_nothing_listed_and_is_swept(tmp_path: Path) -> None:
    """After kill -9 in the middle of a put nothing is listed, and sweep removes the temporary file."""
    killed = subprocess.run([sys.executable, "-c", _KILLED_WRITER, str(tmp_path)], check=False)
    storage = DirectoryStorage(name="local", path=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    assert storage.list() == []
    assert storage.usage().stored_bytes == 0
    assert len(list((tmp_path / "a").iterdir())) == 1
    assert storage.sweep() == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """No room left is DISK_FULL, says what to do, and leaves nothing behind."""
    storage = DirectoryStorage(name="local", path=tmp_path)

    def full() -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(Permanent) as raised:
        storage.put("key", full())
    assert raised.value.reason is PermanentReason.DISK_FULL
    assert "backup clean" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device(tmp_path: Path) -> None:
    """The kernel's own ENOSPC is recognised."""
    storage = DirectoryStorage(name="local", path=tmp_path)

    def chunks() -> Iterator[bytes]:
        with Path("/dev/full").open("wb", buffering=0) as device:
            device.write(b"x")
        yield b""

    with pytest.raises(Permanent) as raised:
        storage.put("key", chunks())
    assert raised.value.reason is PermanentReason.DISK_FULL


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    """A path that is not a folder is a configuration error that names the path."""
    (tmp_path / "file").write_text("not a folder")
    storage = DirectoryStorage(name="local", path=tmp_path / "file")
    with pytest.raises(Misconfigured) as raised:
        storage.put("a/key", [b"x"])
    assert raised.value.reason is MisconfiguredReason.NOT_WRITABLE
    assert str(tmp_path / "file") in raised.value.message


def test_a_read_only_folder() -> None:
    """A folder that can't be written is a configuration error; /proc refuses even root."""
    with pytest.raises(Misconfigured) as raised:
        DirectoryStorage(name="local", path=Path("/proc")).put("key", [b"x"])
    assert raised.value.reason is MisconfiguredReason.NOT_WRITABLE


def test_capacity_is_the_configured_one_or_the_file_systems(tmp_path: Path) -> None:
    """With a configured capacity our own bytes count against it; without one the whole file system does."""
    configured = DirectoryStorage(name="local", path=tmp_path, capacity_bytes=4000)
    configured.put("a", [b"x" * 1000])
    assert configured.usage().ratio == 0.25
    of_the_disk = DirectoryStorage(name="local", path=tmp_path / "not" / "made").usage()
    assert of_the_disk.capacity_bytes is not None
    assert of_the_disk.used_bytes > 0
