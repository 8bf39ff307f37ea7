"""From the parser's tree to our own expressions; the only module that imports promql_parser.

The parser's nodes are unhashable, carry no positions and accept some things Prometheus does not, so they are
converted at once and never leave this module.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import promql_parser as vendor

from agent.faults import Refused, RefusedReason
from agent.promql.expressions import (
    ARITHMETIC,
    COMPARISONS,
    SET_OPERATORS,
    Aggregate,
    Anchor,
    Binary,
    Call,
    Cardinality,
    Comparison,
    Edge,
    Kind,
    Matching,
    Negate,
    Node,
    Number,
    Select,
    Subquery,
    Text,
    Window,
    intern,
)
from agent.promql.guard import Token, TokenKind, malformed, tokenize, unsupported
from agent.promql.support import AGGREGATIONS, FUNCTIONS
from agent.samples import METRIC_NAME, Matcher, MatchOperator
from agent.samples.matchers import compiled

# Python's stack: the engine needs a few frames a level.
MAX_LEVELS = 150

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The parser's enums can't be hashed; their representations can.
_OPERATORS = {
    repr(vendor.MatchOp.Equal): MatchOperator.EQUAL,
    repr(vendor.MatchOp.NotEqual): MatchOperator.NOT_EQUAL,
    repr(vendor.MatchOp.Re): MatchOperator.MATCHES,
    repr(vendor.MatchOp.NotRe): MatchOperator.NOT_MATCHES,
}
_CARDINALITIES = {
    repr(vendor.VectorMatchCardinality.OneToOne): Cardinality.ONE_TO_ONE,
    repr(vendor.VectorMatchCardinality.ManyToOne): Cardinality.MANY_TO_ONE,
    repr(vendor.VectorMatchCardinality.OneToMany): Cardinality.ONE_TO_MANY,
    repr(vendor.VectorMatchCardinality.ManyToMany): Cardinality.MANY_TO_MANY,
}
_KINDS = {
    repr(vendor.ValueType.Vector): Kind.VECTOR,
    repr(vendor.ValueType.Scalar): Kind.SCALAR,
    repr(vendor.ValueType.Matrix): Kind.MATRIX,
    repr(vendor.ValueType.String): Kind.STRING,
}


def parse(text: str) -> Node:
    """The interned expression that ``text`` means.

    Raises:
        Misconfigured: it is not PromQL; the message begins with ``line:column``.
        Refused: it is PromQL that this engine does not evaluate, or larger than the limits.
    """
    tokens = tokenize(text)
    _refuse_by_token(text, tokens)
    try:
        tree = vendor.parse(text)
    except ValueError as error:
        raise malformed(text, _blamed(tokens, str(error)), str(error)) from error
    return _Adapter(text, tokens).convert(tree, MAX_LEVELS)


def _refuse_by_token(text: str, tokens: tuple[Token, ...]) -> None:
    """Refuse what tokens alone show, before the parser rejects it with a worse message."""
    depth: list[str] = []
    for before, token, following in zip((None, *tokens), tokens, (*tokens[1:], None), strict=False):
        if token.kind is TokenKind.SIGN and token.text in "([{":
            depth.append(token.text)
        elif token.kind is TokenKind.SIGN and token.text in ")]}":
            depth.pop()
        elif before is not None and before.text == "@":
            continue  # `@ start()` is no call
        elif token.kind is TokenKind.NAME and following is not None and following.text == "(" and "{" not in depth:
            name = token.text.lower()
            known = name in FUNCTIONS or name in AGGREGATIONS or name in _WORDS_BEFORE_BRACKET
            if not known and name in _REFUSED_CALLS:
                raise unsupported(text, token.offset, f"{name}() is not supported", _REFUSED_CALLS[name])


_WORDS_BEFORE_BRACKET = frozenset(
    {"by", "without", "on", "ignoring", "group_left", "group_right", "bool", "and", "or", "unless", "atan2", "offset"}
)
_NATIVE = "it reads native histograms; use classic buckets (_bucket)"
_EXPERIMENTAL = "it is experimental in Prometheus"
_REFUSED_CALLS = {
    "limitk": _EXPERIMENTAL,
    "limit_ratio": _EXPERIMENTAL,
    "fill": _EXPERIMENTAL,
    "fill_left": _EXPERIMENTAL,
    "fill_right": _EXPERIMENTAL,
    "info": _EXPERIMENTAL,
    "max_of": _EXPERIMENTAL,
    "min_of": _EXPERIMENTAL,
    "start": _EXPERIMENTAL,
    "end": _EXPERIMENTAL,
    "range": _EXPERIMENTAL,
    "step": _EXPERIMENTAL,
    "holt_winters": "it was removed in Prometheus 3",
    "double_exponential_smoothing": _EXPERIMENTAL,
    "mad_over_time": _EXPERIMENTAL,
    "first_over_time": _EXPERIMENTAL,
    "ts_of_first_over_time": _EXPERIMENTAL,
    "ts_of_last_over_time": _EXPERIMENTAL,
    "ts_of_max_over_time": _EXPERIMENTAL,
    "ts_of_min_over_time": _EXPERIMENTAL,
    "sort_by_label": _EXPERIMENTAL,
    "sort_by_label_desc": _EXPERIMENTAL,
    "histogram_avg": _NATIVE,
    "histogram_count": _NATIVE,
    "histogram_sum": _NATIVE,
    "histogram_fraction": _NATIVE,
    "histogram_stddev": _NATIVE,
    "histogram_stdvar": _NATIVE,
    "histogram_quantiles": _EXPERIMENTAL,
}


def _blamed(tokens: tuple[Token, ...], message: str) -> int:
    """Offset of the token that a parser's message is most likely about: one it quotes, or the last."""
    for token in tokens:
        if token.kind is TokenKind.NAME and f"'{token.text}'" in message:
            return token.offset
    for token in tokens:
        if token.kind is TokenKind.TEXT and token.text[1:-1] and token.text[1:-1] in message:
            return token.offset
    return tokens[-1].offset


class _Adapter:
    def __init__(self, text: str, tokens: tuple[Token, ...]) -> None:
        self._text = text
        self._tokens = tokens

    def convert(self, tree: vendor.Expr, levels: int) -> Node:
        if levels == 0:
            raise Refused(
                RefusedReason.LIMIT,
                f"an expression of more than {MAX_LEVELS} levels",
                hint="split it with recording rules",
            )
        if isinstance(tree, vendor.ParenExpr):
            return self.convert(tree.expr, levels - 1)
        if isinstance(tree, vendor.NumberLiteral):
            return intern(Number(tree.val))
        if isinstance(tree, vendor.StringLiteral):
            return intern(Text(tree.val))
        if isinstance(tree, vendor.VectorSelector):
            return self._select(tree)
        if isinstance(tree, vendor.MatrixSelector):
            return intern(Window(self._select(tree.vector_selector), _millis(tree.range)))
        if isinstance(tree, vendor.SubqueryExpr):
            return self._subquery(tree, levels)
        if isinstance(tree, vendor.UnaryExpr):
            return self._negate(self.convert(tree.expr, levels - 1))
        if isinstance(tree, vendor.Call):
            return self._call(tree, levels)
        if isinstance(tree, vendor.AggregateExpr):
            return self._aggregate(tree, levels)
        if isinstance(tree, vendor.BinaryExpr):
            return self._binary(tree, levels)
        raise unsupported(self._text, 0, f"{type(tree).__name__} is not supported", "write it in another way")

    def _negate(self, operand: Node) -> Node:
        if isinstance(operand, Number):
            return intern(Number(-operand.value))
        return intern(Negate(operand))

    def _select(self, tree: vendor.VectorSelector) -> Select:
        if tree.matchers.or_matchers:
            raise malformed(
                self._text, self._find("or"), "'or' between matchers is not PromQL", "join the selectors with `or`"
            )
        matchers = [Matcher(_OPERATORS[repr(each.op)], each.name, each.value) for each in tree.matchers.matchers]
        if tree.name is not None:
            matchers.insert(0, Matcher(MatchOperator.EQUAL, METRIC_NAME, tree.name))
        for each in matchers:
            if each.operator in (MatchOperator.MATCHES, MatchOperator.NOT_MATCHES):
                compiled(each.value)
        return intern(Select(tuple(dict.fromkeys(matchers)), _offset(tree), _anchor(tree)))

    def _subquery(self, tree: vendor.SubqueryExpr, levels: int) -> Node:
        step = None if tree.step is None else _millis(tree.step)
        if step is not None and step < 1:
            raise malformed(self._text, self._find(":"), "a subquery needs a step of at least 1 ms", "write [5m:10s]")
        operand = self.convert(tree.expr, levels - 1)
        return intern(Subquery(operand, _millis(tree.range), step, _offset(tree), _anchor(tree)))

    def _call(self, tree: vendor.Call, levels: int) -> Node:
        name = tree.func.name
        if name not in FUNCTIONS:
            raise unsupported(
                self._text, self._find(name), f"{name}() is not supported", "see the functions that the docs list"
            )
        arguments = tuple(self.convert(each, levels - 1) for each in tree.args)
        return intern(Call(name, arguments, _KINDS[repr(tree.func.return_type)]))

    def _aggregate(self, tree: vendor.AggregateExpr, levels: int) -> Node:
        name = str(tree.op)
        if name not in AGGREGATIONS:
            raise unsupported(
                self._text, self._find(name), f"{name} is not supported", "see the aggregations that the docs list"
            )
        operand = self.convert(tree.expr, levels - 1)
        parameter = None if tree.param is None else self.convert(tree.param, levels - 1)
        labels: tuple[str, ...] = ()
        without = False
        if tree.modifier is not None:
            labels = tuple(sorted(set(tree.modifier.labels)))
            without = tree.modifier.type == vendor.AggModifierType.Without
        return intern(Aggregate(name, operand, parameter, labels, without))

    def _binary(self, tree: vendor.BinaryExpr, levels: int) -> Node:
        operator = str(tree.op)
        if operator not in ARITHMETIC | COMPARISONS | SET_OPERATORS:
            raise unsupported(
                self._text, self._find(operator), f"the operator {operator} is not supported", "write it in another way"
            )
        left = self.convert(tree.lhs, levels - 1)
        right = self.convert(tree.rhs, levels - 1)
        comparison = None
        if operator in COMPARISONS:
            wants_bool = tree.modifier is not None and tree.modifier.return_bool
            comparison = Comparison.BOOL if wants_bool else Comparison.FILTER
        matching = None
        if left.kind is Kind.VECTOR and right.kind is Kind.VECTOR:
            matching = self._matching(operator, tree.modifier)
        return intern(Binary(operator, left, right, matching, comparison))

    def _matching(self, operator: str, modifier: vendor.BinModifier | None) -> Matching:
        cardinality = Cardinality.MANY_TO_MANY if operator in SET_OPERATORS else Cardinality.ONE_TO_ONE
        if modifier is None:
            return Matching(cardinality, on=False, labels=(), include=())
        if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
            raise unsupported(self._text, self._find("fill"), "fill() is not supported", _EXPERIMENTAL)
        if operator not in SET_OPERATORS:
            cardinality = _CARDINALITIES[repr(modifier.card)]
        on = False
        labels: tuple[str, ...] = ()
        if modifier.matching is not None:
            on = modifier.matching.type == vendor.LabelModifierType.Include
            labels = tuple(sorted(set(modifier.matching.labels)))
        return Matching(cardinality, on, labels, tuple(sorted(set(modifier.group_labels or ()))))

    def _find(self, word: str) -> int:
        """Offset of the first token ``word``; the best place to point at that the parser leaves us."""
        for token in self._tokens:
            if token.text.lower() == word.lower():
                return token.offset
        return 0


def _offset(tree: vendor.VectorSelector | vendor.SubqueryExpr) -> int:
    return 0 if tree.offset is None else _millis(tree.offset)


def _anchor(tree: vendor.VectorSelector | vendor.SubqueryExpr) -> Anchor:
    if tree.at is None:
        return None
    if tree.at.at is not None:
        return _millis(tree.at.at - _EPOCH)
    return Edge.START if tree.at.type == vendor.AtModifierType.Start else Edge.END


def _millis(span: timedelta | None) -> int:
    assert span is not None, "the grammar demands one here"
    return span // timedelta(milliseconds=1)
