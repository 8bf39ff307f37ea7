"""Labels and annotations with values in them, in the notation of Prometheus's rule files.

The part of Go's template language that rule files use: variables, pipelines and functions, no control structures.
A template is compiled when its rule file loads; what it can't do is an error then, with its place, not a page with
``<error expanding template>`` at night.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from agent.clock import rfc3339
from agent.faults import Misconfigured, MisconfiguredReason
from agent.promql import format_value
from agent.samples.matchers import compiled

Argument = str | float


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a template may speak of: an alert's labels and the value of its expression."""

    labels: Mapping[str, str]
    value: float


_Evaluator = Callable[[Facts], Argument]


@dataclass(frozen=True)
class Template:
    """A compiled text."""

    text: str
    _parts: tuple[str | _Evaluator, ...]

    def render(self, facts: Facts) -> str:
        return "".join(part if isinstance(part, str) else go_text(part(facts)) for part in self._parts)


def compile_template(text: str) -> Template:
    """Compile ``text``.

    Raises:
        Misconfigured: unknown function or variable, or syntax beyond pipelines; says at which character.
    """
    parts: list[str | _Evaluator] = []
    end = 0
    for action in _ACTION.finditer(text):
        before = text[end : action.start()]
        if end and text[:end].endswith("-}}"):
            before = before.lstrip()
        parts.append(before.rstrip() if action["trim"] else before)
        parts.append(_Pipeline(text, action.start("body"), action["body"]).compile())
        end = action.end()
    rest = text[end:]
    if end and text[:end].endswith("-}}"):
        rest = rest.lstrip()
    if "{{" in rest:
        raise _broken(text, end + rest.index("{{"), "an action is never closed", "close it with }}")
    parts.append(rest)
    return Template(text, tuple(part for part in parts if part != ""))


_ACTION = re.compile(r"\{\{(?P<trim>-\s)?(?P<body>(?:\"(?:[^\"\\]|\\.)*\"|`[^`]*`|[^}\"`])*?)(?:\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>[-+]?[0-9][0-9.eE+-]*)
    |(?P<variable>[$.][\w.]*)|(?P<word>[A-Za-z_]\w*)|(?P<sign>[|()]))""",
    re.VERBOSE,
)


class _Pipeline:
    """Parser of what stands between ``{{`` and ``}}``."""

    def __init__(self, text: str, offset: int, body: str) -> None:
        self._text = text
        self._offset = offset
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while body[at:].strip():
            found = _TOKEN.match(body, at)
            if found is None:
                raise self._error(at, f"unexpected {body[at:].strip()[0]!r}")
            kind = found.lastgroup or ""
            self._tokens.append((kind, found[kind], found.start(kind)))
            at = found.end()
        self._next = 0

    def compile(self) -> _Evaluator:
        if not self._tokens:
            raise self._error(0, "an empty action")
        found = self._pipeline()
        if self._next < len(self._tokens):
            _, token, at = self._tokens[self._next]
            raise self._error(at, f"unexpected {token!r}")
        return found

    def _pipeline(self) -> _Evaluator:
        value = self._command(None)
        while self._peek() == "|":
            self._next += 1
            value = self._command(value)
        return value

    def _command(self, piped: _Evaluator | None) -> _Evaluator:
        if self._next >= len(self._tokens):
            raise self._error(len(self._text), "a pipeline ends too early")
        kind, token, at = self._tokens[self._next]
        if kind != "word":
            if piped is not None:
                raise self._error(at, f"{token!r} is no function")
            return self._operand()
        self._next += 1
        if token in ("if", "else", "end", "range", "with", "template", "define", "query"):
            raise self._error(at, f"{token!r} is not supported", "templates here are variables and pipelines")
        function = FUNCTIONS.get(token)
        if function is None:
            raise self._error(at, f"unknown function {token!r}", f"known: {', '.join(sorted(FUNCTIONS))}")
        arguments: list[_Evaluator] = []
        while self._next < len(self._tokens) and self._peek() not in ("|", ")"):
            arguments.append(self._operand())
        if piped is not None:
            arguments.append(piped)
        if not function.least <= len(arguments) <= function.most:
            raise self._error(at, f"{token} takes {function.expects} arguments, not {len(arguments)}")
        compute = function.compute
        return lambda facts: compute(*(argument(facts) for argument in arguments))

    def _operand(self) -> _Evaluator:
        kind, token, at = self._tokens[self._next]
        self._next += 1
        if kind == "text":
            constant = token[1:-1] if token[0] == "`" else _unquoted(token)
            return lambda _: constant
        if kind == "number":
            number = float(token)
            return lambda _: number
        if kind == "variable":
            return self._variable(token, at)
        if token == "(":
            inner = self._pipeline()
            if self._peek() != ")":
                raise self._error(at, "'(' is never closed")
            self._next += 1
            return inner
        raise self._error(at, f"unexpected {token!r}")

    def _variable(self, token: str, at: int) -> _Evaluator:
        if token in ("$value", ".Value"):
            return lambda facts: facts.value
        for prefix in ("$labels.", ".Labels."):
            if token.startswith(prefix) and token[len(prefix) :].isidentifier():
                name = token.removeprefix(prefix)
                return lambda facts: facts.labels.get(name, "")
        raise self._error(at, f"unknown variable {token!r}", "known: $value and $labels.name")

    def _peek(self) -> str:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else ""

    def _error(self, at: int, problem: str, hint: str = "") -> Misconfigured:
        return _broken(self._text, min(self._offset + at, len(self._text)), problem, hint)


def _broken(text: str, at: int, problem: str, hint: str = "") -> Misconfigured:
    return Misconfigured(MisconfiguredReason.RULES, f"template {text!r}, character {at + 1}: {problem}", hint=hint)


def _unquoted(token: str) -> str:
    escapes = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
    return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[0]), token[1:-1])


# --- functions ----------------------------------------------------------------------------------------------------


def go_text(value: Argument) -> str:
    """``value`` as Go prints it: an exponent from 1e+06 on, whole numbers without a point."""
    if isinstance(value, str):
        return value
    if math.isnan(value) or math.isinf(value):
        return format_value(value)
    sign, digits, shift = Decimal(repr(value)).normalize().as_tuple()
    exponent = len(digits) + int(shift) - 1
    if value == 0 or -4 <= exponent < 6:
        return format_value(value)
    fraction = "".join(map(str, digits[1:]))
    return f"{'-' if sign else ''}{digits[0]}{'.' if fraction else ''}{fraction}e{exponent:+03d}"


def number(value: Argument) -> float:
    """``value`` as a number; text that is none is NaN."""
    if isinstance(value, float):
        return value
    try:
        return float(value)
    except ValueError:
        return math.nan


def humanize(value: Argument) -> str:
    """With a metric prefix: 12340 is ``12.34k``, 0.002 is ``2m``."""
    amount = number(value)
    if amount == 0 or not math.isfinite(amount):
        return _four_digits(amount)
    if abs(amount) >= 1:
        return _scaled(amount, 1000.0, ("", "k", "M", "G", "T", "P", "E", "Z", "Y"))
    for prefix in ("m", "u", "n", "p", "f", "a", "z", "y"):
        amount *= 1000
        if abs(amount) >= 1:
            return f"{_four_digits(amount)}{prefix}"
    return f"{_four_digits(amount)}y"


def humanize1024(value: Argument) -> str:
    """With a binary prefix: 1048576 is ``1Mi``."""
    amount = number(value)
    if abs(amount) <= 1 or not math.isfinite(amount):
        return _four_digits(amount)
    return _scaled(amount, 1024.0, ("", "ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"))


def humanize_percentage(value: Argument) -> str:
    """A ratio as a percentage: 0.0812 is ``8.12%``."""
    return f"{_four_digits(number(value) * 100)}%"


def humanize_duration(value: Argument) -> str:
    """Seconds in the units a person would use: 90 is ``1m 30s``, 0.25 is ``250ms``."""
    amount = number(value)
    if not math.isfinite(amount):
        return _four_digits(amount)
    if amount == 0:
        return "0s"
    if abs(amount) < 1:
        for prefix in ("m", "u", "n", "p"):
            amount *= 1000
            if abs(amount) >= 1:
                return f"{_four_digits(amount)}{prefix}s"
        return f"{_four_digits(amount)}ps"
    sign = "-" if amount < 0 else ""
    whole = int(abs(amount))
    days, hours, minutes, seconds = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds}s"
    if minutes:
        return f"{sign}{minutes}m {seconds}s"
    return f"{_four_digits(amount)}s"


def humanize_timestamp(value: Argument) -> str:
    """Unix seconds as a date and time in UTC."""
    amount = number(value)
    if not math.isfinite(amount):
        return _four_digits(amount)
    return rfc3339(datetime.fromtimestamp(amount, UTC))


def print_formatted(template: Argument, *values: Argument) -> str:
    """Go's ``printf`` with the verbs f, e, g, d, s, v, q and ``%%``."""
    pending = list(values)

    def one(found: re.Match[str]) -> str:
        flags, verb = found[1], found[2]
        if verb == "%":
            return "%"
        if not pending:
            return f"%!{verb}(MISSING)"
        value = pending.pop(0)
        if verb in "fegd":
            amount = number(value)
            return f"%{flags}{verb}" % (int(amount) if verb == "d" and math.isfinite(amount) else amount)
        text = go_text(value)
        return f"%{flags}s" % (f'"{text}"' if verb == "q" else text)

    return _VERB.sub(one, go_text(template))


_VERB = re.compile(r"%([-+ 0#]*[0-9]*(?:\.[0-9]+)?)([a-zA-Z%])")


def _scaled(amount: float, base: float, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        if abs(amount) < base:
            return f"{_four_digits(amount)}{prefix}"
        amount /= base
    return f"{_four_digits(amount * base)}{prefixes[-1]}"


def _four_digits(value: float) -> str:
    return format_value(value) if not math.isfinite(value) else f"{value:.4g}"


@dataclass(frozen=True)
class _Function:
    compute: Callable[..., Argument]
    least: int
    most: int

    @property
    def expects(self) -> str:
        return str(self.least) if self.least == self.most else f"at least {self.least}"


def _one(compute: Callable[[Argument], Argument]) -> _Function:
    return _Function(compute, 1, 1)


FUNCTIONS: dict[str, _Function] = {
    "humanize": _one(humanize),
    "humanize1024": _one(humanize1024),
    "humanizePercentage": _one(humanize_percentage),
    "humanizeDuration": _one(humanize_duration),
    "humanizeTimestamp": _one(humanize_timestamp),
    "printf": _Function(print_formatted, 1, 20),
    "title": _one(lambda value: go_text(value).title()),
    "toUpper": _one(lambda value: go_text(value).upper()),
    "toLower": _one(lambda value: go_text(value).lower()),
    "stripPort": _one(lambda value: re.sub(r":[0-9]+$", "", go_text(value))),
    "reReplaceAll": _Function(
        lambda pattern, replacement, text: compiled(go_text(pattern)).sub(
            re.sub(r"\$\{?(\w+)\}?", r"\\g<\1>", go_text(replacement)), go_text(text)
        ),
        3,
        3,
    ),
}
