"""``runbookd backup``: take, look at, verify, restore and remove backups."""

from __future__ import annotations

import re
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from agent.backup import BackupSummary, BackupType, Change, Compression, Verdict, Why
from agent.cli.options import DryRun, Json, Owner, Yes, runtime
from agent.cli.output import EXIT_CONFLICTS, confirm, err, out, print_json, progress_bars, size, stop, table, when
from agent.cli.runtime import Runtime
from agent.daemon.assembly import address_of, change_lock
from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore import DatabaseAddress, Firestore

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
app = typer.Typer(help="Take, verify, restore and remove backups.")

Id = Annotated[str, typer.Argument(help="A backup's id, or `latest` for the newest verified one.")]
DeleteExtra = Annotated[
    bool, typer.Option("--delete-extra", help="Also delete documents that the backup does not have.")
]
To = Annotated[str, typer.Option("--to", help="Another database: PROJECT or PROJECT/DATABASE.")]


class Format(StrEnum):
    """Formats of an export."""

    NDJSON = "ndjson"


@app.command()
def create(
    type: Annotated[BackupType, typer.Option("--type", "-t", case_sensitive=False)] = BackupType.FULL,  # noqa: A002
    verify: Annotated[bool, typer.Option(help="Read everything back and compare.")] = True,
    compression: Annotated[bool, typer.Option(help="Compress segments with zstd.")] = True,
    json: Json = False,
) -> None:
    """Take a backup and verify it."""
    run = runtime()
    with progress_bars() as progress:
        if compression:
            report = dict(run.operations.backup(run.context(progress), type=type.value, verify=verify))
        else:
            manifest = run.backups.create(type, compression=Compression.NONE, progress=progress)
            checked = run.backups.verify(manifest.id, progress=progress) if verify else None
            report = {
                "id": manifest.id,
                "type": str(manifest.type),
                "read_time": manifest.read_time,
                "documents": manifest.documents,
                "total_documents": manifest.total_documents,
                "raw_bytes": manifest.raw_bytes,
                "stored_bytes": manifest.stored_bytes,
                "verified": bool(checked and checked.ok),
            }
    if json:
        print_json(report)
        return
    verified = "verified" if report["verified"] else "[yellow]not verified[/]"
    out.print(
        f"[bold]{report['id']}[/]  {report['documents']:,} documents, {size(report['raw_bytes'])} "
        f"in {size(report['stored_bytes'])}, {verified}"
    )


@app.command("list")
def list_(json: Json = False) -> None:
    """All backups, newest first."""
    run = runtime()
    found = run.backups.list()
    warn_of_trouble(run)
    if json:
        print_json(found)
        return
    if not found:
        out.print("There is no backup yet. Take one: runbookd backup create")
        return
    table(
        ("id", "of (UTC)", "documents", "stored", "where", "state"),
        (
            (
                item.id,
                when(item.read_time),
                f"{item.documents:,}",
                size(item.stored_bytes),
                "+".join(item.storages),
                _state(item),
            )
            for item in found
        ),
    )


@app.command()
def show(backup: Id, json: Json = False) -> None:
    """Everything about one backup: sizes, counts by collection, what it builds on."""
    run = runtime()
    details = run.backups.show(_resolved(backup))
    if json:
        print_json(details)
        return
    summary = details.summary
    out.print(f"[bold]{summary.id}[/]  {summary.type}, {_state(summary)}")
    out.print(f"  database     {details.database}")
    out.print(f"  at           {when(summary.read_time)}")
    out.print(f"  documents    {summary.documents:,} here, {details.total_documents:,} in all")
    out.print(f"  size         {size(summary.raw_bytes)}, stored {size(summary.stored_bytes)} in {details.files} files")
    out.print(f"  chain        {' → '.join(details.chain)}")
    out.print(f"  where        {', '.join(summary.storages)}")
    if summary.let_go:
        out.print(f"  let go       {escape(summary.let_go)}", highlight=False)
    table(
        ("collection", "documents", "size"),
        ((name, f"{tally.documents:,}", size(tally.bytes)) for name, tally in sorted(details.collections.items())),
    )


@app.command()
def verify(
    backup: Id,
    deep: Annotated[bool, typer.Option("--deep", help="Restore into a scratch database and compare.")] = False,
    json: Json = False,
) -> None:
    """Read every byte of a backup back; exit code 1 if anything is wrong."""
    run = runtime()
    with progress_bars() as progress:
        report = run.backups.verify(_resolved(backup), deep=deep, progress=progress)
    if json:
        print_json(report)
    else:
        for problem in report.problems:
            err.print(f"[red]{problem}[/]")
        word = "[green]sound[/]" if report.ok else "[bold red]can't be restored[/]"
        out.print(f"{report.id} is {word}: {report.documents:,} documents, {size(report.bytes_read)} read")
    if not report.ok:
        stop(1)


@app.command()
def restore(
    backup: Id,
    yes: Yes = False,
    dry_run: DryRun = False,
    delete_extra: DeleteExtra = False,
    to: To = "",
    json: Json = False,
) -> None:
    """Restore in place, writing only what differs."""
    _restore(_resolved(backup), (), yes=yes, dry_run=dry_run, delete_extra=delete_extra, to=to, json=json)


@app.command("restore-collection")
def restore_collection(
    name: Annotated[str, typer.Argument(help="Collection id.")],
    backup: Id,
    yes: Yes = False,
    dry_run: DryRun = False,
    delete_extra: DeleteExtra = False,
    to: To = "",
    json: Json = False,
) -> None:
    """Restore one collection in place, writing only what differs."""
    _restore(_resolved(backup), (name,), yes=yes, dry_run=dry_run, delete_extra=delete_extra, to=to, json=json)


@app.command()
def clean(yes: Yes = False, json: Json = False) -> None:
    """Apply the page's retention; without --yes only say what would go, and why."""
    report = runtime().backups.clean(dry_run=not yes)
    if json:
        print_json(report)
        return
    table(
        ("id", "where", "verdict", "why"),
        (
            (verdict.id, verdict.storage, "keep" if verdict.keep else "[yellow]remove[/]", _why(verdict))
            for verdict in report.verdicts
        ),
    )
    shrunk = next((verdict.id for verdict in report.verdicts if verdict.why is Why.LAST_SUBSTANTIAL), None)
    if shrunk:
        out.print(f"If the database is meant to be so small now: runbookd backup let-go {shrunk} --reason WHY")
    done = "would be removed" if report.dry_run else "removed"
    out.print(f"{len(report.removed)} copies and {len(report.leftovers)} leftovers {done}, {size(report.freed_bytes)}")
    if report.dry_run and (report.removed or report.leftovers):
        out.print("Nothing was removed; repeat with --yes.")


@app.command()
def upload(
    backup: Annotated[str, typer.Argument(help="A backup's id; every backup if there is none.")] = "",
    json: Json = False,
) -> None:
    """Make copies where the page wants them and where they are missing or damaged, and verify them."""
    run = runtime()
    with progress_bars() as progress:
        report = run.backups.upload(_resolved(backup) if backup else "", progress=progress)
    if json:
        print_json(report)
    else:
        for copy in report.uploaded:
            out.print(f"made {copy}", highlight=False)
        for problem in report.problems:
            err.print(f"[red]{problem}[/]")
        out.print(f"{len(report.uploaded)} copies made, {size(report.bytes_written)}")
    if report.problems:
        stop(1)


@app.command()
def pin(backup: Id, reason: Annotated[str, typer.Option("--reason")] = "") -> None:
    """Keep a backup whatever its age."""
    run = runtime()
    run.backups.pin(_resolved(backup), reason)
    out.print(f"{_resolved(backup)} is pinned")


@app.command()
def unpin(backup: Id) -> None:
    """Leave a backup to retention again."""
    run = runtime()
    run.backups.unpin(_resolved(backup))
    out.print(f"{_resolved(backup)} is no longer pinned")


@app.command("let-go")
def let_go(
    backup: Annotated[str, typer.Argument(help="A backup's id.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; `backup show` and `clean` tell it.")],
    owner: Owner = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Say that the database has really shrunk since a backup, which is kept for holding ten times as much.

    It and older ones are then left to their age, as `clean` has it; nothing is removed here. Pinned ones stay, and so
    do the last good and the last proven one. To take it back before they are gone, pin the backup.
    """
    run = runtime()
    if not (owner.strip() and reason.strip()):
        raise Misconfigured(
            MisconfiguredReason.SETTINGS,
            "nobody stands by this" if reason.strip() else "no reason is given",
            hint="say --owner NAME and --reason WHY",
        )
    found = run.backups.shrinkage(backup)
    confirm(
        f"{found.backup} holds {found.documents:,} documents and {found.since} {found.documents_since:,}. "
        f"Was nothing of that lost by accident? Let go of {len(found.backups)} backups?",
        yes=yes,
    )
    found = run.backups.let_go(backup, owner=owner.strip(), reason=reason.strip())
    if json:
        print_json(found)
        return
    out.print(f"let go of {', '.join(reversed(found.backups))}", highlight=False)
    for verdict in found.verdicts:
        done = "stays" if verdict.keep else "goes with the next clean"
        out.print(f"  {verdict.storage}:{verdict.id} {done}: {verdict.why}", highlight=False)


@app.command()
def export(
    backup: Id,
    format: Annotated[Format, typer.Option("--format")] = Format.NDJSON,  # noqa: A002
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File; default is stdout.")] = None,
    collection: Annotated[
        list[str] | None, typer.Option("--collection", help="Only this one; may be repeated.")
    ] = None,
) -> None:
    """Write a backup's documents as text, one JSON object a line, for reading by hand."""
    del format
    lines = runtime().backups.export(_resolved(backup), collections=tuple(collection or ()))
    if output is None:
        stream = typer.get_binary_stream("stdout")
        for line in lines:
            stream.write(line)
        stream.flush()
        return
    temporary = output.with_name(output.name + ".partial")
    with temporary.open("wb") as file:
        for line in lines:
            file.write(line)
    temporary.replace(output)
    out.print(f"written to {output}")


# --- inside ---------------------------------------------------------------------------------------------------------


def _restore(
    backup: str, collections: tuple[str, ...], *, yes: bool, dry_run: bool, delete_extra: bool, to: str, json: bool
) -> None:
    run = runtime()
    own = address_of(run.settings)
    target = _target(to, own) if to else own
    if not dry_run:
        confirm(f"Restore {backup} into {target.root}?", yes=yes)

    def change(kind: Change, path: str) -> None:
        if dry_run and not json:
            out.print(f"{kind.value:<9} {path}", highlight=False, markup=False)

    with ExitStack() as stack:
        other: Firestore | None = None
        if target != own:
            other = stack.enter_context(Firestore(target, telemetry=run.telemetry, origin="restore"))
            other.check()
        elif not dry_run:
            stack.enter_context(change_lock(run.settings, f"restore of {backup}", run.clock))
        progress = stack.enter_context(progress_bars())
        report = run.backups.restore(
            backup,
            dry_run=dry_run,
            delete_extra=delete_extra,
            collections=collections,
            to=other,
            on_change=change,
            progress=progress,
        )
    if json:
        print_json(report)
    else:
        done = "would be" if dry_run else "were"
        out.print(
            f"{report.compared:,} documents compared, {report.unchanged:,} as in {backup}; "
            f"{report.created:,} {done} created, {report.updated:,} updated, {report.deleted:,} deleted"
        )
        if report.extra:
            out.print(f"{report.extra:,} documents that the backup does not have stay (--delete-extra removes them)")
        out.print(f"plan {report.plan_digest}", highlight=False)
        for name in report.unresolved:
            err.print(f"[yellow]not restored[/] {name}")
    if not dry_run and report.failed:
        stop(1)
    if not dry_run and report.conflicts:
        stop(EXIT_CONFLICTS)


def _why(verdict: Verdict) -> str:
    """The reason in words, with what it rests on."""
    why = f"{verdict.why}: {verdict.needed_by}" if verdict.needed_by else str(verdict.why)
    return f"{why} (let go of {escape(verdict.let_go)})" if verdict.let_go else why


def _target(text: str, own: DatabaseAddress) -> DatabaseAddress:
    """The database that ``PROJECT`` or ``PROJECT/DATABASE`` names, at the same server.

    Raises:
        Misconfigured: it names none.
    """
    project, slash, database = text.partition("/")
    if not _NAME.fullmatch(project) or (slash and database != "(default)" and not _NAME.fullmatch(database)):
        raise Misconfigured(
            MisconfiguredReason.SETTINGS,
            f"--to {text!r} names no database",
            hint="give PROJECT or PROJECT/DATABASE, e.g. --to moshimoshi-staging",
        )
    return DatabaseAddress(project=project, database=database or "(default)", host=own.host)


def _resolved(backup: str) -> str:
    return runtime().backups.latest().id if backup == "latest" else backup


def warn_of_trouble(run: Runtime) -> None:
    """Say on standard error what the list alone does not tell: half-restored databases, storages that are down."""
    for one in run.backups.interrupted_restores():
        what = f"restore-collection {one.collections[0]}" if one.collections else "restore"
        extra = " --delete-extra" if one.delete_extra else ""
        err.print(
            f"[bold red]{one.target} is half restored:[/] a restore from {one.backup} began at {when(one.since)} and "
            f"did not finish. Complete it: runbookd backup {what} {one.backup}{extra}",
            highlight=False,
        )
    for name, why in run.backups.unreachable().items():
        err.print(f"[yellow]{name} does not answer, what only it holds is missing here:[/] {why}", highlight=False)


def _state(item: BackupSummary) -> str:
    words = ["[green]verified[/]" if item.verified else "[yellow]not verified[/]"]
    if item.proven:
        words = ["[green]proven[/]"]
    if item.problem:
        words = [f"[red]{item.problem}[/]"]
    words += ["pinned"] if item.pinned else []
    words += ["in use"] if item.in_use else []
    words += ["let go of"] if item.let_go else []
    return ", ".join(words)
