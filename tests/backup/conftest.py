"""A database with something of everything in it, and storages to back it up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest

from agent.backup import Backups
from agent.firestore import (
    Carrier,
    DatabaseAddress,
    Firestore,
    GeoPoint,
    NameRange,
    PlannedWrite,
    Reference,
    Vector,
    WriteKind,
    WriteState,
    canonical,
    encode_fields,
)
from agent.storage import DirectoryStorage, Storage
from agent.telemetry import Telemetry, quiet_telemetry
from tests.storage.conftest import gcs_bucket, gcs_endpoint, gcs_storage

__all__ = ["gcs_bucket", "gcs_endpoint", "gcs_storage"]  # fixtures that the storage tests have, too


class Running(Protocol):
    """What the fixtures ``sandbox``, ``emulator`` and ``backend`` give."""

    kind: str
    host: str


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Telemetry without exporters."""
    made = quiet_telemetry()
    yield made
    made.shutdown()


@pytest.fixture
def connect(telemetry: Telemetry) -> Iterator[Callable[[str, str], Firestore]]:
    """Opens a database by host and project; closed after the test."""
    opened: list[Firestore] = []

    def open_it(host: str, project: str) -> Firestore:
        address = DatabaseAddress(project=project, host=host)
        opened.append(Firestore(address, telemetry=telemetry, origin="backup", carrier=Carrier.STREAM))
        return opened[-1]

    yield open_it
    for firestore in opened:
        firestore.close()


@pytest.fixture
def firestore(connect: Callable[[str, str], Firestore], sandbox: Running, project: str) -> Firestore:
    """An empty database in the sandbox."""
    return connect(sandbox.host, project)


@pytest.fixture
def local(tmp_path: Path) -> DirectoryStorage:
    """A directory for backups."""
    return DirectoryStorage(name="local", path=tmp_path / "backups")


@pytest.fixture
def backups_of(telemetry: Telemetry) -> Callable[..., Backups]:
    """Makes :class:`Backups` on a database and storages."""

    def make(firestore: Firestore, *storages: Storage, **settings: Any) -> Backups:
        return Backups(firestore=firestore, storages=storages, telemetry=telemetry, **settings)

    return make


@pytest.fixture
def backups(backups_of: Callable[..., Backups], firestore: Firestore, local: Storage) -> Backups:
    """Backups of the sandbox's database in the directory."""
    return backups_of(firestore, local)


def write(firestore: Firestore, documents: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Set documents by path; ``None`` deletes."""
    writes = [
        PlannedWrite(name=firestore.address.name(path), fields=encode_fields(fields))
        if fields is not None
        else PlannedWrite(name=firestore.address.name(path), kind=WriteKind.DELETE)
        for path, fields in documents.items()
    ]
    refused = [one for one in firestore.write(writes, origin="test") if one.state is not WriteState.APPLIED]
    assert [(one.name, one.message) for one in refused] == []


def contents(firestore: Firestore) -> dict[str, bytes]:
    """Every document's canonical fields by path."""
    at = firestore.server_time()
    return {
        firestore.address.relative(document.name): canonical(document.fields)
        for document in firestore.documents(NameRange(), at)
    }


def of_everything(address: DatabaseAddress) -> dict[str, dict[str, Any]]:
    """Documents with every type of value, odd ids, missing parents, nothing in them, a lot in them."""
    every_type = {
        "null": None,
        "true": True,
        "integer": 1,
        "largest": 2**63 - 1,
        "smallest": -(2**63),
        "double": 1.0,
        "tiny": 5e-324,
        "negative_zero": -0.0,
        "nan": math.nan,
        "infinity": math.inf,
        "text": "naïve ☃ 𝄞",
        "empty": "",
        "bytes": bytes(range(256)),
        "time": datetime(2025, 9, 10, 8, 0, 0, 123456, UTC),
        "place": GeoPoint(latitude=52.5, longitude=13.4),
        "reference": Reference(address.name("users", "u1")),
        "vector": Vector((1.0, -0.5, 0.0)),
        "list": [1, 1.0, "1", None, {"deep": [b"\x00"]}],
        "map": {"z": 1, "a": {"ö": []}, "`": {}},
    }
    documents: dict[str, dict[str, Any]] = {f"users/u{number}": {"n": number, **every_type} for number in range(20)}
    documents |= {f"users/u{number}/cards/c{card}": {"n": card} for number in range(3) for card in range(3)}
    documents |= {f"missing/parent/below/d{number}": {"n": number} for number in range(5)}
    documents |= {f"numbers/__id{number}__": {"n": number} for number in (7, 70, 8)}
    documents |= {f"odd/{name}": {} for name in ("a b", "é", "日本語", "𝄞", "-", "a.b", "%2F", "~", "x" * 1000)}
    documents["large/one"] = {"blob": b"\x01" * 900_000}
    return documents


def damage(file: Path) -> None:
    """Flip a bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)
