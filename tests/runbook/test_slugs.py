"""Slugs and anchors: one rule each."""

from __future__ import annotations

import pytest

from agent.runbook.slugs import anchors_of, plain, says_manual, slug_of


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("Query latency (p95)", "query_latency_p95"),
        (">5% error rate", "error_rate"),
        ("Error rate", "error_rate"),
        ("Performance degradation >50%", "performance_degradation"),
        ("Document write rate", "document_write_rate"),
        ("UI issues (manual)", "ui_issues"),
        ("UI issues", "ui_issues"),
        ("Stats calculation", "stats_calculation"),
        (">200ms", ""),
    ],
)
def test_titles_become_labels(title: str, slug: str) -> None:
    """Quantities, comparators, punctuation and "manual" never get into a label."""
    assert slug_of(title) == slug


def test_manual_is_a_word_of_its_own() -> None:
    """ "manually" or "manuals" isn't a promise that a person watches."""
    assert says_manual("UI issues (Manual)")
    assert not says_manual("Manuals missing")


def test_anchors_are_those_of_github() -> None:
    """Spaces become hyphens, punctuation goes, and a repeated heading is numbered."""
    assert anchors_of(["Query latency (p95)", "Backup & Recovery", "Issue: X", "Issue: X", "07:00 - Go"]) == (
        "query-latency-p95",
        "backup--recovery",
        "issue-x",
        "issue-x-1",
        "0700---go",
    )


def test_pictures_are_no_text() -> None:
    """Ticks and emoji leave a title, letters of any language stay."""
    assert plain("Monday \u2705\ufe0f  Größe") == "Monday Größe"
