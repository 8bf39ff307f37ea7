"""``label_replace`` and ``label_join``: functions of label sets alone, computed once a table."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from agent.faults import Misconfigured, MisconfiguredReason
from agent.promql.tables import Block, relabel
from agent.samples import Labels
from agent.samples.matchers import compiled

FUNCTIONS = frozenset({"label_replace", "label_join"})

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
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


def check_names(function: str, names: tuple[str, ...]) -> None:
    """Raises: Misconfigured: one of ``names`` can't be a label's."""
    for name in names:
        if not _LABEL.fullmatch(name):
            raise Misconfigured(
                MisconfiguredReason.RULES, f"invalid label name {name!r} in {function}()", hint="use [a-zA-Z_0-9]"
            )


def _replaced(target: str, replacement: str, source: str, pattern: re.Pattern[str], labels: Labels) -> Labels:
    found = pattern.fullmatch(dict(labels).get(source, ""))
    if found is None:
        return labels
    return _with(labels, target, _REFERENCE.sub(partial(_referenced, found), replacement))


def _referenced(found: re.Match[str], reference: re.Match[str]) -> str:
    name = reference.group(1) or reference.group(2)
    if name is None:
        return "$"
    try:
        return found.group(int(name) if name.isdigit() else name) or ""
    except IndexError:
        return ""


def _joined(target: str, separator: str, sources: tuple[str, ...], labels: Labels) -> Labels:
    values = dict(labels)
    return _with(labels, target, separator.join(values.get(source, "") for source in sources))


def _with(labels: Labels, name: str, value: str) -> Labels:
    changed = {**dict(labels), name: value}
    return tuple(sorted(pair for pair in changed.items() if pair[1]))
