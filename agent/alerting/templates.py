"""Labels and annotations with values in them: Go's templates, as Prometheus's rule files use them.

A template is compiled, and tried once, when its rule file loads: what it can't do is an error then, with its place.
What only the data of the moment can break (``first`` of an empty result) becomes a text that says so, as in Prometheus:
an alert goes out whatever its words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from agent.alerting.durations import parse_duration
from agent.alerting.template_functions import FUNCTIONS, Function, Sampled, TemplateError, text_of, truth
from agent.alerting.template_language import (
    Branch,
    Call,
    Chain,
    Include,
    Leave,
    Literal,
    Loop,
    Method,
    Operand,
    Parser,
    Part,
    Pipeline,
    Print,
    Variable,
    broken,
)
from agent.faults import RunbookdError

Asked = Callable[[str], Sequence[Sampled]]


def _nothing(_: str) -> Sequence[Sampled]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a template may speak of besides its alert.

    Args:
        labels: of the deployment as a whole (Prometheus's ``external_labels``).
        url: where people find it (Prometheus's ``external_url``), may be "".
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    url: str = ""


NOWHERE = Surroundings()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a template may speak of: an alert's labels and the value of its expression.

    Args:
        query: answers a PromQL expression at the alert's moment.
        at: that moment, unix seconds.
    """

    labels: Mapping[str, str]
    value: float
    query: Asked = _nothing
    at: float = 0.0
    around: Surroundings = NOWHERE


@dataclass(frozen=True)
class Template:
    """A compiled text.

    Args:
        dynamic: it is more than a text.
    """

    text: str
    _parts: tuple[Part, ...]
    _definitions: Mapping[str, tuple[Part, ...]]

    @property
    def dynamic(self) -> bool:
        return any(not isinstance(part, str) for part in self._parts)

    def render(self, facts: Facts) -> str:
        """The text for ``facts``; never raises."""
        try:
            return _Rendering(facts, self._definitions).text(self._parts)
        except TemplateError as error:
            return f"<error expanding template: {error}>"


def compile_template(text: str) -> Template:
    """Compile ``text`` and try it.

    Raises:
        Misconfigured: unknown function or variable, wrong number of arguments, values of the wrong kind; says where.
    """
    parser = Parser(text, functions={*FUNCTIONS, *_ASKING}, variables=_VARIABLES)
    parts = parser.parse()
    template = Template(text, parts, parser.definitions)
    try:
        _Rendering(_TRIAL, parser.definitions, trying=True).text(parts)
    except TemplateError as error:
        raise broken(text, max(text.find("{{"), 0), str(error)) from error
    return template


_VARIABLES = ("$labels", "$externalLabels", "$externalURL", "$value")
_ASKING = frozenset({"query", "externalURL", "pathPrefix", "now", "parseDuration"})
_MOST_TEXT = 100_000
_DEEPEST = 100


def _one(_: str) -> Sequence[Sampled]:
    return (Sampled({}, 1.0),)


# The trial's query has a result, or whatever follows `first` would go untried.
_TRIAL = Facts(labels={}, value=1.0, query=_one)


class _Break(Exception):
    """A range is left."""


class _Continue(Exception):
    """A range goes on with its next element."""


@dataclass
class _Rendering:
    """One template with one set of facts."""

    facts: Facts
    definitions: Mapping[str, tuple[Part, ...]]
    trying: bool = False
    _out: list[str] = field(default_factory=list)
    _size: int = 0

    def text(self, parts: tuple[Part, ...]) -> str:
        facts = self.facts
        dot = {
            "Labels": facts.labels,
            "Value": facts.value,
            "ExternalLabels": facts.around.labels,
            "ExternalURL": facts.around.url,
        }
        variables = {
            "$": dot,
            "$labels": facts.labels,
            "$value": facts.value,
            "$externalLabels": facts.around.labels,
            "$externalURL": facts.around.url,
        }
        self._write(parts, dot, [variables], 0)
        return "".join(self._out)

    def _write(self, parts: tuple[Part, ...], dot: Any, scopes: list[dict[str, Any]], depth: int) -> None:
        if depth > _DEEPEST:
            raise TemplateError("templates include each other without end")
        for part in parts:
            match part:
                case str():
                    self._print(part)
                case Print():
                    value = self._pipeline(part.pipeline, dot, scopes)
                    if not part.pipeline.names:
                        self._print(text_of(value))
                case Branch():
                    inner = [*scopes, {}]
                    value = self._pipeline(part.pipeline, dot, inner)
                    if truth(value):
                        self._write(part.body, value if part.moves_dot else dot, [*inner, {}], depth)
                    else:
                        self._write(part.otherwise, dot, [*inner, {}], depth)
                case Loop():
                    self._loop(part, dot, [*scopes, {}], depth)
                case Include():
                    given = None if part.pipeline is None else self._pipeline(part.pipeline, dot, scopes)
                    if part.name not in self.definitions:
                        raise TemplateError(f"template {part.name!r} not defined")
                    self._write(self.definitions[part.name], given, [{"$": given}], depth + 1)
                case Leave():
                    raise _Continue if part.again else _Break

    def _print(self, text: str) -> None:
        self._size += len(text)
        if self._size > _MOST_TEXT:
            raise TemplateError(f"more than {_MOST_TEXT} characters")
        self._out.append(text)

    def _loop(self, loop: Loop, dot: Any, scopes: list[dict[str, Any]], depth: int) -> None:
        bare = Pipeline(loop.pipeline.commands)
        value = self._pipeline(bare, dot, scopes)
        match value:
            case Mapping():
                items = [(key, value[key]) for key in sorted(value)]
            case None:
                items = []
            case str() | bool() | float() | int() | Sampled():
                raise TemplateError(f"range can't iterate over {text_of(value)}")
            case _:
                items = list(enumerate(value))
        for key, item in items:
            names = loop.pipeline.names
            found = dict(zip(names, (item,) if len(names) == 1 else (key, item), strict=False))
            if not loop.pipeline.declares:
                for name, each in found.items():
                    _assign(scopes, name, each)
                found = {}
            try:
                self._write(loop.body, item, [*scopes, found], depth)
            except _Continue:
                continue
            except _Break:
                break
        if not items:
            self._write(loop.otherwise, dot, [*scopes, {}], depth)

    # --- values ----------------------------------------------------------------------------------------------------

    def _pipeline(self, pipeline: Pipeline, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        value: Any = None
        for position, command in enumerate(pipeline.commands):
            value = self._command(command, dot, scopes, (value,) if position else ())
        for name in pipeline.names:
            if pipeline.declares:
                scopes[-1][name] = value
            else:
                _assign(scopes, name, value)
        return value

    def _command(self, command: Operand, dot: Any, scopes: list[dict[str, Any]], piped: tuple[Any, ...]) -> Any:
        match command:
            case Literal():
                return command.value
            case Variable():
                return _fields(_found(command.name, dot, scopes), command.fields)
            case Chain():
                return _fields(self._pipeline(command.inner, dot, scopes), command.fields)
            case Call():
                return self._call(command, dot, scopes, piped)
            case Method():
                return self._method(command, dot, scopes, piped)

    def _call(self, call: Call, dot: Any, scopes: list[dict[str, Any]], piped: tuple[Any, ...]) -> Any:
        function = FUNCTIONS.get(call.function) or self._asking()[call.function]
        count = len(call.arguments) + len(piped)
        if not function.least <= count <= function.most:
            raise TemplateError(f"{call.function} takes {function.expects} arguments, not {count}")
        if call.function in ("and", "or"):
            return self._lazily(call, dot, scopes, piped)
        arguments = [self._command(each, dot, scopes, ()) for each in call.arguments]
        try:
            return function.compute(*arguments, *piped)
        except TemplateError as error:
            raise TemplateError(f"error calling {call.function}: {error}") from error
        except RunbookdError as error:
            raise TemplateError(f"error calling {call.function}: {error.message}") from error

    def _lazily(self, call: Call, dot: Any, scopes: list[dict[str, Any]], piped: tuple[Any, ...]) -> Any:
        """``and`` and ``or`` look at no more than they need."""
        value: Any = None
        for each in call.arguments:
            value = self._command(each, dot, scopes, ())
            if truth(value) is (call.function == "or"):
                return value
        return piped[0] if piped else value

    def _method(self, method: Method, dot: Any, scopes: list[dict[str, Any]], piped: tuple[Any, ...]) -> Any:
        target = method.target
        *fields, name = target.fields
        owner = self._command(
            Variable(target.name, tuple(fields))
            if isinstance(target, Variable)
            else Chain(target.inner, tuple(fields)),
            dot,
            scopes,
            (),
        )
        arguments = [self._command(each, dot, scopes, ()) for each in method.arguments]
        if isinstance(owner, datetime) and name == "Format" and len([*arguments, *piped]) == 1:
            return _formatted_time(owner, str([*arguments, *piped][0]))
        raise TemplateError(f"{name} is no method that can be called here")

    def _asking(self) -> Mapping[str, Function]:
        facts = self.facts
        return {
            "query": Function(facts.query, 1, 1),
            "externalURL": Function(lambda: facts.around.url, 0, 0),
            "pathPrefix": Function(lambda: urlsplit(facts.around.url).path, 0, 0),
            "now": Function(lambda: facts.at, 0, 0),
            "parseDuration": Function(self._seconds, 1, 1),
        }

    def _seconds(self, text: Any) -> float:
        try:
            return parse_duration(str(text)).total_seconds()
        except ValueError as error:
            if self.trying:
                return 1.0  # the text may come from a label
            raise TemplateError(str(error)) from error


def _found(name: str, dot: Any, scopes: list[dict[str, Any]]) -> Any:
    if name == ".":
        return dot
    return next(scope[name] for scope in reversed(scopes) if name in scope)


def _assign(scopes: list[dict[str, Any]], name: str, value: Any) -> None:
    scope = next(scope for scope in reversed(scopes) if name in scope)
    scope[name] = value


_CLOCK = {"Year": "year", "Month": "month", "Day": "day", "Hour": "hour", "Minute": "minute", "Second": "second"}


def _fields(value: Any, fields: tuple[str, ...]) -> Any:
    for name in fields:
        if isinstance(value, Mapping):
            # A label that is not there is empty; anything else that is not there has no value.
            missing = "" if all(isinstance(each, str) for each in value.values()) else None
            value = value.get(name, missing)
        elif isinstance(value, Sampled) and name in ("Labels", "Value"):
            value = getattr(value, name)
        elif isinstance(value, datetime) and name in (*_CLOCK, "Unix"):
            value = int(value.timestamp()) if name == "Unix" else getattr(value, _CLOCK[name])
        else:
            raise TemplateError(f"can't evaluate field {name} in {text_of(value)}")
    return value


# Go writes a layout as one particular moment: https://pkg.go.dev/time#pkg-constants
_LAYOUT = (
    ("2006", "%Y"), ("January", "%B"), ("Jan", "%b"), ("Monday", "%A"), ("Mon", "%a"), ("MST", "UTC"),
    ("-0700", "+0000"), ("Z07:00", "Z"), ("01", "%m"), ("02", "%d"), ("15", "%H"), ("03", "%I"), ("04", "%M"),
    ("05", "%S"), ("06", "%y"), ("PM", "%p"),
)  # fmt: skip


def _formatted_time(moment: datetime, layout: str) -> str:
    text, at = "", 0
    while at < len(layout):
        for pattern, code in _LAYOUT:
            if layout.startswith(pattern, at):
                text += code
                at += len(pattern)
                break
        else:
            text += layout[at].replace("%", "%%")
            at += 1
    return moment.astimezone(UTC).strftime(text)
