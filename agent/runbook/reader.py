"""A page, read whole: bytes to text, text to sections, sections to policy.

``daemon`` reads the page at start and reload, ``cli`` for ``runbookd check``. All that is wrong with a page is
reported in one go, because its author wants to mend it in one go.
"""

from __future__ import annotations

from pathlib import Path

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
from agent.runbook.document import parse_document
from agent.runbook.encoding import decode_page
from agent.runbook.facts import read_environment, read_health_url, read_limits, read_maintenance
from agent.runbook.policy import Policy
from agent.runbook.problems import Problems


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

    statistics = read_statistics(document, problems)
    order = read_migration_order(document, problems)
    deployment = read_deployment(document, problems)
    checklists = read_checklists(document, problems)
    backups = read_backups(document, problems)
    scenarios = read_scenarios(document, problems)
    matrix = read_matrix(document, problems)
    emergency = read_emergency(document, problems)
    thresholds = read_thresholds(document, problems)
    endpoints = read_health_endpoints(document, problems)
    indexes = read_indexes(document, problems)
    targets = read_query_targets(document, problems)
    pool = read_connection_pool(document, problems)
    responses = read_responses(document, problems)
    issues = read_issues(document, problems)
    stuck = stuck_after(issues, problems)
    escalation = read_escalation(document, problems)
    channels = read_channels(document, problems)
    maintenance = read_maintenance(document, problems)
    environment = read_environment(document, problems)
    limits = read_limits(document, checklists, problems)
    health_url = read_health_url(document, problems)

    against.documents_add_up(statistics, order, problems)
    against.emergency_fits(emergency, matrix, statistics, problems)
    against.channels_have_addresses(thresholds, channels, problems)
    against.stages_follow(deployment, problems)
    against.retention_agrees(backups, checklists, environment, problems)

    if statistics is None or emergency is None or stuck is None or channels is None or maintenance is None:
        problems.raise_if_any()
        raise AssertionError("a part of the page that is missing is a problem that was noted")
    problems.raise_if_any()
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
