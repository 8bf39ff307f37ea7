"""PromQL as frozen values: what the adapter makes of the parser's tree, and what the engine evaluates.

Nodes are hash-consed: :func:`intern` returns one object for one meaning, across all rules, so that identity is
equality and the engine's memo computes a shared sub-expression once a tick.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, TypeVar

from agent.samples import METRIC_NAME, Matcher, MatchOperator


class Kind(StrEnum):
    """The type of an expression's value, by Prometheus's names."""

    SCALAR = "scalar"
    VECTOR = "vector"
    MATRIX = "matrix"
    STRING = "string"


class Comparison(StrEnum):
    """What a comparison does with the pairs it compares."""

    FILTER = "filter"  # keep those for which it holds
    BOOL = "bool"  # 1 where it holds, else 0
    WITNESS = "witness"  # keep those both of whose sides are numbers: where the filter could tell


class Edge(StrEnum):
    """An end of the query's range, as ``@ start()`` and ``@ end()`` name it; an instant is both its ends."""

    START = "start"
    END = "end"


Anchor = int | Edge | None
"""What ``@`` fixes a selector to: a moment in ms, an end of the query's range, or nothing."""


class Cardinality(StrEnum):
    """How many elements of one side of a vector operation meet one of the other."""

    ONE_TO_ONE = "one-to-one"
    MANY_TO_ONE = "group_left"
    ONE_TO_MANY = "group_right"
    MANY_TO_MANY = "many-to-many"


ARITHMETIC = frozenset({"+", "-", "*", "/", "%", "^", "atan2"})
COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
SET_OPERATORS = frozenset({"and", "or", "unless"})


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Node:
    """Any expression."""

    @property
    def kind(self) -> Kind:
        return Kind.VECTOR

    @property
    def children(self) -> tuple[Node, ...]:
        return ()


CALL = -1
Place = tuple[Node, int]
"""An argument of a function or aggregation, by its number in the text; ``CALL`` for the call itself."""


@dataclass(frozen=True, eq=False, slots=True)
class Number(Node):
    value: float

    @property
    def kind(self) -> Kind:
        return Kind.SCALAR


@dataclass(frozen=True, eq=False, slots=True)
class Text(Node):
    value: str

    @property
    def kind(self) -> Kind:
        return Kind.STRING


@dataclass(frozen=True, eq=False, slots=True)
class Select(Node):
    """An instant selector; ``offset`` in ms, positive towards the past, counted from ``at`` if that is given."""

    matchers: tuple[Matcher, ...]
    offset: int = 0
    at: Anchor = None

    @property
    def metric(self) -> str | None:
        """The metric's name, where the selector names exactly one."""
        for matcher in self.matchers:
            if matcher.name == METRIC_NAME and matcher.operator is MatchOperator.EQUAL:
                return matcher.value
        return None


@dataclass(frozen=True, eq=False, slots=True)
class Window(Node):
    """A range selector: the samples of ``select`` in ``(t - length, t]``, ``length`` in ms."""

    select: Select
    length: int

    @property
    def kind(self) -> Kind:
        return Kind.MATRIX

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.select,)


@dataclass(frozen=True, eq=False, slots=True)
class Subquery(Node):
    """``operand`` at every multiple of ``step`` in ``(t - length, t]``; all in ms.

    Args:
        step: ``None`` for the engine's own.
        offset, at: as of :class:`Select`.
    """

    operand: Node
    length: int
    step: int | None
    offset: int = 0
    at: Anchor = None

    @property
    def kind(self) -> Kind:
        return Kind.MATRIX

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.operand,)


@dataclass(frozen=True, eq=False, slots=True)
class Call(Node):
    function: str
    arguments: tuple[Node, ...]
    returns: Kind

    @property
    def kind(self) -> Kind:
        return self.returns

    @property
    def children(self) -> tuple[Node, ...]:
        return self.arguments


@dataclass(frozen=True, eq=False, slots=True)
class Aggregate(Node):
    """``operator`` over groups that share the values of ``labels`` (or, with ``without``, of all other labels)."""

    operator: str
    operand: Node
    parameter: Node | None
    labels: tuple[str, ...]
    without: bool

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.operand,) if self.parameter is None else (self.operand, self.parameter)


@dataclass(frozen=True, eq=False, slots=True)
class Negate(Node):
    operand: Node

    @property
    def kind(self) -> Kind:
        return self.operand.kind

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.operand,)


@dataclass(frozen=True, slots=True)
class Matching:
    """How the elements of two vectors find each other.

    Args:
        on: match on ``labels`` alone; otherwise on all but ``labels`` and the metric's name.
        include: labels that ``group_left`` or ``group_right`` copies from the one side.
    """

    cardinality: Cardinality
    on: bool
    labels: tuple[str, ...]
    include: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Binary(Node):
    """Two operands; ``matching`` where both are vectors, ``comparison`` where the operator compares."""

    operator: str
    left: Node
    right: Node
    matching: Matching | None
    comparison: Comparison | None

    @property
    def kind(self) -> Kind:
        both_scalar = self.left.kind is Kind.SCALAR and self.right.kind is Kind.SCALAR
        return Kind.SCALAR if both_scalar else Kind.VECTOR

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.left, self.right)


_N = TypeVar("_N", bound=Node)
_interned: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def intern(node: _N) -> _N:
    """The one node that means what ``node`` means; its children must be interned already."""
    key = (type(node), *(_part(getattr(node, field.name)) for field in fields(node)))
    with _lock:
        known = _interned.get(key)
        if known is None:
            _interned[key] = node
            return node
    return known  # type: ignore[return-value]  # the key begins with the type


def _part(value: Any) -> Any:
    if isinstance(value, Node):
        return id(value)
    if isinstance(value, tuple):
        return tuple(_part(each) for each in value)
    if isinstance(value, float):
        return value.hex()  # NaN equals itself here, and 0 differs from -0
    return value


def walk(node: Node) -> Iterator[Node]:
    """``node`` and everything below it, left to right, parents first."""
    yield node
    for child in node.children:
        yield from walk(child)


_metrics_read: weakref.WeakKeyDictionary[Node, frozenset[str | None]] = weakref.WeakKeyDictionary()


def reads(node: Node, metrics: frozenset[str]) -> bool:
    """Whether ``node`` is computed from any of ``metrics``, as far as its selectors name theirs."""
    names = _metrics_read.get(node)
    if names is None:
        names = _metrics_read[node] = frozenset(each.metric for each in walk(node) if isinstance(each, Select))
    return None in names or not names.isdisjoint(metrics)
