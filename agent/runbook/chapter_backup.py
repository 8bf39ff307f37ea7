"""The chapters on getting data back: backup schedule, recovery scenarios, decision matrix, emergency sequence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from agent.faults import Misconfigured, MisconfiguredReason
from agent.runbook.document import Document
from agent.runbook.policy import (
    Action,
    BackupPlan,
    BackupType,
    EmergencyStep,
    Frequency,
    MatrixRow,
    RecoveryScenario,
    Severity,
    StorageKind,
)
from agent.runbook.problems import Problems
from agent.runbook.procedures import read_steps, stated_time
from agent.runbook.quantities import (
    Quantity,
    find_quantities,
    is_absent,
    parse_duration,
)
from agent.runbook.slugs import says_manual, slug_of
from agent.runbook.tables import TableShape, choose, choose_several, table_rows, the_section

_SCHEDULE = TableShape(name="Automated Backup Schedule", columns=("Type", "Frequency", "Retention", "Storage"))
_MATRIX = TableShape(name="Decision Matrix", columns=("Issue", "Severity", "Action", "Time"))


@dataclass(frozen=True, kw_only=True)
class Emergency:
    """The emergency sequence with the time to complete that it states."""

    steps: tuple[EmergencyStep, ...]
    budget: timedelta
    line: int


def read_backups(document: Document, problems: Problems) -> tuple[BackupPlan, ...]:
    """The table of which backup is taken how often, kept how long and where."""
    plans: dict[BackupType, BackupPlan] = {}
    for row in table_rows(document, _SCHEDULE, problems):
        kind = row.read("Type", choose(BackupType, "backup type"))
        every = row.read("Frequency", choose(Frequency, "frequency"))
        retention = row.read("Retention", parse_duration)
        storage = row.read("Storage", choose_several(StorageKind, "storage"))
        if kind is None or every is None or retention is None or storage is None:
            continue
        if kind in plans:
            row.problem("Type", f"listed before at line {plans[kind].line}", hint="keep one")
            continue
        if retention.duration < every.period:
            row.problem("Retention", f"shorter than the time to the next {every} backup", hint="keep it longer")
        plans[kind] = BackupPlan(type=kind, every=every, retention=retention.duration, storage=storage, line=row.line)
    return tuple(plans.values())


def read_matrix(document: Document, problems: Problems) -> tuple[MatrixRow, ...]:
    """The decision matrix: which condition calls for which action within which time."""
    rows: dict[str, MatrixRow] = {}
    for row in table_rows(document, _MATRIX, problems):
        condition = row.read("Issue", _condition)
        threshold = row.read("Issue", _issue_threshold)
        severity = row.read("Severity", choose(Severity, "severity"))
        action = row.read("Action", choose(Action, "action"))
        budget = row.read("Time", _budget)
        if not row.sound or condition is None or severity is None or action is None:
            continue
        if condition in rows:
            row.problem("Issue", f"the condition {condition!r} is there before, at line {rows[condition].line}")
            continue
        if budget is None and action is not Action.FIX_FORWARD:
            row.problem("Time", "a rollback needs a time to be done in", hint="write for example <5 min")
            continue
        rows[condition] = MatrixRow(
            condition=condition,
            title=row.text("Issue"),
            threshold=threshold,
            severity=severity,
            action=action,
            budget=budget.duration if budget else None,
            manual=says_manual(row.text("Issue")),
            line=row.line,
        )
    return tuple(rows.values())


def _condition(text: str) -> str:
    slug = slug_of(text)
    if not slug:
        raise Misconfigured(
            MisconfiguredReason.RUNBOOK, "the issue has no name", hint="write for example Data corruption"
        )
    return slug


def _issue_threshold(text: str) -> Quantity | None:
    found = find_quantities(text)
    if len(found) > 1:
        raise Misconfigured(MisconfiguredReason.RUNBOOK, "more than one quantity in one issue", hint="split the row")
    return found[0] if found else None


def _budget(text: str) -> Quantity | None:
    return None if is_absent(text) else parse_duration(text)


def read_emergency(document: Document, problems: Problems) -> Emergency | None:
    """The sequence that takes a bad migration back, step by step, each with its time."""
    section = the_section(document, "Rollback Command Sequence", problems, also=("Emergency Sequence",))
    if section is None:
        return None
    stated = stated_time((section,), problems)
    if stated is None:
        problems.add(
            section.line,
            f"section {section.title!r} doesn't say how long it may take",
            hint="add a line Time to complete: <5 minutes",
        )
    steps: list[EmergencyStep] = []
    read = read_steps(section, problems, acted_on=True)
    for step in read:
        if step.budget is None:
            where = f"step {step.title!r} of section {section.title!r}"
            problems.add(step.line, "the step has no time", where=where, hint="end its title with (30 seconds)")
        elif step.operation is not None:
            steps.append(
                EmergencyStep(
                    title=step.title,
                    operation=step.operation,
                    budget=step.budget,
                    commands=step.commands,
                    line=step.line,
                )
            )
    if not read:
        problems.add(
            section.line, f"section {section.title!r} has no steps", hint="write them as # 1. Title (30 seconds)"
        )
    return Emergency(steps=tuple(steps), budget=stated.time, line=stated.line) if stated else None


def read_scenarios(document: Document, problems: Problems) -> tuple[RecoveryScenario, ...]:
    """What to do about each kind of lost data: sections titled ``Scenario: ...``."""
    scenarios: dict[str, RecoveryScenario] = {}
    for section in document.titled("Scenario"):
        title = section.title.partition(":")[2].strip() or section.title
        stated = stated_time((section,), problems)
        steps = read_steps(section, problems, acted_on=True)
        if stated is None:
            problems.add(
                section.line,
                f"section {section.title!r} doesn't say how long it may take",
                hint="add a line Time to Recovery: 15 minutes",
            )
            continue
        if slug_of(title) in scenarios:
            problems.add(section.line, f"scenario {title!r} is there more than once", hint="keep one")
            continue
        taken = sum((step.budget for step in steps if step.budget), timedelta())
        if taken > stated.time:
            problems.add(
                stated.line,
                f"the steps of section {section.title!r} add up to {taken}, more than the {stated.time} it states",
            )
        scenarios[slug_of(title)] = RecoveryScenario(
            scenario=slug_of(title), title=title, budget=stated.time, steps=steps, line=section.line
        )
    if not scenarios and not document.titled("Scenario"):
        problems.add(1, "missing section 'Scenario: ...'", hint="say how lost data is recovered and in what time")
    return tuple(scenarios.values())
