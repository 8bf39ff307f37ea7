"""The chapters on the migration: statistics, migration order, deployment day, checklists."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import time

from agent.faults import Misconfigured, MisconfiguredReason
from agent.runbook.document import Document, Item, Section, heading_key
from agent.runbook.policy import (
    Checklist,
    ChecklistItem,
    CollectionPlan,
    DeploymentStage,
    Priority,
    Statistics,
)
from agent.runbook.problems import Problems
from agent.runbook.procedures import read_steps
from agent.runbook.quantities import Quantity, Unit, parse_count, parse_duration, parse_quantity
from agent.runbook.slugs import slug_of
from agent.runbook.tables import TableShape, choose, table_rows, the_section

_STATISTICS = TableShape(name="Database Statistics", columns=("Metric", "Value"))
_ORDER_LINE = re.compile(
    r"^(?P<position>\d{1,4})\.\s+(?P<collection>[A-Za-z_]\w*)\s+\((?P<documents>[^)]*)\)\s*[-\u2013\u2014:]\s*(?P<priority>.+)$"
)
_STAGE = re.compile(
    r"^(?P<at>\d{1,2}:\d{2})\s*[-\u2013\u2014]\s*(?P<title>.*?)\s*(?:\((?P<duration>[^()]*\d[^()]*)\))?$"
)
_STAGE_HINT = "write for example 07:00 - Pre-migration (30 minutes)"
_AT = re.compile(r"^(?P<at>\d{1,2}:\d{2})\s*[-\u2013\u2014]\s*(?P<text>.+)$")
_BOX = re.compile(r"^\[(?P<mark>[ xX])\]\s+(?P<text>.+)$")


def read_statistics(document: Document, problems: Problems) -> Statistics | None:
    """The table of what the database holds and how long its migration and rollback take."""
    rows = {heading_key(row.text("Metric")): row for row in table_rows(document, _STATISTICS, problems)}
    if not rows:
        return None
    missing = [title for title in _STATISTICS_ROWS if heading_key(title) not in rows]
    for title in missing:
        problems.add(
            min(row.line for row in rows.values()), f"table {_STATISTICS.name!r} has no row {title!r}", hint="add it"
        )
    if missing:
        return None
    documents, size, collections, migration, rollback = (rows[heading_key(title)] for title in _STATISTICS_ROWS)
    total = documents.read("Value", parse_count)
    size_bytes = size.read("Value", _size)
    count = collections.read("Value", parse_count)
    migrated_in = migration.read("Value", parse_duration)
    rolled_back_in = rollback.read("Value", parse_duration)
    if total is None or size_bytes is None or count is None or migrated_in is None or rolled_back_in is None:
        return None
    return Statistics(
        documents=total,
        size_bytes=size_bytes.value,
        collections=count,
        migration_time_seconds=migrated_in.value,
        rollback_time_seconds=rolled_back_in.value,
    )


_STATISTICS_ROWS = ("Total Documents", "Data Size", "Collections", "Migration Time", "Rollback Time")


def read_migration_order(document: Document, problems: Problems) -> tuple[CollectionPlan, ...]:
    """The collections in the order in which they are migrated: lines such as ``1. users (5,234 docs) - CRITICAL``."""
    section = the_section(document, "Migration Strategy", problems, also=("Migration Order",))
    if section is None:
        return ()
    lines = [(item.line, f"{item.number}. {item.text}") for item in section.items if item.number is not None]
    lines += [
        (number, text.strip())
        for block in section.code
        for number, text in block.lines
        if text.strip() and not text.strip().endswith(":")
    ]
    if not lines:
        problems.add(section.line, f"section {section.title!r} has no list of collections", hint=_ORDER_HINT)
    plans = [plan for line, text in lines if (plan := _collection(line, text, section, problems))]
    _check_order(plans, problems)
    return tuple(plans)


_ORDER_HINT = "write for example 1. users (5,234 docs) - CRITICAL"


def _collection(line: int, text: str, section: Section, problems: Problems) -> CollectionPlan | None:
    where = f"line {text!r} of section {section.title!r}"
    match = _ORDER_LINE.match(text)
    if match is None:
        problems.add(line, "not a collection with its documents and priority", where=where, hint=_ORDER_HINT)
        return None
    transient = match["documents"].strip().lower() == "transient"
    documents = None if transient else problems.attempt(parse_count, match["documents"], line=line, where=where)
    priority = problems.attempt(choose(Priority, "priority"), match["priority"], line=line, where=where)
    if priority is None or (documents is None and not transient):
        return None
    return CollectionPlan(
        position=int(match["position"]),
        collection=match["collection"],
        documents=documents,
        priority=priority,
        line=line,
    )


def _check_order(plans: Iterable[CollectionPlan], problems: Problems) -> None:
    seen: dict[str, int] = {}
    for expected, plan in enumerate(plans, start=1):
        where = f"collection {plan.collection!r} of the migration order"
        if plan.collection in seen:
            problems.add(plan.line, f"listed before at line {seen[plan.collection]}", where=where, hint="keep one")
        elif plan.position != expected:
            problems.add(plan.line, f"numbered {plan.position} where {expected} belongs", where=where)
        seen.setdefault(plan.collection, plan.line)


def read_deployment(document: Document, problems: Problems) -> tuple[DeploymentStage, ...]:
    """The stages of deployment day: headings such as ``07:30 - Migration Start (60 minutes)`` with their commands."""
    chapter = the_section(document, "Deployment Schedule", problems)
    if chapter is None:
        return ()
    sections = document.within(chapter)[1:]
    if not sections:
        problems.add(chapter.line, f"section {chapter.title!r} has no stages", hint="add headings such as 07:00 - ...")
    stages: list[DeploymentStage] = []
    for section in sections:
        where = f"heading {section.title!r}"
        match = _STAGE.match(section.title)
        if match is None:
            problems.add(section.line, "not a stage with its time", where=where, hint=_STAGE_HINT)
            continue
        at = problems.attempt(parse_time, match["at"], line=section.line, where=where)
        duration = None
        if match["duration"]:
            duration = problems.attempt(parse_duration, match["duration"], line=section.line, where=where)
        if at is not None:
            stages.append(
                DeploymentStage(
                    at=at,
                    title=match["title"],
                    duration=duration.duration if duration else None,
                    steps=read_steps(section, problems, acted_on=True),
                    line=section.line,
                )
            )
    return tuple(stages)


def read_checklists(document: Document, problems: Problems) -> tuple[Checklist, ...]:
    """Every list to tick off below a heading that says "checklist"."""
    checklists: list[Checklist] = []
    seen: set[Section] = set()
    for chapter in document.titled("Checklist"):
        for section in document.within(chapter):
            if section in seen:
                continue
            seen.add(section)
            items = tuple(item for entry in section.items if (item := _checklist_item(entry, section, problems)))
            if items:
                checklists.append(
                    Checklist(
                        phase=slug_of(chapter.title),
                        name=slug_of(section.title),
                        title=section.title,
                        items=items,
                        line=section.line,
                    )
                )
    return tuple(checklists)


def _checklist_item(entry: Item, section: Section, problems: Problems) -> ChecklistItem | None:
    where = f"item {entry.text!r} of section {section.title!r}"
    box = _BOX.match(entry.text)
    if box is None:
        problems.add(entry.line, "not an item to tick off", where=where, hint="start it with [ ]")
        return None
    timed = _AT.match(box["text"])
    return ChecklistItem(
        at=problems.attempt(parse_time, timed["at"], line=entry.line, where=where) if timed else None,
        text=timed["text"] if timed else box["text"],
        done=box["mark"] != " ",
        line=entry.line,
    )


def parse_time(text: str) -> time:
    """A time of day: ``07:30``.

    Raises:
        Misconfigured: (RUNBOOK) no such time.
    """
    hour, _, minute = text.strip().partition(":")
    try:
        return time(int(hour), int(minute))
    except ValueError as error:
        raise Misconfigured(
            MisconfiguredReason.RUNBOOK, f"{text!r} is not a time of day", hint="write for example 07:30"
        ) from error


def _size(text: str) -> Quantity:
    quantity = parse_quantity(text)
    if quantity.unit is not Unit.BYTES:
        raise Misconfigured(MisconfiguredReason.RUNBOOK, f"{text!r} is not a size", hint="write for example 311 MB")
    return quantity
