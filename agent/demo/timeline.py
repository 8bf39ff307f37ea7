"""What happened, when, how long it took and how long it may take; and how that looks on a terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from agent.telemetry import Progress as OperationProgress

_FIXED_WIDTH = 8 + 11 + 10 + 6  # clock, took, budget and the gaps between them
_TITLE_WIDTHS = (16, 72)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the timeline.

    Args:
        at: seconds since the story began.
        seconds: how long it took; ``None`` for a moment.
        budget: seconds the page allows; ``None`` where it says nothing.
        level: 0 for a stage, 1 for a step of one.
        mark: ``good``, ``bad``, ``news`` or ``""``.
    """

    at: float
    title: str
    detail: str = ""
    seconds: float | None = None
    budget: float | None = None
    level: int = 0
    mark: str = ""

    @property
    def over_budget(self) -> bool:
        return self.budget is not None and self.seconds is not None and self.seconds > self.budget


@dataclass(frozen=True, kw_only=True)
class Check:
    """A line of the verdict."""

    title: str
    passed: bool
    detail: str


def duration(seconds: float) -> str:
    """``0.34 s``, ``12.3 s``, ``2 min 5 s``."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def budget_text(seconds: float) -> str:
    """A budget as the page writes it: whole minutes as minutes."""
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


@dataclass
class Timeline:
    """Collects entries from any thread and shows them as they come.

    On a terminal, progress bars stay below the entries while something runs; anywhere else only entries are printed.
    """

    console: Console
    now: Callable[[], float]
    entries: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = self.now()
        self._lock = threading.Lock()
        self._bars = Progress(
            TextColumn("            {task.description}", justify="left"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, tuple[TaskID, float]] = {}

    def start(self) -> None:
        self._bars.start()

    def stop(self) -> None:
        self._bars.stop()

    @property
    def clock(self) -> float:
        """Seconds since the story began."""
        return self.now() - self._began

    def add(
        self,
        title: str,
        detail: str = "",
        *,
        at: float | None = None,
        seconds: float | None = None,
        budget: float | None = None,
        level: int = 0,
        mark: str = "",
    ) -> Entry:
        """Add a line and show it; ``at`` defaults to now."""
        entry = Entry(
            at=self.clock if at is None else at,
            title=title,
            detail=detail,
            seconds=seconds,
            budget=budget,
            level=level,
            mark=mark,
        )
        with self._lock:
            self.entries.append(entry)
            self._bars.console.print(line(entry, title_width(self.console.width)))
        return entry

    def progress(self, report: OperationProgress) -> None:
        """Move the bar of the report's operation."""
        with self._lock:
            if report.operation not in self._tasks:
                task = self._bars.add_task(report.operation.capitalize(), total=report.total, rate="")
                self._tasks[report.operation] = (task, self.now())
            task, began = self._tasks[report.operation]
            elapsed = self.now() - began
            rate = f"{report.done / elapsed:,.0f}/s" if elapsed > 0.5 else ""
            title = report.operation.capitalize()
            stage = f"{title}: {report.stage}" if report.stage and report.stage != report.operation else title
            self._bars.update(
                task, completed=report.done, total=report.total, description=f"{stage[:34]:<34}", rate=f"{rate:>10}"
            )

    def clear(self, operation: str) -> None:
        """Take the operation's bar away."""
        with self._lock:
            if operation in self._tasks:
                task, _ = self._tasks.pop(operation)
                self._bars.remove_task(task)


def title_width(console_width: int) -> int:
    """Room for the second column: what the others leave, within reason."""
    least, most = _TITLE_WIDTHS
    return max(least, min(most, console_width - _FIXED_WIDTH))


def line(entry: Entry, width: int) -> RenderableType:
    """One entry as a line of four columns: clock, what, took, budget."""
    colour = {"good": "green", "bad": "red", "news": "yellow"}.get(entry.mark, "")
    minutes, seconds = divmod(entry.at, 60)
    title = Text(entry.title, style=f"bold {colour}" if entry.level == 0 else colour)
    if entry.detail:
        title.append(f"\n{entry.detail}", style="dim" if not colour else f"not bold {colour}")
    row = Table.grid(padding=(0, 2), expand=False)
    row.add_column(width=8, justify="right", style="cyan", no_wrap=True)
    row.add_column(width=width)
    row.add_column(width=11, justify="right", no_wrap=True)
    row.add_column(width=10, justify="left", no_wrap=True)
    took = Text(duration(entry.seconds) if entry.seconds is not None else "")
    allowed = Text("")
    if entry.budget is not None:
        allowed = Text(f"of {budget_text(entry.budget)}", style="red" if entry.over_budget else "green")
    row.add_row(f"{int(minutes):02d}:{seconds:04.1f}", Padding(title, (0, 0, 0, 2 * entry.level)), took, allowed)
    return row


def header(title: str, facts: list[tuple[str, str]], width: int) -> RenderableType:
    """The lines above the timeline."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, value in facts:
        table.add_row(name, value)
    columns = Table.grid(padding=(0, 2))
    columns.add_column(width=8, justify="right")
    columns.add_column(width=width)
    columns.add_column(width=11, justify="right")
    columns.add_column(width=10)
    columns.add_row(*(Text(word, style="dim underline") for word in ("clock", "what happened", "took", "budget")))
    return Group(Text(title, style="bold"), table, Text(""), columns)


def verdict(checks: list[Check]) -> RenderableType:
    """The proof: one line a check."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=8, justify="right")
    table.add_column(width=40)
    table.add_column()
    for check in checks:
        word = Text("ok" if check.passed else "FAILED", style="bold green" if check.passed else "bold red")
        table.add_row(word, check.title, Text(check.detail, style="" if check.passed else "red"))
    return table
