"""Parameters of Prometheus's HTTP API: what a request may say, and the error that Prometheus would answer with.

Used by :mod:`agent.api.prometheus` alone. Values of a form come before those of the address, as with Prometheus.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl

from starlette.requests import Request

from agent.alerting import parse_duration
from agent.faults import RunbookdError
from agent.promql import Plan, Select, compile_expression
from agent.samples import Matcher

_LARGEST_FORM = 1 << 20
# Prometheus's value encoding of names that are no words.
_ESCAPED = "U__"
_ESCAPE = re.compile(r"_(?:_|([0-9a-fA-F]{1,5})_)")
_ENCODED = re.compile(rf"(?:[a-zA-Z0-9:]|{_ESCAPE.pattern})*")


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: of HTTP.
        kind: ``errorType``: bad_data, execution, timeout or internal.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


def bad_data(name: str, why: str) -> ApiError:
    """A parameter is wrong."""
    return ApiError(400, "bad_data", f'invalid parameter "{name}": {why}')


@dataclass(frozen=True)
class Arguments:
    """The parameters of one request, each with all its values in order."""

    values: Mapping[str, Sequence[str]]

    def all(self, name: str) -> Sequence[str]:
        return self.values.get(name, ())

    def text(self, name: str) -> str:
        """The first value; empty where there is none."""
        return next(iter(self.all(name)), "")

    def expression(self, name: str = "query") -> Plan:
        """A PromQL expression that our engine can evaluate."""
        try:
            return compile_expression(self.text(name))
        except RunbookdError as error:
            raise bad_data(name, str(error)) from error

    def time(self, name: str, *, default: float | None = None) -> float:
        """Unix seconds, given as such or as RFC 3339."""
        text = self.text(name)
        if not text and default is not None:
            return default
        found = _unix(text) if text else None
        if found is None:
            raise bad_data(name, f'cannot parse "{text}" to a valid timestamp')
        return found

    def span(self) -> tuple[float, float]:
        """``start`` and ``end`` of endpoints where both may be left out, infinite then."""
        start, end = self.time("start", default=-math.inf), self.time("end", default=math.inf)
        if end < start:
            raise bad_data("end", "end timestamp must not be before start time")
        return start, end

    def step(self) -> float:
        """Seconds between two points of a range."""
        text = self.text("step")
        seconds = _seconds(text)
        if seconds is None:
            raise bad_data("step", f'cannot parse "{text}" to a valid duration')
        if seconds <= 0:
            raise bad_data(
                "step", "zero or negative query resolution step widths are not accepted. Try a positive integer"
            )
        return seconds

    def limit(self, name: str = "limit") -> int:
        """How many results at most; 0 for all."""
        text = self.text(name)
        if not text:
            return 0
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise bad_data(name, f'"{text}" is not a whole number of 0 or more')
        return int(text)

    def check_options(self) -> None:
        """Refuse what would change a result and isn't done here."""
        if self.text("lookback_delta"):
            raise bad_data("lookback_delta", "it is fixed here")

    def timeout(self) -> float | None:
        """Seconds that the query may take; ``None`` where nothing is said of it."""
        text = self.text("timeout")
        seconds = _seconds(text) if text else None
        if text and seconds is None:
            raise bad_data("timeout", f'cannot parse "{text}" to a valid duration')
        return seconds

    def selectors(self, *, required: bool = False) -> list[tuple[Matcher, ...]]:
        """The matchers of every ``match[]``."""
        texts = self.all("match[]")
        if required and not texts:
            raise ApiError(400, "bad_data", "no match[] parameter provided")
        return [_matchers(text) for text in texts]


async def arguments_of(request: Request) -> Arguments:
    """The parameters of a GET or of a form that was posted."""
    found: dict[str, list[str]] = {}
    for key, value in parse_qsl(await _form(request), keep_blank_values=True):
        found.setdefault(key, []).append(value)
    for key, value in request.query_params.multi_items():
        found.setdefault(key, []).append(value)
    return Arguments(found)


def label_name(name: str) -> str:
    """A label's name from the address: as in Prometheus 3 any text, plain or escaped (``U__`` before it)."""
    name = _unescaped(name) if name.startswith(_ESCAPED) else name
    if not name:
        raise ApiError(400, "bad_data", f'invalid label name: "{name}"')
    return name


def _unescaped(name: str) -> str:
    """``name`` by Prometheus's value encoding: ``__`` is an underscore, ``_2d_`` the character 0x2d.

    What isn't encoded so stands for itself, as it does there.
    """
    text = name.removeprefix(_ESCAPED)
    if not _ENCODED.fullmatch(text):
        return name
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else "_", text)


async def _form(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method != "POST" or kind != "application/x-www-form-urlencoded":
        return ""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _LARGEST_FORM:
            raise ApiError(413, "bad_data", f"a form of more than {_LARGEST_FORM} bytes")
    return body.decode("utf-8", "replace")


def _unix(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        return moment.timestamp() if moment.tzinfo is not None else None
    return seconds if math.isfinite(seconds) else None


def _seconds(text: str) -> float | None:
    """A duration in seconds, as a number or as Prometheus writes it."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            return parse_duration(text).total_seconds()
        except ValueError:
            return None
    return seconds if math.isfinite(seconds) else None


def _matchers(text: str) -> tuple[Matcher, ...]:
    try:
        root = compile_expression(text).root
    except RunbookdError as error:
        raise bad_data("match[]", str(error)) from error
    if not isinstance(root, Select) or root.offset:
        raise bad_data("match[]", f"{text!r} is not a metric's name with matchers")
    return root.matchers
