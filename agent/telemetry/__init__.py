"""telemetry: what the product says about itself.

Belongs here: the catalogue of every metric, the OpenTelemetry set-up (spans, instruments, OTLP), the Prometheus and
OpenMetrics exposition, JSON logs with trace ids, progress values, and the relay that brings a worker's telemetry
into the daemon. Does not belong here: what the figures mean (rules), where they are kept (samples) and where they
come from outside this process (signals).
"""

from agent.telemetry.catalogue import CATALOGUE, Kind, MetricSpec, by_prometheus_name
from agent.telemetry.export import continued_trace, start_telemetry, trace_headers
from agent.telemetry.facade import Telemetry, quiet_telemetry, trace_id
from agent.telemetry.logs import start_logging
from agent.telemetry.progress import Progress, ProgressSink, ignore_progress

__all__ = [
    "CATALOGUE",
    "Kind",
    "MetricSpec",
    "Progress",
    "ProgressSink",
    "Telemetry",
    "by_prometheus_name",
    "continued_trace",
    "ignore_progress",
    "quiet_telemetry",
    "start_logging",
    "start_telemetry",
    "trace_headers",
    "trace_id",
]
