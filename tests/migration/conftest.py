"""Small databases on a real server, and migrations written for one test."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from agent.firestore import DatabaseAddress, Firestore, RetryPolicy
from agent.telemetry import Telemetry, quiet_telemetry
from tests.migration.world import World


class Host(Protocol):
    """A running Firestore."""

    host: str


@pytest.fixture
def write_definition(tmp_path: Path) -> Callable[..., Path]:
    """Writes a migration file; returns its path."""

    def write(text: str, name: str = "0001_test.py") -> Path:
        folder = tmp_path / "definitions"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def telemetry() -> Telemetry:
    return quiet_telemetry()


@pytest.fixture
def world(backend: Host, project: str, tmp_path: Path, telemetry: Telemetry) -> Iterator[World]:
    """An empty database on the sandbox, and again on Google's emulator."""
    address = DatabaseAddress(project=project, host=backend.host)
    retry = RetryPolicy(first=0.01, ceiling=0.1, budget=2.0)
    with Firestore(address, telemetry=telemetry, origin="test", retry=retry) as firestore:
        yield World(firestore=firestore, folder=tmp_path, telemetry=telemetry)
