"""The policy as plain data for ``runbookd check --json``: base units, names, no Python types."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import time, timedelta
from enum import Enum
from typing import Any

from agent.runbook.policy import Policy


def to_json(policy: Policy) -> dict[str, Any]:
    """The whole policy as JSON-able data: times in seconds, sizes in bytes, shares as ratios, times of day as HH:MM."""
    return {part.name: _plain(getattr(policy, part.name)) for part in fields(policy)}


def _plain(value: object) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, time):
        return f"{value:%H:%M}"
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    return value
