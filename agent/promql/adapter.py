"""From the parser's tree to our own expressions; the only module that imports promql_parser.

The parser's nodes are unhashable, carry no positions and accept some things Prometheus does not, so they are
converted at once and never leave this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import promql_parser as vendor

from agent.faults import Refused, RefusedReason
from agent.promql.cursor import Cursor, OutOfStepError
from agent.promql.expressions import (
    ARITHMETIC,
    CALL,
    COMPARISONS,
    SET_OPERATORS,
    Aggregate,
    Anchor,
    Binary,
    Call,
    Cardinality,
    Comparison,
    Kind,
    Matching,
    Negate,
    Node,
    Number,
    Place,
    Select,
    Subquery,
    Text,
    Window,
    intern,
)
from agent.promql.guard import Token, TokenKind, malformed, tokenize, unsupported
from agent.promql.refusals import EXPERIMENTAL, check
from agent.promql.support import AGGREGATIONS, FUNCTIONS
from agent.samples import METRIC_NAME, Matcher, MatchOperator
from agent.samples.matchers import compiled

# Python's stack: the engine needs a few frames a level.
MAX_LEVELS = 150

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


# Past it milliseconds no longer fit where the engine adds offsets to them.
_FARTHEST_MS = 10**15


@dataclass(frozen=True, slots=True)
class Parsed:
    """An expression, and where in its text things begin.

    Args:
        root: interned.
        places: offsets in characters of the places that a remark may point at; one node may be written several times.
    """

    root: Node
    places: Mapping[Place, tuple[int, ...]]


def parse(text: str) -> Parsed:
    """What ``text`` means.

    Raises:
        Misconfigured: it is not PromQL; the message begins with ``line:column``.
        Refused: it is PromQL that this engine does not evaluate, or larger than the limits.
    """
    tokens = tokenize(text)
    check(text, tokens)
    patterns: dict[str, str] = {}
    tree = _parsed(text, tokens, _spelled(text, tokens, patterns))
    adapter = _Adapter(text, tokens, patterns)
    try:
        root = adapter.convert(tree, MAX_LEVELS)
        if not adapter.cursor.finished:
            raise OutOfStepError(f"the tree ends before {adapter.cursor.offset}")
    except OutOfStepError as error:
        raise unsupported(
            text, adapter.cursor.offset, f"it could not be read back ({error})", "write it in another way"
        ) from error
    return Parsed(root, {place: tuple(offsets) for place, offsets in adapter.places.items()})


def _parsed(text: str, tokens: tuple[Token, ...], spelled: str) -> vendor.Expr:
    try:
        return vendor.parse(spelled)
    except ValueError as error:
        raise malformed(text, _blamed(tokens, str(error)), str(error)) from error


def _spelled(text: str, tokens: tuple[Token, ...], patterns: dict[str, str]) -> str:
    """``text`` as the parser can take it.

    It knows no ``1_000``, and reads escapes between backticks. It judges regular expressions by another dialect than
    Prometheus's, so it gets to see stand-ins for them: ``patterns`` then says what they stand for. A stand-in matches
    nothing where its pattern does.
    """
    pieces: list[str] = []
    done = 0
    for before, token in zip((None, *tokens), tokens, strict=False):
        spelled = token.text
        if token.kind is TokenKind.NUMBER:
            spelled = token.text.replace("_", "")
        elif token.kind is TokenKind.TEXT and before is not None and before.text in ("=~", "!~"):
            pattern = _unquoted(text, token)
            stand_in = f"{'|' if compiled(pattern).fullmatch('') else ''}pattern{len(patterns)}"
            patterns[stand_in] = pattern
            spelled = f'"{stand_in}"'
        elif token.text.startswith("`"):
            spelled = _quoted(token.text[1:-1])
        pieces += [text[done : token.offset], spelled]
        done = token.offset + len(token.text)
    return "".join([*pieces, text[done:]])


def _quoted(raw: str) -> str:
    escaped = raw.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _unquoted(text: str, token: Token) -> str:
    if token.text.startswith("`"):
        return token.text[1:-1]
    try:
        literal = vendor.parse(token.text)
    except ValueError as error:
        raise malformed(text, token.offset, str(error)) from error
    assert isinstance(literal, vendor.StringLiteral), "the token is quoted"
    return literal.val


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
    """Converts a tree, and passes over its tokens on the way; every method leaves the cursor behind its node."""

    def __init__(self, text: str, tokens: tuple[Token, ...], patterns: Mapping[str, str]) -> None:
        self._text = text
        self._tokens = tokens
        self._patterns = patterns
        self.cursor = Cursor(tokens)
        self.places: dict[Place, list[int]] = {}

    def convert(self, tree: vendor.Expr, levels: int) -> Node:
        if levels == 0:
            raise Refused(
                RefusedReason.LIMIT,
                f"an expression of more than {MAX_LEVELS} levels",
                hint="split it with recording rules",
            )
        if isinstance(tree, vendor.NumberLiteral):
            self.cursor.take_signs()
            self.cursor.expect_kind(TokenKind.NUMBER, TokenKind.NAME)  # Inf and NaN are names
            return intern(Number(tree.val))
        while self.cursor.take("+"):  # the tree has no trace of it
            pass
        if isinstance(tree, vendor.ParenExpr):
            self.cursor.expect("(")
            inner = self.convert(tree.expr, levels - 1)
            self.cursor.expect(")")
            return inner
        if isinstance(tree, vendor.StringLiteral):
            self.cursor.expect_kind(TokenKind.TEXT)
            return intern(Text(tree.val))
        if isinstance(tree, vendor.VectorSelector):
            return self._select(tree)
        if isinstance(tree, vendor.MatrixSelector):
            return intern(Window(self._select(tree.vector_selector, window=True), _millis(tree.range)))
        if isinstance(tree, vendor.SubqueryExpr):
            return self._subquery(tree, levels)
        if isinstance(tree, vendor.UnaryExpr):
            self.cursor.expect("-")
            return self._negate(self.convert(tree.expr, levels - 1))
        if isinstance(tree, vendor.Call):
            return self._call(tree, levels)
        if isinstance(tree, vendor.AggregateExpr):
            return self._aggregate(tree, levels)
        if isinstance(tree, vendor.BinaryExpr):
            return self._binary(tree, levels)
        raise self._unsupported(f"{type(tree).__name__} is not supported", "write it in another way")

    def _negate(self, operand: Node) -> Node:
        if isinstance(operand, Number):
            return intern(Number(-operand.value))
        return intern(Negate(operand))

    def _select(self, tree: vendor.VectorSelector, *, window: bool = False) -> Select:
        start = self.cursor.offset
        self.cursor.take_name()
        self.cursor.take_brackets("{")
        if window and not self.cursor.take_brackets("["):
            raise OutOfStepError(f"no window at {self.cursor.offset}")
        anchor = self._anchor()
        if tree.matchers.or_matchers:
            place = self._first("or", start)
            raise malformed(self._text, place, "'or' between matchers is not PromQL", "join the selectors with `or`")
        matchers = [self._matcher(each) for each in tree.matchers.matchers]
        if tree.name is not None:
            matchers.insert(0, Matcher(MatchOperator.EQUAL, METRIC_NAME, tree.name))
        return intern(Select(tuple(dict.fromkeys(matchers)), _offset(tree), anchor))

    def _matcher(self, tree: vendor.Matcher) -> Matcher:
        operator = _OPERATORS[repr(tree.op)]
        if operator in (MatchOperator.MATCHES, MatchOperator.NOT_MATCHES):
            return Matcher(operator, tree.name, self._patterns[tree.value])
        return Matcher(operator, tree.name, tree.value)

    def _anchor(self) -> Anchor:
        start = self.cursor.offset
        anchor = self.cursor.take_anchor()
        if isinstance(anchor, int) and abs(anchor) > _FARTHEST_MS:
            raise malformed(self._text, start, "timestamp out of bounds for @ modifier")
        return anchor

    def _subquery(self, tree: vendor.SubqueryExpr, levels: int) -> Node:
        operand = self.convert(tree.expr, levels - 1)
        start = self.cursor.offset
        if not self.cursor.take_brackets("["):
            raise OutOfStepError(f"no subquery at {start}")
        step = None if tree.step is None else _millis(tree.step)
        if step is not None and step < 1:
            raise malformed(self._text, start, "a subquery needs a step of at least 1 ms", "write [5m:10s]")
        anchor = self._anchor()
        return intern(Subquery(operand, _millis(tree.range), step, _offset(tree), anchor))

    def _call(self, tree: vendor.Call, levels: int) -> Node:
        name, start = tree.func.name, self.cursor.offset
        if name not in FUNCTIONS:
            raise self._unsupported(f"{name}() is not supported", "see the functions that the docs list")
        self.cursor.expect(name)
        self.cursor.expect("(")
        arguments, offsets = [], {CALL: start}
        for position, each in enumerate(tree.args):
            if position:
                self.cursor.expect(",")
            offsets[position] = self.cursor.offset
            arguments.append(self.convert(each, levels - 1))
        self.cursor.expect(")")
        return self._placed(intern(Call(name, tuple(arguments), _KINDS[repr(tree.func.return_type)])), offsets)

    def _placed(self, node: Node, offsets: Mapping[int, int]) -> Node:
        for position, offset in offsets.items():
            self.places.setdefault((node, position), []).append(offset)
        return node

    def _aggregate(self, tree: vendor.AggregateExpr, levels: int) -> Node:
        name, start = str(tree.op), self.cursor.offset
        if name not in AGGREGATIONS:
            raise self._unsupported(f"{name} is not supported", "see the aggregations that the docs list")
        self.cursor.expect(name)
        self._take_clause("by", "without")
        self.cursor.expect("(")
        parameter, offsets = None, {CALL: start, 0: self.cursor.offset}
        if tree.param is not None:
            parameter = self.convert(tree.param, levels - 1)
            self.cursor.expect(",")
            offsets[1] = self.cursor.offset
        operand = self.convert(tree.expr, levels - 1)
        self.cursor.expect(")")
        self._take_clause("by", "without")
        labels: tuple[str, ...] = ()
        without = False
        if tree.modifier is not None:
            labels = tuple(sorted(set(tree.modifier.labels)))
            without = tree.modifier.type == vendor.AggModifierType.Without
        return self._placed(intern(Aggregate(name, operand, parameter, labels, without)), offsets)

    def _take_clause(self, *words: str) -> None:
        if self.cursor.take(*words):
            self.cursor.take_brackets("(")

    def _binary(self, tree: vendor.BinaryExpr, levels: int) -> Node:
        operator = str(tree.op)
        left = self.convert(tree.lhs, levels - 1)
        if operator not in ARITHMETIC | COMPARISONS | SET_OPERATORS:
            raise self._unsupported(f"the operator {operator} is not supported", "write it in another way")
        place = self.cursor.offset
        self.cursor.expect(operator)
        self.cursor.take("bool")
        self._take_clause("on", "ignoring")
        self._take_clause("group_left", "group_right")  # brackets after it are always its labels
        right = self.convert(tree.rhs, levels - 1)
        comparison = None
        if operator in COMPARISONS:
            wants_bool = tree.modifier is not None and tree.modifier.return_bool
            comparison = Comparison.BOOL if wants_bool else Comparison.FILTER
        matching = None
        if left.kind is Kind.VECTOR and right.kind is Kind.VECTOR:
            matching = self._matching(operator, tree.modifier, place)
        return intern(Binary(operator, left, right, matching, comparison))

    def _matching(self, operator: str, modifier: vendor.BinModifier | None, place: int) -> Matching:
        cardinality = Cardinality.MANY_TO_MANY if operator in SET_OPERATORS else Cardinality.ONE_TO_ONE
        if modifier is None:
            return Matching(cardinality, on=False, labels=(), include=())
        if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
            raise unsupported(self._text, place, "fill() is not supported", EXPERIMENTAL)
        if operator not in SET_OPERATORS:
            cardinality = _CARDINALITIES[repr(modifier.card)]
        on = False
        labels: tuple[str, ...] = ()
        if modifier.matching is not None:
            on = modifier.matching.type == vendor.LabelModifierType.Include
            labels = tuple(sorted(set(modifier.matching.labels)))
        return Matching(cardinality, on, labels, tuple(sorted(set(modifier.group_labels or ()))))

    def _unsupported(self, problem: str, hint: str) -> Refused:
        return unsupported(self._text, self.cursor.offset, problem, hint)

    def _first(self, word: str, start: int) -> int:
        """Offset of the first token ``word`` at or after ``start``."""
        for token in self._tokens:
            if token.offset >= start and token.text.lower() == word:
                return token.offset
        return start


def _offset(tree: vendor.VectorSelector | vendor.SubqueryExpr) -> int:
    return 0 if tree.offset is None else _millis(tree.offset)


def _millis(span: timedelta | None) -> int:
    assert span is not None, "the grammar demands one here"
    return span // timedelta(milliseconds=1)
