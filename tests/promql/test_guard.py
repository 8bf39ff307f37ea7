"""The way from text to a plan, held against whatever may be typed: it ends in a plan or in one of our errors."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.faults import Misconfigured, Refused, RunbookdError
from agent.promql import compile_expression
from agent.promql.expressions import Aggregate, Call

WORDS = [
    "x", "up_total", "a:b", "1", "2.5", "0x1F", "1_000", "5m", "1h30m", "1e3", "Inf", "NaN", "1y", "0", "'s'", '"s"',
    "`s`", '"a.b"', "(", ")", "(", ")", "{", "}", "[", "]", ",", ":", "@", "+", "-", "*", "/", "%", "^", "==", "!=",
    "<", ">", ">=", "=~", "!~", "=", "and", "or", "unless", "atan2", "bool", "on", "ignoring", "group_left", "by",
    "group_right", "without", "offset", "start()", "end()", "sum", "topk", "quantile", "count_values", "rate", "scalar",
    "max_over_time", "label_replace", "histogram_quantile", "vector", "time()", "absent", "anchored", "smoothed",
    "limitk", "# c\n", "\n", "é", '"\\xff"', '"\\u0000"', "'(?='", "'a{2}'", "[5m]", "[5m:1m]", "[5m:]", "{a='b'}",
    "{'m.x'}", "offset -5m", "@ -3",
]  # fmt: skip
SOUP = st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join)
DENSE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map("".join)


@settings(max_examples=600, deadline=None)
@given(SOUP | DENSE | st.text(max_size=40))
@example("x @ -1.5")
@example("x @ 9e12")
@example('x{a="\ud800"}')
@example("x[300000y] offset 300000y @ 1e15")
@example('label_replace(x, "a", "$' + "9" * 5000 + '", "b", "")')
@example("sum by (a,) (x)")
def test_any_text_is_a_plan_or_an_error_of_ours(text: str) -> None:
    """Nothing the parser does, panics included, gets past the guard as something else; a plan knows its places."""
    try:
        plan = compile_expression(text)
    except RunbookdError:
        return
    for (node, argument), offsets in plan.places.items():
        for offset in offsets:
            if argument < 0:
                assert isinstance(node, Call | Aggregate)
                name = node.function if isinstance(node, Call) else node.operator
                assert text[offset:].lower().startswith(name)
            assert 0 <= offset < len(text)


LEAVES = st.sampled_from(
    ["x", "x{a='b'}", "-x", "+x", "- -x", "x offset -5m", "x @ -3 offset 5m", '{"m.x", "l.y"=~"a|b"}', "2"]
)
OPERATORS = st.sampled_from(
    ["+", "- ", "*", "^", "and", "or on (a)", "> bool", "/ on (a) group_left (b)", "* ignoring (a) group_right ()"]
)


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        inner.map("({})".format),
        inner.map("sum by (a) ({})".format),
        inner.map("sum({}) without (a, b)".format),
        inner.map("abs({})".format),
        inner.map("max_over_time(({})[5m:1m] offset 1m)".format),
        inner.map("quantile(0.5, {})".format),
        inner.map("-({})".format),
        st.tuples(inner, OPERATORS, inner).map(lambda parts: f"{parts[0]} {parts[1]} ({parts[2]})"),
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(LEAVES, _grown, max_leaves=8))
def test_positions_keep_step_with_the_tree(text: str) -> None:
    """Whatever is well formed can be read back token by token; that it can't would be said as a refusal."""
    try:
        compile_expression(text)
    except Misconfigured:
        return  # two scalars where a vector has to be, and such
    except Refused as error:
        pytest.fail(str(error))


@pytest.mark.parametrize(
    "text",
    ["+".join(["a"] * 151), "-" * 151 + "a", "(" * 50 + "+".join(["a"] * 151) + ")" * 50, "^".join(["a"] * 300)],
)
def test_long_chains_do_not_reach_the_parser(text: str) -> None:
    """Its time grows with their square, and it holds the interpreter meanwhile; CPU seconds, with room."""
    started = time.process_time()
    with pytest.raises(Refused):
        compile_expression(text)
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1_000", "1000"),
        ("0x1_0", "16"),
        ("x > 5m", "x > 300"),
        ("x[300]", "x[5m]"),
        ("x offset 1.5", "x offset 1s500ms"),
        ("{'x', a='b'}", 'x{a="b"}'),
        ('x{a="\\x41\\u0042\\103"}', "x{a='ABC'}"),
        ('x{a=`\\d"\n`}', 'x{a="\\\\d\\"\\n"}'),
        ("x{a=~`\\d`}", 'x{a=~"\\\\d"}'),
        ("SUM(x) BY (a)", "sum by (a) (x)"),
        ("x # a comment {\n + 1", "x + 1"),
        ("+x", "x"),
        ("2 ^ 3 ^ 2", "2 ^ (3 ^ 2)"),
        ("-2 ^ 2", "-(2 ^ 2)"),
        ("2 * 3 % 2", "(2 * 3) % 2"),
        ("a or b and c unless d", "a or ((b and c) unless d)"),
        ("a + b > c", "(a + b) > c"),
        ("a atan2 b ^ c", "a atan2 (b ^ c)"),
        ("x @ 5 offset 1m", "x offset 1m @ 5"),
    ],
)
def test_two_spellings_of_one_expression(text: str, meaning: str) -> None:
    """Literals, escapes, comments and precedence, as the reference for Prometheus 3 has them."""
    one, other = compile_expression(text).root, compile_expression(meaning).root
    assert one is other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x[5m] anchored", "1:7: the modifier anchored is not supported"),
        ("rate(x[5m] smoothed)", "1:12: the modifier smoothed is not supported"),
        ("x[1h + 5m]", "1:6: a duration that is computed is not supported"),
        ("x[step()]", "1:3: a duration that is computed is not supported"),
        ("x offset step()", "1:10: a duration that is computed is not supported"),
        ("x offset (5m)", ""),
        ("x[5m:2*1m]", "1:7: a duration that is computed is not supported"),
        ("integral(x[5m])", "1:1: integral() is not supported"),
        ("x + fill(0) y", "1:5: fill() is not supported"),
    ],
)
def test_experimental_syntax_is_refused_where_it_stands(text: str, message: str) -> None:
    """With a position, and before the parser says something less helpful."""
    with pytest.raises(RunbookdError) as caught:
        compile_expression(text)
    assert message in str(caught.value)


def test_a_metric_may_be_called_like_a_word_of_the_language() -> None:
    """Only where the grammar has a place for the word is it one."""
    for name in ("offset", "sum", "by", "start", "end", "step"):
        compile_expression(f"x + {name}")
