"""``label_replace`` and ``label_join``: functions of label sets alone, computed once a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from agent.faults import Misconfigured, MisconfiguredReason
from agent.promql.tables import Block, relabel
from agent.samples import METRIC_NAME, Labels, Matcher, MatchOperator
from agent.samples.matchers import Match, Pattern, compiled

FUNCTIONS = frozenset({"label_replace", "label_join"})

_REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


def rewrite(function: str, block: Block, texts: tuple[str, ...]) -> Block:
    """``block`` with labels as ``function`` makes them of its string arguments."""
    return relabel(block, (function, texts), renaming(function, texts))


def renaming(function: str, texts: tuple[str, ...]) -> Callable[[Labels], Labels]:
    """What the function does to one label set.

    Raises:
        Misconfigured: an argument is no label name.
        Refused: the pattern is not supported.
    """
    if function == "label_replace":
        target, replacement, source, pattern = texts
        check_names(function, (target,))
        return partial(_replaced, target, replacement, source, compiled(pattern))
    target, separator, *sources = texts
    check_names(function, (target, *sources))
    return partial(_joined, target, separator, tuple(sources))


def if_absent(matchers: Sequence[Matcher]) -> Labels:
    """What ``absent`` can say about a series that is not there: the labels it would surely have."""
    named = Counter(matcher.name for matcher in matchers)
    return tuple(
        sorted(
            (matcher.name, matcher.value)
            for matcher in matchers
            if matcher.operator is MatchOperator.EQUAL
            and matcher.name != METRIC_NAME
            and named[matcher.name] == 1
            and matcher.value
        )
    )


def check_names(function: str, names: tuple[str, ...]) -> None:
    """Raises: Misconfigured: one of ``names`` can't be a label's: since Prometheus 3 any text may, but none may not."""
    if not all(names):
        raise Misconfigured(
            MisconfiguredReason.RULES, f"invalid label name '' in {function}()", hint="a label's name can't be empty"
        )


def _replaced(target: str, replacement: str, source: str, pattern: Pattern, labels: Labels) -> Labels:
    found = pattern.fullmatch(dict(labels).get(source, ""))
    if found is None:
        return labels
    return _with(labels, target, _REFERENCE.sub(partial(_referenced, found, pattern), replacement))


def _referenced(found: Match, pattern: Pattern, reference: re.Match[str]) -> str:
    name = reference.group(1) or reference.group(2)
    if name is None:
        return "$"
    number = int(name) if name.isascii() and name.isdigit() and len(name) < 4 else pattern.groupindex.get(name, -1)
    return (found.group(number) or "") if 0 <= number <= pattern.groups else ""


def _joined(target: str, separator: str, sources: tuple[str, ...], labels: Labels) -> Labels:
    values = dict(labels)
    return _with(labels, target, separator.join(values.get(source, "") for source in sources))


def _with(labels: Labels, name: str, value: str) -> Labels:
    changed = {**dict(labels), name: value}
    return tuple(sorted(pair for pair in changed.items() if pair[1]))
