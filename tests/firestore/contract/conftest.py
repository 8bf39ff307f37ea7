"""A connection to each Firestore that the product is tested against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from agent.firestore import DatabaseAddress, Firestore, RetryPolicy
from agent.telemetry import Telemetry, quiet_telemetry


class Running(Protocol):
    @property
    def host(self) -> str: ...

    @property
    def kind(self) -> str: ...


@pytest.fixture
def telemetry() -> Telemetry:
    return quiet_telemetry()


@pytest.fixture
def address(backend: Running, project: str) -> DatabaseAddress:
    """A database that no other test uses."""
    return DatabaseAddress(project=project, host=backend.host)


@pytest.fixture
def firestore(address: DatabaseAddress, telemetry: Telemetry) -> Iterator[Firestore]:
    """A connection to it."""
    with Firestore(address, telemetry=telemetry, origin="test", retry=RetryPolicy(budget=10.0)) as connection:
        yield connection
