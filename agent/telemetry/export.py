"""Where telemetry goes: OTLP when the environment names an endpoint, and W3C trace context between processes.

Called by the daemon, the workers and the command line at start-up. OpenTelemetry's own environment variables are
honoured by its SDK: OTEL_EXPORTER_OTLP_ENDPOINT (and its per-signal forms), OTEL_SERVICE_NAME,
OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_SDK_DISABLED.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, propagate
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from agent import __version__
from agent.telemetry.facade import Telemetry

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def start_telemetry(component: str, environment: Mapping[str, str] = os.environ) -> Telemetry:
    """Telemetry of one process.

    Args:
        component: what this process is (``daemon``, ``worker``, ``cli``, ``application``); becomes
            ``service.instance.id``'s prefix, so that the processes of one service stay apart.
        environment: where OTEL_EXPORTER_OTLP_* are looked for.
    """
    resource = Resource.create(
        {
            "service.name": environment.get("OTEL_SERVICE_NAME", "runbookd"),
            "service.version": __version__,
            "service.instance.id": f"{component}-{os.getpid()}",
        }
    )
    processors: list[SpanProcessor] = []
    readers: list[MetricReader] = []
    if environment.get(_ENDPOINT) or environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        processors.append(BatchSpanProcessor(OTLPSpanExporter()))
    # A worker's figures reach the daemon over its pipe and are exported there, once.
    if component != "worker" and (environment.get(_ENDPOINT) or environment.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")):
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    return Telemetry(resource=resource, span_processors=processors, metric_readers=readers)


def trace_headers() -> dict[str, str]:
    """The current trace context as W3C headers, for a child process or a request."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


@contextmanager
def continued_trace(headers: Mapping[str, str]) -> Iterator[None]:
    """Spans of the block become children of the span that ``headers`` (from :func:`trace_headers`) describe."""
    token = context.attach(propagate.extract(dict(headers)))
    try:
        yield
    finally:
        context.detach(token)
