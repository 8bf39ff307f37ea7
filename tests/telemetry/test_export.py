"""OTLP: with an endpoint in the environment spans and figures arrive there, a worker's in the daemon's trace."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.scheduling import Assignment
from agent.telemetry import start_telemetry, trace_headers, trace_id
from agent.telemetry.catalogue import DOCUMENTS_WRITTEN

ROOT = Path(__file__).parents[2]
WORKER = """
import json, sys
from agent.scheduling import Assignment, serve
from agent.telemetry import start_telemetry
sys.exit(serve(lambda *_: {"look": lambda context: {}}, telemetry=start_telemetry("worker")))
"""


class Collector:
    """Keeps what is posted to /v1/traces and /v1/metrics."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str]] = []
        self.metrics: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                component = names["service.instance.id"].partition("-")[0]
                for scope in resource.scope_spans:
                    self.spans += [(component, span.name, span.trace_id.hex()) for span in scope.spans]
        elif path == "/v1/metrics":
            for found in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {metric.name for scope in found.scope_metrics for metric in scope.metrics}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    found.thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    found.thread.join()


def test_a_worker_continues_the_trace_at_the_collector(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's span and its worker's have one trace id; the daemon's figures are pushed once, by the daemon."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    telemetry = start_telemetry("daemon", os.environ)
    with telemetry.span("backup"):
        trace = trace_id()
        telemetry.add(DOCUMENTS_WRITTEN, 1, {"origin": "control"})
        line = Assignment(operation="look", trace=trace_headers()).to_line()
        ended = subprocess.run(
            [sys.executable, "-c", WORKER], input=line, capture_output=True, text=True, cwd=ROOT, check=False
        )
    telemetry.shutdown()
    assert ended.returncode == 0, ended.stderr
    assert ("daemon", "backup", trace) in collector.spans
    assert ("worker", "worker look", trace) in collector.spans
    assert "firestore.documents.written" in collector.metrics


def test_without_an_endpoint_nothing_is_sent() -> None:
    """No exporter is built: a machine without a collector has no errors in its log."""
    telemetry = start_telemetry("daemon", {})
    with telemetry.span("quiet"):
        pass
    telemetry.shutdown()
