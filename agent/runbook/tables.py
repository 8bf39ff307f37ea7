"""Tables and lists of a page, found by what they are called and read cell by cell.

A table is known by its header row; where several have the same columns, by its heading. Every cell that can't be
read becomes a problem that names line, cell, column and table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from agent.faults import Misconfigured, MisconfiguredReason
from agent.runbook.document import Document, Row, Section, Table, heading_key
from agent.runbook.problems import Problems

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class TableShape:
    """How a table is recognised.

    Args:
        name: what people call it; its usual heading.
        columns: columns that it must have; others may stand beside them.
    """

    name: str
    columns: tuple[str, ...]

    def fits(self, table: Table) -> bool:
        present = {heading_key(column) for column in table.columns}
        return all(heading_key(column) in present for column in self.columns)


class TableRow:
    """A row of a table that was found; cells are asked for by column."""

    def __init__(self, table: Table, row: Row, problems: Problems) -> None:
        self._table = table
        self._row = row
        self._problems = problems
        self._columns = {heading_key(column): at for at, column in enumerate(table.columns)}
        self._noted = len(problems)

    @property
    def line(self) -> int:
        return self._row.line

    @property
    def sound(self) -> bool:
        """Whether every cell read so far was understood."""
        return len(self._problems) == self._noted

    def text(self, column: str) -> str:
        return self._row.cells[self._columns[heading_key(column)]]

    def where(self, column: str) -> str:
        """The place of a cell, in words."""
        return f"cell {self.text(column)!r} in column {column!r} of table {self._table.title!r}"

    def read(self, column: str, reader: Callable[[str], T]) -> T | None:
        """The cell under ``column`` as ``reader`` understands it; None, and a problem noted, where it doesn't."""
        return self._problems.attempt(reader, self.text(column), line=self.line, where=self.where(column))

    def problem(self, column: str, what: str, *, hint: str = "") -> None:
        """Note that a cell, though readable, is wrong."""
        self._problems.add(self.line, what, where=self.where(column), hint=hint)


def table_rows(document: Document, shape: TableShape, problems: Problems) -> tuple[TableRow, ...]:
    """The rows of the one table that has ``shape``; none, and a problem noted, where it isn't there."""
    table = _the_table(document, shape, problems)
    if table is None:
        return ()
    if not table.rows:
        problems.add(table.line, f"table {table.title!r} has no rows")
    rows: list[TableRow] = []
    for row in table.rows:
        if row.written != len(table.columns):
            problems.add(
                row.line,
                f"the row has {row.written} cells and the table {len(table.columns)} columns",
                where=f"row {row.cells[0]!r} of table {table.title!r}",
                hint="give every column one cell",
            )
        else:
            rows.append(TableRow(table, row, problems))
    return tuple(rows)


def _the_table(document: Document, shape: TableShape, problems: Problems) -> Table | None:
    fitting = [table for table in document.tables if shape.fits(table)]
    under_heading = [table for table in fitting if heading_key(table.title) == heading_key(shape.name)]
    chosen = under_heading or fitting
    if len(chosen) == 1:
        return chosen[0]
    columns = " | ".join(shape.columns)
    if chosen:
        lines = " and ".join(str(table.line) for table in chosen)
        problems.add(chosen[1].line, f"table {shape.name!r} is there more than once, at lines {lines}", hint="keep one")
        return None
    sections = document.titled(shape.name)
    for table in (table for section in sections for table in section.tables):
        present = {heading_key(column) for column in table.columns}
        missing = [column for column in shape.columns if heading_key(column) not in present]
        problems.add(
            table.line,
            f"table {shape.name!r} has no column {missing[0]!r}",
            hint=f"its header row is | {columns} |",
        )
        return None
    problems.add(
        sections[0].line if sections else 1,
        f"missing table {shape.name!r}",
        hint=f"add a table with the header row | {columns} | and a line of dashes below it",
    )
    return None


def the_section(document: Document, name: str, problems: Problems, *, also: tuple[str, ...] = ()) -> Section | None:
    """The one section whose heading contains ``name`` or one of ``also``; None, and a problem, where there is none."""
    sections = document.titled(name, *also)
    if len(sections) == 1:
        return sections[0]
    if not sections:
        problems.add(1, f"missing section {name!r}", hint="add a heading of that name with its contents below it")
    else:
        lines = " and ".join(str(section.line) for section in sections)
        problems.add(sections[1].line, f"section {name!r} is there more than once, at lines {lines}", hint="keep one")
    return None


def choose(kind: type[Choice], what: str) -> Callable[[str], Choice]:
    """A reader of cells that hold the name of one member of ``kind``, in any case."""

    def read(text: str) -> Choice:
        wanted = heading_key(text).replace(" ", "_")
        for member in kind:
            if member.value == wanted:
                return member
        known = ", ".join(member.value.replace("_", " ") for member in kind)
        raise Misconfigured(MisconfiguredReason.RUNBOOK, f"unknown {what} {text!r}", hint=f"known are {known}")

    return read


def choose_several(kind: type[Choice], what: str) -> Callable[[str], tuple[Choice, ...]]:
    """A reader of cells that hold names of ``kind`` joined by ``+``."""
    one = choose(kind, what)

    def read(text: str) -> tuple[Choice, ...]:
        chosen = tuple(one(part.strip()) for part in text.split("+"))
        if len(set(chosen)) != len(chosen):
            raise Misconfigured(MisconfiguredReason.RUNBOOK, f"{what} listed twice in {text!r}")
        return chosen

    return read
