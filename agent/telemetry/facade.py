"""The one object through which rooms count, measure and trace.

A :class:`Telemetry` owns an OpenTelemetry meter provider and tracer provider. Instruments are made from the
catalogue and from nothing else. Reading goes through :meth:`Telemetry.families`: this process's instruments and
those of worker processes, as Prometheus families, for ``/metrics`` and for the sample store alike, so that what a
rule judges and what Grafana draws are the same figures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from prometheus_client.core import Metric

from agent.faults import RunbookdError
from agent.telemetry.catalogue import Kind, MetricSpec
from agent.telemetry.exposition import ExemplarMemory, families_of
from agent.telemetry.relay import Relay, RelayedFamily, relayed

Attributes = Mapping[str, str]
GaugeCallback = Callable[[], Iterable[tuple[float, Attributes]]]

_NO_ATTRIBUTES: Attributes = {}
_SCOPE = "runbookd"


class Telemetry:
    """Instruments, spans and their exposition; one a process.

    Args:
        resource: OpenTelemetry resource of this process.
        span_processors: where ended spans go (OTLP, the log, a test's list).
        metric_readers: additional readers, e.g. the OTLP push.
    """

    def __init__(
        self,
        *,
        resource: Resource | None = None,
        span_processors: Iterable[SpanProcessor] = (),
        metric_readers: Iterable[MetricReader] = (),
    ) -> None:
        resource = resource or Resource.create({"service.name": "runbookd"})
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider(
            metric_readers=[self._reader, *metric_readers], resource=resource, shutdown_on_exit=False
        )
        self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        for processor in span_processors:
            self._spans.add_span_processor(processor)
        self._meter = self._meters.get_meter(_SCOPE)
        self.tracer = self._spans.get_tracer(_SCOPE)
        self._instruments: dict[str, Any] = {}
        self._specs: dict[str, MetricSpec] = {}
        self._lock = threading.Lock()
        self._collecting = threading.Lock()
        self._exemplars = ExemplarMemory()
        self._relay = Relay()

    # --- writing ----------------------------------------------------------------------------------------------

    def add(self, spec: MetricSpec, amount: float = 1, attributes: Attributes = _NO_ATTRIBUTES) -> None:
        """Add to a counter."""
        counter: Counter = self._instrument(spec, Kind.COUNTER)
        counter.add(amount, _checked(spec, attributes))

    def record(self, spec: MetricSpec, value: float, attributes: Attributes = _NO_ATTRIBUTES) -> None:
        """Record one value of a histogram, in the metric's unit."""
        histogram: Histogram = self._instrument(spec, Kind.HISTOGRAM)
        histogram.record(value, _checked(spec, attributes))

    def set(self, spec: MetricSpec, value: float, attributes: Attributes = _NO_ATTRIBUTES) -> None:
        """Set a gauge. It keeps its value until the process ends; see :meth:`observe` for one that may vanish."""
        self._instrument(spec, Kind.GAUGE).set(value, _checked(spec, attributes))

    def observe(self, spec: MetricSpec, callback: GaugeCallback) -> None:
        """Read a gauge from ``callback`` at every collection; a series not returned is gone."""

        def read(_: CallbackOptions) -> list[Observation]:
            return [Observation(value, dict(_checked(spec, attributes))) for value, attributes in callback()]

        with self._lock:
            self._specs[spec.name] = spec
            self._meter.create_observable_gauge(spec.name, [read], spec.unit, spec.description)

    @contextmanager
    def span(
        self,
        name: str,
        attributes: Mapping[str, str | int | float | bool] | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Iterator[Span]:
        """A span that is current inside the block; an exception marks it as an error with its reason."""
        with self.tracer.start_as_current_span(
            name,
            kind=kind,
            attributes=dict(attributes or {}),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                reason = str(error.reason) if isinstance(error, RunbookdError) else type(error).__qualname__
                span.set_attribute("error.type", reason)
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                raise

    # --- reading ----------------------------------------------------------------------------------------------

    def families(self) -> list[Metric]:
        """Everything recorded so far, workers included, sorted by name; histogram buckets carry exemplars."""
        return self._relay.merged(self._own())

    def relayed(self) -> list[RelayedFamily]:
        """What this process recorded, in the form in which a worker reports it to the daemon."""
        return relayed(self._own())

    def absorb(self, worker: str, families: Iterable[RelayedFamily]) -> None:
        """Take over the cumulative figures that ``worker`` reports."""
        self._relay.absorb(worker, families)

    def retire(self, worker: str) -> None:
        """``worker`` has ended: its counters stay counted, its gauges vanish."""
        self._relay.retire(worker)

    def shutdown(self) -> None:
        """Flush and stop exporters."""
        self._spans.shutdown()
        self._meters.shutdown()

    # --- inside -----------------------------------------------------------------------------------------------

    def _own(self) -> list[Metric]:
        with self._collecting:  # two collections at once would share out the exemplars between them
            data = self._reader.get_metrics_data()
            return families_of(data, self._specs, self._exemplars)

    def _instrument(self, spec: MetricSpec, kind: Kind) -> Any:
        try:
            return self._instruments[spec.name]
        except KeyError:
            pass
        if spec.kind is not kind:
            raise TypeError(f"{spec.name} is a {spec.kind}, not a {kind}")
        with self._lock:
            if spec.name not in self._instruments:
                self._instruments[spec.name] = self._create(spec)
                self._specs[spec.name] = spec
            return self._instruments[spec.name]

    def _create(self, spec: MetricSpec) -> Any:
        match spec.kind:
            case Kind.COUNTER:
                return self._meter.create_counter(spec.name, spec.unit, spec.description)
            case Kind.HISTOGRAM:
                return self._meter.create_histogram(
                    spec.name,
                    spec.unit,
                    spec.description,
                    explicit_bucket_boundaries_advisory=list(spec.buckets or ()),
                )
            case Kind.GAUGE:
                return self._meter.create_gauge(spec.name, spec.unit, spec.description)


def quiet_telemetry() -> Telemetry:
    """Telemetry that exports nothing: for tests and small tools."""
    return Telemetry()


def trace_id() -> str:
    """The current span's trace id as 32 hex digits, or ``""`` outside any span."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else ""


def _checked(spec: MetricSpec, attributes: Attributes) -> Attributes:
    for key in attributes:
        if key not in spec.attributes:
            raise ValueError(f"{spec.name} has no attribute {key!r} in the catalogue")
    return attributes
