"""``runbookd indexes``: the composite indexes that the page asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.markup import escape

from agent.cli.options import DryRun, Json, Yes, runtime
from agent.cli.output import confirm, err, out, print_json, stop, table
from agent.daemon.assembly import address_of
from agent.firestore import IndexAdmin, IndexState, check_indexes
from agent.runbook import Index

app = typer.Typer(help="Compare the page's composite indexes with the database; create what is missing.")

_STYLES = {
    IndexState.READY: "green",
    IndexState.ANSWERED: "green",
    IndexState.CREATING: "yellow",
    IndexState.NEEDS_REPAIR: "red",
    IndexState.MISSING: "red",
}


@app.command()
def check(json: Json = False) -> None:
    """Which of the page's indexes the database has; exit code 1 if a query would be refused now.

    Production's Admin API is asked. An emulator has none: there, the query that each index is for is asked once.
    """
    run = runtime()
    with _admin() as admin:
        statuses = check_indexes(run.firestore, admin, run.policy.indexes)
    usable = all(status.usable for status in statuses)
    if json:
        print_json({"usable": usable, "indexes": statuses})
    else:
        table(
            ("collection", "fields", "state"),
            (
                (status.index.collection, _fields(status.index), f"[{_STYLES[status.state]}]{_words(status.state)}[/]")
                for status in statuses
            ),
        )
        for status in statuses:
            if status.detail:
                err.print(f"{status.index.collection}: {escape(status.detail)}", highlight=False)
    if not usable:
        stop(1)


@app.command()
def apply(yes: Yes = False, dry_run: DryRun = False, json: Json = False) -> None:
    """Create the page's indexes that the database lacks; nothing is ever deleted."""
    run = runtime()
    with _admin() as admin:
        missing = [status for status in admin.statuses(run.policy.indexes) if status.state is IndexState.MISSING]
        if missing and not json:
            for status in missing:
                out.print(f"missing: {status.index.collection} ({_fields(status.index)})", highlight=False)
        created: list[dict[str, object]] = []
        if missing and not dry_run:
            confirm(f"Create {len(missing)} index(es) in {admin.address.root}?", yes=yes)
            created = [{"index": status.index, "operation": admin.create(status.index)} for status in missing]
    if json:
        print_json({"missing": [status.index for status in missing], "created": created})
    elif not missing:
        out.print("Nothing is missing.")
    elif dry_run:
        out.print("Nothing was created.")
    else:
        out.print(f"{len(created)} being made; `runbookd indexes check` says when they are ready")


@contextmanager
def _admin() -> Iterator[IndexAdmin]:
    run = runtime()
    with IndexAdmin(address_of(run.settings), clock=run.clock) as admin:
        yield admin


def _fields(index: Index) -> str:
    parts = ", ".join(f"{part.path} {'↓' if part.order == 'DESCENDING' else '↑'}" for part in index.fields)
    return f"{parts} (collection group)" if index.scope == "COLLECTION_GROUP" else parts


def _words(state: IndexState) -> str:
    return state.replace("_", " ")
