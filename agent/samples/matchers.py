"""Label matchers with Prometheus's semantics: anchored regular expressions, a missing label equals an empty one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Protocol

import re2

from agent.faults import Refused, RefusedReason
from agent.samples.labels import METRIC_NAME


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


def selector_text(matchers: Sequence[Matcher]) -> str:
    """``matchers`` as PromQL writes a selector: ``up{job="api"}``."""
    name = next((each.value for each in matchers if _names(each)), "")
    inner = ",".join(f"{each.name}{each.operator}{_quoted(each.value)}" for each in matchers if not _names(each))
    return f"{name}{{{inner}}}" if inner or not name else name


def _names(matcher: Matcher) -> bool:
    return matcher.name == METRIC_NAME and matcher.operator is MatchOperator.EQUAL


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class Match(Protocol):
    """What a pattern captured of a value."""

    def group(self, which: int | str, /) -> str | None:
        """A group by its number (0: everything) or name; ``None`` if it took no part."""


class Pattern(Protocol):
    """A regular expression of RE2, as Prometheus's: it takes time in proportion to the text, whatever the pattern."""

    @property
    def groups(self) -> int:
        """How many groups capture."""

    @property
    def groupindex(self) -> dict[str, int]:
        """Numbers of the groups that have a name."""

    def fullmatch(self, text: str) -> Match | None: ...

    def search(self, text: str) -> Match | None: ...

    def sub(self, replacement: str | Callable[[Match], str], text: str) -> str: ...


def _options() -> Any:
    options = re2.Options()
    options.dot_nl = True  # a dot matches a newline, as in Prometheus 3
    options.log_errors = False
    return options


@lru_cache(maxsize=1_024)
def compiled(pattern: str) -> Pattern:
    """``pattern`` in RE2's syntax, for ``fullmatch``.

    Python's own engine would do but for two things: it backtracks, with the interpreter's lock held, and a rule loop
    must not depend on nobody typing ``(a+)+`` into a dashboard; and it reads some patterns differently.

    Raises:
        Refused: it is no regular expression, or compiles to more than RE2's own limit.
    """
    try:
        found: Pattern = re2.compile(pattern, _options())
    except (re2.error, UnicodeEncodeError) as error:
        why = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise Refused(
            RefusedReason.UNSUPPORTED_EXPRESSION,
            f"regular expression {pattern!r}: {why}",
            hint="see https://github.com/google/re2/wiki/Syntax",
        ) from error
    return found
