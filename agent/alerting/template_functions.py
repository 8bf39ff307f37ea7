"""The functions of templates: Go's own, and those that Prometheus adds for rule files.

https://pkg.go.dev/text/template#hdr-Functions and
https://prometheus.io/docs/prometheus/latest/configuration/template_reference/. Values are those that Prometheus has:
text, numbers (whole ones apart), truth, labels, samples and lists of samples. What Go would refuse raises
:class:`TemplateError`.
"""

from __future__ import annotations

import html
import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote_plus

from agent.promql import format_value
from agent.samples.matchers import Match, Pattern, compiled


class TemplateError(Exception):
    """What a template asks for can't be done with the values at hand."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One element of a query's result, as ``.Labels`` and ``.Value``."""

    Labels: Mapping[str, str]
    Value: float


def text_of(value: Any) -> str:
    """``value`` as Go prints it: an exponent from 1e+06 on, whole numbers without a point."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float(value)
        case None:
            return "<no value>"
        case datetime():
            fraction = f"{value.microsecond / 1e6:.6f}".lstrip("0").rstrip("0").rstrip(".")
            return f"{value:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"
        case Sampled():
            return f"{{{text_of(value.Labels)} {text_of(value.Value)}}}"
        case Mapping():
            return f"map[{' '.join(f'{key}:{text_of(value[key])}' for key in sorted(value))}]"
        case Sequence():
            return f"[{' '.join(text_of(each) for each in value)}]"
    raise TemplateError(f"{value!r} can't be printed")


def truth(value: Any) -> bool:
    """Whether ``if`` takes ``value`` for true: not zero and not empty."""
    return not (value is None or value is False or value in (0, 0.0, "") or value in ((), [], {}))


def number(value: Any) -> float:
    """``value`` as a number, as Prometheus's functions take one: text is read."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TemplateError(f"can't convert {text_of(value)} to a number")
    try:
        return float(value)
    except ValueError as error:
        raise TemplateError(f"{value!r} is no number") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TemplateError(f"expected a text, not {text_of(value)}")
    return value


def _float(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return format_value(value)
    sign, digits, shift = Decimal(repr(value)).normalize().as_tuple()
    exponent = len(digits) + int(shift) - 1
    if value == 0 or -4 <= exponent < 6:
        return format_value(value)
    fraction = "".join(map(str, digits[1:]))
    return f"{'-' if sign else ''}{digits[0]}{'.' if fraction else ''}{fraction}e{exponent:+03d}"


# --- numbers for people -------------------------------------------------------------------------------------------


def humanize(value: Any) -> str:
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


def humanize1024(value: Any) -> str:
    """With a binary prefix: 1048576 is ``1Mi``."""
    amount = number(value)
    if abs(amount) <= 1 or not math.isfinite(amount):
        return _four_digits(amount)
    return _scaled(amount, 1024.0, ("", "ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"))


def humanize_percentage(value: Any) -> str:
    """A ratio as a percentage: 0.0812 is ``8.12%``."""
    return f"{_four_digits(number(value) * 100)}%"


def humanize_duration(value: Any) -> str:
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


def humanize_timestamp(value: Any) -> str:
    """Unix seconds as a date and time in UTC."""
    amount = number(value)
    return text_of(_moment(amount)) if math.isfinite(amount) else _four_digits(amount)


def _scaled(amount: float, base: float, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        if abs(amount) < base:
            return f"{_four_digits(amount)}{prefix}"
        amount /= base
    return f"{_four_digits(amount * base)}{prefixes[-1]}"


def _four_digits(value: float) -> str:
    return format_value(value) if not math.isfinite(value) else f"{value:.4g}"


def _moment(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise TemplateError(f"{seconds} is no time") from error


# --- printf -------------------------------------------------------------------------------------------------------

_VERB = re.compile(r"%([-+ 0#]*)([0-9]*)((?:\.[0-9]*)?)([a-zA-Z%])")
_INTEGERS = {"d": "d", "x": "x", "X": "X", "o": "o", "c": "c"}


def print_formatted(template: Any, *values: Any) -> str:
    """Go's ``printf``: a verb that does not fit its value prints ``%!d(float64=1.5)``, as Go does."""
    pending = list(values)

    def one(found: re.Match[str]) -> str:
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if not pending:
            return f"%!{verb}(MISSING)"
        return _formatted(flags, width, precision, verb, pending.pop(0))

    text = _VERB.sub(one, _text(template))
    extra = ", ".join(f"{_kind(value)}={text_of(value)}" for value in pending)
    return f"{text}%!(EXTRA {extra})" if extra else text


def _formatted(flags: str, width: str, precision: str, verb: str, value: Any) -> str:
    layout = f"%{flags}{width}{precision}"
    if verb in "eEfFgG" and isinstance(value, float):
        if not math.isfinite(value):
            return f"%{flags.replace('0', '')}{width}s" % format_value(value)
        if verb in "gG" and not precision:
            return f"%{flags}{width}s" % _shortest(value, verb)
        return f"{layout}{verb}" % value
    if verb in _INTEGERS and isinstance(value, int) and not isinstance(value, bool):
        return f"{layout}{_INTEGERS[verb]}" % value
    if verb == "t" and isinstance(value, bool):
        return f"%{flags}{width}s" % text_of(value)
    if verb == "v":
        text = f"{layout}g" % value if precision and isinstance(value, float) else text_of(value)
        return f"%{flags.replace('0', '')}{width}s" % text
    if verb in "sq" and isinstance(value, str):
        text = value[: int(precision[1:] or 0)] if precision else value
        return f"%{flags}{width}s" % (json.dumps(text, ensure_ascii=False) if verb == "q" else text)
    if verb == "s" and not isinstance(value, int | float):
        return f"%{flags}{width}s" % text_of(value)
    return f"%!{verb}({_kind(value)}={text_of(value)})"


def _shortest(value: float, verb: str) -> str:
    text = _float(value)
    return text.upper() if verb == "G" else text


def _kind(value: Any) -> str:
    kinds: tuple[tuple[type, str], ...] = ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "map[string]string")


def _printed(*values: Any) -> str:
    """Go's ``print``: a space between two values of which neither is a text."""
    text = ""
    for number_, value in enumerate(values):
        apart = number_ and not isinstance(value, str) and not isinstance(values[number_ - 1], str)
        text += (" " if apart else "") + text_of(value)
    return text


def _as_html(*values: Any) -> str:
    return html.escape(_printed(*values)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


# --- comparing and choosing ---------------------------------------------------------------------------------------


def _alike(one: Any, other: Any) -> None:
    kinds = [bool if isinstance(each, bool) else type(each) for each in (one, other)]
    if kinds[0] is not kinds[1] or kinds[0] not in (bool, int, float, str):
        raise TemplateError(f"incompatible types for comparison: {_kind(one)} and {_kind(other)}")


def _equal(one: Any, *others: Any) -> bool:
    for other in others:
        _alike(one, other)
    return any(one == other for other in others)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def of(one: Any, other: Any) -> bool:
        _alike(one, other)
        if isinstance(one, bool):
            raise TemplateError("truth has no order")
        return compare(one, other)

    return of


def _and(*values: Any) -> Any:
    return next((value for value in values if not truth(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if truth(value)), values[-1])


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(_text(key), "")
        elif isinstance(value, str) or not isinstance(value, Sequence) or not isinstance(key, int):
            raise TemplateError(f"can't index {text_of(value)} with {text_of(key)}")
        elif not 0 <= key < len(value):
            raise TemplateError(f"index out of range: {key}")
        else:
            value = value[key]
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, str | list | tuple) or not all(isinstance(bound, int) for bound in bounds):
        raise TemplateError(f"can't slice {text_of(value)}")
    low, high = (*bounds, 0)[0], bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= low <= high <= len(value):
        raise TemplateError(f"index out of range: {low}:{high}")
    return value[low:high]


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping | list | tuple):
        return len(value)
    raise TemplateError(f"len of {_kind(value)}")


# --- samples ------------------------------------------------------------------------------------------------------


def _first(samples: Any) -> Sampled:
    if not isinstance(samples, Sequence) or isinstance(samples, str) or not samples:
        raise TemplateError("first() called on vector with no elements")
    found = samples[0]
    assert isinstance(found, Sampled)
    return found


def _sampled(value: Any) -> Sampled:
    if not isinstance(value, Sampled):
        raise TemplateError(f"expected a sample, not {text_of(value)}")
    return value


def _sorted(label: Any, samples: Any) -> list[Sampled]:
    return sorted(samples, key=lambda each: each.Labels.get(_text(label), ""))


# --- text ---------------------------------------------------------------------------------------------------------


def _pattern(text: Any) -> Pattern:
    return compiled(f"(?-s){_text(text)}")  # unlike a matcher's, a template's dot does not match a line's end


def _replaced(pattern: Any, replacement: Any, text: Any) -> str:
    """Go's ``$1`` and ``${1}``; a group that there is not is empty."""
    template, expression = _text(replacement), _pattern(pattern)

    def expand(found: Match) -> str:
        def one(name: re.Match[str]) -> str:
            key = name[1] or name[2]
            if key is None:
                return "$"
            number_ = int(key) if key.isdigit() else expression.groupindex.get(key, expression.groups + 1)
            return (found.group(number_) or "") if number_ <= expression.groups else ""

        return re.sub(r"\$(?:(\w+)|\{(\w+)\}|\$)", one, template)

    return expression.sub(expand, _text(text))


def _titled(value: Any) -> str:
    return re.sub(r"(?<![\w'])\w", lambda found: found[0].upper(), _text(value))


def _host_and_port(text: str) -> tuple[str, str] | None:
    found = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^:\[\]]*)):([^:\[\]]*)", text)
    return (found[1] if found[1] is not None else found[2], found[3]) if found else None


def _without_port(value: Any) -> str:
    text = _text(value)
    parts = _host_and_port(text)
    return parts[0] if parts else text


def _without_domain(value: Any) -> str:
    text = _text(value)
    host, port = _host_and_port(text) or (text, "")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        host = host.split(".")[0]
        return f"{host}:{port}" if port else host
    return text


def _escaped(value: Any) -> str:
    return quote_plus(text_of(value), safe="")


@dataclass(frozen=True)
class Function:
    """Args:
    compute: raises :class:`TemplateError`.
    least, most: how many arguments.
    """

    compute: Callable[..., Any]
    least: int
    most: int

    @property
    def expects(self) -> str:
        return str(self.least) if self.least == self.most else f"at least {self.least}"


_MANY = 100


def _of(compute: Callable[..., Any], least: int = 1, most: int | None = None) -> Function:
    return Function(compute, least, least if most is None else most)


FUNCTIONS: Mapping[str, Function] = {
    # Go's own.
    "and": _of(_and, 1, _MANY),
    "or": _of(_or, 1, _MANY),
    "not": _of(lambda value: not truth(value)),
    "eq": _of(_equal, 2, _MANY),
    "ne": _of(lambda one, other: not _equal(one, other), 2),
    "lt": _of(_ordered(lambda one, other: bool(one < other)), 2),
    "le": _of(_ordered(lambda one, other: bool(one <= other)), 2),
    "gt": _of(_ordered(lambda one, other: bool(one > other)), 2),
    "ge": _of(_ordered(lambda one, other: bool(one >= other)), 2),
    "index": _of(_index, 1, _MANY),
    "slice": _of(_slice, 1, 3),
    "len": _of(_length),
    "print": _of(_printed, 0, _MANY),
    "println": _of(lambda *values: " ".join(map(text_of, values)) + "\n", 0, _MANY),
    "printf": _of(print_formatted, 1, _MANY),
    "html": _of(_as_html, 1, _MANY),
    "urlquery": _of(lambda *values: _escaped(_printed(*values)), 1, _MANY),
    # Prometheus's: numbers.
    "humanize": _of(humanize),
    "humanize1024": _of(humanize1024),
    "humanizePercentage": _of(humanize_percentage),
    "humanizeDuration": _of(humanize_duration),
    "humanizeTimestamp": _of(humanize_timestamp),
    "toTime": _of(lambda value: _moment(number(value))),
    # Samples.
    "first": _of(_first),
    "label": _of(lambda name, sample: _sampled(sample).Labels.get(_text(name), ""), 2),
    "value": _of(lambda sample: _sampled(sample).Value),
    "strvalue": _of(lambda sample: _sampled(sample).Labels.get("__value__", "")),
    "sortByLabel": _of(_sorted, 2),
    "args": _of(lambda *values: {f"arg{number_}": value for number_, value in enumerate(values)}, 0, _MANY),
    # Text.
    "title": _of(_titled),
    "toUpper": _of(lambda value: _text(value).upper()),
    "toLower": _of(lambda value: _text(value).lower()),
    "stripPort": _of(_without_port),
    "stripDomain": _of(_without_domain),
    "match": _of(lambda pattern, text: _pattern(pattern).search(_text(text)) is not None, 2),
    "reReplaceAll": _of(_replaced, 3),
    "safeHtml": _of(lambda value: _text(value)),
    "graphLink": _of(lambda expression: f"/graph?g0.expr={_escaped(expression)}&g0.tab=0"),
    "tableLink": _of(lambda expression: f"/graph?g0.expr={_escaped(expression)}&g0.tab=1"),
    "urlQueryEscape": _of(_escaped),
}
"""Functions of values alone; :mod:`agent.alerting.templates` adds those that ask."""
