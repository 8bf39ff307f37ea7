"""``runbookd slow-queries``: what is slow in the running system."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from agent.api.client import DaemonClient
from agent.cli.options import Json, Url, daemon_url, runtime
from agent.cli.output import as_json, out, print_json, table
from agent.runbook import parse_duration
from agent.signals.slow import SlowQuery, slowest


def register(app: typer.Typer) -> None:
    app.command("slow-queries")(slow_queries)


def slow_queries(
    url: Url = "",
    window: Annotated[str, typer.Option("--window", help="How far to look back, e.g. 5 min.")] = "5 min",
    json: Json = False,
) -> None:
    """The p95 of every query that the running daemon sees, slowest first, beside the page's target.

    Queries that carry the page's names come from the application; the others are runbookd's own. A trace id belongs to
    the slowest operation that was traced.
    """
    run = runtime()
    with DaemonClient(daemon_url(url)) as daemon:
        found = slowest(
            daemon,
            run.policy.query_targets,
            at=run.clock.now(),
            window=timedelta(seconds=parse_duration(window).value),
        )
    if json:
        print_json({"queries": [{**as_json(slow), "over": slow.over} for slow in found]})
        return
    if not found:
        out.print(f"No operation was seen in the last {window}.")
        return
    table(
        ("query", "operation", "p95", "target", "a second", "errors"),
        (
            (
                slow.query or "[dim]runbookd itself[/]",
                slow.operation,
                _latency(slow),
                f"<{slow.target * 1000:,.0f}ms" if slow.target is not None else "-",
                f"{slow.rate:,.1f}",
                f"{slow.errors:.1%}",
            )
            for slow in found
        ),
    )
    for slow in found:
        if slow.traced is not None:
            name = slow.query or slow.operation
            out.print(f"trace {slow.trace_id}: a {name} of {slow.traced * 1000:,.0f}ms", highlight=False)


def _latency(slow: SlowQuery) -> str:
    text = f"{slow.p95 * 1000:,.0f}ms"
    if slow.target is None:
        return text
    return f"[red]{text}[/]" if slow.over else f"[green]{text}[/]"
