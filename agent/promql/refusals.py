"""PromQL that this engine does not evaluate, recognised by its tokens alone.

The parser rejects some of it with a worse message, or does not know it; the adapter asks here first. Every refusal has
a position and says why: what is experimental in Prometheus needs a feature flag there, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.promql.guard import Token, TokenKind, malformed, unsupported
from agent.promql.support import AGGREGATIONS, FUNCTIONS

EXPERIMENTAL = "it is experimental in Prometheus"
_NATIVE = "it reads native histograms; use classic buckets (_bucket)"

CALLS = {
    **dict.fromkeys(
        (
            "limitk", "limit_ratio", "fill", "fill_left", "fill_right", "info", "max_of", "min_of", "start", "end",
            "range", "step", "double_exponential_smoothing", "mad_over_time", "first_over_time", "integral",
            "ts_of_first_over_time", "ts_of_last_over_time", "ts_of_max_over_time", "ts_of_min_over_time",
            "sort_by_label", "sort_by_label_desc", "histogram_quantiles",
        ),
        EXPERIMENTAL,
    ),
    **dict.fromkeys(
        ("histogram_avg", "histogram_count", "histogram_sum", "histogram_stddev", "histogram_stdvar"), _NATIVE
    ),
    "holt_winters": "it was removed in Prometheus 3",
}  # fmt: skip
"""Functions, aggregations and modifiers by name, each with what to tell whoever writes them."""

_WORDS_BEFORE_BRACKET = frozenset(
    {"by", "without", "on", "ignoring", "group_left", "group_right", "bool", "and", "or", "unless", "atan2", "offset"}
)
_RANGE_MODIFIERS = frozenset({"anchored", "smoothed"})
_ENDS_AN_OPERAND = frozenset({"]", "}", ")"})
_DURATION_SIGNS = frozenset("+-*/%^()")


def check(text: str, tokens: tuple[Token, ...]) -> None:
    """Raises: Refused: some token begins what is not evaluated here; Misconfigured: a duration is negative."""
    for before, token, following, inside in _in_context(tokens):
        word = token.text.lower()
        if inside == "[":
            _check_duration(text, token, before)
        elif token.kind is not TokenKind.NAME or inside == "{" or (before is not None and before.text == "@"):
            continue  # `@ start()` is no call
        elif before is not None and before.text.lower() == "offset":
            raise unsupported(text, token.offset, "a duration that is computed is not supported", EXPERIMENTAL)
        elif word in _RANGE_MODIFIERS and before is not None and _ends_an_operand(before):
            raise unsupported(text, token.offset, f"the modifier {word} is not supported", EXPERIMENTAL)
        elif following is not None and following.text == "(" and word in CALLS and not _known(word):
            raise unsupported(text, token.offset, f"{word}() is not supported", CALLS[word])


def _check_duration(text: str, token: Token, before: Token | None) -> None:
    if token.text == "-" and before is not None and before.text in "[:":
        raise malformed(text, token.offset, "duration must be greater than 0", "windows look back by themselves")
    if token.text in _DURATION_SIGNS or token.kind is TokenKind.NAME:
        raise unsupported(text, token.offset, "a duration that is computed is not supported", EXPERIMENTAL)


def _known(word: str) -> bool:
    return word in FUNCTIONS or word in AGGREGATIONS or word in _WORDS_BEFORE_BRACKET


def _ends_an_operand(token: Token) -> bool:
    if token.kind is TokenKind.NAME:
        return token.text.lower() not in _WORDS_BEFORE_BRACKET
    return token.kind is TokenKind.NUMBER or token.text in _ENDS_AN_OPERAND


def _in_context(tokens: tuple[Token, ...]) -> Iterator[tuple[Token | None, Token, Token | None, str]]:
    """Every token but brackets, with its neighbours and the innermost bracket around it."""
    opened: list[str] = []
    for before, token, following in zip((None, *tokens), tokens, (*tokens[1:], None), strict=False):
        inside = opened[-1] if opened else ""
        if token.kind is TokenKind.SIGN and token.text in "([{":
            opened.append(token.text)
            if inside != "[":
                continue
        elif token.kind is TokenKind.SIGN and token.text in ")]}":
            opened.pop()
            continue
        yield before, token, following, inside
