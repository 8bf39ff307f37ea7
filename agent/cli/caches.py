"""``runbookd caches``: the application's cache."""

from __future__ import annotations

import typer

from agent.cli.options import Yes, runtime
from agent.cli.output import confirm, out
from agent.recovery import clear_caches

app = typer.Typer(help="Clear the application's cache.")


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
