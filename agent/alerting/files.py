"""Rule files in Prometheus's format, read into :class:`RuleSet`; every problem of every file is reported at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from agent.alerting.durations import parse_duration
from agent.alerting.rules import AlertRule, RecordingRule, Rule, RuleGroup, RuleSet
from agent.alerting.sight import Policies, policies_of
from agent.alerting.templates import Template, compile_template
from agent.faults import Misconfigured, MisconfiguredReason, RunbookdError
from agent.promql import Kind, Plan, compile_expression

DEFAULT_INTERVAL = timedelta(minutes=1)

_GROUP_KEYS = frozenset({"name", "interval", "limit", "query_offset", "labels", "rules"})
_RULE_KEYS = frozenset({"alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"})
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")

_T = TypeVar("_T")


def load_rules(paths: Sequence[Path], *, default_interval: timedelta = DEFAULT_INTERVAL) -> RuleSet:
    """Load rule files; a folder stands for its ``*.yaml`` and ``*.yml``.

    Args:
        default_interval: of groups that name none.

    Raises:
        Misconfigured: something is wrong; the message lists every problem with file, line, group and rule.
    """
    problems: list[str] = []
    groups: list[RuleGroup] = []
    for path in _files(paths, problems):
        groups.extend(_Reader(path, default_interval, problems).read())
    problems.extend(_repeated(groups))
    if problems:
        raise Misconfigured(
            MisconfiguredReason.RULES,
            "\n".join(problems),
            hint="correct the rule files; `runbookd rules check` tries them",
        )
    return RuleSet(groups=tuple(groups))


def _files(paths: Sequence[Path], problems: list[str]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.iterdir() if each.suffix in (".yaml", ".yml"))
        elif path.is_file():
            yield path
        else:
            problems.append(f"{path}: there is no such rule file")


def _repeated(groups: Sequence[RuleGroup]) -> Iterator[str]:
    """The same rule twice, or two groups of one file with one name."""
    names: set[str] = set()
    places: dict[str, str] = {}
    for group in groups:
        if group.key in names:
            yield f"{group.file}: group {group.name!r} is there twice"
        names.add(group.key)
        for rule in group.rules:
            if rule.key in places:
                yield f"{rule.place}: rule {rule.name!r} repeats the one at {places[rule.key]}"
            places.setdefault(rule.key, rule.place)


@dataclass
class _Reader:
    """One file; what it can't read it reports and leaves out."""

    path: Path
    default_interval: timedelta
    problems: list[str]
    _where: list[str] = field(default_factory=list)

    def read(self) -> list[RuleGroup]:
        try:
            root = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            self.problems.append(
                f"{self.path}{line}: not readable as YAML ({getattr(error, 'problem', None) or error})"
            )
            return []
        if root is None:
            return []
        top = self._mapping(root, frozenset({"groups"}), "a rule file")
        groups = top.get("groups")
        return [group for node in self._sequence(groups, "groups") if (group := self._group(node)) is not None]

    def _group(self, node: yaml.Node) -> RuleGroup | None:
        parts = self._mapping(node, _GROUP_KEYS, "a group")
        name = self._text(parts.get("name"))
        if not name:
            self._problem(node, "a group needs a name")
            return None
        self._where.append(f"group {name!r}")
        interval = self._duration(parts, "interval", self.default_interval)
        if interval <= timedelta(0):
            self._problem(parts["interval"], "the interval must be longer than 0")
        if self._duration(parts, "query_offset", timedelta(0)):
            self._problem(parts["query_offset"], "query_offset is not supported: samples here are not late")
        shared = self._strings(parts.get("labels"), _LABEL, "label")
        limit = self._whole(parts.get("limit"))
        rules = [
            rule
            for each in self._sequence(parts.get("rules"), "rules")
            if (rule := self._rule(each, shared)) is not None
        ]
        self._where.pop()
        return RuleGroup(name=name, file=str(self.path), interval=interval, limit=limit, rules=tuple(rules))

    def _rule(self, node: yaml.Node, shared: Mapping[str, str]) -> Rule | None:
        parts = self._mapping(node, _RULE_KEYS, "a rule")
        alert, record = self._text(parts.get("alert")), self._text(parts.get("record"))
        if bool(alert) == bool(record):
            self._problem(node, "a rule has either `alert` or `record`")
            return None
        self._where.append(f"rule {alert or record!r}")
        try:
            return self._alert(node, parts, alert, shared) if alert else self._record(node, parts, record, shared)
        finally:
            self._where.pop()

    def _alert(
        self, node: yaml.Node, parts: Mapping[str, yaml.Node], name: str, shared: Mapping[str, str]
    ) -> AlertRule | None:
        expression = self._expression(node, parts)
        labels = {**shared, **self._strings(parts.get("labels"), _LABEL, "label")}
        annotations = self._strings(parts.get("annotations"), _LABEL, "annotation")
        compiled_labels = self._templates(parts.get("labels") or node, labels, "label")
        compiled_annotations = self._templates(parts.get("annotations") or node, annotations, "annotation")
        pending_for = self._duration(parts, "for", timedelta(0))
        keep_firing_for = self._duration(parts, "keep_firing_for", timedelta(0))
        if expression is None:
            return None
        return AlertRule(
            name=name,
            expression=expression,
            pending_for=pending_for,
            keep_firing_for=keep_firing_for,
            labels=compiled_labels,
            annotations=compiled_annotations,
            place=self._place(node),
            unseen=self._policies(parts.get("annotations") or node, annotations),
        )

    def _policies(self, node: yaml.Node, annotations: Mapping[str, str]) -> Policies:
        try:
            return policies_of(annotations)
        except ValueError as error:
            self._problem(node, str(error))
            return Policies()

    def _record(
        self, node: yaml.Node, parts: Mapping[str, yaml.Node], name: str, shared: Mapping[str, str]
    ) -> RecordingRule | None:
        if not _METRIC.fullmatch(name):
            self._problem(parts["record"], f"{name!r} is not a metric name")
        for key in ("for", "keep_firing_for", "annotations"):
            if key in parts:
                self._problem(parts[key], f"a recording rule has no `{key}`")
        labels = {**shared, **self._strings(parts.get("labels"), _LABEL, "label")}
        expression = self._expression(node, parts)
        if expression is None:
            return None
        return RecordingRule(name=name, expression=expression, labels=labels, place=self._place(node))

    def _expression(self, node: yaml.Node, parts: Mapping[str, yaml.Node]) -> Plan | None:
        text = self._text(parts.get("expr"))
        if not text.strip():
            self._problem(node, "a rule needs an `expr`")
            return None
        plan = self._tried(parts["expr"], partial(compile_expression, text), "expr ")
        if plan is not None and plan.kind not in (Kind.VECTOR, Kind.SCALAR):
            self._problem(parts["expr"], f"a rule's expression is an instant vector or a scalar, not a {plan.kind}")
            return None
        return plan

    def _templates(self, node: yaml.Node, texts: Mapping[str, str], what: str) -> dict[str, Template]:
        found = {}
        for name, text in texts.items():
            template = self._tried(node, partial(compile_template, text), f"{what} {name!r}: ")
            if template is not None:
                found[name] = template
        return found

    def _tried(self, node: yaml.Node, compile_: Callable[[], _T], what: str) -> _T | None:
        try:
            return compile_()
        except RunbookdError as error:
            self._problem(node, f"{what}{error}")
            return None

    def _mapping(self, node: yaml.Node, known: frozenset[str], what: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._problem(node, f"{what} must be a mapping")
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name not in known:
                self._problem(key, f"unknown key {name!r} in {what}; known are {', '.join(sorted(known))}")
            elif name in found:
                self._problem(key, f"{name!r} is given twice")
            found[name] = value
        return found

    def _sequence(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._problem(node, f"{what} must be a list")
            return []
        return list(node.value)

    def _strings(self, node: yaml.Node | None, names: re.Pattern[str], what: str) -> dict[str, str]:
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._problem(node, f"{what}s must be a mapping")
            return {}
        found = {}
        for key, value in node.value:
            name = str(key.value)
            if not names.fullmatch(name) or (what == "label" and name in ("__name__", "alertname")):
                self._problem(key, f"{name!r} is no name for a {what}")
            elif not isinstance(value, yaml.ScalarNode):
                self._problem(value, f"{what} {name!r} must be a text")
            else:
                found[name] = str(value.value)
        return found

    def _text(self, node: yaml.Node | None) -> str:
        return str(node.value) if isinstance(node, yaml.ScalarNode) else ""

    def _whole(self, node: yaml.Node | None) -> int:
        text = self._text(node)
        if node is not None and not text.isdigit():
            self._problem(node, "the limit must be a whole number")
            return 0
        return int(text or 0)

    def _duration(self, parts: Mapping[str, yaml.Node], key: str, default: timedelta) -> timedelta:
        if key not in parts:
            return default
        try:
            return parse_duration(self._text(parts[key]))
        except ValueError as error:
            self._problem(parts[key], f"`{key}`: {error}")
            return default

    def _place(self, node: yaml.Node) -> str:
        return f"{self.path}:{node.start_mark.line + 1}"

    def _problem(self, node: yaml.Node, problem: str) -> None:
        where = f"{', '.join(self._where)}: " if self._where else ""
        self.problems.append(f"{self._place(node)}: {where}{problem}")
