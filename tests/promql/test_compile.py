"""What is refused when an expression is compiled, and how the refusal reads."""

from __future__ import annotations

import pytest

from agent.faults import Misconfigured, MisconfiguredReason, Refused, RefusedReason
from agent.promql import compile_expression
from agent.promql.expressions import walk


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: no expression found in input"),
        ("rate(foo)", "1:1: expected type matrix in call to function 'rate', got vector"),
        ("sum(\n  foo", "1:4: '(' is never closed"),
        ("foo)", "1:4: ')' closes nothing"),
        ('foo{a="x}', "1:7: unexpected character '\"'"),
        ("foo $ bar", "1:5: unexpected character '$'"),
        ("1 +\n nope(x)", "2:2: unknown function with name 'nope'"),
        ("1 > 2", "comparisons between scalars must use BOOL modifier"),
        ('{a=~".*"}', "at least one"),
        ('count_values("", x)', "invalid label name ''"),
        ("max_over_time(x[5m:0s])", "duration must be greater than 0"),
        ('label_replace(x, "", "a", "b", "c")', "invalid label name ''"),
        ('{a="1" or b="2"}', "1:8: 'or' between matchers is not PromQL"),
    ],
)
def test_what_is_not_promql_is_an_error_with_its_place(text: str, message: str) -> None:
    """The position is line and column, and the parser's own words are kept."""
    with pytest.raises(Misconfigured) as caught:
        compile_expression(text)
    assert caught.value.reason is MisconfiguredReason.RULES
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("foo + start()", "1:7"),
        ("max_of(1, 2)", "1:1"),
        ("sort_by_label(foo, 'a')", "1:1"),
        ("mad_over_time(foo[1m])", "1:1"),
        ("sum(limitk(2, foo))", "1:5"),
        ("histogram_avg(foo)", "1:1"),
        ("foo +\n  fill(0) bar", "2:3"),
        ("double_exponential_smoothing(x[1m], 0.5, 0.5)", "1:1"),
    ],
)
def test_promql_that_is_not_evaluated_is_refused_with_place_and_hint(text: str, place: str) -> None:
    """Nothing unsupported waits until a rule fires."""
    with pytest.raises(Refused) as caught:
        compile_expression(text)
    assert caught.value.reason is RefusedReason.UNSUPPORTED_EXPRESSION
    assert caught.value.message.startswith(f"{place}: ")
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "(" * 8_000 + "a" + ")" * 8_000,
        "+".join(["a"] * 4_000),
        "+".join(["a"] * 400),
        "-" * 900 + "a",
        "a" * 20_000,
    ],
)
def test_text_that_would_harm_the_parser_is_refused(text: str) -> None:
    """Bytes, tokens and depth are bounded before native code sees them."""
    with pytest.raises(Refused) as caught:
        compile_expression(text)
    assert caught.value.reason is RefusedReason.LIMIT


def test_what_rules_share_is_one_node() -> None:
    """Plans are hash-consed: the same sub-expression, however written, is the same object."""
    one = compile_expression("sum by (b, a) (rate(x_total[5m])) > 1").root
    other = compile_expression("2 < (sum by(a,b)(rate( x_total[300s] )))").root
    assert set(walk(one)) & set(walk(other)) >= {one.children[0]}
    assert one is not other


def test_brackets_in_strings_and_comments_do_not_count() -> None:
    """The guard reads strings and comments as the lexer does."""
    compile_expression('foo{a="((("} # ((( {')
    compile_expression("foo{a='}'} + foo{a=`]`}")


def test_a_plan_knows_what_it_reads() -> None:
    """Metrics are named left to right, each selector once."""
    plan = compile_expression("rate(a_total[1m]) / rate(b_total[1m]) > rate(a_total[1m])")
    assert plan.metrics == {"a_total", "b_total"}
    assert [select.metric for select in plan.selectors] == ["a_total", "b_total"]
