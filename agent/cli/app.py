"""The command's root: options that every verb shares, verbs, and what an error looks like."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from agent import __version__
from agent.cli import (
    alerts,
    analyze,
    automation,
    backup,
    caches,
    check,
    demo,
    indexes,
    maintenance,
    migrate,
    perf,
    rollback,
    rules,
    run,
    sandbox,
    silence,
    slow_queries,
)
from agent.cli.options import use
from agent.cli.output import err, out
from agent.cli.runtime import Runtime
from agent.faults import RunbookdError

app = typer.Typer(
    name="runbookd",
    help="Runs a database team's Markdown runbook as a daemon.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused by a guard, "
    "4 done with conflicts to look at, 130 interrupted.",
)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"runbookd {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Settings file (default: runbookd.yaml, if there is one).")
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show version.")] = False,
) -> None:
    """Options before the verb."""
    del version
    runtime = Runtime(config=config)
    use(runtime)
    context.call_on_close(runtime.close)


for module in (run, demo, sandbox, check, rollback, migrate, analyze, perf, slow_queries):
    module.register(app)
for name, group in (
    ("backup", backup.app),
    ("migrate", migrate.app),
    ("maintenance", maintenance.app),
    ("rules", rules.app),
    ("alerts", alerts.app),
    ("silence", silence.app),
    ("automation", automation.app),
    ("caches", caches.app),
    ("indexes", indexes.app),
):
    app.add_typer(group, name=name, no_args_is_help=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``runbookd`` script; ends the process with the exit code."""
    try:
        app(None if arguments is None else list(arguments))
    except RunbookdError as error:
        err.print(f"[bold red]{type(error).__name__.lower()}[/] [dim]({error.reason})[/]: {escape(error.message)}")
        if error.hint:
            err.print(f"  [dim]what to do:[/] {escape(error.hint)}")
        sys.exit(error.exit_code)
