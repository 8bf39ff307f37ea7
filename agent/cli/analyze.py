"""``runbookd analyze``: what the database holds, and where the page says otherwise."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.options import Json, runtime
from agent.cli.output import out, print_json, progress_bars, size, table, when
from agent.daemon.assembly import expected_of
from agent.migration import Census, GroupCensus, take_census
from agent.migration.reports import Reports

_TYPES_SHOWN = 4


def register(app: typer.Typer) -> None:
    app.command()(analyze)


def analyze(
    full: Annotated[
        bool, typer.Option("--full", help="Read every document at one moment instead of a few hundred samples.")
    ] = False,
    json: Json = False,
) -> None:
    """Count documents and bytes of every collection and compare them with the page. Reads only."""
    run = runtime()
    with progress_bars() as progress:
        census = take_census(run.firestore, expected_of(run.policy), full=full, progress=progress)
    Reports(run.settings.reports_dir).census(census)
    if json:
        print_json(census)
        return
    _print(census)


def _print(census: Census) -> None:
    about = "" if census.full else "about "
    how = "every document was read" if census.full else "bytes are sampled averages times the count"
    out.print(f"[bold]{census.database}[/] at {when(census.read_time)}")
    out.print(f"  {census.documents:,} documents, {about}{size(census.bytes)} ({how})")
    table(
        ("collection", "documents", "share", "nested", "size", "a document", "types of values"),
        (
            (
                group.collection,
                f"{group.documents:,}",
                f"{group.documents / max(census.documents, 1):.1%}",
                f"{group.nested:,}",
                size(group.bytes),
                size(group.bytes / group.documents),
                _types(group),
            )
            for group in census.groups
        ),
    )
    if census.unseen:
        out.print(f"  {census.unseen:,} documents are in subcollections that no sample met; --full finds them")
    if not census.differences:
        out.print("[green]As on the page.[/]")
        return
    out.print("Not as on the page:")
    table(
        ("what", "on the page", "found", "difference"),
        (
            (item.subject, _figure(item.subject, item.page), _figure(item.subject, item.found), item.text)
            for item in census.differences
        ),
    )


def _types(group: GroupCensus) -> str:
    shares = list(group.types.items())
    shown = [f"{name} {share:.0%}" for name, share in shares[:_TYPES_SHOWN]]
    return ", ".join(shown) + (f" and {len(shares) - _TYPES_SHOWN} more" if len(shares) > _TYPES_SHOWN else "")


def _figure(subject: str, value: float | None) -> str:
    if value is None:
        return "-"
    return size(value) if subject.startswith("bytes") else f"{value:,.0f}"
