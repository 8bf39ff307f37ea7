"""A compiled expression: what rule files and the API hand to the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from agent.promql.adapter import parse
from agent.promql.expressions import (
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Comparison,
    Kind,
    Negate,
    Node,
    Place,
    Select,
    Subquery,
    Text,
    intern,
    walk,
)
from agent.promql.labelling import check_names, renaming


@dataclass(frozen=True, eq=False)
class Plan:
    """An expression that will not fail for its form.

    Args:
        text: as written.
        root: interned: plans that share a sub-expression share its node.
        witness: the same expression with its filters opened. An element that ``root`` lacks but ``witness`` has was
            looked at and found wanting; one that both lack was not there to look at. This is how an alert knows
            "false" from "no data". ``None`` where the expression does not filter: what it lacks is not so.
        places: offsets in ``text`` of the calls and arguments that a remark may be about.
    """

    text: str
    root: Node
    witness: Node | None
    places: Mapping[Place, tuple[int, ...]]

    @property
    def kind(self) -> Kind:
        return self.root.kind

    @property
    def selectors(self) -> tuple[Select, ...]:
        """All selectors, left to right, each once."""
        return tuple(dict.fromkeys(node for node in walk(self.root) if isinstance(node, Select)))

    @property
    def metrics(self) -> frozenset[str]:
        """Names of the metrics it reads, as far as its selectors name them."""
        return frozenset(name for select in self.selectors if (name := select.metric) is not None)


@lru_cache(maxsize=512)
def compile_expression(text: str) -> Plan:
    """Compile ``text``.

    Raises:
        Misconfigured: not PromQL, with ``line:column`` and a hint.
        Refused: PromQL that this engine does not evaluate, or beyond its limits.
    """
    parsed = parse(text)
    root = parsed.root
    for node in walk(root):
        if isinstance(node, Call) and node.function in ("label_replace", "label_join"):
            renaming(node.function, tuple(each.value for each in node.arguments if isinstance(each, Text)))
        if isinstance(node, Aggregate) and isinstance(node.parameter, Text):
            check_names(node.operator, (node.parameter.value,))
    return Plan(text, root, _witness(root), parsed.places)


_ABSENCE = frozenset({"absent", "absent_over_time"})
_SHUT = frozenset({"scalar", "vector"})


def _witness(root: Node) -> Node | None:
    opened = _opened(root)
    return None if opened is root else opened


def _opened(node: Node) -> Node | None:
    """``node`` with its filters replaced by witnesses; ``None`` where absence itself is the answer.

    Filters inside arithmetic stay shut: ``a / (b > 10)`` says that there is no ratio without enough of ``b``, which
    is want of data, not an answer.
    """
    if isinstance(node, Binary):
        return _opened_binary(node)
    if isinstance(node, Aggregate):
        operand = _opened(node.operand)
        return None if operand is None else intern(replace(node, operand=operand))
    if isinstance(node, Negate | Subquery):
        operand = _opened(node.operand)
        return None if operand is None else intern(replace(node, operand=operand))
    if isinstance(node, Call) and node.function not in _SHUT:
        arguments = [_opened(each) for each in node.arguments]
        found = tuple(each for each in arguments if each is not None)
        if node.function in _ABSENCE or len(found) < len(arguments):
            return None
        return intern(replace(node, arguments=found))
    return node


def _opened_binary(node: Binary) -> Node | None:
    if node.operator not in SET_OPERATORS and node.comparison is not Comparison.FILTER:
        return node
    left, right = _opened(node.left), _opened(node.right)
    if node.operator == "unless":
        return left
    if node.operator == "or":
        return None if left is None or right is None else intern(replace(node, left=left, right=right))
    if left is None or right is None:
        # `x > 1 and absent(y)`: what is known of x alone decides.
        return right if left is None else left
    comparison = Comparison.WITNESS if node.comparison is Comparison.FILTER else None
    return intern(replace(node, left=left, right=right, comparison=comparison))
