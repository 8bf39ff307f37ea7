"""A page, read whole: bytes to text, text to sections, sections to policy.

``daemon`` reads the page at start and reload, ``cli`` for ``runbookd check``. All that is wrong with a page is
reported in one go, because its author wants to mend it in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.faults import Misconfigured, MisconfiguredReason
from agent.runbook import contradictions as against
from agent.runbook.chapter_backup import read_backups, read_emergency, read_matrix, read_scenarios
from agent.runbook.chapter_migration import (
    read_checklists,
    read_deployment,
    read_migration_order,
    read_statistics,
)
from agent.runbook.chapter_people import read_channels, read_escalation, read_issues, stuck_after
from agent.runbook.chapter_performance import (
    read_connection_pool,
    read_health_endpoints,
    read_indexes,
    read_query_targets,
    read_responses,
    read_thresholds,
)
from agent.runbook.document import Document, parse_document
from agent.runbook.encoding import decode_page
from agent.runbook.facts import read_environment, read_health_url, read_limits, read_maintenance
from agent.runbook.policy import Policy
from agent.runbook.problems import Problems

T = TypeVar("T")
U = TypeVar("U")


def load_runbook(path: Path) -> Policy:
    """Read the page at ``path``.

    Raises:
        Misconfigured: (RUNBOOK) the file can't be read, or says something that isn't understood or contradicts
            itself; the message has one line a problem, each with file and line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            MisconfiguredReason.RUNBOOK,
            f"the runbook {path} can't be read ({error.strerror})",
            hint="give the path of a Markdown page, for example runbooks/firestore-operations.md",
        ) from error
    return read_runbook(data, source=str(path))


def read_runbook(data: bytes, *, source: str) -> Policy:
    """The policy of a page's bytes; ``source`` is what problems call the file.

    Raises:
        Misconfigured: (RUNBOOK) as :func:`load_runbook`.
    """
    page = decode_page(data)
    document = parse_document(page.text)
    problems = Problems(source)

    def part(read: Callable[[Document, Problems], T], otherwise: U) -> T | U:
        """What ``read`` finds, if it understands all of it.

        Half a table would contradict the rest of the page only because its other half is missing.
        """
        noted = len(problems)
        found = read(document, problems)
        return found if len(problems) == noted else otherwise

    statistics = part(read_statistics, None)
    order = part(read_migration_order, ())
    deployment = part(read_deployment, ())
    checklists = part(read_checklists, ())
    backups = part(read_backups, ())
    scenarios = part(read_scenarios, ())
    matrix = part(read_matrix, ())
    emergency = part(read_emergency, None)
    thresholds = part(read_thresholds, ())
    endpoints = part(read_health_endpoints, ())
    indexes = part(read_indexes, ())
    targets = part(read_query_targets, ())
    pool = part(read_connection_pool, None)
    responses = part(read_responses, ())
    issues = part(read_issues, None)
    stuck = None if issues is None else stuck_after(issues, problems)
    escalation = part(read_escalation, ())
    channels = part(read_channels, None)
    maintenance = part(read_maintenance, None)
    environment = part(read_environment, ())
    health_url = part(read_health_url, "")
    limits = read_limits(document, checklists, problems)

    against.documents_add_up(statistics, order, problems)
    against.emergency_fits(emergency, matrix, statistics, problems)
    against.channels_have_addresses(thresholds, channels, problems)
    against.stages_follow(deployment, problems)
    against.retention_agrees(backups, checklists, environment, problems)

    problems.raise_if_any()
    # Each of these is None only together with a problem, so that the line above has raised; this is for the types.
    assert statistics is not None
    assert emergency is not None
    assert issues is not None
    assert stuck is not None
    assert channels is not None
    assert maintenance is not None
    return Policy(
        source=source,
        title=document.sections[0].title,
        statistics=statistics,
        migration_order=order,
        deployment=deployment,
        checklists=checklists,
        backups=backups,
        recovery_scenarios=scenarios,
        matrix=matrix,
        emergency=emergency.steps,
        emergency_budget=emergency.budget,
        indexes=indexes,
        query_targets=targets,
        connection_pool=pool,
        thresholds=thresholds,
        health_endpoints=endpoints,
        health_url=health_url,
        responses=responses,
        issues=issues,
        stuck_after=stuck,
        escalation=escalation,
        channels=channels,
        maintenance=maintenance,
        environment=environment,
        limits=limits,
        anchors=document.anchors,
        repaired_lines=page.repaired_lines,
    )
