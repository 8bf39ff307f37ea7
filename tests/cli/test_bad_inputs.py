"""What is wrong is said in one clear sentence, with where, what and what to do, and nothing is half-done."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, Configure, Run

PAGE = ROOT / "runbooks" / "firestore-operations.md"


def _page_with(tmp_path: Path, old: str, new: str) -> Path:
    text = PAGE.read_text()
    assert old in text
    page = tmp_path / "page.md"
    page.write_text(text.replace(old, new))
    return page


def test_the_shipped_files_agree(run: Run, configure: Configure) -> None:
    """Page, rules and dashboards of this repository fit together; what isn't configured is only noted."""
    ended = run("--config", configure(), "check", "--dashboards", ROOT / "grafana")
    assert ended.code == 0, ended.err
    assert "They agree." in ended.out
    assert "notifications.pagerduty.routing_key" in ended.err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (">200ms", ">200 parsecs", "parsecs"),
        (">0.5%", ">5%", "not below critical"),
    ],
)
def test_a_page_that_is_wrong(run: Run, configure: Configure, tmp_path: Path, old: str, new: str, words: str) -> None:
    """An unknown unit and thresholds that contradict each other are named with file and line."""
    page = _page_with(tmp_path, old, new)
    ended = run("--config", configure(runbook=str(page)), "check")
    assert ended.code == 2
    assert "page.md:" in ended.err
    assert words in ended.err


def test_a_page_without_a_table(run: Run, configure: Configure, tmp_path: Path) -> None:
    """A missing decision matrix is missed by name."""
    lines = PAGE.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Issue"))
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    page = tmp_path / "page.md"
    page.write_text("\n".join(lines[:start] + lines[end:]))
    ended = run("--config", configure(runbook=str(page)), "check")
    assert ended.code == 2
    assert "decision matrix" in ended.err.lower()


def test_a_rule_that_names_no_threshold(run: Run, configure: Configure, tmp_path: Path) -> None:
    """A literal in place of the page's figure is a disagreement."""
    rules = tmp_path / "rules"
    rules.mkdir()
    for file in (ROOT / "rules").glob("*.yaml"):
        (rules / file.name).write_text(file.read_text())
    (rules / "own.yaml").write_text(
        "groups:\n- name: own\n  rules:\n  - alert: TooManyReads\n"
        "    expr: sum(rate(firestore_documents_read_total[1m])) > 1000\n"
        "    labels: {severity: warning, condition: reads}\n"
        "    annotations: {summary: x, runbook_url: 'runbooks/firestore-operations.md#error-rate'}\n"
    )
    ended = run("--config", configure(rules=[str(rules / "*.yaml")]), "check")
    assert ended.code == 2
    assert "TooManyReads" in ended.err
    assert "names no threshold" in ended.err


def test_no_project(run: Run, configure: Configure) -> None:
    """Without a project the message names the variables that set it."""
    ended = run("--config", configure(), "backup", "list")
    assert ended.code == 2
    assert "FIREBASE_PROJECT" in ended.err


def test_no_database_at_the_address(run: Run, configure: Configure) -> None:
    """Nobody listens: the address is named, and what to check."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        ended = run("--config", configure(database={"project": "p", "host": address}), "maintenance", "status")
    assert ended.code == 2
    assert f"no Firestore answers at {address}" in ended.err
    assert "what to do:" in ended.err


def test_the_data_folder_can_not_be_written(run: Run, configure: Configure, sandbox: Any, project: str) -> None:
    """/proc refuses even root: the daemon doesn't start and says which folder it needs."""
    config = configure(data_dir="/proc/runbookd", database={"project": project, "host": sandbox.host})
    ended = run("--config", config, "run")
    assert ended.code == 2
    assert "/proc/runbookd can't be made" in ended.err


def test_the_port_is_in_use(run: Run, configure: Configure, sandbox: Any, project: str) -> None:
    """A taken port is known before anything runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = configure(database={"project": project, "host": sandbox.host}, api={"port": port})
        ended = run("--config", config, "run")
    assert ended.code == 2
    assert f"port {port}" in ended.err
    assert "in use" in ended.err


def test_a_misspelt_setting(run: Run, configure: Configure) -> None:
    """An unknown key is an error with its place."""
    ended = run("--config", configure(databse={"project": "p"}), "check")
    assert ended.code == 2
    assert "databse" in ended.err


def test_rules_that_match_nothing(run: Run, configure: Configure) -> None:
    """A pattern without a file would be a daemon that watches nothing."""
    ended = run("--config", configure(rules=["nowhere/*.yaml"]), "check")
    assert ended.code == 2
    assert "nowhere/*.yaml" in ended.err


def test_an_unknown_verb_is_a_usage_error(run: Run) -> None:
    """Exit code 2, as for every mistake in usage."""
    assert run("fly").code == 2
