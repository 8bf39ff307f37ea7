"""Walks an expression's tokens beside the tree that the parser made of them.

The parser's nodes have no positions. Its tree and the tokens have one order, though, so whoever descends the tree and
takes the tokens as they come knows where every node begins. Used by the adapter alone.
"""

from __future__ import annotations

from agent.promql.expressions import Anchor, Edge
from agent.promql.guard import Token, TokenKind

_OPENS = "([{"
_CLOSES = ")]}"
_SIGNS = ("+", "-")


class OutOfStepError(Exception):
    """The next token is not what the tree says comes next."""


class Cursor:
    """A place among the tokens.

    Args:
        tokens: of a text that was parsed.
    """

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def offset(self) -> int:
        """Where the next token begins; at the end, where the last one does."""
        return self._tokens[min(self._at, len(self._tokens) - 1)].offset

    @property
    def finished(self) -> bool:
        return self._at == len(self._tokens)

    def take(self, *words: str) -> bool:
        """Pass over the next token if it is one of ``words``."""
        following = self._following()
        found = following is not None and following.kind is not TokenKind.TEXT and following.text.lower() in words
        self._at += found
        return found

    def expect(self, *words: str) -> None:
        """Raises: OutOfStepError: the next token is none of ``words``."""
        if not self.take(*words):
            raise OutOfStepError(f"expected {words} at {self.offset}")

    def expect_kind(self, *kinds: TokenKind) -> Token:
        """Raises: OutOfStepError: the next token is of another kind."""
        following = self._following()
        if following is None or following.kind not in kinds:
            raise OutOfStepError(f"expected {kinds} at {self.offset}")
        self._at += 1
        return following

    def take_signs(self) -> int:
        """Pass over signs; -1 if they make a negative, else 1."""
        sign = 1
        while self.take("+", "-"):
            if self._tokens[self._at - 1].text == "-":
                sign = -sign
        return sign

    def take_name(self) -> None:
        """Pass over a name, where one comes."""
        following = self._following()
        if following is not None and following.kind is TokenKind.NAME:
            self._at += 1

    def take_brackets(self, opening: str) -> bool:
        """Pass over a bracket and all up to its end, where ``opening`` comes next."""
        if not self.take(opening):
            return False
        depth = 1
        while depth:
            token = self.expect_kind(*TokenKind)
            if token.kind is TokenKind.SIGN:
                depth += (token.text in _OPENS) - (token.text in _CLOSES)
        return True

    def take_anchor(self) -> Anchor:
        """Pass over ``offset`` and ``@`` in any order; what ``@`` says (the parser loses times before 1970)."""
        anchor: Anchor = None
        while True:
            if self.take("offset"):
                self.take_signs()
                self.expect_kind(TokenKind.NUMBER)
            elif self.take("@"):
                anchor = self._anchor()
            else:
                return anchor

    def _anchor(self) -> Anchor:
        for edge in Edge:
            if self.take(edge):
                self.take_brackets("(")
                return edge
        sign = self.take_signs()
        return round(sign * number(self.expect_kind(TokenKind.NUMBER).text) * 1000)

    def _following(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None


def number(text: str) -> float:
    """A number as PromQL writes it; raises :class:`OutOfStepError` for a duration."""
    plain = text.replace("_", "")
    try:
        return float(int(plain, 16)) if plain[:2].lower() == "0x" else float(plain)
    except (ValueError, OverflowError) as error:
        raise OutOfStepError(f"{text} is no number") from error
