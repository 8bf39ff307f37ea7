"""The command line, run in this process as a user would type it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from agent.cli import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]
Configure = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("RUNBOOKD_", "FIREBASE_", "GOOGLE_CLOUD_", "FIRESTORE_", "OTEL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Type a command; returns its exit code and what it printed."""

    def typed(*arguments: str) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = ended.value.code
        return Ended(code=code if isinstance(code, int) else 0, out=captured.out, err=captured.err)

    return typed


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Write a settings file that uses the shipped page, rules and migrations; keyword arguments replace sections."""

    def written(**sections: object) -> Path:
        values: dict[str, object] = {
            "runbook": str(ROOT / "runbooks" / "firestore-operations.md"),
            "rules": [str(ROOT / "rules" / "*.yaml")],
            "data_dir": str(tmp_path / "data"),
            "reports_dir": str(tmp_path / "reports"),
            "storage": {"local": str(tmp_path / "backups"), "capacity_bytes": 10**10},
            "migration": {"definitions": str(ROOT / "migrations"), "max_write_rate": 20_000.0},
            "api": {"port": 0},
        }
        path = tmp_path / "runbookd.yaml"
        path.write_text(yaml.safe_dump(values | sections))
        return path

    return written
