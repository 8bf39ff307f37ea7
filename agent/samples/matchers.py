"""Label matchers with Prometheus's semantics: anchored regular expressions, a missing label equals an empty one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from agent.faults import Refused, RefusedReason

# Python's engine backtracks where Prometheus's RE2 does not; a short pattern bounds the damage one can do.
_LONGEST_PATTERN = 1_000


class MatchOperator(StrEnum):
    """How a matcher compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    MATCHES = "=~"
    NOT_MATCHES = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label."""

    operator: MatchOperator
    name: str
    value: str

    @property
    def negative(self) -> bool:
        return self.operator in (MatchOperator.NOT_EQUAL, MatchOperator.NOT_MATCHES)

    def matches(self, value: str) -> bool:
        """Whether a series whose label has ``value`` ("" if it lacks the label) satisfies the condition."""
        if self.operator is MatchOperator.EQUAL:
            return value == self.value
        if self.operator is MatchOperator.NOT_EQUAL:
            return value != self.value
        found = compiled(self.value).fullmatch(value) is not None
        return found is not self.negative

    def __str__(self) -> str:
        return f'{self.name}{self.operator}"{self.value}"'


@lru_cache(maxsize=1_024)
def compiled(pattern: str) -> re.Pattern[str]:
    """``pattern`` for ``fullmatch``; a dot matches a newline, as in Prometheus 3.

    Raises:
        Refused: the pattern is too long, or uses what Python's engine does not know.
    """
    if len(pattern) > _LONGEST_PATTERN:
        raise Refused(
            RefusedReason.LIMIT,
            f"a regular expression of {len(pattern)} characters",
            hint=f"use at most {_LONGEST_PATTERN}",
        )
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise Refused(
            RefusedReason.UNSUPPORTED_EXPRESSION,
            f"regular expression {pattern!r}: {error}",
            hint="use syntax that RE2 and Python share",
        ) from error
