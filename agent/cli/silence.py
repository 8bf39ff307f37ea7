"""``runbookd silence``: keep alerts from calling people, for a while and in somebody's name."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from agent.alerting import SilenceBook, parse_matcher
from agent.cli.options import Json, Owner, runtime
from agent.cli.output import out, print_json, table, when
from agent.runbook import parse_duration

app = typer.Typer(help="Silence alerts for a while; the automation still acts on them.")

Matchers = Annotated[list[str], typer.Argument(metavar="MATCHER...", help="E.g. condition=error_rate; all must hold.")]


@app.command()
def add(
    matchers: Matchers,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; everybody will read it.")],
    owner: Owner = "",
    lasting: Annotated[str, typer.Option("--for", help="How long, e.g. 30 min or 2 hours.")] = "1 hour",
    json: Json = False,
) -> None:
    """Silence the alerts whose labels match."""
    run = runtime()
    made = SilenceBook(run.state).add(
        [parse_matcher(each) for each in matchers],
        owner=owner,
        reason=reason,
        lasting=timedelta(seconds=parse_duration(lasting).value),
        now=run.clock.now(),
    )
    if json:
        print_json(made)
        return
    out.print(f"silence {made.id} on {made.wording} until {when(made.expires_at)}", markup=False)


@app.command("list")
def list_(json: Json = False) -> None:
    """Silences in force."""
    run = runtime()
    found = SilenceBook(run.state).active(run.clock.now())
    if json:
        print_json(found)
        return
    if not found:
        out.print("No silence is in force.")
        return
    table(
        ("id", "until", "owner", "alerts", "reason"),
        ((each.id, when(each.expires_at), each.owner, each.wording, each.reason) for each in found),
    )


@app.command()
def expire(silence: Annotated[str, typer.Argument(metavar="ID")], owner: Owner = "") -> None:
    """End a silence now."""
    run = runtime()
    ended = SilenceBook(run.state).expire(silence, owner=owner, now=run.clock.now())
    out.print(f"silence {ended.id} on {ended.wording} has ended", markup=False)
