"""``runbookd caches``: the application's cache, and what the database keeps warm by itself."""

from __future__ import annotations

import typer
from rich.markup import escape

from agent.cli.options import Json, Yes, runtime
from agent.cli.output import confirm, err, out, print_json, stop, table
from agent.daemon.assembly import page_queries_of
from agent.recovery import clear_caches

app = typer.Typer(help="Clear the application's cache, warm the database's.")


@app.callback()
def root() -> None:
    """Verbs about the cache."""


@app.command()
def clear(yes: Yes = False) -> None:
    """Clear the configured Redis: the keys of recovery.redis_prefix, or everything (FLUSHALL)."""
    settings = runtime().settings.recovery
    if settings.redis_url is not None:
        what = f"the keys {settings.redis_prefix}*" if settings.redis_prefix else "ALL keys"
        confirm(f"Clear {what} of the cache?", yes=yes)
    out.print(clear_caches(settings.redis_url, settings.redis_prefix))


@app.command()
def warm(json: Json = False) -> None:
    """Ask each reading query of the page once, so that the first users don't find the database cold.

    Redis is not written: only the application knows what belongs into it. Exit code 1 if a query fails.
    """
    run = runtime()
    queries = page_queries_of(run.settings, run.policy, run.firestore, run.clock)
    warmed = [queries.warm(target.query) for target in run.policy.query_targets]
    if json:
        print_json({"queries": warmed})
    else:
        table(
            ("query", "requests", "documents", "took"),
            (
                (item.query, str(item.requests), f"{item.documents:,}", f"{item.seconds * 1000:,.0f}ms")
                for item in warmed
                if item.requests
            ),
        )
        for item in warmed:
            if item.problem:
                err.print(f"[red]{item.query}[/]: {escape(item.problem)}", highlight=False)
    if any(item.problem for item in warmed):
        stop(1)
