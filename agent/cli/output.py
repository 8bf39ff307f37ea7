"""Printing: results on stdout, progress and errors on stderr, JSON where asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from agent.clock import rfc3339
from agent.faults import Refused, RefusedReason
from agent.telemetry import Progress, ProgressSink

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

EXIT_CONFLICTS = 4


def as_json(value: object) -> Any:
    """``value`` as JSON-able data: dataclasses become objects, times RFC 3339, durations seconds."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(item) for item in value]
    if isinstance(value, datetime):
        return rfc3339(value)
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    if isinstance(value, PurePath):
        return str(value)
    return value


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(as_json(value), indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table on stdout."""
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        shown.add_column(column, justify="right" if column in _NUMBERS else "left", no_wrap=column in ("id", "run"))
    for row in rows:
        shown.add_row(*row)
    out.print(shown)


_NUMBERS = frozenset({"documents", "size", "stored", "rate"})


def size(count: float) -> str:
    """Bytes for people, in decimal units as storage is sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit in ("B", "kB") else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def when(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}Z"


@contextmanager
def progress_bars() -> Iterator[ProgressSink]:
    """Bars on stderr while the block runs; nothing if stderr is no terminal."""
    with Bars(
        TextColumn("{task.description:<36}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>10}"),
        TimeRemainingColumn(compact=True),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def show(report: Progress) -> None:
            if report.operation not in tasks:
                tasks[report.operation] = bars.add_task(report.operation, total=report.total, rate="")
            task = tasks[report.operation]
            elapsed = bars.tasks[task].elapsed or 0.0
            rate = f"{report.done / elapsed:,.0f}/s" if elapsed > 0.5 else ""
            stage = f"{report.operation}: {report.stage}" if report.stage else report.operation
            bars.update(task, completed=report.done, total=report.total, description=stage[:36], rate=rate)

        yield show


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that can't be taken back.

    Raises:
        Refused: the answer is no, or there is nobody to ask.
    """
    if yes:
        return
    if not err.is_terminal:
        raise Refused(RefusedReason.NOT_CONFIRMED, f"not confirmed: {question}", hint="repeat with --yes")
    if not typer.confirm(question, err=True):
        raise Refused(RefusedReason.NOT_CONFIRMED, "not confirmed; nothing was changed")


def stop(code: int) -> NoReturn:
    """End the command with ``code``."""
    raise typer.Exit(code)
