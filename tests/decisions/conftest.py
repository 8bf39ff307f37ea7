"""The runbook that decisions are tested with, and a state file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.runbook import Policy, load_runbook
from agent.state import StateFile

PAGE = Path(__file__).parents[2] / "runbooks" / "firestore-operations.md"


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load_runbook(PAGE)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateFile]:
    file = StateFile(tmp_path / "state.sqlite")
    yield file
    file.close()
