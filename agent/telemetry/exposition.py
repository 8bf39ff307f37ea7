"""OpenTelemetry's collected data as Prometheus families, and families as text.

Called by :class:`agent.telemetry.facade.Telemetry` on every collection and by the API for ``/metrics``. The
exporter package of OpenTelemetry is not used because it drops exemplars, and an alert must carry the trace of an
operation that broke it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from opentelemetry.sdk.metrics.export import Histogram, MetricsData, Sum
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client import utils as prometheus_utils
from prometheus_client.core import Exemplar, Metric
from prometheus_client.exposition import generate_latest as prometheus_text
from prometheus_client.openmetrics import exposition as openmetrics

from agent.telemetry.catalogue import MetricSpec

_SeriesKey = tuple[str, tuple[tuple[str, str], ...], int]


class ExemplarMemory:
    """The last exemplar of every bucket.

    The SDK hands an exemplar out once, at the first collection after it was recorded; a scrape that comes a moment
    after the rule loop's own collection would never see one.
    """

    def __init__(self) -> None:
        self._last: dict[_SeriesKey, Exemplar] = {}

    def remember(self, key: _SeriesKey, exemplar: Exemplar) -> None:
        self._last[key] = exemplar

    def recall(self, key: _SeriesKey) -> Exemplar | None:
        return self._last.get(key)


def families_of(data: MetricsData | None, specs: Mapping[str, MetricSpec], exemplars: ExemplarMemory) -> list[Metric]:
    """Families of one collection, sorted by name; only metrics of ``specs`` appear."""
    families: list[Metric] = []
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                spec = specs.get(metric.name)
                if spec is None:
                    continue
                match metric.data:
                    case Histogram():
                        families.append(_histogram(spec, metric.data, exemplars))
                    case Sum():
                        families.append(_counter(spec, metric.data))
                    case _:
                        families.append(_gauge(spec, metric.data))
    return sorted(families, key=lambda family: family.name)


def text_of(families: Iterable[Metric], *, accept: str = "") -> tuple[bytes, str]:
    """The exposition and its content type: OpenMetrics if ``accept`` asks for it, else Prometheus text 0.0.4."""
    registry: Any = _Families(families)
    if "application/openmetrics-text" in accept:
        return cast(bytes, cast(Any, openmetrics).generate_latest(registry)), openmetrics.CONTENT_TYPE_LATEST
    return prometheus_text(registry), CONTENT_TYPE_LATEST


class _Families:
    """What the exposition functions of prometheus_client expect of a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _labels(attributes: Mapping[str, Any] | None) -> dict[str, str]:
    return {key.replace(".", "_"): str(value) for key, value in (attributes or {}).items()}


def _bound(value: float) -> str:
    return cast(str, cast(Any, prometheus_utils).floatToGoString(value))


def _counter(spec: MetricSpec, data: Sum) -> Metric:
    family = Metric(spec.prometheus_name.removesuffix("_total"), spec.description, "counter")
    for point in data.data_points:
        family.add_sample(spec.prometheus_name, _labels(point.attributes), point.value)
    return family


def _gauge(spec: MetricSpec, data: Any) -> Metric:
    family = Metric(spec.prometheus_name, spec.description, "gauge")
    for point in data.data_points:
        family.add_sample(spec.prometheus_name, _labels(point.attributes), point.value)
    return family


def _histogram(spec: MetricSpec, data: Histogram, exemplars: ExemplarMemory) -> Metric:
    name = spec.prometheus_name
    family = Metric(name, spec.description, "histogram")
    for point in data.data_points:
        labels = _labels(point.attributes)
        identity = tuple(sorted(labels.items()))
        bounds = (*point.explicit_bounds, float("inf"))
        for exemplar in point.exemplars:
            if exemplar.trace_id:
                bucket = next(i for i, bound in enumerate(bounds) if exemplar.value <= bound)
                ids = {
                    "trace_id": format(exemplar.trace_id, "032x"),
                    "span_id": format(exemplar.span_id or 0, "016x"),
                }
                exemplars.remember(
                    (name, identity, bucket), Exemplar(ids, exemplar.value, exemplar.time_unix_nano / 1e9)
                )
        cumulative = 0
        for index, (bound, count) in enumerate(zip(bounds, point.bucket_counts, strict=True)):
            cumulative += count
            family.add_sample(
                f"{name}_bucket",
                {**labels, "le": _bound(bound)},
                cumulative,
                exemplar=exemplars.recall((name, identity, index)),
            )
        family.add_sample(f"{name}_count", labels, point.count)
        family.add_sample(f"{name}_sum", labels, point.sum)
    return family
