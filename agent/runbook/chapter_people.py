"""The chapters that people turn to: who is called and where, and what to do when something is stuck."""

from __future__ import annotations

import re
from datetime import timedelta

from agent.runbook.document import Document, Item, Section
from agent.runbook.policy import Channels, EscalationStep, Issue
from agent.runbook.problems import Problems
from agent.runbook.procedures import read_steps
from agent.runbook.quantities import Unit, find_quantities, parse_duration
from agent.runbook.slugs import slug_of
from agent.runbook.tables import the_section

_ROLE = re.compile(r"^(?P<role>[^()]*[^()\s])\s*(?:\((?P<agent>[^()]*)\))?$")
_SYMPTOMS = re.compile(r"\bSymptoms?\s*:\s*(?P<text>[^\n]+)", re.IGNORECASE)
_CHANNELS = {
    "slack": "slack",
    "pagerduty": "pagerduty",
    "email": "email",
    "e_mail": "email",
    "status_page": "status_page",
    "emergency_hotline": "hotline",
    "hotline": "hotline",
}


def read_escalation(document: Document, problems: Problems) -> tuple[EscalationStep, ...]:
    """The numbered list of roles, each with a line ``Response time: <5 minutes``."""
    section = the_section(document, "Escalation Path", problems)
    if section is None:
        return ()
    numbered = [item for item in section.items if item.number is not None]
    if not numbered:
        problems.add(section.line, f"section {section.title!r} has no numbered list of roles", hint="add one")
    return tuple(step for item in numbered if (step := _escalation_step(item, section, problems)))


def _escalation_step(item: Item, section: Section, problems: Problems) -> EscalationStep | None:
    where = f"item {item.text!r} of section {section.title!r}"
    role = _ROLE.match(item.text)
    if role is None:
        problems.add(item.line, "not a role", where=where, hint="write for example 1. Database Specialist")
        return None
    notes: list[str] = []
    response: Item | None = None
    for entry in item.items:
        if entry.text.lower().startswith("response time"):
            response = entry
        else:
            notes.append(entry.text)
    if response is None:
        problems.add(item.line, "no response time", where=where, hint="add a line Response time: <5 minutes")
        return None
    span = problems.attempt(
        parse_duration,
        response.text.partition(":")[2],
        line=response.line,
        where=f"item {response.text!r} of section {section.title!r}",
    )
    if span is None or item.number is None:
        return None
    return EscalationStep(
        level=item.number,
        role=role["role"],
        agent=role["agent"] or "",
        note="; ".join(notes),
        response=span.duration,
        line=item.line,
    )


def read_channels(document: Document, problems: Problems) -> Channels | None:
    """The list of where people talk: ``Slack: #deployment-war-room`` and so on."""
    section = the_section(document, "Communication Channels", problems)
    if section is None:
        return None
    addresses: dict[str, str] = {}
    for item in section.items:
        where = f"item {item.text!r} of section {section.title!r}"
        name, colon, address = item.text.partition(":")
        kind = _CHANNELS.get(slug_of(name))
        if kind is None or not colon:
            known = "Slack, PagerDuty, Email, Status Page, Emergency Hotline"
            problems.add(item.line, f"unknown channel {name.strip()!r}", where=where, hint=f"known are {known}")
        elif kind in addresses:
            problems.add(item.line, "listed twice", where=where, hint="keep one")
        elif not address.strip():
            problems.add(item.line, "the channel has no address", where=where)
        else:
            # Square brackets mark something that is said elsewhere; the words inside are what counts.
            addresses[kind] = address.strip().removeprefix("[").removesuffix("]")
    if not section.items:
        problems.add(section.line, f"section {section.title!r} lists no channel", hint="add - Slack: #channel")
    return Channels(**addresses)


def read_issues(document: Document, problems: Problems) -> tuple[Issue, ...]:
    """Known problems: sections titled ``Issue: ...`` with their symptoms and steps."""
    issues: list[Issue] = []
    for section in document.titled("Issue"):
        kind, colon, title = section.title.partition(":")
        if not colon or slug_of(kind) != "issue":
            continue
        line, symptoms = _symptoms(section)
        if not symptoms:
            problems.add(section.line, f"section {section.title!r} has no line Symptoms: ...", hint="add one")
        issues.append(
            Issue(
                issue=slug_of(title),
                title=title.strip(),
                symptoms=symptoms,
                steps=read_steps(section, problems),
                line=line,
            )
        )
    return tuple(issues)


def _symptoms(section: Section) -> tuple[int, str]:
    for paragraph in section.paragraphs:
        for offset, text in enumerate(paragraph.text.split("\n")):
            if match := _SYMPTOMS.search(text):
                return paragraph.line + offset, match["text"].strip()
    return section.line, ""


def stuck_after(issues: tuple[Issue, ...], problems: Problems) -> timedelta | None:
    """How long a migration may make no progress: the time in the symptoms of the issue "Migration stuck"."""
    stuck = [issue for issue in issues if issue.issue == "migration_stuck"]
    if len(stuck) != 1:
        problems.add(
            stuck[1].line if stuck else 1,
            "section 'Issue: Migration Stuck' is there more than once"
            if stuck
            else "missing section 'Issue: Migration Stuck'",
            hint="say once how long a migration may make no progress, as Symptoms: ... >5 minutes",
        )
        return None
    spans = [quantity for quantity in find_quantities(stuck[0].symptoms) if quantity.unit is Unit.SECONDS]
    if len(spans) != 1:
        problems.add(
            stuck[0].line,
            f"{'more than one' if spans else 'no'} time in the symptoms {stuck[0].symptoms!r}",
            where=f"issue {stuck[0].title!r}",
            hint="name one time, for example >5 minutes",
        )
        return None
    return spans[0].duration
