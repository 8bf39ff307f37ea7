"""``runbookd maintenance``: the flag that stops traffic."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.options import Json, Owner, runtime
from agent.cli.output import out, print_json, when
from agent.firestore import read_maintenance, set_maintenance

app = typer.Typer(help="Stop or restore the application's traffic (_config/maintenance).")


@app.command()
def on(
    message: Annotated[str, typer.Option("--message", "-m", help="For users; default is the page's.")] = "",
    owner: Owner = "",
) -> None:
    """Turn maintenance mode on."""
    _set(enabled=True, message=message or runtime().policy.maintenance.message, owner=owner)


@app.command()
def off(owner: Owner = "") -> None:
    """Turn maintenance mode off."""
    _set(enabled=False, message="", owner=owner)


@app.command()
def status(json: Json = False) -> None:
    """Whether it is on, since when and by whom."""
    flag = read_maintenance(runtime().firestore)
    if json:
        print_json(flag)
        return
    word = "[yellow]on[/]" if flag.enabled else "[green]off[/]"
    by = f" by {flag.by}" if flag.by else ""
    out.print(f"Maintenance mode is {word}, set {when(flag.since)}{by}{': ' + flag.message if flag.message else ''}")


def _set(*, enabled: bool, message: str, owner: str) -> None:
    run = runtime()
    set_maintenance(run.firestore, enabled=enabled, now=run.clock.now(), message=message, by=owner)
    out.print(f"Maintenance mode is {'on' if enabled else 'off'}")
