"""The chapters on performance and watching: indexes, query targets, connections, thresholds, endpoints, responses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from agent.faults import Misconfigured, MisconfiguredReason
from agent.runbook.document import CodeBlock, Document
from agent.runbook.policy import (
    ChannelKind,
    ConnectionPool,
    HealthEndpoint,
    Index,
    IndexField,
    QueryTarget,
    Response,
    Threshold,
)
from agent.runbook.problems import Problems
from agent.runbook.procedures import read_steps
from agent.runbook.quantities import Comparator, Quantity, parse_count, parse_duration, parse_quantity
from agent.runbook.slugs import slug_of
from agent.runbook.tables import TableShape, choose_several, table_rows, the_section

T = TypeVar("T")

_QUERIES = TableShape(name="Query Optimization Targets", columns=("Query", "Current", "Target"))
_METRICS = TableShape(name="Key Metrics to Monitor", columns=("Metric", "Warning", "Critical", "Alert Channel"))
_ENDPOINT = re.compile(r"^(?P<method>[A-Z]+)\s+(?P<path>/\S+)$")
_SETTING = re.compile(r"^(?P<name>[A-Za-z_]+)\s*[:=]\s*(?P<value>[^\s,#{][^,#{]*?)\s*,?\s*(?:#.*)?$")


def read_query_targets(document: Document, problems: Problems) -> tuple[QueryTarget, ...]:
    """The table of queries with their latency now and their target."""
    targets: dict[str, QueryTarget] = {}
    for row in table_rows(document, _QUERIES, problems):
        query = slug_of(row.text("Query"))
        current = row.read("Current", parse_duration)
        target = row.read("Target", parse_duration)
        if current is None or target is None:
            continue
        if query in targets:
            row.problem("Query", f"listed before at line {targets[query].line}", hint="keep one")
            continue
        targets[query] = QueryTarget(
            query=query, title=row.text("Query"), current=current.value, target=target.value, line=row.line
        )
    return tuple(targets.values())


def read_thresholds(document: Document, problems: Problems) -> tuple[Threshold, ...]:
    """The key-metrics table: from what value on somebody is warned, and from what value on woken."""
    thresholds: dict[str, Threshold] = {}
    for row in table_rows(document, _METRICS, problems):
        metric = slug_of(row.text("Metric"))
        warning = row.read("Warning", parse_quantity)
        critical = row.read("Critical", parse_quantity)
        channels = row.read("Alert Channel", choose_several(ChannelKind, "channel"))
        if not metric:
            row.problem("Metric", "the metric has no name")
        if warning is None or critical is None or channels is None or not metric:
            continue
        threshold = Threshold(
            metric=metric,
            title=row.text("Metric"),
            warning=warning,
            critical=critical,
            channels=channels,
            line=row.line,
        )
        contradiction = _contradiction(warning, critical)
        if contradiction:
            row.problem("Warning", contradiction)
        elif metric in thresholds:
            said = "with other values " if thresholds[metric] != threshold else ""
            row.problem("Metric", f"listed before {said}at line {thresholds[metric].line}", hint="keep one")
        else:
            thresholds[metric] = threshold
    return tuple(thresholds.values())


_FALLING = (Comparator.BELOW, Comparator.AT_MOST)


def _contradiction(warning: Quantity, critical: Quantity) -> str:
    """Why two levels of one metric can't both be meant; empty if they can."""
    if warning.unit is not critical.unit:
        return f"warning is in {warning.unit}, critical {critical.text!r} in {critical.unit}"
    if warning.comparator is not critical.comparator:
        return f"warning and critical {critical.text!r} compare in different ways"
    if warning.comparator in _FALLING:
        return "" if warning.value > critical.value else f"warning is not above critical {critical.text!r}"
    return "" if warning.value < critical.value else f"warning is not below critical {critical.text!r}"


def read_health_endpoints(document: Document, problems: Problems) -> tuple[HealthEndpoint, ...]:
    """The addresses that say how things are: lines such as ``GET /api/database/health``."""
    section = the_section(document, "Health Check Endpoints", problems)
    if section is None:
        return ()
    lines = [line for block in section.code for line in block.lines] + [(i.line, i.text) for i in section.items]
    endpoints: list[HealthEndpoint] = []
    for number, text in lines:
        if not text.strip() or text.strip().startswith("#"):
            continue
        match = _ENDPOINT.match(text.strip())
        if match is None:
            where = f"line {text.strip()!r} of section {section.title!r}"
            problems.add(number, "not an endpoint", where=where, hint="write GET /path")
            continue
        name = slug_of(match["path"].rpartition("/")[2])
        endpoints.append(HealthEndpoint(name=name, method=match["method"], path=match["path"], line=number))
    if not lines:
        problems.add(section.line, f"section {section.title!r} names no endpoint", hint="write GET /path")
    return tuple(endpoints)


def read_responses(document: Document, problems: Problems) -> tuple[Response, ...]:
    """What to do for each alert: the sections below "Alert Response Procedures"."""
    return tuple(
        Response(
            name=slug_of(section.title),
            title=section.title,
            anchor=section.anchor,
            steps=read_steps(section, problems),
            line=section.line,
        )
        for chapter in document.titled("Alert Response Procedures")
        for section in document.within(chapter)[1:]
    )


def read_indexes(document: Document, problems: Problems) -> tuple[Index, ...]:
    """The composite indexes: a JSON block in the format of ``firestore.indexes.json``, comments allowed."""
    indexes: list[Index] = []
    for section in document.titled("Index Configuration"):
        blocks = [block for block in section.code if block.language == "json"]
        if not blocks:
            problems.add(section.line, f"section {section.title!r} has no JSON block", hint="paste the indexes there")
        for block in blocks:
            indexes.extend(_indexes_of(block, problems))
    return tuple(indexes)


def _indexes_of(block: CodeBlock, problems: Problems) -> list[Index]:
    try:
        content = json.loads(without_comments(block.text))
    except json.JSONDecodeError as error:
        problems.add(block.line + error.lineno - 1, f"the index configuration is not JSON: {error.msg}")
        return []
    except RecursionError:
        problems.add(block.line, "the index configuration is nested too deeply to be meant")
        return []
    entries = content.get("indexes") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        problems.add(block.line, "the index configuration has no list 'indexes'")
        return []
    starts = [number for number, text in block.lines if '"collectionGroup"' in text]
    indexes: list[Index] = []
    for number, entry in enumerate(entries):
        line = starts[number] if len(starts) == len(entries) else block.line
        where = f"index {number + 1} of the index configuration"
        try:
            indexes.append(_index(entry, line))
        except Misconfigured as error:
            problems.add(line, error.message, where=where, hint=error.hint)
    return indexes


def _index(entry: Any, line: int) -> Index:
    try:
        index = Index(
            collection=entry["collectionGroup"],
            scope=entry["queryScope"],
            fields=tuple(IndexField(path=part["fieldPath"], order=part["order"]) for part in entry["fields"]),
            line=line,
        )
    except (KeyError, TypeError) as error:
        raise Misconfigured(
            MisconfiguredReason.RUNBOOK,
            "not an index",
            hint="it needs collectionGroup, queryScope, and fields with fieldPath and order",
        ) from error
    orders = {field.order for field in index.fields}
    if index.scope not in _SCOPES or not orders <= _ORDERS:
        raise Misconfigured(
            MisconfiguredReason.RUNBOOK,
            f"unknown queryScope {index.scope!r} or order among {sorted(map(str, orders))}",
            hint="known are COLLECTION and COLLECTION_GROUP, ASCENDING and DESCENDING",
        )
    return index


_SCOPES = ("COLLECTION", "COLLECTION_GROUP")
_ORDERS = {"ASCENDING", "DESCENDING"}


def without_comments(text: str) -> str:
    """JSON without its ``//`` comments; line numbers stay, and ``//`` inside a string is left alone."""
    return re.sub(r'("(?:\\.|[^"\\\n])*")|//[^\n]*', lambda match: match[1] or "", text)


def read_connection_pool(document: Document, problems: Problems) -> ConnectionPool | None:
    """Connection settings: ``maxChannels: 100`` or ``max_channels: 100``, times as 30s or as 30000 in ``...Ms``."""
    sections = document.titled("Connection Pool Settings")
    if not sections:
        return None
    found: dict[str, tuple[int, str]] = {}
    for block in sections[0].code:
        for number, text in block.lines:
            if match := _SETTING.match(text.strip()):
                name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", match["name"]).lower()
                value = f"{match['value']}ms" if name.endswith("_ms") else match["value"]
                found[name.removesuffix("_ms")] = (number, value)
    missing = [name for name in (*_POOL_COUNTS, *_POOL_TIMES) if name not in found]
    for name in missing:
        problems.add(sections[0].line, f"section {sections[0].title!r} has no setting {name!r}", hint="add it")
    if missing:
        return None
    idle, most = (_setting(name, parse_count, found[name], problems) for name in _POOL_COUNTS)
    time, timeout = (_setting(name, parse_duration, found[name], problems) for name in _POOL_TIMES)
    if idle is None or most is None or time is None or timeout is None:
        return None
    if idle > most:
        problems.add(found["max_idle_channels"][0], f"max_idle_channels {idle} is more than max_channels {most}")
    return ConnectionPool(
        max_idle_channels=idle,
        max_channels=most,
        keep_alive_time=time.duration,
        keep_alive_timeout=timeout.duration,
    )


_POOL_COUNTS = ("max_idle_channels", "max_channels")
_POOL_TIMES = ("keep_alive_time", "keep_alive_timeout")


def _setting(name: str, reader: Callable[[str], T], written: tuple[int, str], problems: Problems) -> T | None:
    line, text = written
    return problems.attempt(reader, text, line=line, where=f"setting {name!r}")
