"""The grammar of Go's text/template, as rule files use it: text and actions into nodes.

Variables, fields, pipelines, parentheses, comments, trim markers, ``if``/``else``, ``range``, ``with``, ``define``,
``template``, ``break`` and ``continue``. https://pkg.go.dev/text/template. Used by :mod:`agent.alerting.templates`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from agent.faults import Misconfigured, MisconfiguredReason

Constant = str | float | int | bool | None


@dataclass(frozen=True, slots=True)
class Literal:
    value: Constant


@dataclass(frozen=True, slots=True)
class Variable:
    """``$name``, or the dot where the name is ``.``; then fields of it."""

    name: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """Fields of a pipeline in parentheses."""

    inner: Pipeline
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments."""

    function: str
    arguments: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """An operand's last field called with arguments, as in ``$time.Format "15:04"``."""

    target: Variable | Chain
    arguments: tuple[Operand, ...]


Operand = Literal | Variable | Chain | Call | Method


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each given the result of the one before.

    Args:
        names: variables that it declares or assigns.
        declares: ``:=``, as opposed to ``=``.
    """

    commands: tuple[Operand, ...]
    names: tuple[str, ...] = ()
    declares: bool = False


@dataclass(frozen=True, slots=True)
class Print:
    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Branch:
    """``if`` or ``with``: ``with`` makes the value the dot."""

    pipeline: Pipeline
    body: tuple[Part, ...]
    otherwise: tuple[Part, ...]
    moves_dot: bool


@dataclass(frozen=True, slots=True)
class Loop:
    pipeline: Pipeline
    body: tuple[Part, ...]
    otherwise: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Include:
    name: str
    pipeline: Pipeline | None


@dataclass(frozen=True, slots=True)
class Leave:
    """``break`` or ``continue``."""

    again: bool


Part = str | Print | Branch | Loop | Include | Leave

_ACTION = re.compile(
    r"\{\{(?P<left>-(?=\s))?(?:\s*(?P<comment>/\*.*?\*/)|(?P<body>(?:\"(?:[^\"\\\n]|\\.)*\"|`[^`]*`|'(?:[^'\\]|\\.)+'|[^}\"`'])*?))"
    r"(?P<right>(?<=\s)-|\s-)?\}\}",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<char>'(?:[^'\\]|\\.)+')
    |(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?))
    |(?P<variable>\$\w*(?:\.\w+)*|\.\w+(?:\.\w+)*|\.(?!\w))|(?P<word>[A-Za-z_]\w*)|(?P<sign>:=|[|(),=]))""",
    re.VERBOSE,
)
_OPENERS = ("if", "with", "range", "define", "block")
_KEYWORDS = (*_OPENERS, "else", "end", "template", "break", "continue")
_SPACE = " \t\r\n"


def broken(text: str, at: int, problem: str, hint: str = "") -> Misconfigured:
    """An error in a template, with its place."""
    return Misconfigured(MisconfiguredReason.RULES, f"template {text!r}, character {at + 1}: {problem}", hint=hint)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class _Action:
    tokens: tuple[_Token, ...]
    at: int
    end: int

    @property
    def keyword(self) -> str:
        first = self.tokens[0]
        return first.text if first.kind == "word" and first.text in _KEYWORDS else ""


class Parser:
    """One text; :meth:`parse` once.

    Args:
        functions: names that may be called.
        variables: names, with their ``$``, that are there from the start.
    """

    def __init__(self, text: str, *, functions: Collection[str], variables: Collection[str]) -> None:
        self._text = text
        self._functions = functions
        self._scopes: list[set[str]] = [{*variables, "$"}]
        self._items = self._lexed()
        self._next = 0
        self._loops = 0
        self.definitions: dict[str, tuple[Part, ...]] = {}

    def parse(self) -> tuple[Part, ...]:
        """The parts of the text.

        Raises:
            Misconfigured: not a template; says at which character.
        """
        parts, stopped = self._body(())
        assert stopped is None
        return parts

    # --- text and actions ------------------------------------------------------------------------------------------

    def _lexed(self) -> list[str | _Action]:
        items: list[str | _Action] = []
        end, trim = 0, False
        for found in _ACTION.finditer(self._text):
            before = self._text[end : found.start()]
            self._unclosed(before, end)
            before = before.lstrip(_SPACE) if trim else before
            items.append(before.rstrip(_SPACE) if found["left"] else before)
            trim, end = bool(found["right"]), found.end()
            if found["comment"] is None:
                items.append(self._action(found))
        rest = self._text[end:]
        self._unclosed(rest, end)
        items.append(rest.lstrip(_SPACE) if trim else rest)
        return [item for item in items if item != ""]

    def _unclosed(self, text: str, start: int) -> None:
        if "{{" in text:
            raise broken(self._text, start + text.index("{{"), "an action is never closed", "close it with }}")

    def _action(self, found: re.Match[str]) -> _Action:
        body, offset = found["body"], found.start("body")
        tokens: list[_Token] = []
        at = 0
        while body[at:].strip():
            token = _TOKEN.match(body, at)
            if token is None:
                bad = at + len(body[at:]) - len(body[at:].lstrip())
                raise broken(self._text, offset + bad, f"unexpected {body[bad]!r}")
            kind = token.lastgroup or ""
            tokens.append(_Token(kind, token[kind], offset + token.start(kind)))
            at = token.end()
        if not tokens:
            raise broken(self._text, offset, "an empty action")
        return _Action(tuple(tokens), found.start(), offset + len(body))

    def _body(self, ends: tuple[str, ...]) -> tuple[tuple[Part, ...], _Action | None]:
        """Parts up to an ``end`` or ``else`` of this level."""
        parts: list[Part] = []
        while self._next < len(self._items):
            item = self._items[self._next]
            self._next += 1
            if isinstance(item, str):
                parts.append(item)
            elif item.keyword in ("end", "else"):
                if item.keyword not in ends:
                    raise broken(self._text, item.at, f"unexpected {item.keyword!r}")
                return tuple(parts), item
            else:
                parts += self._part(item)
        return tuple(parts), None

    def _part(self, action: _Action) -> list[Part]:
        match action.keyword:
            case "if" | "with":
                return [self._branch(action, 1)]
            case "range":
                return [self._loop(action)]
            case "define":
                self._define(action)
                return []
            case "template":
                return [self._include(action)]
            case "block":
                name = self._name(action)
                pipeline = _Reader(self, action, 2).whole()
                self.definitions[name] = self._section(action, ("end",))[0]
                return [Include(name, pipeline)]
            case "break" | "continue":
                if not self._loops:
                    raise broken(self._text, action.at, f"{action.keyword} outside of a range")
                return [Leave(action.keyword == "continue")]
            case _:
                return [Print(_Reader(self, action, 0).whole())]

    def _section(self, action: _Action, ends: tuple[str, ...]) -> tuple[tuple[Part, ...], _Action]:
        self._scopes.append(set())
        parts, stopped = self._body(ends)
        self._scopes.pop()
        if stopped is None:
            raise broken(self._text, action.at, f"{action.keyword!r} is never ended", "end it with {{ end }}")
        return parts, stopped

    def _branch(self, action: _Action, start: int) -> Branch:
        self._scopes.append(set())
        pipeline = _Reader(self, action, start).whole()
        body, stopped = self._section(action, ("end", "else"))
        otherwise: tuple[Part, ...] = ()
        if stopped.keyword == "else":
            if len(stopped.tokens) > 1:
                if stopped.tokens[1].text not in ("if", "with"):
                    raise broken(self._text, stopped.tokens[1].at, f"unexpected {stopped.tokens[1].text!r}")
                inner = _Action(stopped.tokens[1:], stopped.at, stopped.end)
                otherwise = (self._branch(inner, 1),)
            else:
                otherwise, _ = self._section(action, ("end",))
        self._scopes.pop()
        return Branch(pipeline, body, otherwise, moves_dot=action.tokens[0].text == "with")

    def _loop(self, action: _Action) -> Loop:
        self._scopes.append(set())
        pipeline = _Reader(self, action, 1, loop=True).whole()
        self._loops += 1
        body, stopped = self._section(action, ("end", "else"))
        self._loops -= 1
        otherwise, _ = self._section(action, ("end",)) if stopped.keyword == "else" else ((), None)
        self._scopes.pop()
        return Loop(pipeline, body, otherwise)

    def _define(self, action: _Action) -> None:
        name = self._name(action)
        scopes, self._scopes = self._scopes, [{"$"}]
        self.definitions[name], _ = self._section(action, ("end",))
        self._scopes = scopes

    def _include(self, action: _Action) -> Include:
        name = self._name(action)
        return Include(name, _Reader(self, action, 2).whole() if len(action.tokens) > 2 else None)

    def _name(self, action: _Action) -> str:
        if len(action.tokens) < 2 or action.tokens[1].kind != "text":
            raise broken(self._text, action.at, f"{action.keyword!r} needs a name in quotes")
        return unquoted(action.tokens[1].text)

    # --- for the reader of one action ------------------------------------------------------------------------------

    def declare(self, name: str) -> None:
        self._scopes[-1].add(name)

    def check_variable(self, name: str, at: int) -> None:
        if not any(name in scope for scope in self._scopes):
            raise broken(self._text, at, f"unknown variable {name!r}", "known: $value, $labels and what := declares")

    def check_function(self, name: str, at: int) -> None:
        if name not in self._functions:
            known = ", ".join(sorted(self._functions))
            raise broken(self._text, at, f"unknown function {name!r}", f"known: {known}")

    def error(self, at: int, problem: str) -> Misconfigured:
        return broken(self._text, min(at, len(self._text)), problem)


class _Reader:
    """What stands between ``{{`` and ``}}``."""

    def __init__(self, parser: Parser, action: _Action, start: int, *, loop: bool = False) -> None:
        self._parser = parser
        self._tokens = action.tokens
        self._next = start
        self._end = action.end
        self._loop = loop

    def whole(self) -> Pipeline:
        found = self._pipeline()
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            raise self._parser.error(token.at, f"unexpected {token.text!r}")
        return found

    def _pipeline(self) -> Pipeline:
        names, declares = self._declaration()
        commands = [self._command(first=True)]
        while self._peek() == "|":
            self._next += 1
            commands.append(self._command(first=False))
        for name in names:
            if declares:
                self._parser.declare(name)
        return Pipeline(tuple(commands), names, declares)

    def _declaration(self) -> tuple[tuple[str, ...], bool]:
        texts = [token.text for token in self._tokens[self._next : self._next + 4]]
        names: list[str] = []
        if len(texts) > 1 and texts[0].startswith("$"):
            if texts[1] in (":=", "="):
                names = texts[:1]
            elif self._loop and len(texts) > 3 and texts[1] == "," and texts[3] in (":=", "="):
                names = [texts[0], texts[2]]
        if not names:
            return (), False
        sign = texts[2 * len(names) - 1]
        if sign == "=":
            for name in names:
                self._parser.check_variable(name, self._tokens[self._next].at)
        self._next += 2 * len(names)
        return tuple(names), sign == ":="

    def _command(self, *, first: bool) -> Operand:
        if self._next >= len(self._tokens):
            raise self._parser.error(self._end, "a pipeline ends too early")
        token = self._tokens[self._next]
        if token.kind == "word" and token.text not in ("true", "false", "nil"):
            self._next += 1
            self._parser.check_function(token.text, token.at)
            return Call(token.text, tuple(self._arguments()))
        operand = self._operand()
        arguments = tuple(self._arguments())
        if not arguments and first:
            return operand
        if isinstance(operand, Variable | Chain) and operand.fields and operand.fields[-1] == "Format":
            return Method(operand, arguments)
        if not first:
            raise self._parser.error(token.at, f"{token.text!r} is no function")
        raise self._parser.error(token.at, f"{token.text!r} takes no arguments")

    def _arguments(self) -> list[Operand]:
        found = []
        while self._next < len(self._tokens) and self._peek() not in ("|", ")"):
            found.append(self._operand())
        return found

    def _operand(self) -> Operand:
        token = self._tokens[self._next]
        self._next += 1
        if token.kind == "text":
            return Literal(unquoted(token.text))
        if token.kind == "char":
            return Literal(ord(unquoted(f'"{token.text[1:-1]}"')))
        if token.kind == "number":
            return Literal(_number(token.text))
        if token.kind == "word":
            if token.text in ("true", "false", "nil"):
                return Literal({"true": True, "false": False, "nil": None}[token.text])
            self._parser.check_function(token.text, token.at)
            return Call(token.text, ())
        if token.kind == "variable":
            name, *fields = token.text.split(".") if token.text != "." else [""]
            if name:
                self._parser.check_variable(name, token.at)
            return Variable(name or ".", tuple(fields))
        if token.text == "(":
            inner = self._pipeline()
            if self._peek() != ")":
                raise self._parser.error(token.at, "'(' is never closed")
            closing = self._tokens[self._next]
            self._next += 1
            return Chain(inner, self._fields(closing.at + 1))
        raise self._parser.error(token.at, f"unexpected {token.text!r}")

    def _fields(self, at: int) -> tuple[str, ...]:
        """``.Labels.job`` right behind a parenthesis."""
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            if token.kind == "variable" and token.at == at and len(token.text) > 1 and token.text.startswith("."):
                self._next += 1
                return tuple(token.text[1:].split("."))
        return ()

    def _peek(self) -> str:
        return self._tokens[self._next].text if self._next < len(self._tokens) else ""


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def unquoted(token: str) -> str:
    """The text that a quoted token stands for."""
    if token[0] == "`":
        return token[1:-1]

    def one(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code[1:], 16)) if code[0] in "xuU" and len(code) > 1 else _ESCAPES.get(code, code)

    return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", one, token[1:-1])


def _number(text: str) -> Any:
    try:
        return int(text, 0) if not text.lstrip("+-").startswith("0") or text.lower().startswith("0x") else int(text)
    except ValueError:
        return float(text)
