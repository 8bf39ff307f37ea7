"""The two pages that say the same: the first user's, as it came, and ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.faults import Misconfigured, MisconfiguredReason
from agent.runbook import Policy, load_runbook, read_runbook

Complaints = Callable[..., list[str]]

SEED = Path(__file__).parent / "seed.md"
PAGE = Path(__file__).parents[2] / "runbooks" / "firestore-operations.md"


@pytest.fixture(scope="session")
def seed() -> Policy:
    return load_runbook(SEED)


@pytest.fixture(scope="session")
def page() -> Policy:
    return load_runbook(PAGE)


@pytest.fixture(scope="session")
def page_text() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture
def complaints(page_text: str) -> Complaints:
    """The lines of the error that our page gives once ``(old, new)`` pairs have been replaced in it."""

    def read(*changes: tuple[str, str]) -> list[str]:
        text = page_text
        for old, new in changes:
            assert old in text, f"the page doesn't say {old!r} any more"
            text = text.replace(old, new)
        with pytest.raises(Misconfigured) as raised:
            read_runbook(text.encode(), source="page.md")
        assert raised.value.reason is MisconfiguredReason.RUNBOOK
        return str(raised.value).split("\n")

    return read


@pytest.fixture(scope="session")
def line_of(page_text: str) -> Callable[[str], int]:
    """The number of the first line of our page that contains a text."""

    def find(text: str) -> int:
        return next(number for number, line in enumerate(page_text.split("\n"), start=1) if text in line)

    return find


@pytest.fixture(scope="session")
def seed_bytes() -> bytes:
    return SEED.read_bytes()
