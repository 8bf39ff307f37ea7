"""The state file: durable, shared, versioned, and clear about what is wrong with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason
from agent.state import StateFile

_SCHEMA = ("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL);",)


def test_a_transaction_that_raises_leaves_nothing(tmp_path: Path) -> None:
    """Half a change is no change."""
    state = StateFile(tmp_path / "state.db")
    state.ensure("notes", _SCHEMA)
    with pytest.raises(ZeroDivisionError), state.transaction() as tx:
        tx.execute("INSERT INTO note (text) VALUES ('half')")
        raise ZeroDivisionError
    assert state.query("SELECT * FROM note") == []
    state.close()


def test_an_inner_transaction_belongs_to_the_outer_one(tmp_path: Path) -> None:
    """Two rooms that write together are atomic together."""
    state = StateFile(tmp_path / "state.db")
    state.ensure("notes", _SCHEMA)
    with pytest.raises(ZeroDivisionError), state.transaction() as tx:
        with state.transaction() as inner:
            inner.execute("INSERT INTO note (text) VALUES ('inner')")
        tx.execute("INSERT INTO note (text) VALUES ('outer')")
        raise ZeroDivisionError
    assert state.query("SELECT * FROM note") == []
    state.close()


def test_schema_steps_run_once_and_in_order(tmp_path: Path) -> None:
    """A file of an older version is brought up to date without losing rows."""
    path = tmp_path / "state.db"
    state = StateFile(path)
    state.ensure("notes", _SCHEMA)
    with state.transaction() as tx:
        tx.execute("INSERT INTO note (text) VALUES ('kept')")
    state.close()
    state = StateFile(path)
    state.ensure("notes", (*_SCHEMA, "ALTER TABLE note ADD COLUMN author TEXT NOT NULL DEFAULT 'nobody';"))
    assert [tuple(row) for row in state.query("SELECT text, author FROM note")] == [("kept", "nobody")]
    state.close()


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """An old program doesn't write into a new schema."""
    path = tmp_path / "state.db"
    state = StateFile(path)
    state.ensure("notes", (*_SCHEMA, "ALTER TABLE note ADD COLUMN author TEXT;"))
    with pytest.raises(Misconfigured, match="holds version 2 of notes's tables") as caught:
        state.ensure("notes", _SCHEMA)
    assert caught.value.reason is MisconfiguredReason.SETTINGS
    state.close()


def test_a_committed_change_survives_sigkill(tmp_path: Path) -> None:
    """What was committed is there after kill -9; what was not is gone."""
    path = tmp_path / "state.db"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from agent.state import StateFile\n"
        "state = StateFile(Path(sys.argv[1]))\n"
        f"state.ensure('notes', {_SCHEMA!r})\n"
        "with state.transaction() as tx:\n"
        "    tx.execute(\"INSERT INTO note (text) VALUES ('committed')\")\n"
        "with state.transaction() as tx:\n"
        "    tx.execute(\"INSERT INTO note (text) VALUES ('open')\")\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    state = StateFile(path)
    assert [row["text"] for row in state.query("SELECT text FROM note")] == ["committed"]
    state.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """Garbage in place of the file is a clear error, not a traceback."""
    path = tmp_path / "state.db"
    path.write_bytes(b"this is not a database, it is a sentence" * 40)
    with pytest.raises(Permanent, match="is not a SQLite database") as caught:
        StateFile(path)
    assert caught.value.reason is PermanentReason.CORRUPT


def test_a_folder_without_write_permission_is_named() -> None:
    """No write permission in the data folder says which folder and what to do; /proc refuses even root."""
    with pytest.raises(Misconfigured, match=r"/proc/runbookd/state\.db can't be opened for writing") as caught:
        StateFile(Path("/proc/runbookd/state.db"))
    assert caught.value.reason is MisconfiguredReason.NOT_WRITABLE


def test_a_data_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    """The folder's place is taken by a file: the same clear error, for root too."""
    (tmp_path / "data").write_text("a file")
    with pytest.raises(Misconfigured, match="can't be opened for writing") as caught:
        StateFile(tmp_path / "data" / "state.db")
    assert caught.value.reason is MisconfiguredReason.NOT_WRITABLE
