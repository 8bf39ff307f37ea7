"""``runbookd alerts``: what fires."""

from __future__ import annotations

import typer

from agent.alerting import AlertState
from agent.alerting.book import AlertBook
from agent.cli.options import Json, runtime
from agent.cli.output import out, print_json, table, when

app = typer.Typer(help="Alerts as the daemon last wrote them down.")


@app.callback()
def root() -> None:
    """Verbs about alerts."""


@app.command("list")
def list_(json: Json = False) -> None:
    """Pending, firing and recovering alerts."""
    alerts = [entry.alert() for entry in AlertBook(runtime().state).load()[0]]
    alerts = [alert for alert in alerts if alert.state is not AlertState.RESOLVED]
    if json:
        print_json(alerts)
        return
    if not alerts:
        out.print("No alert is pending or firing.")
        return
    table(
        ("alert", "state", "since", "severity", "summary"),
        (
            (
                alert.rule,
                f"{alert.state}{' (blind)' if alert.blind else ''}",
                when(alert.active_since),
                alert.labels.get("severity", ""),
                alert.annotations.get("summary", ""),
            )
            for alert in alerts
        ),
    )
