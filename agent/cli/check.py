"""``runbookd check``: page, rules, settings and dashboards agree, or it says where they don't."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.alerting import load_rules
from agent.alerting.agreement import disagreements, read_dashboards
from agent.cli.options import Json, runtime
from agent.cli.output import err, out, print_json, stop
from agent.daemon.assembly import missing_storages
from agent.daemon.wiring import rule_files
from agent.notifications import problems as channel_problems
from agent.runbook import ChannelKind, to_json
from agent.settings import Settings
from agent.telemetry import CATALOGUE


def register(app: typer.Typer) -> None:
    app.command()(check)


def check(
    page: Annotated[Path | None, typer.Argument(help="Another page than the settings'.")] = None,
    dashboards: Annotated[Path, typer.Option("--dashboards", help="Folder of Grafana dashboards.")] = Path("grafana"),
    json: Json = False,
) -> None:
    """Read the page, the rules, the settings and the dashboards, and say what doesn't fit together.

    Exit code 2 if anything has to be mended. What is merely not configured yet is a note.
    """
    invocation = runtime()
    settings = invocation.settings
    if page is not None:
        settings = settings.model_copy(update={"runbook": page})
        invocation.settings = settings
    policy = invocation.policy
    files = rule_files(settings)
    rules = load_rules(files)
    boards = read_dashboards(dashboards) if dashboards.is_dir() else []
    found = disagreements(policy, rules, CATALOGUE, dashboards=boards)
    notes = [*channel_problems(policy, _configured(settings)), *missing_storages(settings, policy)]
    if json:
        print_json(
            {
                "policy": to_json(policy),
                "rules": [rule.name for rule in rules.rules],
                "problems": [str(problem) for problem in found],
                "notes": notes,
            }
        )
    else:
        for problem in found:
            err.print(f"[red]problem[/]  {problem}", highlight=False)
        for note in notes:
            err.print(f"[dim]note[/]     {note}", highlight=False)
        rollbacks = sum(1 for row in policy.matrix if not row.manual)
        out.print(
            f"{settings.runbook}: {len(policy.thresholds)} metrics with thresholds, {len(policy.matrix)} matrix rows "
            f"({rollbacks} watched by rules), {len(policy.backups)} scheduled backups, "
            f"{len(policy.emergency)} emergency steps"
        )
        out.print(
            f"{len(files)} rule files: {len(rules.alerts)} alerts, {len(rules.recordings)} recordings; "
            f"{len(boards)} dashboards"
        )
        out.print("[green]They agree.[/]" if not found else f"[red]{len(found)} problems.[/]")
    if found:
        stop(2)


def _configured(settings: Settings) -> set[ChannelKind]:
    wanted = settings.notifications
    found = set()
    if wanted.pagerduty.routing_key is not None:
        found.add(ChannelKind.PAGERDUTY)
    if wanted.slack.webhook_url is not None:
        found.add(ChannelKind.SLACK)
    if wanted.email.host is not None:
        found.add(ChannelKind.EMAIL)
    return found
