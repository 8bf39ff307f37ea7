"""An empty database for deep verification: a sandbox of its own, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agent.backup.ports import Database
from agent.backup.verify import Scratch
from agent.firestore import DatabaseAddress, Firestore
from agent.sandbox import start_sandbox
from agent.telemetry import quiet_telemetry


def sandbox_scratch() -> Scratch:
    """Opens a new sandbox each time; its traffic is not counted as the database's."""

    @contextmanager
    def opened() -> Iterator[Database]:
        telemetry = quiet_telemetry()
        with (
            start_sandbox() as sandbox,
            Firestore(DatabaseAddress(project="scratch", host=sandbox.host), telemetry=telemetry) as firestore,
        ):
            yield firestore
        telemetry.shutdown()

    return opened
