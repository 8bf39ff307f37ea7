"""JSON as bytes: what answers are written with, and a shortcut for the large ones.

A dashboard's range query is hundreds of thousands of numbers, each a string in Prometheus's JSON. Made one by one in
Python they cost ten times what computing them did (1.4 s of CPU for 5,000 series at 120 steps; so written, 0.1 s), all
of it time that the rule loop may have to wait for. Used by :mod:`agent.api.prometheus` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from fastapi.responses import Response
from numpy.typing import NDArray

from agent.api.answers import number, of_value
from agent.promql import Matrix, Series, Value, Vector

_SERIES_AT_ONCE = 256
# Where orjson writes the shortest digits without an exponent, as Prometheus does.
_PLAIN_FROM, _PLAIN_BELOW = 1e-5, 1e16
_TEMPLATES_KEPT = 64


class JsonResponse(Response):
    """A body that :func:`orjson.dumps` takes, fragments included."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def stamp(seconds: float) -> orjson.Fragment:
    """A sample's moment in Prometheus's writing: whole seconds, or three digits behind the point, never ``1.5``."""
    return orjson.Fragment(_stamp(seconds).encode())


def data_of_value(value: Value, at: float, limit: int, give_way: Callable[[], None] = lambda: None) -> tuple[Any, bool]:
    """As :func:`agent.api.answers.of_value`, with moments and a matrix as fragments for :class:`JsonResponse`.

    Args:
        give_way: called for every series; may wait for somebody who is in more of a hurry.
    """
    if not isinstance(value, Matrix):
        # A scalar's and a string's moment has as many digits as it needs, in Prometheus as in ours.
        return of_value(value, at, limit, stamp) if isinstance(value, Vector) else of_value(value, at, limit)
    series = value.series[: limit or None]
    result = orjson.Fragment(b"[" + b",".join(_written(series, give_way)) + b"]")
    return {"resultType": "matrix", "result": result}, len(series) < len(value.series)


def _written(series: Sequence[Series], give_way: Callable[[], None]) -> Iterator[bytes]:
    templates = _Templates()
    for low in range(0, len(series), _SERIES_AT_ONCE):
        batch = series[low : low + _SERIES_AT_ONCE]
        for each, plain in zip(batch, _plain(batch), strict=True):
            give_way()
            metric = orjson.dumps(dict(each.labels))
            samples = templates.of(each.timestamps) % tuple(_numbers(each.values, plain=plain))
            yield b'{"metric":%b,"values":[%b]}' % (metric, samples)


def _plain(batch: Sequence[Series]) -> list[bool]:
    """Which series hold nothing but numbers that are written without an exponent."""
    values = np.concatenate([each.values for each in batch])
    size = np.abs(values)
    plain = (values == 0) | ((size >= _PLAIN_FROM) & (size < _PLAIN_BELOW))
    ends = np.cumsum([len(each.values) for each in batch])
    starts = np.concatenate([[0], ends[:-1]])
    bad = np.concatenate([[0], np.cumsum(~plain)])
    return [bool(each) for each in bad[ends] == bad[starts]]


def _numbers(values: NDArray[np.float64], *, plain: bool) -> list[bytes]:
    if not plain:
        return [number(value).encode() for value in values.tolist()]
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return (text[1:-1] + b",").replace(b".0,", b",").split(b",")[:-1]


def _stamp(seconds: float) -> str:
    whole, millis = divmod(abs(round(seconds * 1000)), 1000)
    sign = "-" if seconds < 0 and (whole or millis) else ""
    return f"{sign}{whole}.{millis:03}" if millis else f"{sign}{whole}"


class _Templates:
    """``[1,"%b"],[2,"%b"]`` for the timestamps 1 and 2; nearly all series of an answer have the same."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}
        self._stamps: dict[float, str] = {}

    def of(self, timestamps: NDArray[np.float64]) -> bytes:
        key = timestamps.tobytes()
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _TEMPLATES_KEPT:
                self._known.clear()
            known = self._known[key] = ",".join(map(self._sample, timestamps.tolist())).encode()
        return known

    def _sample(self, moment: float) -> str:
        text = self._stamps.get(moment)
        if text is None:
            text = self._stamps[moment] = f'[{_stamp(moment)},"%b"]'
        return text
