"""Facts that the page gives in passing, in its commands and lists: addresses, variables, sizes, promises.

Each is looked for wherever it may stand, because people write them into the command that needs them. Where a page
names one more than once, all must agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta

from agent.runbook.document import Document
from agent.runbook.policy import Checklist, ChecklistItem, EnvironmentVariable, Limits, Maintenance
from agent.runbook.problems import Problems
from agent.runbook.procedures import all_commands
from agent.runbook.quantities import Quantity, Unit, find_quantities

_HEALTH_URL = re.compile(r"https?://(?!localhost\b|127\.)[^\s'\"]+/health\b(?!/)")
_DOCUMENT = re.compile(r"\b_config/\w+")
_MESSAGE = re.compile(r"\"message\"\s*:\s*\"([^\"]+)\"|\bmaintenance on\b.*--message[= ]\"([^\"]+)\"")
_EXPORT = re.compile(r"^export\s+(?P<name>[A-Z][A-Z0-9_]*)=\"?(?P<value>[^\"#]*?)\"?\s*(?:#.*)?$")
_BATCH = re.compile(r"\bBATCH_SIZE=(\d{1,9})\b|--batch-size[= ](\d{1,9})\b")
_MEBIBYTES = re.compile(r"--max-old-space-size=(\d{1,9})\b|\bMemoryMax=(\d{1,9})M\b")


def read_health_url(document: Document, problems: Problems) -> str:
    """The application's own health address, from the commands that ask it; empty where there is none."""
    found = [(line, match[0]) for line, text in all_commands(document) if (match := _HEALTH_URL.search(text))]
    return _one("the application's health address", found, problems)


def read_maintenance(document: Document, problems: Problems) -> Maintenance | None:
    """The maintenance document's path, and the message of the command that turns maintenance on."""
    commands = all_commands(document)
    prose = [(p.line, p.text) for section in document.sections for p in section.paragraphs]
    paths = [(line, match[0]) for line, text in (*commands, *prose) if (match := _DOCUMENT.search(text))]
    messages = [(line, match[1] or match[2]) for line, text in commands if (match := _MESSAGE.search(text))]
    if not paths:
        problems.add(1, "the page doesn't name the maintenance document", hint="write its path, _config/maintenance")
        return None
    return Maintenance(
        document=_one("the maintenance document", paths, problems),
        message=_one("the maintenance message", messages, problems),
    )


def read_environment(document: Document, problems: Problems) -> tuple[EnvironmentVariable, ...]:
    """The variables that the section "Environment Variables" exports."""
    variables: dict[str, EnvironmentVariable] = {}
    for section in document.titled("Environment Variables"):
        for block in section.code:
            for number, text in block.lines:
                if not text.strip() or text.strip().startswith("#"):
                    continue
                match = _EXPORT.match(text.strip())
                where = f"line {text.strip()!r} of section {section.title!r}"
                if match is None:
                    problems.add(number, "not a variable", where=where, hint='write export NAME="value"')
                elif match["name"] in variables and variables[match["name"]].value != match["value"]:
                    line = variables[match["name"]].line
                    problems.add(number, f"set to another value at line {line}", where=where, hint="keep one")
                else:
                    variables[match["name"]] = EnvironmentVariable(
                        name=match["name"], value=match["value"], line=number
                    )
    return tuple(variables.values())


def read_limits(document: Document, checklists: Iterable[Checklist], problems: Problems) -> Limits:
    """Batch sizes, memory, and the times that the checklists promise."""
    day = _commands_below(document, "Deployment Schedule")
    tight = _commands_below(document, "Issue: High Memory Usage During Migration", "High Memory Usage")
    items = [item for checklist in checklists for item in checklist.items]
    return Limits(
        batch_size=_number("the batch size of deployment day", _BATCH, day, problems),
        reduced_batch_size=_number("the batch size when memory is short", _BATCH, tight, problems),
        memory_bytes=_in_bytes(_number("the memory limit", _MEBIBYTES, tight, problems)),
        quiet_period=_promise(items, "critical alerts"),
        restore_within=_promise(items, "recovery time"),
    )


def retention_said(checklists: Iterable[Checklist]) -> tuple[tuple[int, Quantity], ...]:
    """Every time that a checklist gives for keeping backups, with its line."""
    return tuple(
        (item.line, quantity)
        for checklist in checklists
        for item in checklist.items
        if "retention" in item.text.lower()
        for quantity in find_quantities(item.text)
        if quantity.unit is Unit.SECONDS
    )


def _commands_below(document: Document, *titles: str) -> tuple[tuple[int, str], ...]:
    sections = {section: None for chapter in document.titled(*titles) for section in document.within(chapter)}
    return tuple(line for section in sections for block in section.code for line in block.lines)


def _number(what: str, pattern: re.Pattern[str], lines: Iterable[tuple[int, str]], problems: Problems) -> int | None:
    found = [(line, match[1] or match[2]) for line, text in lines if (match := pattern.search(text))]
    number = _one(what, found, problems)
    return int(number) if number else None


def _in_bytes(mebibytes: int | None) -> float | None:
    return None if mebibytes is None else float(mebibytes * 2**20)


def _promise(items: Iterable[ChecklistItem], words: str) -> timedelta | None:
    for item in items:
        if words in item.text.lower():
            for quantity in find_quantities(item.text):
                if quantity.unit is Unit.SECONDS:
                    return quantity.duration
    return None


def _one(what: str, found: list[tuple[int, str]], problems: Problems) -> str:
    """The value that all of ``found`` (line, value) agree on; empty where there is none."""
    if not found:
        return ""
    line, value = found[0]
    for other_line, other in found[1:]:
        if other != value:
            problems.add(other_line, f"{what} is {other!r} here and {value!r} at line {line}", hint="keep one")
    return value
