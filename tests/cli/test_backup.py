"""``runbookd backup`` as a person types it: plans, questions, other databases, damage, what was left half-way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.backup.catalogue import Catalogue
from agent.backup.notes import RestoreNotes
from agent.clock import SystemClock
from agent.firestore import DatabaseAddress, Firestore
from agent.storage import DirectoryStorage
from agent.telemetry import quiet_telemetry
from tests.backup.conftest import contents, damage, write
from tests.cli.conftest import Configure, Ended, Run

Ask = Callable[..., Any]


@pytest.fixture
def firestore(sandbox: Any, project: str) -> Iterator[Firestore]:
    """The database of the command line, with a few documents."""
    telemetry = quiet_telemetry()
    with Firestore(DatabaseAddress(project=project, host=sandbox.host), telemetry=telemetry, origin="test") as opened:
        write(opened, {f"users/u{number}": {"n": number} for number in range(8)})
        write(opened, {f"users/u{number}/cards/[bold]c": {"n": number} for number in range(3)})
        yield opened
    telemetry.shutdown()


@pytest.fixture
def typed(run: Run, configure: Configure, sandbox: Any, project: str) -> Callable[..., Ended]:
    """Type ``runbookd backup ...`` for that database."""
    config = configure(database={"project": project, "host": sandbox.host})
    return lambda *arguments: run("--config", config, "backup", *arguments)


@pytest.fixture
def ask(typed: Callable[..., Ended]) -> Ask:
    """The JSON answer of a command that must succeed."""

    def asked(*arguments: str) -> Any:
        ended = typed(*arguments, "--json")
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    return asked


def test_a_dry_run_prints_the_plan_to_the_letter(
    firestore: Firestore, typed: Callable[..., Ended], ask: Ask, tmp_path: Path
) -> None:
    """A line for each change, in order; nothing changes; the run that follows makes those changes and no others."""
    backup = ask("create")["id"]
    before = contents(firestore)
    write(firestore, {"users/u1": {"n": "bad"}, "users/u2/cards/[bold]c": None, "users/x": {}})
    bad = contents(firestore)
    dry = typed("restore", backup, "--dry-run", "--delete-extra")
    again = typed("restore", backup, "--dry-run", "--delete-extra")
    assert dry.code == 0
    assert dry.out == again.out
    *plan, summary, digest = dry.out.splitlines()
    assert plan == ["update    users/u1", "create    users/u2/cards/[bold]c", "delete    users/x"]
    assert "1 would be created, 1 updated, 1 deleted" in summary
    assert contents(firestore) == bad
    assert not list((tmp_path / "backups").rglob("restor*"))

    done = typed("restore", backup, "--delete-extra", "--yes")
    assert done.code == 0
    assert "1 were created, 1 updated, 1 deleted" in done.out
    assert done.out.splitlines()[-1] == digest, "the same plan, value for value"
    assert contents(firestore) == before
    report = json.loads(next((tmp_path / "backups" / backup).glob("restored-*")).read_bytes())
    assert digest == f"plan {report['plan_digest']}"


def test_it_asks_first(firestore: Firestore, typed: Callable[..., Ended], ask: Ask) -> None:
    """Without a word of consent nothing is restored or removed; the page's word for it counts."""
    backup = ask("create")["id"]
    write(firestore, {"users/u1": {"n": "bad"}})
    bad = contents(firestore)
    for arguments in (["restore", backup], ["restore-collection", "users", backup]):
        refused = typed(*arguments)
        assert (refused.code, contents(firestore)) == (3, bad)
        assert "--yes" in refused.err
    assert typed("restore", backup, "--skip-confirmation").code == 0
    assert contents(firestore) != bad
    assert ask("clean")["dry_run"]


def test_another_database(
    firestore: Firestore, typed: Callable[..., Ended], ask: Ask, sandbox: Any, project: str
) -> None:
    """--to restores into another project or database and leaves this one alone; nonsense is refused before anything."""
    backup = ask("create")["id"]
    write(firestore, {"users/u1": {"n": "newer"}})
    here = contents(firestore)
    assert typed("restore", backup, "--to", f"{project}-copy/other", "--yes").code == 0
    assert typed("restore-collection", "cards", backup, "--to", f"{project}-cards", "--yes").code == 0
    telemetry = quiet_telemetry()
    found = {}
    for name, database in ((f"{project}-copy", "other"), (f"{project}-cards", "(default)")):
        address = DatabaseAddress(project=name, database=database, host=sandbox.host)
        with Firestore(address, telemetry=telemetry, origin="test") as other:
            found[name] = contents(other)
    telemetry.shutdown()
    assert len(found[f"{project}-copy"]) == 11
    assert sorted(found[f"{project}-cards"]) == [f"users/u{number}/cards/[bold]c" for number in range(3)]
    assert contents(firestore) == here
    for nonsense in ("/", "a/", "/b", "a/b/c", "a b"):
        refused = typed("restore", backup, "--to", nonsense, "--yes")
        assert refused.code == 2
        assert "names no database" in refused.err
    assert "half restored" not in typed("list").err


def test_a_half_restored_database_is_told_of(
    firestore: Firestore, typed: Callable[..., Ended], ask: Ask, tmp_path: Path
) -> None:
    """What a killed restore left is in front of whoever lists backups, with the command that completes it."""
    backup = ask("create")["id"]
    assert ask("list")[0]["id"] == backup
    note = _note_of_a_killed_restore(firestore, tmp_path / "backups" / backup)
    listed = typed("list")
    assert f"{firestore.address.root} is half restored" in listed.err
    assert f"runbookd backup restore {backup} --delete-extra" in listed.err
    assert typed("restore", backup, "--delete-extra", "--yes").code == 0
    assert not note.exists()
    assert "half restored" not in typed("list").err


def _note_of_a_killed_restore(firestore: Firestore, folder: Path) -> Path:
    """As a restore writes it before its first change."""
    clock = SystemClock()
    catalogue = Catalogue(storages=[DirectoryStorage(name="local", path=folder.parent)], clock=clock)
    RestoreNotes(catalogue, clock).begin(folder.name, firestore.address.root, (), delete_extra=True)
    return next(folder.glob("restoring-*"))


def test_a_corrupt_archive(firestore: Firestore, typed: Callable[..., Ended], ask: Ask, tmp_path: Path) -> None:
    """A damaged file is named by verify and by restore, which says what to take instead, and exits with 1."""
    older, newer = ask("create")["id"], ask("create", "--no-compression")["id"]
    file = next((tmp_path / "backups" / newer).glob("documents-*.pb"))
    damage(file)
    verified = typed("verify", newer)
    assert verified.code == 1
    assert file.name in verified.err
    assert "can't be restored" in verified.out
    write(firestore, {"users/u1": {"n": "bad"}})
    refused = typed("restore", newer, "--yes")
    assert refused.code == 1
    assert file.name in refused.err
    assert older in refused.err
    assert file.name in ask("list")[0]["problem"]
    assert typed("restore", "latest", "--yes").code == 0


def test_without_compression_and_by_hand(
    firestore: Firestore, typed: Callable[..., Ended], ask: Ask, tmp_path: Path
) -> None:
    """An archive without compression restores like any other, and every archive can be exported as lines of JSON."""
    before = contents(firestore)
    plain, packed = ask("create", "--no-compression")["id"], ask("create")["id"]
    assert list((tmp_path / "backups" / plain).glob("documents-*.pb"))
    exports = [typed("export", backup, "--format", "ndjson").out for backup in (plain, packed)]
    assert exports[0] == exports[1]
    assert {json.loads(line)["name"] for line in exports[0].splitlines()} == before.keys()
    write(firestore, {"users/u1": None})
    assert typed("export", plain, "-o", str(tmp_path / "out.ndjson"), "--collection", "cards").code == 0
    assert len((tmp_path / "out.ndjson").read_text().splitlines()) == 3
    assert typed("restore", plain, "--yes").code == 0
    assert contents(firestore) == before


def test_show_tells_sizes_counts_and_chain(firestore: Firestore, typed: Callable[..., Ended], ask: Ask) -> None:
    """Documents and bytes by collection id, and what it builds on."""
    full = ask("create")["id"]
    write(firestore, {"users/u1": {"n": "newer"}, "users/u2": None})
    increment = ask("create", "--type", "incremental")["id"]
    details = ask("show", increment)
    assert details["chain"] == [full, increment]
    assert (details["summary"]["documents"], details["total_documents"]) == (1, 10)
    assert {name: tally["documents"] for name, tally in ask("show", full)["collections"].items()} == {
        "users": 8,
        "cards": 3,
    }
    shown = typed("show", full)
    assert "11 here, 11 in all" in shown.out
    assert ask("verify", increment, "--deep")["deep"]
    assert all(item["proven"] for item in ask("list"))


def test_uploads(ask: Ask) -> None:
    """With one storage alone nothing is missing, and saying so is no error."""
    ask("create")
    assert ask("upload") == {"uploaded": [], "problems": [], "bytes_written": 0}


def test_letting_go_of_a_large_backup(
    firestore: Firestore, typed: Callable[..., Ended], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clean says how; it takes a name, a reason and a yes; afterwards show and clean tell who said so and why."""
    large = ask("create")["id"]
    write(firestore, dict.fromkeys(contents(firestore)))
    small = ask("create")["id"]
    assert f"runbookd backup let-go {large} --reason" in typed("clean").out
    monkeypatch.delenv("USER", raising=False)

    for arguments, missing in (
        (["--owner", "ada"], "--reason"),
        (["--reason", "moved"], "--owner"),
        (["--owner", "ada", "--reason", " "], "--reason"),
    ):
        refused = typed("let-go", large, *arguments, "--yes")
        assert (refused.code, missing in refused.err) == (2, True)
    unconfirmed = typed("let-go", large, "--owner", "ada", "--reason", "moved")
    assert unconfirmed.code == 3
    assert f"{large} holds 11 documents and {small} 0" in " ".join(unconfirmed.err.split())
    assert not any(item["let_go"] for item in ask("list"))

    done = typed("let-go", large, "--owner", "ada", "--reason", "moved [to] the archive", "--yes")
    assert done.code == 0
    assert f"let go of {large}" in done.out
    assert "stays: younger than the retention of its type" in done.out
    assert "moved [to] the archive" in typed("show", large).out
    assert {verdict["let_go"][:6] for verdict in ask("clean")["verdicts"] if verdict["id"] == large} == {"by ada"}
    cleaned = typed("clean").out
    assert "let go of by ada" in " ".join(cleaned.split())
    assert "let-go" not in cleaned
    assert typed("let-go", small, "--owner", "ada", "--reason", "moved", "--yes").code == 3
