"""Scraping: what a target says is what the store gets, and silence is visible."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.exposition import generate_latest

from agent.clock import SystemClock
from agent.faults import Permanent
from agent.promql import Engine, Vector, compile_expression
from agent.samples import Matcher, MatchOperator, SeriesStore, labels_of
from agent.settings import ScrapeTarget
from agent.signals import ExpositionParser, Freshness, Scraper
from agent.telemetry import quiet_telemetry


def _parse(text: str) -> dict[str, float]:
    parser = ExpositionParser({"job": "application"})
    return {",".join(f"{k}={v}" for k, v in sample.labels if k != "job"): sample.value for sample in parser.parse(text)}


def test_values_labels_comments_and_timestamps() -> None:
    """Comments and blank lines are passed over; a target's timestamp doesn't become part of a label set."""
    text = (
        "# HELP a helps\n# TYPE a counter\n\n"
        'a_total{x="1",y="two words } and \\"quotes\\""} 5\n'
        "b 1.5e3 1700000000000\n"
        'c{le="+Inf"} NaN 1700000000000\n'
        "d +Inf\n# EOF\n"
    )
    values = _parse(text)
    assert values['__name__=a_total,x=1,y=two words } and "quotes"'] == 5
    assert values["__name__=b"] == 1500
    assert math.isnan(values["__name__=c,le=+Inf"])
    assert values["__name__=d"] == math.inf


def test_what_the_official_client_writes_is_understood_with_exemplars() -> None:
    """OpenMetrics from prometheus_client: every sample, and the trace id of the exemplar."""
    registry = CollectorRegistry()
    Counter("requests", "", ["code"], registry=registry).labels("200").inc(7)
    Gauge("temperature", "", registry=registry).set(-1.5)
    histogram = Histogram("latency_seconds", "", buckets=(0.1, 1.0), registry=registry)
    histogram.observe(0.05, {"trace_id": "abc123"})
    text = generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    samples = {sample.labels: sample for sample in ExpositionParser({"job": "application"}).parse(text)}
    job = {"job": "application"}
    assert samples[labels_of("requests_total", {"code": "200", **job})].value == 7
    assert samples[labels_of("temperature", job)].value == -1.5
    bucket = samples[labels_of("latency_seconds_bucket", {"le": "0.1", **job})]
    assert bucket.exemplar is not None
    assert (bucket.exemplar.trace_id, bucket.exemplar.value) == ("abc123", 0.05)


def test_a_targets_own_job_label_moves_aside() -> None:
    """As in Prometheus, the scraper's labels win and the target's are kept as exported_*."""
    sample = next(iter(ExpositionParser({"job": "application"}).parse('a{job="mine"} 1\n')))
    assert sample.labels == labels_of("a", {"job": "application", "exported_job": "mine"})


@pytest.mark.parametrize("line", ["<html>", "a one", 'a{b="c} 1'])
def test_a_line_that_is_no_sample_is_quoted(line: str) -> None:
    """A login page in place of metrics is an error, not an empty scrape."""
    with pytest.raises(Permanent, match="not a line of the Prometheus text format"):
        list(ExpositionParser({"job": "x"}).parse(line + "\n"))


@pytest.fixture
def target() -> Iterator[tuple[str, threading.Event]]:
    """A target that answers until the event is set."""
    broken = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"a 1\n"
            self.send_response(500 if broken.is_set() else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics", broken
        server.shutdown()
        thread.join()


def test_a_failing_target_is_down_and_its_series_end(target: tuple[str, threading.Event]) -> None:
    """up goes from 1 to 0 and the age of the source grows: blindness is visible."""
    url, broken = target
    store, telemetry, clock = SeriesStore(), quiet_telemetry(), SystemClock()
    freshness = Freshness(clock=clock, telemetry=telemetry)
    scraper = Scraper(
        [ScrapeTarget(job="application", url=url, interval=0.02)],
        store=store,
        freshness=freshness,
        clock=clock,
        telemetry=telemetry,
    )

    def up() -> float | None:
        return next((s.value for family in telemetry.families() for s in family.samples if s.name == "up"), None)

    def eventually(wanted: float) -> bool:
        pause = threading.Event()
        return any(up() == wanted or pause.wait(0.02) for _ in range(250))

    scraper.start()
    try:
        assert eventually(1.0)
        assert store.series([Matcher(operator=MatchOperator.EQUAL, name="__name__", value="a")])
        broken.set()
        assert eventually(0.0)
        assert set(freshness.ages()) == {f"scrape:application/{url.split('/')[2]}"}
    finally:
        scraper.stop()


def test_instances_of_one_job_do_not_end_each_others_series(target: tuple[str, threading.Event]) -> None:
    """Two replicas of an application: what one has not is no news of the other."""
    url, _ = target
    same = url.replace("127.0.0.1", "127.1")
    store, telemetry, clock = SeriesStore(), quiet_telemetry(), SystemClock()
    freshness = Freshness(clock=clock, telemetry=telemetry)
    scraper = Scraper(
        [ScrapeTarget(job="application", url=each, interval=0.2) for each in (url, same)],
        store=store,
        freshness=freshness,
        clock=clock,
        telemetry=telemetry,
    )
    engine = Engine(store)

    def number(query: str) -> float:
        vector = engine.instant(compile_expression(query), clock.now().timestamp())
        assert isinstance(vector, Vector)
        return vector.elements[0].value if vector.elements else 0.0

    pause = threading.Event()
    scraper.start()
    try:
        assert any(number("count(count_over_time(a[1m]) >= 3)") == 2 or pause.wait(0.02) for _ in range(250))
        assert any(number("count(a)") == 2 or pause.wait(0.02) for _ in range(250))
    finally:
        scraper.stop()


def test_what_counts_from_zero_is_known_by_its_type() -> None:
    """Counters and the parts of histograms, in the text format and in OpenMetrics; no gauge, no summary."""
    parser = ExpositionParser({"job": "application"})
    text = (
        "# TYPE old_total counter\nold_total 1\n# TYPE new counter\nnew_total 1\n# TYPE t gauge\nt 1\n"
        "# TYPE h histogram\nh_count 1\n# TYPE s summary\ns_count 1\n# TYPE\n# HELP counter counter\n"
    )
    assert len(list(parser.parse(text))) == 5
    assert {"old_total", "new_total", "h_bucket", "h_count", "h_sum"} <= parser.counters
    assert not {"t", "s_count", "s_sum", "counter"} & parser.counters
