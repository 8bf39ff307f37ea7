"""Names derived from titles: policy slugs, and the anchors that GitHub gives to headings.

One rule each, so that rules, metrics, links and the page agree without a table of synonyms.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from agent.runbook.quantities import without_quantities

_MANUAL = re.compile(r"\bmanual\b", re.IGNORECASE)


def slug_of(title: str) -> str:
    """A title as a metric label: quantities, comparators, punctuation and the word "manual" dropped.

    ``>5% error rate`` is ``error_rate``; ``Query latency (p95)`` is ``query_latency_p95``.
    """
    words = _MANUAL.sub(" ", without_quantities(title)).lower()
    return "_".join(re.findall(r"[a-z0-9]+", words))


def says_manual(title: str) -> bool:
    """Whether a title carries the word "manual": a person watches this, no rule does."""
    return _MANUAL.search(title) is not None


def plain(text: str) -> str:
    """``text`` without pictures (ticks, emoji and their modifiers), spaces tidied."""
    kept = (char for char in text if unicodedata.category(char) not in ("So", "Mn", "Me", "Cf", "Co", "Cn", "Sk"))
    return " ".join("".join(kept).split())


def anchors_of(headings: Iterable[str]) -> tuple[str, ...]:
    """The anchor of each heading, in order, as GitHub makes them: a repeated one gets ``-1``, ``-2`` and so on."""
    seen: dict[str, int] = {}
    anchors: list[str] = []
    for heading in headings:
        base = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = seen.get(base, -1) + 1
        seen[base] = count
        anchors.append(f"{base}-{count}" if count else base)
    return tuple(anchors)
