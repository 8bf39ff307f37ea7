"""``runbookd alerts``: what fires, and who has it in hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from agent.alerting import Alert, AlertState, SilenceBook
from agent.alerting.book import AlertBook
from agent.cli.options import Json, Owner, runtime
from agent.cli.output import out, print_json, table, when
from agent.faults import Permanent, PermanentReason

app = typer.Typer(help="Alerts as the daemon last wrote them down.")


@app.callback()
def root() -> None:
    """Verbs about alerts."""


@app.command("list")
def list_(json: Json = False) -> None:
    """Pending, firing and recovering alerts."""
    run = runtime()
    book = SilenceBook(run.state)
    now = run.clock.now()
    rows = [(alert, book.acknowledgement(alert), book.silenced(alert, now)) for alert in _alerts()]
    if json:
        print_json([{**asdict(alert), "acknowledgement": ack, "silenced": silenced} for alert, ack, silenced in rows])
        return
    if not rows:
        out.print("No alert is pending or firing.")
        return
    table(
        ("id", "alert", "state", "since", "severity", "in hand", "summary"),
        (
            (
                alert.fingerprint,
                alert.rule,
                f"{alert.state}{' (blind)' if alert.blind else ''}{' (silenced)' if silenced else ''}",
                when(alert.active_since),
                alert.labels.get("severity", ""),
                ack.owner if ack else "",
                f"{alert.annotations.get('summary', '')}{f' (kept: {alert.blind})' if alert.blind else ''}",
            )
            for alert, ack, silenced in rows
        ),
    )


@app.command()
def ack(
    fingerprint: Annotated[str, typer.Argument(metavar="ID", help="As `alerts list` shows it; its beginning will do.")],
    owner: Owner = "",
) -> None:
    """Say that you have an alert in hand: no more reminders of it; its end is still told."""
    meant = [alert for alert in _alerts() if alert.fingerprint.startswith(fingerprint)]
    if len(meant) != 1:
        raise Permanent(
            PermanentReason.NOT_FOUND,
            f"{len(meant)} alerts begin with {fingerprint!r}",
            hint="runbookd alerts list shows those there are",
        )
    run = runtime()
    given = SilenceBook(run.state).acknowledge(meant[0], owner=owner, now=run.clock.now())
    out.print(f"{given.owner} has {meant[0].rule} in hand", markup=False)


def _alerts() -> list[Alert]:
    alerts = [entry.alert() for entry in AlertBook(runtime().state).load()[0]]
    return [alert for alert in alerts if alert.state is not AlertState.RESOLVED]
