"""A day at the command line: back up, migrate, look, roll back, restore; on a real database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.firestore import DatabaseAddress, Firestore, take_fingerprint
from agent.sandbox import seed
from agent.telemetry import quiet_telemetry
from tests.cli.conftest import Configure, Run

TRANSIENT = ("sessions", "_config", "_migrations")


@pytest.mark.timeout(240)
def test_back_up_migrate_roll_back_restore(run: Run, configure: Configure, sandbox: Any, project: str) -> None:
    """Every step answers, JSON is JSON, and the rollback brings back each byte."""
    seed(sandbox.host, project, 0.004)
    config = configure(
        database={"project": project, "host": sandbox.host}, recovery={"check_health_url": False, "retries": 1}
    )

    def ask(*arguments: str) -> Any:
        ended = run("--config", config, *arguments, "--json")
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    def digest() -> str:
        address = DatabaseAddress(project=project, host=sandbox.host)
        with Firestore(address, telemetry=quiet_telemetry()) as firestore:
            return take_fingerprint(firestore, exclude=TRANSIENT).digest

    before = digest()
    refused = run("--config", config, "migrate", "run", "0001_schema_version")
    assert refused.code == 3, "a migration without a restore point is refused"
    backup = ask("backup", "create", "--type", "full")
    assert backup["verified"] is True
    assert [item["id"] for item in ask("backup", "list")] == [backup["id"]]
    assert ask("backup", "show", "latest")["summary"]["id"] == backup["id"]

    trial = run("--config", config, "migrate", "run", "0001_schema_version", "--dry-run")
    assert trial.code == 0, trial.err
    assert digest() == before
    done = ask("migrate", "run", "0001_schema_version")
    assert done["record"]["state"] == "done"
    assert digest() != before
    again = run("--config", config, "migrate", "run", "0001_schema_version")
    assert again.code == 3, "what ran does not run again by itself"

    plan = ask("rollback", "--dry-run")
    assert [step["name"] for step in plan["steps"]][1] == "maintenance_on"
    assert run("--config", config, "rollback").code == 3, "nobody confirmed"
    rolled = ask("rollback", "--yes")
    assert rolled["state"] == "done"
    assert digest() == before
    assert ask("maintenance", "status")["enabled"] is False
    assert ask("migrate", "status")["record"]["state"] == "undone"

    dry = ask("backup", "restore", backup["id"], "--dry-run")
    assert (dry["created"], dry["updated"], dry["deleted"]) == (0, 0, 0)


def test_holding_the_automation_back(run: Run, configure: Configure) -> None:
    """A hold needs a reason, shows its owner, and can be released."""
    config = configure()
    assert run("--config", config, "automation", "hold", "--owner", "ana").code == 2
    held = run("--config", config, "automation", "hold", "--owner", "ana", "--reason", "drill", "--for", "30 min")
    assert held.code == 0, held.err
    status = json.loads(run("--config", config, "automation", "status", "--json").out)
    assert status["automation"]["hold"]["owner"] == "ana"
    assert run("--config", config, "automation", "release", "--owner", "ana").code == 0
    status = json.loads(run("--config", config, "automation", "status", "--json").out)
    assert status["automation"]["hold"] is None
