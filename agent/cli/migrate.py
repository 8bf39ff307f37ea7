"""``runbookd migrate``: plan, run, resume, follow, validate and undo migrations; ``runbookd validate-collection``."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from agent.cli.options import DryRun, Json, Owner, Yes, runtime
from agent.cli.output import EXIT_CONFLICTS, as_json, confirm, err, out, print_json, progress_bars, stop, table, when
from agent.daemon.assembly import change_lock
from agent.decisions import duration
from agent.faults import Misconfigured, MisconfiguredReason
from agent.migration import Entry, Event, Plan, QueryCheck, RunRecord, RunReport, ValidationReport
from agent.migration.reports import dry_run_text
from agent.runbook import parse_duration

app = typer.Typer(help="Plan, run, resume, validate and undo migrations.")
_NAMED = 20
"""Documents of one kind that the terminal names; the reports name more."""

Name = Annotated[str, typer.Argument(help="A migration's name or number, e.g. 0001_schema_version.")]
Run = Annotated[str | None, typer.Argument(metavar="[RUN]", help="The latest by default.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it stands in the run's report.")]
Again = Annotated[bool, typer.Option("--again", help="Run a revision that ran, failed or was rolled back before.")]

Disarm = Annotated[
    str,
    typer.Option("--disarm", metavar="REASON", help="Run with an undo over the budget; never rolled back by itself."),
]


class Setting(StrEnum):
    """What can be set while a run works."""

    BATCH_SIZE = "batch-size"
    RATE = "rate"


_SETTINGS = {Setting.BATCH_SIZE: Event.BATCH_SIZE, Setting.RATE: Event.RATE}


@app.command("list")
def list_(json: Json = False) -> None:
    """Every migration file and what this database knows of it."""
    found = runtime().migrations.list()
    if json:
        print_json(found)
        return
    table(("migration", "state", "run", "what it does"), ((m.name, m.state, m.run or "-", m.title) for m in found))


@app.command()
def plan(name: Name, again: Again = False, disarm: Disarm = "", json: Json = False) -> None:
    """What would run, how long it and its undo would take, and whether it may."""
    made = runtime().migrations.plan(name, again=again, disarmed=disarm)
    if json:
        print_json(made)
    else:
        _print_plan(made)
    if not made.allowed:
        stop(3)


@app.command()
def run(
    name: Name,
    dry_run: DryRun = False,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Documents a batch.")] = None,
    validate: Annotated[bool, typer.Option(help="Read a sample of every batch back.")] = True,
    again: Again = False,
    disarm: Disarm = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was interrupted.")] = False,
    json: Json = False,
) -> None:
    """Run a migration, with its undo journal."""
    invocation = runtime()
    settings = invocation.settings
    if dry_run or settings.migration.dry_run:
        with progress_bars() as progress:
            trial = invocation.migrations.dry_run(name, progress=progress)
        if json:
            print_json(trial)
        else:
            out.print(dry_run_text(trial.plan, trial.findings), markup=False, highlight=False)
        return
    migrations = invocation.migrations
    status = migrations.status()
    with progress_bars() as progress, change_lock(settings, f"migration {name}", invocation.clock):
        if resume and status is not None and status.record.name.startswith(name) and status.record.state.resumable:
            report = migrations.resume(status.record.id, batch_size=batch_size, validate=validate, progress=progress)
        else:
            report = migrations.run(
                name, batch_size=batch_size, validate=validate, again=again, disarmed=disarm, progress=progress
            )
    _report(report, json=json)


@app.command()
def resume(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The latest by default.")] = None,
    owner: Owner = "",
    json: Json = False,
) -> None:
    """Let a paused run go on, or do exactly what a stopped, failed or killed run has left."""
    invocation = runtime()
    found = invocation.migrations.status(run_id)
    if found is None:
        out.print("No migration has run yet.")
        return
    run_id = found.record.id
    if found.record.state.resumable and invocation.migrations.wishes(run_id).pause is not None:
        _order(Event.GO_ON, owner=owner, reason="", run_id=run_id)
    if found.alive and found.record.state.resumable:
        out.print(f"{run_id} goes on within a second")
        return
    with progress_bars() as progress, change_lock(invocation.settings, f"migration {run_id}", invocation.clock):
        report = invocation.migrations.resume(run_id, progress=progress)
    _report(report, json=json)


@app.command()
def pause(
    run_id: Run = None,
    reason: Reason = "",
    lasting: Annotated[str | None, typer.Option("--for", help="Go on by itself after this, e.g. 30 min.")] = None,
    owner: Owner = "",
) -> None:
    """Have a run stop writing until somebody says `resume`; it holds through a kill and a restart."""
    until = runtime().clock.now() + timedelta(seconds=parse_duration(lasting).value) if lasting else None
    record = _order(Event.PAUSE, owner=owner, reason=reason, until=until, run_id=run_id)
    out.print(f"{record.id} is paused {f'until {when(until)}' if until else 'until `runbookd migrate resume`'}")


@app.command("set")
def set_(
    setting: Annotated[Setting, typer.Argument(help="What to change.")],
    value: Annotated[int, typer.Argument(min=1, max=100_000, help="Documents a batch, or documents a second.")],
    run_id: Run = None,
    reason: Reason = "",
    owner: Owner = "",
) -> None:
    """Change the batch size or the rate of a run while it works; it holds for later sessions of the run too."""
    record = _order(_SETTINGS[setting], owner=owner, reason=reason, value=value, run_id=run_id)
    out.print(f"{record.id}: {setting} is {value:,}")


@app.command()
def status(run_id: Annotated[str | None, typer.Argument(metavar="[RUN]")] = None, json: Json = False) -> None:
    """A run as it is now; the latest by default."""
    found = runtime().migrations.status(run_id)
    if json:
        print_json(found)
        return
    if found is None:
        out.print("No migration has run yet.")
        return
    record = found.record
    state = "[yellow]interrupted[/]: resume or undo it" if found.interrupted else str(record.state)
    out.print(f"[bold]{record.id}[/]  {record.name}: {state}")
    out.print(f"  started {when(record.started)}, finished {when(record.finished)}")
    table(
        ("collection", "documents", "written", "unchanged", "set aside", "checked", "differ"),
        (
            (
                part.collection,
                f"{part.documents:,}",
                f"{part.counts.written:,}",
                f"{part.counts.unchanged:,}",
                f"{part.counts.set_aside:,}",
                f"{part.checked:,}",
                f"{part.mismatched:,}",
            )
            for part in record.collections
        ),
    )
    if record.pace:
        out.print(f"  [yellow]{escape(record.pace)}[/]", highlight=False)
    if record.disarmed:
        out.print(f"  [yellow]it is not rolled back by itself[/]: {escape(record.disarmed)}", highlight=False)
    if record.undone or record.kept:
        out.print(f"  undone {record.undone:,}, merged {record.merged:,}, kept {record.kept:,}")
    if record.error:
        err.print(f"  [red]{record.error}[/]")


@app.command()
def undo(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The latest by default.")] = None,
    from_backup: Annotated[
        bool,
        typer.Option("--from-backup", help="If journal and old versions are lost, put the last proven backup back."),
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take a run back: only what it touched, never what users changed since."""
    invocation = runtime()
    found = invocation.migrations.status(run_id)
    if found is None:
        out.print("No migration has run yet.")
        return
    record = found.record
    confirm(f"Undo {record.id} ({record.counts.written:,} documents)?", yes=yes)
    with progress_bars() as progress, change_lock(invocation.settings, f"undo of {record.id}", invocation.clock):
        report = invocation.migrations.undo(record.id, from_backup=from_backup, progress=progress)
    if json:
        print_json(report)
    else:
        out.print(
            f"{report.record.id} undone: {report.findings.undone:,} documents in {report.seconds:.1f} s, "
            f"{report.findings.verified:,} read back and found as before"
        )
        for kept in report.findings.kept[:_NAMED]:
            err.print(f"[yellow]kept[/] {kept.name}: {kept.why}")
        more = len(report.findings.kept) + report.findings.unlisted - _NAMED
        if more > 0:
            err.print(f"[yellow]kept[/] and {more:,} more, see the report of the undo")
    if report.findings.kept:
        stop(EXIT_CONFLICTS)


@app.command()
def validate(
    name: Annotated[str, typer.Argument(help="A migration's name or number, or the id of a run.")],
    collection: Annotated[
        list[str] | None, typer.Option("--collection", help="Only this one; may be repeated.")
    ] = None,
    share: Annotated[
        float, typer.Option("--share", min=0.0, max=1.0, help="Of what the run wrote, how much is compared.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Compare every document with what the migration should have made of it; exit code 1 if one differs.

    Each document goes through the migration's own `validate`; each one that the latest run wrote, and nobody has
    written since, is compared with the bytes that the run meant to write; sums of the migration's `invariants` are
    what they were; no reference leads nowhere because of it; and the page's queries are answered.
    """
    with progress_bars() as progress:
        wanted = tuple(collection or ())
        report = runtime().migrations.validate(name, collections=wanted, share=share, progress=progress)
    _show_validation(report, json=json)


def _order(
    event: Event,
    *,
    owner: str,
    reason: str,
    run_id: str | None,
    value: float | None = None,
    until: datetime | None = None,
) -> RunRecord:
    invocation = runtime()
    if not owner:
        raise Misconfigured(MisconfiguredReason.SETTINGS, "nobody stands by this", hint="say --owner NAME")
    entry = Entry(at=invocation.clock.now(), event=event, owner=owner, reason=reason, value=value, until=until)
    return invocation.migrations.order(entry, run_id)


def register(root: typer.Typer) -> None:
    root.command("validate-collection")(validate_collection)


def validate_collection(
    name: Annotated[str, typer.Argument(help="Collection id.")],
    json: Json = False,
) -> None:
    """Compare one collection with what the newest migration of it should have made of it; exit code 1 if it differs."""
    with progress_bars() as progress:
        report = runtime().migrations.validate_collection(name, progress=progress)
    _show_validation(report, json=json)


def _show_validation(report: ValidationReport, *, json: bool) -> None:
    if json:
        print_json({**as_json(report), "passed": report.passed})
    else:
        status = runtime().migrations.status(report.run) if report.run else None
        against = f"{report.run} ({status.record.state})" if status else "no run: it has not run from here"
        out.print(f"[bold]{report.name}[/], compared with {against}")
        table(
            ("collection", "documents", "expected", "invalid", "compared", "differ", "dangling", "state"),
            (
                (
                    part.collection,
                    f"{part.documents:,}",
                    "-" if part.expected is None else f"{part.expected:,}",
                    f"{part.invalid:,}",
                    f"{part.compared:,}",
                    f"{part.mismatched:,}",
                    f"{part.dangling:,}",
                    "[green]as meant[/]" if part.passed else "[red]wrong[/]",
                )
                for part in report.collections
            ),
        )
        for part in report.collections:
            for broken in part.broken:
                err.print(f"[red]changed[/] {part.collection}, {escape(broken)}", highlight=False)
            for example in part.examples:
                err.print(f"[red]wrong[/] {escape(example)}", highlight=False)
        if report.queries:
            table(
                ("query", "p95", "target", "state"),
                (
                    (
                        check.query,
                        "-" if check.p95 is None else f"{check.p95 * 1000:,.0f} ms",
                        f"{check.target * 1000:,.0f} ms",
                        _query_state(check),
                    )
                    for check in report.queries
                ),
            )
        for check in report.queries:
            if check.failed:
                err.print(f"[red]{check.query}[/]: {escape(check.problem)}", highlight=False)
    if not report.passed:
        stop(1)


def _query_state(check: QueryCheck) -> str:
    if check.failed:
        return "[red]fails[/]"
    if check.p95 is None:
        return "[yellow]not asked[/]"
    return "[green]answered[/]" if check.p95 < check.target else "[yellow]slow[/]"


def _print_plan(made: Plan) -> None:
    out.print(f"[bold]{made.name}[/]  {made.title}")
    table(
        ("collection", "priority", "documents", "about"),
        (
            (part.collection, part.priority or "-", f"{part.documents:,}", _seconds(part.estimate_seconds))
            for part in made.collections
        ),
    )
    rate = f"{made.rate.documents_per_second:,.0f}/s, {made.rate.source}" if made.rate else "not measured"
    out.print(f"  {made.documents:,} documents in about {_seconds(made.estimate_seconds)} ({rate})")
    budget = f" of the page's {_seconds(made.undo_budget_seconds)}" if made.undo_budget_seconds is not None else ""
    out.print(f"  its undo takes about {_seconds(made.undo_estimate_seconds)}{budget}")
    for gate in made.gates:
        word = "[green]yes[/]" if gate.passed else "[red]no [/]"
        out.print(f"  {word} {gate.name}: {gate.detail}", highlight=False)
        if not gate.passed:
            out.print(f"      [dim]to pass:[/] {gate.remedy}", highlight=False)


def _seconds(value: float | None) -> str:
    return "?" if value is None else duration(timedelta(seconds=value))


def _report(report: RunReport, *, json: bool) -> None:
    if json:
        print_json(report)
    else:
        record = report.record
        out.print(
            f"[bold]{record.id}[/] {record.state}: {record.counts.written:,} documents written, "
            f"{record.counts.unchanged:,} unchanged, {report.documents_per_second:,.0f} documents/s"
        )
        for item in report.findings.set_aside[:20]:
            err.print(f"[yellow]set aside[/] {item.name}: {item.why}")
        for name in report.findings.mismatched[:20]:
            err.print(f"[red]differs[/] {name}")
    if report.conflicts:
        stop(EXIT_CONFLICTS)
