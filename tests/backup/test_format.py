"""The description of the format: its script reads a backup, and its tables name what is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.backup import Backups, BackupType, Compression
from agent.firestore import Firestore
from tests.backup.conftest import contents, of_everything, write

DOCUMENT = Path(__file__).parents[2] / "docs" / "backup-format.md"


def script() -> str:
    found = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("compression", Compression)
def test_the_script_reads_a_backup(
    firestore: Firestore, backups: Backups, tmp_path: Path, compression: Compression
) -> None:
    """The script of the document prints every document of a backup, with its values."""
    write(firestore, of_everything(firestore.address))
    backup = backups.create(BackupType.FULL, compression=compression).id
    (tmp_path / "read.py").write_text(script())
    printed = subprocess.run(
        [sys.executable, tmp_path / "read.py", tmp_path / "backups" / backup],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    documents = {line["name"].split("/", 5)[5]: line for line in map(json.loads, printed.splitlines())}
    assert documents.keys() == contents(firestore).keys()
    fields = documents["users/u1"]["fields"]
    assert fields["largest"] == {"integerValue": str(2**63 - 1)}
    assert fields["double"] == {"doubleValue": 1.0}
    assert fields["nan"] == {"doubleValue": "NaN"}


def test_the_script_is_short() -> None:
    """Twenty lines of code, the imports aside, are enough to read a backup."""
    lines = [line for line in script().splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 20


def test_the_script_refuses_damage(firestore: Firestore, backups: Backups, tmp_path: Path) -> None:
    """The script notices a damaged segment and names it."""
    write(firestore, {"users/u1": {"n": 1}})
    manifest = backups.create(BackupType.FULL)
    file = tmp_path / "backups" / manifest.id / manifest.segments[0].file
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    (tmp_path / "read.py").write_text(script())
    ended = subprocess.run(
        [sys.executable, tmp_path / "read.py", file.parent], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert f"{manifest.segments[0].file} is damaged" in ended.stderr


def test_the_table_names_every_member(firestore: Firestore, backups: Backups, tmp_path: Path) -> None:
    """Every member of the manifest and of a segment is described."""
    write(firestore, {"users/u1": {"n": 1}})
    manifest = backups.create(BackupType.FULL)
    body = json.loads((tmp_path / "backups" / manifest.id / "manifest.json").read_text())
    described = set(re.findall(r"`([a-z_0-9]+)`", DOCUMENT.read_text()))
    assert set(body) | set(body["segments"][0]) <= described


def test_an_export_is_readable(firestore: Firestore, backups: Backups) -> None:
    """An export has one JSON object a line, with every document, types told apart; collections can be picked."""
    write(firestore, of_everything(firestore.address))
    backup = backups.create(BackupType.FULL).id
    write(firestore, {"users/u0": {"n": "newer"}, "users/u5": None})
    lines = [json.loads(line) for line in backups.export(backup)]
    assert {line["name"] for line in lines} == set(of_everything(firestore.address))
    first = next(line for line in lines if line["name"] == "users/u0")
    assert first["fields"]["n"] == {"integerValue": "0"}
    assert first["fields"]["negative_zero"] == {"doubleValue": -0.0}
    assert first["update_time"].endswith("Z")
    assert len(list(backups.export(backup, collections=["cards"]))) == 9
    increment = backups.create(BackupType.INCREMENTAL).id
    after = {line["name"]: line for line in map(json.loads, backups.export(increment))}
    assert "users/u5" not in after
    assert after["users/u0"]["fields"]["n"] == {"stringValue": "newer"}
