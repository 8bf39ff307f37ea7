"""Durations as Prometheus writes them, for rule files, scripts, templates and the API."""

from __future__ import annotations

import re
from datetime import timedelta

_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")
_DURATION_MS = (31_536_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1_000, 1)


def parse_duration(text: str) -> timedelta:
    """A duration as Prometheus writes it: ``1h30m``, ``15s``, ``0``.

    Raises:
        ValueError: it is none.
    """
    if text == "0":
        return timedelta(0)
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"not a valid duration: {text!r}; write it like 30s, 5m or 1h30m")
    total = sum(int(count) * unit for count, unit in zip(found.groups(), _DURATION_MS, strict=True) if count)
    return timedelta(milliseconds=total)
