"""Reports: what a person reads afterwards (Markdown) and what a program reads (JSON), in the reports folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agent.clock import rfc3339
from agent.faults import Misconfigured, MisconfiguredReason
from agent.migration.census import Census
from agent.migration.dryrun import DryRunFindings
from agent.migration.facts import QueryCheck
from agent.migration.journal import SetAside
from agent.migration.plan import Plan
from agent.migration.run import RunFindings
from agent.migration.runs import RunRecord, to_json
from agent.migration.timeline import Moment
from agent.migration.undo import UndoFindings
from agent.migration.validation import ValidatedCollection

_LISTED = 200


class Reports:
    """Writes reports.

    Args:
        folder: made when the first report is written; ``None`` writes none.

    Raises:
        Misconfigured: NOT_WRITABLE, from each method.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def plan(self, plan: Plan) -> None:
        """``migration-plan.json``."""
        self._write("migration-plan.json", _json({**to_json(plan), "allowed": plan.allowed}))

    def dry_run(self, plan: Plan, findings: DryRunFindings) -> None:
        """``dry-run-report.json`` and ``.md``."""
        self._write("dry-run-report.json", _json({"plan": to_json(plan), "findings": to_json(findings)}))
        self._write("dry-run-report.md", dry_run_text(plan, findings))

    def run(self, record: RunRecord, findings: RunFindings, rate: float, moments: Sequence[Moment]) -> None:
        """``migration-report-<run>.json`` and ``.md``: at the end of each session, however it ended."""
        content = {
            "run": to_json(record),
            "findings": to_json(findings),
            "documents_per_second": rate,
            "timeline": to_json(list(moments)),
        }
        self._write(f"migration-report-{record.id}.json", _json(content))
        self._write(f"migration-report-{record.id}.md", run_text(record, findings, rate, moments))

    def undo(self, record: RunRecord, findings: UndoFindings, seconds: float, moments: Sequence[Moment]) -> None:
        """``undo-report-<run>.json`` and ``.md``."""
        content = {
            "run": to_json(record),
            "findings": to_json(findings),
            "seconds": seconds,
            "timeline": to_json(list(moments)),
        }
        self._write(f"undo-report-{record.id}.json", _json(content))
        self._write(f"undo-report-{record.id}.md", undo_text(record, findings, seconds, moments))

    def validation(
        self, name: str, run: str, collections: Sequence[ValidatedCollection], queries: Sequence[QueryCheck]
    ) -> None:
        """``validation-report-<migration>.json``."""
        content = {
            "migration": name,
            "run": run,
            "collections": [{**to_json(part), "passed": part.passed} for part in collections],
            "queries": to_json(list(queries)),
        }
        self._write(f"validation-report-{name}.json", _json(content))

    def census(self, census: Census) -> None:
        """``data-analysis-<time>.json``."""
        self._write(f"data-analysis-{census.read_time:%Y%m%d-%H%M%S}.json", _json(to_json(census)))

    def _write(self, name: str, text: str) -> None:
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise Misconfigured(
                MisconfiguredReason.NOT_WRITABLE,
                f"the report {self._folder / name} can't be written ({error.strerror})",
                hint="give this user write permission, or set reports_dir to another folder",
            ) from error


def run_text(record: RunRecord, findings: RunFindings, rate: float, moments: Sequence[Moment]) -> str:
    """The report of a run in Markdown."""
    rows = [
        (
            part.collection,
            part.counts.scanned,
            part.counts.written,
            part.counts.unchanged,
            part.counts.set_aside,
            part.counts.gone,
            part.counts.created,
            part.counts.conflicts,
            f"{part.checked:,} / {part.mismatched:,}",
        )
        for part in record.collections
    ]
    lines = [
        f"# Migration {record.name}",
        "",
        f"Run `{record.id}` on `{record.database}`: **{record.state}**.",
        "",
        f"- started {rfc3339(record.started)}, {record.seconds:,.1f} s of work in {record.sessions} session(s),"
        f" {rate:,.0f} documents/s",
        f"- restore point {record.restore_point or 'none'}; state before the run: {rfc3339(record.pre_read_time)}",
        *([f"- it is not rolled back by itself: {record.disarmed}"] if record.disarmed else []),
        *([f"- it ended with: {record.error}"] if record.error else []),
        "",
        *_table(
            (
                "Collection",
                "Documents",
                "Written",
                "Unchanged",
                "Set aside",
                "Gone",
                "Created",
                "Conflicts",
                "Read back / wrong",
            ),
            rows,
        ),
        "",
        "Gone were deleted by somebody else before the migration came; a conflict is a document that was transformed"
        " again, because somebody else had written it meanwhile.",
        "",
    ]
    lines += _list("Set aside", "No document was set aside.", findings.set_aside)
    if findings.mismatched:
        lines += ["", "## Not as they were written", "", *(f"- `{name}`" for name in findings.mismatched)]
    lines += _timeline(moments)
    return "\n".join(lines) + "\n"


def undo_text(record: RunRecord, findings: UndoFindings, seconds: float, moments: Sequence[Moment]) -> str:
    """The report of an undo in Markdown."""
    lines = [
        f"# Undo of {record.name}",
        "",
        f"Run `{record.id}` on `{record.database}`: **{record.state}** in {seconds:,.1f} s.",
        "",
        f"- {record.undone:,} documents are as they were before; {findings.verified:,} of them were read back",
        f"- {record.merged:,} merged with what their users wrote since",
        f"- {record.kept:,} kept as they are",
        "",
    ]
    lines += _list("Kept", "No document had been changed by somebody else.", findings.kept, findings.unlisted)
    lines += _timeline(moments)
    return "\n".join(lines) + "\n"


def dry_run_text(plan: Plan, findings: DryRunFindings) -> str:
    """The report of a dry run in Markdown."""
    rows = [
        (part.collection, part.counts.scanned, part.counts.written, part.counts.unchanged, part.counts.set_aside)
        for part in findings.collections
    ]
    lines = [
        f"# Dry run of {plan.name}",
        "",
        f"{plan.title}. Nothing was written.",
        "",
        *_table(("Collection", "Documents", "Would change", "Unchanged", "Would be set aside"), rows),
        "",
        "## Preflight",
        "",
    ]
    lines += [
        f"- {'yes' if gate.passed else '**no**'}: {gate.name}: {gate.detail}"
        + (f"; to pass: {gate.remedy}" if gate.remedy else "")
        for gate in plan.gates
    ]
    lines += ["", "## Examples", ""]
    for part in findings.collections:
        for diff in part.diffs:
            lines += [f"`{diff.name}`", "", "```diff", *diff.lines, "```", ""]
    lines += _list("Would be set aside", "Every document can be transformed.", findings.failures)
    return "\n".join(lines) + "\n"


def _timeline(moments: Sequence[Moment]) -> list[str]:
    return ["", "## Timeline", "", *(f"- {rfc3339(moment.at)}: {moment.what}" for moment in moments)]


def _list(title: str, none: str, documents: Sequence[SetAside], unlisted: int = 0) -> list[str]:
    """A list of documents, and how many more there are, in the JSON report or (``unlisted``) nowhere."""
    if not documents:
        return [none]
    lines = [f"## {title}", "", *(f"- `{item.name}`: {item.why}" for item in documents[:_LISTED])]
    if len(documents) > _LISTED:
        lines.append(f"- and {len(documents) - _LISTED:,} more, listed in the JSON report")
    if unlisted:
        lines.append(f"- and {unlisted:,} more of the last kind")
    return lines


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    def row(cells: Iterable[object]) -> str:
        return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells) + " |"

    return [row(head), "|" + "|".join(" --- " for _ in head) + "|", *(row(cells) for cells in rows)]


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
