"""A compiled expression: what rule files and the API hand to the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from agent.promql.adapter import parse
from agent.promql.expressions import (
    Aggregate,
    Binary,
    Call,
    Comparison,
    Kind,
    Negate,
    Node,
    Select,
    Text,
    intern,
    walk,
)
from agent.promql.labelling import renaming


@dataclass(frozen=True, eq=False)
class Plan:
    """An expression that will not fail for its form.

    Args:
        text: as written.
        root: interned: plans that share a sub-expression share its node.
        witness: the same expression with its filters opened. An element that ``root`` lacks but ``witness`` has was
            looked at and found wanting; one that both lack was not there to look at. This is how an alert knows
            "false" from "no data".
    """

    text: str
    root: Node
    witness: Node

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
    root = parse(text)
    for node in walk(root):
        if isinstance(node, Call) and node.function in ("label_replace", "label_join"):
            renaming(node.function, tuple(each.value for each in node.arguments if isinstance(each, Text)))
    return Plan(text, root, _opened(root))


def _opened(node: Node) -> Node:
    """``node`` with every filter replaced by its witness, as far as the filters decide about elements.

    Filters inside arithmetic stay shut: ``a / (b > 10)`` says that there is no ratio without enough of ``b``, which
    is want of data, not an answer.
    """
    if isinstance(node, Binary):
        if node.operator == "unless":
            return _opened(node.left)
        if node.operator in ("and", "or"):
            return intern(replace(node, left=_opened(node.left), right=_opened(node.right)))
        if node.comparison is Comparison.FILTER:
            return intern(
                replace(node, left=_opened(node.left), right=_opened(node.right), comparison=Comparison.WITNESS)
            )
        return node
    if isinstance(node, Aggregate):
        return intern(replace(node, operand=_opened(node.operand)))
    if isinstance(node, Negate):
        return intern(replace(node, operand=_opened(node.operand)))
    if isinstance(node, Call):
        return intern(replace(node, arguments=tuple(_opened(each) for each in node.arguments)))
    return node
