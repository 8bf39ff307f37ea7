"""What is wrong with a page, collected so that its author sees everything at once.

Section readers add to a :class:`Problems`; the reader raises them all as one error at the end. ``runbookd check``
prints the same :class:`Problem` for rules and dashboards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.faults import Misconfigured, MisconfiguredReason

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that somebody has to change.

    Args:
        file: the file to open.
        line: its line, 0 where the file has no lines to point at (a dashboard's JSON).
        where: the cell, rule or panel, in words; empty for the line as a whole.
        what: what is wrong.
        hint: what to do.
    """

    file: str
    line: int = 0
    where: str = ""
    what: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.where, self.what, self.hint) if part)


class Problems:
    """The problems of one file, in the order in which its parts are read."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[Problem] = []

    def add(self, line: int, what: str, *, where: str = "", hint: str = "") -> None:
        """Note a problem and go on reading."""
        self._found.append(Problem(file=self.file, line=line, where=where, what=what, hint=hint))

    def attempt(self, read: Callable[[str], T], text: str, *, line: int, where: str = "") -> T | None:
        """``read(text)``; None and a noted problem where ``read`` doesn't understand."""
        try:
            return read(text)
        except Misconfigured as error:
            self.add(line, error.message, where=where, hint=error.hint)
            return None

    def __len__(self) -> int:
        return len(self._found)

    @property
    def found(self) -> tuple[Problem, ...]:
        """All problems, by line."""
        return tuple(sorted(self._found, key=lambda problem: problem.line))

    def raise_if_any(self) -> None:
        """Raise what was found as one error.

        Raises:
            Misconfigured: (RUNBOOK) one line a problem.
        """
        if self._found:
            raise Misconfigured(MisconfiguredReason.RUNBOOK, "\n".join(str(problem) for problem in self.found))
