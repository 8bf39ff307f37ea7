"""The inverted index: from a label's value to the series that carry it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.samples.labels import Labels
from agent.samples.matchers import Matcher, MatchOperator


class LabelIndex:
    """Postings of every label pair; ids are the store's series numbers."""

    def __init__(self) -> None:
        self._postings: dict[str, dict[str, set[int]]] = {}
        self._everything: set[int] = set()

    def add(self, series: int, labels: Labels) -> None:
        self._everything.add(series)
        for name, value in labels:
            self._postings.setdefault(name, {}).setdefault(value, set()).add(series)

    def remove(self, series: int, labels: Labels) -> None:
        self._everything.discard(series)
        for name, value in labels:
            values = self._postings[name]
            values[value].discard(series)
            if not values[value]:
                del values[value]
                if not values:
                    del self._postings[name]

    def select(self, matchers: Sequence[Matcher]) -> list[int]:
        """Ascending ids of the series that satisfy all ``matchers``."""
        found: set[int] | None = None
        # Equality first: it is one lookup, and narrows what the others are intersected with.
        for matcher in sorted(matchers, key=lambda each: each.operator is not MatchOperator.EQUAL):
            matching = self._matching(matcher)
            found = matching if found is None else found & matching
            if not found:
                return []
        return sorted(self._everything if found is None else found)

    def names(self) -> list[str]:
        return sorted(self._postings)

    def values(self, name: str) -> list[str]:
        return sorted(self._postings.get(name, {}))

    def _matching(self, matcher: Matcher) -> set[int]:
        values = self._postings.get(matcher.name, {})
        if matcher.operator is MatchOperator.EQUAL and matcher.value:
            return values.get(matcher.value, set())
        if not matcher.matches(""):
            return _union(series for value, series in values.items() if matcher.matches(value))
        # The condition holds for series without the label: everything but those whose value fails it.
        return self._everything - _union(series for value, series in values.items() if not matcher.matches(value))


def _union(sets: Iterable[set[int]]) -> set[int]:
    return set().union(*sets)
