"""Silences and acknowledgements: what they cover, how they end, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.alerting import Alert, AlertState, SilenceBook, parse_matcher
from agent.faults import Misconfigured, Permanent, Refused
from agent.state import StateFile

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALERT = Alert(
    fingerprint="f1",
    rule="ErrorRateCritical",
    labels={"condition": "error_rate", "severity": "critical"},
    annotations={},
    state=AlertState.FIRING,
    value=0.1,
    active_since=NOW,
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateFile]:
    file = StateFile(tmp_path / "state.db")
    yield file
    file.close()


@pytest.fixture
def book(state: StateFile) -> SilenceBook:
    return SilenceBook(state)


def silence(book: SilenceBook, *matchers: str, lasting: timedelta = HOUR, owner: str = "kim") -> str:
    made = book.add([parse_matcher(each) for each in matchers], owner=owner, reason="drill", lasting=lasting, now=NOW)
    return made.id


@pytest.mark.parametrize(
    ("matchers", "covered"),
    [
        (["condition=error_rate"], True),
        (['condition="error_rate"', "severity=critical"], True),
        (["condition=error_rate", "severity!=critical"], False),
        (["alertname=~Error.*"], True),
        (["severity!~warn.*", "condition=~.+_rate"], True),
        (["team=db"], False),
        (["team!=db", "condition=error_rate"], True),
    ],
)
def test_a_silence_covers_what_all_its_matchers_mean(book: SilenceBook, matchers: list[str], covered: bool) -> None:
    """By the alert's labels and its name, with a missing label as an empty one."""
    silence(book, *matchers)
    assert book.silenced(ALERT, NOW) is covered


def test_a_silence_ends_by_itself_and_its_end_is_told_once(book: SilenceBook, state: StateFile) -> None:
    """Until it has been said, it is returned again, also to a process that starts later."""
    silence(book, "condition=error_rate")
    before, after = NOW + HOUR - timedelta(seconds=1), NOW + HOUR
    assert book.silenced(ALERT, before)
    assert book.ended(before) == ()
    assert not book.silenced(ALERT, after)
    (ended,) = SilenceBook(state).ended(after)
    book.said(ended)
    assert book.ended(after) == ()
    assert book.active(after) == ()


def test_a_silence_is_ended_by_hand(book: SilenceBook) -> None:
    """By the one who says so, and an unknown or ended one is an error."""
    made = silence(book, "condition=error_rate")
    book.expire(made, owner="lee", now=NOW)
    assert not book.silenced(ALERT, NOW)
    assert [each.ended_by for each in book.ended(NOW)] == ["lee"]
    with pytest.raises(Permanent, match="is in force"):
        book.expire(made, owner="lee", now=NOW)


@pytest.mark.parametrize("matchers", [[], ["team!=db"], ["alertname=~.*"]])
def test_a_silence_of_everything_is_refused(book: SilenceBook, matchers: list[str]) -> None:
    """One of its matchers must name a label that an alert has to have."""
    with pytest.raises(Refused, match="every alert"):
        silence(book, *matchers)


def test_a_silence_has_an_owner_and_an_end(book: SilenceBook) -> None:
    """Nobody's and endless ones are refused."""
    with pytest.raises(Refused, match="owner"):
        silence(book, "a=b", owner=" ")
    with pytest.raises(Refused, match="7 days"):
        silence(book, "a=b", lasting=timedelta(days=8))


@pytest.mark.parametrize("text", ["error_rate", "1a=b", "=b", ""])
def test_what_is_no_matcher_is_said(text: str) -> None:
    """A matcher is a label, an operator and a value."""
    with pytest.raises(Misconfigured, match="no matcher"):
        parse_matcher(text)


def test_an_acknowledgement_is_of_one_run_of_an_alert(book: SilenceBook, state: StateFile) -> None:
    """It survives a restart; an alert that ended and came back is new."""
    book.acknowledge(ALERT, owner="kim", now=NOW)
    found = SilenceBook(state).acknowledgement(ALERT)
    assert found is not None
    assert found.owner == "kim"
    assert book.acknowledgement(replace(ALERT, active_since=NOW + HOUR)) is None
    with pytest.raises(Refused, match="owner"):
        book.acknowledge(ALERT, owner="", now=NOW)
