"""Procedures: numbered steps with their commands, as comments and lines of a code block, or as a numbered list.

In code, ``# 3. Execute rollback (3 minutes)`` starts a step and the lines up to the next one are its commands.
Rollback, recovery, deployment day, alert responses and troubleshooting all read their steps here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from agent.runbook.commands import operation_of
from agent.runbook.document import CodeBlock, Document, Section
from agent.runbook.policy import Operation, Step
from agent.runbook.problems import Problems
from agent.runbook.quantities import parse_duration

_STEP = re.compile(r"^#\s*(\d{1,3})\.\s+(.*\S)\s*$")
_TIMED = re.compile(r"^(?P<title>.*?)\s*\((?P<time>[<>=~≤≥≈]*\s*\d[^()]*)\)$")
_STATED = re.compile(r"\btime to (?:complete|recovery|recover)\s*:\s*(?P<time>[^\n]+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class StatedTime:
    """The time that a procedure says it takes as a whole."""

    time: timedelta
    line: int


def stated_time(sections: Iterable[Section], problems: Problems) -> StatedTime | None:
    """The "Time to complete" or "Time to recovery" of a procedure, from its prose or from a comment in its code."""
    for section in sections:
        lines = [
            (paragraph.line + offset, text)
            for paragraph in section.paragraphs
            for offset, text in enumerate(paragraph.text.split("\n"))
        ]
        lines += [line for block in section.code for line in block.lines]
        for number, text in lines:
            match = _STATED.search(text)
            if match:
                where = f"time {match['time'].strip()!r} of section {section.title!r}"
                read = problems.attempt(parse_duration, match["time"].strip().rstrip("."), line=number, where=where)
                return StatedTime(time=read.duration, line=number) if read else None
    return None


def read_steps(section: Section, problems: Problems, *, acted_on: bool = False) -> tuple[Step, ...]:
    """The numbered steps in a section's code, or in its numbered list where its code has none.

    Args:
        acted_on: the product does these steps itself, so that each must have an operation it knows.
    """
    steps = [step for block in section.code for step in _steps_of(block, section, problems, acted_on=acted_on)]
    if not steps:
        steps = [
            Step(title=item.text, operation=None, budget=None, line=item.line)
            for item in section.items
            if item.number is not None
        ]
    return tuple(steps)


def _steps_of(block: CodeBlock, section: Section, problems: Problems, *, acted_on: bool) -> list[Step]:
    starts = [(line, match) for line, text in block.lines if (match := _STEP.match(text.strip()))]
    steps: list[Step] = []
    for position, (line, match) in enumerate(starts):
        end = starts[position + 1][0] if position + 1 < len(starts) else block.line + len(block.lines)
        where = f"step {match[2]!r} of section {section.title!r}"
        if int(match[1]) != position + 1:
            problems.add(line, f"step {match[1]} comes where step {position + 1} belongs", where=where)
        commands = commands_of(text for number, text in block.lines if line < number < end)
        step = _step(match[2], commands, line, problems, where)
        if acted_on and step.operation is None:
            what = f"unknown command {commands[0]!r}" if commands else "the step has no command"
            problems.add(line, what, where=where, hint="give the step a runbookd command")
        steps.append(step)
    return steps


def _step(written: str, commands: tuple[str, ...], line: int, problems: Problems, where: str) -> Step:
    timed = _TIMED.match(written)
    budget = problems.attempt(parse_duration, timed["time"], line=line, where=where) if timed else None
    known: list[Operation] = [operation for command in commands if (operation := operation_of(command))]
    return Step(
        title=timed["title"] if timed else written,
        # What a step is for is its first command; those after it are the rest of the way there.
        operation=known[0] if known else None,
        budget=budget.duration if budget else None,
        commands=commands,
        line=line,
    )


def commands_of(lines: Iterable[str]) -> tuple[str, ...]:
    """Command lines without comments and blank lines, those continued with a backslash joined."""
    commands: list[str] = []
    continued = False
    for text in (line.strip() for line in lines):
        if not text or text.startswith("#"):
            continue
        part = text.removesuffix("\\").strip()
        if continued:
            commands[-1] = f"{commands[-1]} {part}"
        else:
            commands.append(part)
        continued = text.endswith("\\")
    return tuple(commands)


def all_commands(document: Document) -> tuple[tuple[int, str], ...]:
    """Every line of code on the page that isn't a comment, with its number."""
    return tuple(
        (number, text.strip())
        for block in document.code
        for number, text in block.lines
        if text.strip() and not text.strip().startswith(("#", "//"))
    )
