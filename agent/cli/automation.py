"""``runbookd automation``: hold the automation back, let it go, approve or abort what it wants to do."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from agent.cli.options import Json, Owner, runtime
from agent.cli.output import out, print_json, table, when
from agent.recovery import RecoveryJournal
from agent.runbook import parse_duration

app = typer.Typer(help="Hold, release, approve or abort automatic rollbacks.")

Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; everybody will read it.")]


@app.command()
def status(json: Json = False) -> None:
    """What the automation may do, what it waits for, what it did."""
    run = runtime()
    found = run.decisions.status()
    recovery = RecoveryJournal(run.state).latest()
    if json:
        print_json({"automation": found, "recovery": recovery})
        return
    if found.hold is not None:
        hold = found.hold
        out.print(f"[yellow]held[/] by {hold.owner} until {when(hold.expires_at)}: {hold.reason}")
    else:
        out.print("[green]free to act[/]")
    out.print(f"rollbacks in 24 h: {found.rollbacks_today} of {found.limits.daily_limit}")
    for decision in found.waiting:
        out.print(f"[yellow]waits for the {found.approver}[/]: runbookd automation approve {decision.id}")
    if recovery is not None:
        out.print(f"last recovery: {recovery.id}, {recovery.state} {recovery.problem}")
    table(
        ("decided", "decision", "verdict", "why"),
        (
            (
                when(entry.decision.decided_at),
                entry.decision.id,
                str(entry.decision.verdict),
                entry.decision.reasons[0] if entry.decision.reasons else "",
            )
            for entry in found.recent[-10:]
        ),
    )


@app.command()
def hold(
    reason: Reason,
    owner: Owner = "",
    lasting: Annotated[str, typer.Option("--for", help="How long, e.g. 30 min or 2 hours.")] = "1 hour",
) -> None:
    """Keep the automation from acting for a while."""
    placed = runtime().decisions.hold(
        owner=owner, reason=reason, lasting=timedelta(seconds=parse_duration(lasting).value)
    )
    out.print(f"held until {when(placed.expires_at)}")


@app.command()
def release(owner: Owner = "") -> None:
    """End every hold."""
    ended = runtime().decisions.release(owner=owner)
    out.print(f"{len(ended)} hold(s) ended; the automation is free to act")


@app.command()
def approve(decision: Annotated[str, typer.Argument(metavar="ID")], owner: Owner = "") -> None:
    """Approve the full restore that a decision waits with."""
    given = runtime().decisions.approve(decision, owner=owner)
    out.print(f"approved until {when(given.expires_at)}; the daemon acts at its next look at the rules")


@app.command()
def abort(decision: Annotated[str, typer.Argument(metavar="ID")], reason: Reason, owner: Owner = "") -> None:
    """Take a decision's run out of the automation's hands; a rollback under way stops after its current step."""
    done = runtime().decisions.abort(decision, owner=owner, reason=reason)
    out.print(f"run {done.run_id} is out of the automation's hands")
