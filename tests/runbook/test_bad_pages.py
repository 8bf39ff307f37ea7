"""Pages that can't be meant: each mistake is named with its file, its line and its cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.faults import Misconfigured
from agent.runbook import read_runbook

PAGE = Path(__file__).parents[2] / "runbooks" / "firestore-operations.md"


class Complaints(Protocol):
    """Our page, changed, and the lines of the error that it gives."""

    def __call__(self, *changes: tuple[str, str]) -> list[str]: ...


LineOf = Callable[[str], int]

_LATENCY = "| Query latency (p95) | >200ms | >500ms | Slack + PagerDuty |"
_ERRORS = "| Error rate | >0.5% | >1% | PagerDuty |"
_CORRUPTION = "| Data corruption | CRITICAL | Immediate rollback | <5 min |"
_FULL = "| Full | Weekly | 30 days | GCS + Archive |"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            ">200ms |",
            ">200 parsecs |",
            "cell '>200 parsecs' in column 'Warning' of table 'Key Metrics to Monitor': unknown unit 'parsecs'",
            id="unknown-unit",
        ),
        pytest.param(
            ">200ms |",
            "slow |",
            "cell 'slow' in column 'Warning' of table 'Key Metrics to Monitor': 'slow' is not a quantity",
            id="garbage-cell",
        ),
        pytest.param(
            _LATENCY,
            "| Query latency (p95) | | >500ms | Slack |",
            "cell '' in column 'Warning' of table 'Key Metrics to Monitor': '' is not a quantity",
            id="empty-cell",
        ),
        pytest.param(
            ">200ms | >500ms",
            ">500ms | >200ms",
            "cell '>500ms' in column 'Warning' of table 'Key Metrics to Monitor': "
            "warning is not below critical '>200ms'",
            id="warning-above-critical",
        ),
        pytest.param(
            ">200ms | >500ms",
            "<200ms | <500ms",
            "warning is not above critical '<500ms'",
            id="falling-warning-below-critical",
        ),
        pytest.param(
            ">200ms | >500ms",
            ">200ms | >5%",
            "warning is in s, critical '>5%' in ratio",
            id="levels-in-two-units",
        ),
        pytest.param(
            ">200ms | >500ms",
            ">200ms | <500ms",
            "warning and critical '<500ms' compare in different ways",
            id="levels-compare-differently",
        ),
        pytest.param(
            "Slack + PagerDuty",
            "Slack + Pigeon",
            "cell 'Slack + Pigeon' in column 'Alert Channel' of table 'Key Metrics to Monitor': "
            "unknown channel 'Pigeon': known are slack, pagerduty, email",
            id="unknown-channel",
        ),
        pytest.param(
            "Slack + PagerDuty",
            "Slack + Slack",
            "channel listed twice in 'Slack + Slack'",
            id="channel-twice",
        ),
        pytest.param(
            _LATENCY,
            "| Query latency (p95) | >200ms | >500ms | Slack | PagerDuty |",
            "row 'Query latency (p95)' of table 'Key Metrics to Monitor': the row has 5 cells and the table 4 columns",
            id="extra-cell",
        ),
        pytest.param(
            "| Full | Weekly",
            "| Full | Fortnightly",
            "cell 'Fortnightly' in column 'Frequency' of table 'Automated Backup Schedule': "
            "unknown frequency 'Fortnightly': known are hourly, daily, weekly",
            id="unknown-frequency",
        ),
        pytest.param(
            "| Full | Weekly",
            "| Half | Weekly",
            "cell 'Half' in column 'Type' of table 'Automated Backup Schedule': unknown backup type 'Half'",
            id="unknown-backup-type",
        ),
        pytest.param(
            "GCS + Archive |",
            "GCS + Tape |",
            "cell 'GCS + Tape' in column 'Storage' of table 'Automated Backup Schedule': unknown storage 'Tape'",
            id="unknown-storage",
        ),
        pytest.param(
            "| Incremental | Daily | 7 days",
            "| Incremental | Daily | 7 hours",
            "cell '7 hours' in column 'Retention' of table 'Automated Backup Schedule': "
            "shorter than the time to the next daily backup",
            id="retention-shorter-than-period",
        ),
        pytest.param(
            "| Missing indexes | MEDIUM",
            "| Missing indexes | MIDDLING",
            "cell 'MIDDLING' in column 'Severity' of table 'Decision Matrix': unknown severity 'MIDDLING'",
            id="unknown-severity",
        ),
        pytest.param(
            "MEDIUM | Fix forward",
            "MEDIUM | Pray",
            "cell 'Pray' in column 'Action' of table 'Decision Matrix': unknown action 'Pray'",
            id="unknown-action",
        ),
        pytest.param(
            "Quick rollback | <10 min",
            "Quick rollback | N/A",
            "cell 'N/A' in column 'Time' of table 'Decision Matrix': a rollback needs a time to be done in",
            id="rollback-without-time",
        ),
        pytest.param(
            "| Performance degradation >50% |",
            "| Performance degradation >50% or >2s |",
            "more than one quantity in one issue",
            id="two-quantities-in-an-issue",
        ),
        pytest.param(
            "| User lookup | 45ms",
            "| User lookup | 45%",
            "cell '45%' in column 'Current' of table 'Query Optimization Targets': '45%' is not a time",
            id="latency-in-percent",
        ),
        pytest.param(
            "| Total Documents | 306,725",
            "| Total Documents | many",
            "cell 'many' in column 'Value' of table 'Database Statistics': 'many' is not a quantity",
            id="garbage-total",
        ),
        pytest.param(
            "| Data Size | 311 MB",
            "| Data Size | 311 min",
            "cell '311 min' in column 'Value' of table 'Database Statistics': '311 min' is not a size",
            id="size-in-minutes",
        ),
        pytest.param(
            "4. `review_items` (234,567 docs) - CORE",
            "4. `review_items` (234,567 docs) - SPARE",
            "line '4. review_items (234,567 docs) - SPARE' of section 'Migration Strategy': unknown priority 'SPARE'",
            id="unknown-priority",
        ),
        pytest.param(
            "4. `review_items` (234,567 docs) - CORE",
            "4. `review_items`, lots",
            "not a collection with its documents and priority",
            id="garbage-collection",
        ),
        pytest.param(
            "### 07:00 - Before (30 minutes)",
            "### 07:00 - Before (30 parsecs)",
            "heading '07:00 - Before (30 parsecs)': unknown unit 'parsecs'",
            id="stage-unknown-unit",
        ),
        pytest.param(
            "### 07:00 - Before (30 minutes)",
            "### Before",
            "heading 'Before': not a stage with its time",
            id="stage-without-time",
        ),
        pytest.param(
            "### 07:00 - Before (30 minutes)",
            "### 27:00 - Before",
            "heading '27:00 - Before': '27:00' is not a time of day",
            id="no-such-hour",
        ),
        pytest.param(
            "# 4. Empty the caches (30 seconds)",
            "# 4. Empty the caches (30 parsecs)",
            "step 'Empty the caches (30 parsecs)' of section 'Rollback Command Sequence': unknown unit 'parsecs'",
            id="step-unknown-unit",
        ),
        pytest.param(
            "# 4. Empty the caches (30 seconds)",
            "# 4. Empty the caches",
            "step 'Empty the caches' of section 'Rollback Command Sequence': the step has no time",
            id="step-without-time",
        ),
        pytest.param(
            "# 4. Empty the caches (30 seconds)",
            "# 5. Empty the caches (30 seconds)",
            "step 5 comes where step 4 belongs",
            id="steps-misnumbered",
        ),
        pytest.param(
            "# Time to complete: <5 minutes",
            "# Time to complete: soon",
            "time 'soon' of section 'Rollback Command Sequence': 'soon' is not a quantity",
            id="garbage-time-to-complete",
        ),
        pytest.param(
            "   - Response time: Immediate",
            "   - Response time: whenever",
            "item 'Response time: whenever' of section 'Escalation Path': 'whenever' is not a quantity",
            id="garbage-response-time",
        ),
        pytest.param(
            "- **Slack**: #deployment-war-room",
            "- **Fax**: 12345",
            "item 'Fax: 12345' of section 'Communication Channels': unknown channel 'Fax'",
            id="unknown-address",
        ),
        pytest.param(
            "GET /api/database/health",
            "look at /api/database/health",
            "line 'look at /api/database/health' of section 'Health Check Endpoints': not an endpoint",
            id="garbage-endpoint",
        ),
        pytest.param(
            "keep_alive_time: 30s",
            "keep_alive_time: long",
            "setting 'keep_alive_time': 'long' is not a quantity",
            id="garbage-setting",
        ),
        pytest.param(
            'export RETENTION_DAYS="30"',
            "RETENTION_DAYS is 30",
            "line 'RETENTION_DAYS is 30' of section 'Environment Variables': not a variable",
            id="garbage-variable",
        ),
        pytest.param(
            '{ "fieldPath": "nextReviewAt", "order": "ASCENDING" }',
            '{ "fieldPath": "nextReviewAt" "order": "ASCENDING" }',
            "the index configuration is not JSON: Expecting ',' delimiter",
            id="broken-json",
        ),
        pytest.param(
            "stood still for >5 minutes",
            "stood still for ages",
            "issue 'Migration stuck': no time in the symptoms",
            id="stuck-without-time",
        ),
        pytest.param(
            "- [ ] Slow queries were tuned, if there are any",
            "- Slow queries were tuned, if there are any",
            "item 'Slow queries were tuned, if there are any' of section 'Friday Monitoring': not an item to tick off",
            id="checklist-without-box",
        ),
    ],
)
def test_a_cell_that_is_not_understood_is_named(
    complaints: Complaints, line_of: LineOf, old: str, new: str, expected: str
) -> None:
    """The error has the file, the line, and the cell or line that is wrong."""
    said = complaints((old, new))
    assert any(line.startswith(f"page.md:{line_of(old)}: ") and expected in line for line in said), said


@pytest.mark.parametrize(
    ("heading", "header", "name"),
    [
        ("### Key Metrics to Monitor", "| Metric | Warning | Critical | Alert Channel |", "Key Metrics to Monitor"),
        ("### Decision Matrix", "| Issue | Severity | Action | Time |", "Decision Matrix"),
        (
            "### Automated Backup Schedule",
            "| Type | Frequency | Retention | Storage |",
            "Automated Backup Schedule",
        ),
        ("### Query Optimization Targets", "| Query | Current | Target |", "Query Optimization Targets"),
        ("### Database Statistics", "| Metric | Value | Meaning |", "Database Statistics"),
    ],
)
def test_a_missing_table_is_named(complaints: Complaints, heading: str, header: str, name: str) -> None:
    """Whatever became of it, the error says which table is missing and how it starts."""
    said = complaints((heading, "### Something else"), (header, "| X |" + " Y |" * (header.count("|") - 2)))
    assert any(f"page.md:1: missing table {name!r}" in line for line in said), said


def test_a_table_is_found_by_its_columns_under_any_heading(page_text: str) -> None:
    """A heading in other words doesn't lose a table, nor does a column more, nor another order."""
    text = page_text.replace("### Decision Matrix", "### What we do when")
    text = text.replace(
        "| Type | Frequency | Retention | Storage |\n|------|-----------|-----------|---------|\n"
        "| Snapshot | Hourly | 24 hours | Local |\n| Incremental | Daily | 7 days | Local + GCS |\n"
        "| Full | Weekly | 30 days | GCS + Archive |",
        "| Retention | Note | Type | Storage | Frequency |\n|-|-|-|-|-|\n"
        "| 24 hours | | Snapshot | Local | Hourly |\n| 7 days | | Incremental | Local + GCS | Daily |\n"
        "| 30 days | ! | Full | GCS + Archive | Weekly |",
    )
    changed = read_runbook(text.encode(), source="page.md")
    assert changed == read_runbook(page_text.encode(), source="page.md")


def test_a_table_without_a_column_is_named(complaints: Complaints, line_of: LineOf) -> None:
    """The table is there, the column isn't: the error says which."""
    header = "| Issue | Severity | Action | Time |"
    said = complaints((header, "| Issue | Severity | Action | Budget |"))
    expected = f"page.md:{line_of(header)}: table 'Decision Matrix' has no column 'Time'"
    assert any(line.startswith(expected) for line in said), said


def test_a_table_that_is_there_twice_is_refused(complaints: Complaints, page_text: str) -> None:
    """Two tables of one kind: which one is meant is not guessed."""
    matrix = page_text[page_text.index("| Issue | Severity") : page_text.index("### Rollback Command Sequence")]
    said = complaints((matrix, matrix + "\n### Decision Matrix\n\n" + matrix))
    assert any("table 'Decision Matrix' is there more than once, at lines" in line for line in said), said


@pytest.mark.parametrize(
    "name",
    [
        "Migration Strategy",
        "Thursday Deployment Schedule",
        "Rollback Command Sequence",
        "Health Check Endpoints",
        "Escalation Path",
        "Communication Channels",
        "Issue: Migration stuck",
    ],
)
def test_a_missing_section_is_named(complaints: Complaints, name: str) -> None:
    """A list or sequence that is gone is missed by the name of its heading."""
    said = complaints((f"## {name}", "## Something else"))
    wanted = name.removeprefix("Thursday ").lower()
    assert any(f"missing section '{wanted}'" in line.lower() for line in said), said


def test_one_metric_with_two_values_is_a_contradiction(complaints: Complaints, line_of: LineOf) -> None:
    """The second row is refused, and the first one's line is given."""
    said = complaints((_ERRORS, f"{_ERRORS}\n| Error rate (!) | >2% | >3% | PagerDuty |"))
    line = line_of(_ERRORS)
    expected = (
        f"page.md:{line + 1}: cell 'Error rate (!)' in column 'Metric' of table 'Key Metrics to Monitor': "
        f"listed before with other values at line {line}"
    )
    assert any(text.startswith(expected) for text in said), said


def test_one_condition_twice_is_a_contradiction(complaints: Complaints, line_of: LineOf) -> None:
    """The matrix may say only one thing about a condition."""
    said = complaints((_CORRUPTION, f"{_CORRUPTION}\n| Data corruption >1% | LOW | Fix forward | N/A |"))
    line = line_of(_CORRUPTION)
    expected = (
        f"page.md:{line + 1}: cell 'Data corruption >1%' in column 'Issue' of table 'Decision Matrix': "
        f"the condition 'data_corruption' is there before, at line {line}"
    )
    assert any(text.startswith(expected) for text in said), said


def test_one_backup_type_twice_is_a_contradiction(complaints: Complaints, line_of: LineOf) -> None:
    """Two schedules for one kind of backup can't both hold."""
    said = complaints((_FULL, f"{_FULL}\n{_FULL}"))
    assert any(f"page.md:{line_of(_FULL) + 1}: cell 'Full'" in text and "listed before" in text for text in said), said


def test_one_collection_twice_is_a_contradiction(complaints: Complaints, line_of: LineOf) -> None:
    """A collection has one place in the order."""
    said = complaints(("6. `sessions` (transient)", "6. `users` (transient)"))
    expected = (
        f"page.md:{line_of('6. `sessions`')}: collection 'users' of the migration order: "
        f"listed before at line {line_of('1. `users`')}"
    )
    assert any(text.startswith(expected) for text in said), said


def test_collections_that_do_not_add_up_are_a_contradiction(complaints: Complaints, line_of: LineOf) -> None:
    """The counts of the order must be the total of the statistics."""
    (said,) = complaints(("`users` (5,234 docs)", "`users` (5,235 docs)"))
    assert said.startswith(
        f"page.md:{line_of('1. `users`')}: migration order: the collections add up to 306,726 documents, "
        "the table 'Database Statistics' says 306,725"
    )


def test_a_sequence_longer_than_it_says_is_a_contradiction(complaints: Complaints, line_of: LineOf) -> None:
    """Steps until traffic is back must fit the time to complete, and the matrix's budget for immediate rollback."""
    said = complaints(("# 3. Put the documents back (3 minutes)", "# 3. Put the documents back (4 minutes)"))
    assert any(
        text.startswith(
            f"page.md:{line_of('# Time to complete')}: emergency sequence: "
            "the steps add up to 6 min until traffic is back, more than the 5 min stated"
        )
        for text in said
    ), said
    assert any(text.startswith(f"page.md:{line_of(_CORRUPTION)}: row 'Data corruption'") for text in said), said


def test_a_sequence_longer_than_the_matrix_allows_is_a_contradiction(complaints: Complaints, line_of: LineOf) -> None:
    """A matrix that promises four minutes can't rest on a sequence of five."""
    said = complaints((_CORRUPTION, _CORRUPTION.replace("<5 min", "<4 min")))
    assert any(
        text.startswith(
            f"page.md:{line_of(_CORRUPTION)}: row 'Data corruption' of the decision matrix: "
            "allows 4 min, the emergency sequence at line"
        )
        for text in said
    ), said
    assert any("says that a rollback takes 5 min" in text for text in said), said


def test_a_scenario_longer_than_it_says_is_a_contradiction(complaints: Complaints) -> None:
    """Steps of a recovery must fit the time to recovery."""
    (said,) = complaints(("# 3. Bring everything back (10 min)", "# 3. Bring everything back (11 min)"))
    assert "the steps of section 'Scenario: Complete data loss' add up to 0:16:00, more than the 0:15:00" in said


def test_stages_that_overlap_are_a_contradiction(complaints: Complaints, line_of: LineOf) -> None:
    """A stage can't start before the one before it is over."""
    (said,) = complaints(("### 07:00 - Before (30 minutes)", "### 07:00 - Before (40 minutes)"))
    assert said.startswith(
        f"page.md:{line_of('### 07:30')}: stage 'Migration': starts at 07:30, before the stage 'Before' at line"
    )


def test_a_channel_without_address_is_a_contradiction(complaints: Complaints, line_of: LineOf) -> None:
    """A threshold can't page through a channel that the page gives no address for."""
    (said,) = complaints(("- **PagerDuty**: database-oncall\n", ""))
    assert said.startswith(
        f"page.md:{line_of(_LATENCY)}: row 'Query latency (p95)' of table 'Key Metrics to Monitor': "
        "unknown channel 'pagerduty': 'Communication Channels' gives it no address"
    )


def test_two_retentions_are_a_contradiction(complaints: Complaints, line_of: LineOf) -> None:
    """RETENTION_DAYS and the checklist must say what the schedule says."""
    said = complaints((_FULL, _FULL.replace("30 days", "60 days")))
    assert [line.split(": ")[0] for line in said] == [
        f"page.md:{line_of('- [ ] Retention is')}",
        f"page.md:{line_of('export RETENTION_DAYS')}",
    ]


def test_two_health_addresses_are_a_contradiction(complaints: Complaints) -> None:
    """The application has one health address, whichever command asks it."""
    said = complaints(
        (
            "# 6. Ask the application how it is (30 seconds)\ncurl -fsS https://api.",
            "# 6. Ask (30 s)\ncurl https://web.",
        )
    )
    assert said
    assert all("the application's health address is 'https://api." in line for line in said), said


def test_an_unknown_command_in_a_procedure_that_is_run_is_refused(complaints: Complaints, line_of: LineOf) -> None:
    """The daemon does the emergency sequence itself, so it has to know what each step is."""
    (said,) = complaints(("runbookd caches clear\n\n# 5.", "sudo reboot\n\n# 5."))
    assert said.startswith(
        f"page.md:{line_of('# 4. Empty the caches')}: step 'Empty the caches (30 seconds)' "
        "of section 'Rollback Command Sequence': unknown command 'sudo reboot'"
    )


def test_everything_is_said_at_once(complaints: Complaints) -> None:
    """A page's author mends it in one go: all problems, one a line, in the page's order."""
    said = complaints(
        (">200ms |", "slow |"),
        ("Slack + PagerDuty", "Pigeon"),
        ("| Full | Weekly", "| Full | Yearly"),
        ("8 primary", "x"),
    )
    lines = [int(line.split(":")[1]) for line in said]
    assert len(said) == 4
    assert lines == sorted(lines)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_does_more_than_refuse(data: st.DataObject) -> None:
    """Lines lost, doubled, swapped or scribbled over: a policy or the page's error, never a crash."""
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(("lose", "double", "swap", "scribble", "cut")))
        if change == "lose":
            del lines[at]
        elif change == "double":
            lines.insert(at, lines[at])
        elif change == "swap":
            lines[at], lines[at - 1] = lines[at - 1], lines[at]
        elif change == "scribble":
            lines[at] = data.draw(st.text(st.sampled_from("|#*-`>0123456789. ():ab\"'{}[]\\"), max_size=40))
        else:
            lines[at] = lines[at][: data.draw(st.integers(0, 60))]
    try:
        policy = read_runbook("\n".join(lines).encode(), source="page.md")
    except Misconfigured as error:
        assert all(line.startswith("page.md:") for line in str(error).split("\n"))  # noqa: PT017 - either is fine
    else:
        assert policy.matrix


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"# Hello\n", b"\x00" * 1000, b"|||\n|-|-|\n" * 50])
def test_a_file_that_is_no_runbook_says_what_is_missing(data: bytes) -> None:
    """An empty or foreign file gives the list of what a runbook has, never a crash."""
    with pytest.raises(Misconfigured, match="missing table 'Decision Matrix'"):
        read_runbook(data, source="page.md")
