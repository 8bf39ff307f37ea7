"""Settings: file, environment and the page's own variables, with clear words for what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.faults import Misconfigured
from agent.settings import load_settings


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("RUNBOOKD_", "FIREBASE_", "GOOGLE_", "FIRESTORE_", "BATCH", "DRY_RUN", "VALIDATE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_paths_in_the_file_are_relative_to_the_file(tmp_path: Path) -> None:
    """A daemon started from anywhere reads the same files."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "runbookd.yaml").write_text("runbook: page.md\nrules: [rules/*.yaml]\nstorage: {local: backups}\n")
    settings = load_settings(folder / "runbookd.yaml")
    assert settings.runbook == folder / "page.md"
    assert settings.rules == (str(folder / "rules/*.yaml"),)
    assert settings.storage.local == folder / "backups"


def test_the_environment_of_the_page_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FIREBASE_PROJECT, BATCH_SIZE and DRY_RUN mean what they mean on the page."""
    (tmp_path / "runbookd.yaml").write_text("database: {project: a, database: main}\nmigration: {batch_size: 7}\n")
    monkeypatch.setenv("FIREBASE_PROJECT", "moshimoshi-prod")
    monkeypatch.setenv("BATCH_SIZE", "100")
    monkeypatch.setenv("DRY_RUN", "true")
    monkeypatch.setenv("RUNBOOKD_API__PORT", "9999")
    settings = load_settings()
    assert settings.database.project == "moshimoshi-prod"
    assert settings.database.database == "main"
    assert settings.migration.batch_size == 100
    assert settings.migration.dry_run is True
    assert settings.api.port == 9999


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("database: {projct: x}", "database.projct"),
        ("migration: {batch_size: 0}", "migration.batch_size"),
        ("- a\n- b", "must hold a mapping"),
        ("a: [", "is not valid YAML"),
        (
            "signals: {scrape: [{job: app, url: 'http://a:1/x'}, {job: app, url: 'http://u:p@a:1/y'}]}",
            "scrape names app at a:1 twice",
        ),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, text: str, words: str) -> None:
    """A misspelt key or a value out of range is named, not ignored."""
    (tmp_path / "runbookd.yaml").write_text(text)
    with pytest.raises(Misconfigured, match=words.replace(".", r"\.")):
        load_settings()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """--config with a wrong path says so."""
    with pytest.raises(Misconfigured, match=r"nowhere\.yaml can't be read"):
        load_settings(tmp_path / "nowhere.yaml")
