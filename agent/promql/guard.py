"""What is checked about a query's text before the parser sees it.

The parser is native code that holds the GIL: about 8,000 nested parentheses crash the process, a chain of 4,000
operators takes 20 s. So text is bounded in bytes, tokens, depth and operators in a row first: the worst that is let
through takes it some 20 ms. The tokens also give nodes and errors their positions, which the parser lacks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from agent.faults import Misconfigured, MisconfiguredReason, Refused, RefusedReason

MAX_BYTES = 16_384
MAX_TOKENS = 1_000
MAX_DEPTH = 50
MAX_CHAIN = 150

_CLOSES = {")": "(", "]": "[", "}": "{"}
_OPERATORS = frozenset({*"+-*/%^<>", "==", "!=", "<=", ">=", "and", "or", "unless", "atan2"})


class TokenKind(StrEnum):
    """What a token is, as far as bounding and pointing need it."""

    NAME = "name"
    NUMBER = "number"
    TEXT = "text"
    SIGN = "sign"


@dataclass(frozen=True, slots=True)
class Token:
    """A token and its offset in characters."""

    kind: TokenKind
    text: str
    offset: int


_SPELLING = r"""
      (?P<skip>[ \t\r\n]+|\#[^\n]*)
    | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
    | (?P<number>0[xX](?:_?[0-9a-fA-F])+|(?:[0-9]+(?:ms|[smhdwy]))+(?![0-9A-Za-z_])
        |(?:DIGITS\.?(?:DIGITS)?|\.DIGITS)(?:[eE][+-]?DIGITS)?)
    | (?P<name>LETTERS[LETTERS0-9]*)
    | (?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^<>=(){}\[\],:@])
    """.replace("DIGITS", "[0-9](?:_?[0-9])*")
_TOKEN = re.compile(_SPELLING.replace("LETTERS0", "A-Za-z_:0").replace("LETTERS", "[A-Za-z_:]"), re.VERBOSE)
# Between square brackets a colon separates.
_WINDOW_TOKEN = re.compile(_SPELLING.replace("LETTERS0", "A-Za-z_0").replace("LETTERS", "[A-Za-z_]"), re.VERBOSE)


def tokenize(text: str) -> tuple[Token, ...]:
    """The tokens of ``text``, which is then safe to parse.

    Raises:
        Refused: the text is larger or deeper than any rule a person writes.
        Misconfigured: a character, quote or bracket has no place; the message has its position.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise malformed(text, error.start, "half of a surrogate pair", "write text as UTF-8") from error
    if size > MAX_BYTES:
        raise Refused(RefusedReason.LIMIT, f"an expression of {size} bytes", hint=f"use at most {MAX_BYTES}")
    tokens: list[Token] = []
    opened: list[Token] = []
    chains = [0] * (MAX_DEPTH + 1)
    offset = 0
    while offset < len(text):
        pattern = _WINDOW_TOKEN if opened and opened[-1].text == "[" else _TOKEN
        found = pattern.match(text, offset)
        if found is None:
            raise malformed(text, offset, f"unexpected character {text[offset]!r}", _hint_for(text[offset]))
        if found.lastgroup != "skip":
            token = Token(TokenKind(found.lastgroup or ""), found.group(), offset)
            tokens.append(token)
            _bracket(text, token, opened)
            if token.text in ("(", "[", "{", ","):
                chains[len(opened)] = 0
            elif token.text.lower() in _OPERATORS and not (opened and opened[-1].text == "{"):
                _count(text, token, chains, len(opened))
            if len(tokens) > MAX_TOKENS:
                raise Refused(
                    RefusedReason.LIMIT,
                    f"an expression of more than {MAX_TOKENS} tokens",
                    hint="split it with recording rules",
                )
        offset = found.end()
    if opened:
        raise malformed(text, opened[-1].offset, f"{opened[-1].text!r} is never closed", "close it")
    if not tokens:
        raise malformed(text, 0, "no expression found in input", "write an expression")
    return tuple(tokens)


def position(text: str, offset: int) -> str:
    """``line:column`` of an offset, both from 1, the column in bytes, as Prometheus counts."""
    line = text.count("\n", 0, offset) + 1
    column = len(text[text.rfind("\n", 0, offset) + 1 : offset].encode("utf-8", "replace")) + 1
    return f"{line}:{column}"


def malformed(text: str, offset: int, problem: str, hint: str = "") -> Misconfigured:
    """The error for a text that is not PromQL."""
    return Misconfigured(MisconfiguredReason.RULES, f"{position(text, offset)}: {problem}", hint=hint)


def unsupported(text: str, offset: int, problem: str, hint: str) -> Refused:
    """The error for PromQL that this engine does not evaluate."""
    return Refused(RefusedReason.UNSUPPORTED_EXPRESSION, f"{position(text, offset)}: {problem}", hint=hint)


def _count(text: str, token: Token, chains: list[int], depth: int) -> None:
    """Bound the operators in one pair of brackets: each is a level of the tree, and the parser's time grows with
    their square."""
    chains[depth] += 1
    if chains[depth] > MAX_CHAIN:
        raise Refused(
            RefusedReason.LIMIT,
            f"{position(text, token.offset)}: more than {MAX_CHAIN} operators in a row",
            hint="split the expression with recording rules",
        )


def _bracket(text: str, token: Token, opened: list[Token]) -> None:
    if token.kind is not TokenKind.SIGN:
        return
    if token.text in "([{":
        opened.append(token)
        if len(opened) > MAX_DEPTH:
            raise Refused(
                RefusedReason.LIMIT,
                f"{position(text, token.offset)}: more than {MAX_DEPTH} nested brackets",
                hint="split the expression with recording rules",
            )
    elif token.text in _CLOSES:
        if not opened or opened[-1].text != _CLOSES[token.text]:
            raise malformed(text, token.offset, f"{token.text!r} closes nothing", "remove it, or open it before")
        opened.pop()


def _hint_for(character: str) -> str:
    return "close the quote on the same line" if character in "\"'`" else "names and operators are ASCII; quote text"
