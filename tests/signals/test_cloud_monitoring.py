"""Cloud Monitoring on a real wire: what is asked, what is filed and when, what is said when it fails."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.api.distribution_pb2 import Distribution
from google.api.metric_pb2 import Metric
from google.cloud.monitoring_v3 import (
    Aggregation,
    ListTimeSeriesRequest,
    ListTimeSeriesResponse,
    Point,
    TimeInterval,
    TimeSeries,
    TypedValue,
)
from google.protobuf.timestamp_pb2 import Timestamp

from agent.clock import ManualClock, SystemClock
from agent.faults import Misconfigured, MisconfiguredReason, Permanent, RunbookdError, Transient, TransientReason
from agent.promql import Engine, Matrix, Vector, compile_expression
from agent.samples import Labels, Matcher, MatchOperator, SeriesStore, labels_of
from agent.signals import Freshness
from agent.signals.cloud_monitoring import METRICS, CloudMonitoringSource
from agent.telemetry import quiet_telemetry

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
REQUESTS = "firestore.googleapis.com/api/request_count"
LATENCIES = "firestore.googleapis.com/api/request_latencies"
WRITES = "firestore.googleapis.com/document/write_ops_count"
GROUPS = {REQUESTS: ["metric.label.api_method", "metric.label.response_code"], LATENCIES: ["metric.label.api_method"]}
_FILTER = re.compile(
    r'metric\.type = "(?P<type>[^"]+)" AND resource\.type = "firestore\.googleapis\.com/Database"'
    r' AND resource\.labels\.database_id = "\(default\)"'
)

Row = tuple[tuple[str, str], ...]


@dataclass
class Service:
    """A server of google.monitoring.v3.MetricService that refuses whatever it would not be asked in this way."""

    points: dict[str, dict[Row, dict[float, TypedValue]]] = field(default_factory=dict)
    asked: list[tuple[str, float, float]] = field(default_factory=list)
    failure: tuple[grpc.StatusCode, str] | None = None
    unknown: frozenset[str] = frozenset()
    unit: str = "s"

    def add(self, metric: str, end: float, value: int | Distribution, **labels: str) -> None:
        """What happened in the minute before ``end``."""
        kind = "int64_value" if isinstance(value, int) else "distribution_value"
        row = self.points.setdefault(metric, {}).setdefault(tuple(sorted(labels.items())), {})
        row[end] = TypedValue({kind: value})

    def list_time_series(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        request = ListTimeSeriesRequest.deserialize(raw)
        if self.failure is not None:
            context.abort(*self.failure)
        metric, problem = _checked(request)
        if problem:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        if metric in self.unknown:
            context.abort(grpc.StatusCode.NOT_FOUND, "The metric referenced by the provided filter is unknown.")
        after, until = _seconds(request)
        if not request.page_token:
            self.asked.append((metric, after, until))
        rows = sorted(self.points.get(metric, {}).items())
        at = int(request.page_token or 0)
        reply = ListTimeSeriesResponse(
            # One series a page, points newest first, as the service orders them.
            time_series=[
                TimeSeries(
                    metric=Metric(type=metric, labels=dict(labels)),
                    unit=self.unit if metric == LATENCIES else "1",
                    points=[
                        Point(interval=_interval(end), value=value)
                        for end, value in sorted(points.items(), reverse=True)
                        if after < end <= until
                    ],
                )
                for labels, points in rows[at : at + 1]
            ],
            next_page_token=str(at + 1) if at + 1 < len(rows) else "",
        )
        return bytes(ListTimeSeriesResponse.serialize(reply))


def _checked(request: ListTimeSeriesRequest) -> tuple[str, str]:
    """The metric type, and what is wrong with the request (nothing: empty)."""
    matched = _FILTER.fullmatch(request.filter)
    metric = matched["type"] if matched else ""
    wanted = Aggregation(
        alignment_period=timedelta(seconds=60),
        per_series_aligner=Aggregation.Aligner.ALIGN_DELTA,
        cross_series_reducer=Aggregation.Reducer.REDUCE_SUM,
        group_by_fields=GROUPS.get(metric, []),
    )
    checks = {
        "name": request.name == "projects/shop",
        "filter": metric in {metric.type for metric in METRICS},
        "aggregation": request.aggregation == wanted,
        "view": request.view == ListTimeSeriesRequest.TimeSeriesView.FULL,
        "interval": all(moment % 60 == 0 for moment in _seconds(request)),
    }
    return metric, ", ".join(name for name, right in checks.items() if not right)


def _seconds(request: ListTimeSeriesRequest) -> tuple[float, float]:
    """The interval asked for, in unix seconds; the end belongs to it, the start does not."""
    interval = ListTimeSeriesRequest.pb(request).interval
    return (
        interval.start_time.seconds + interval.start_time.nanos / 1e9,
        interval.end_time.seconds + interval.end_time.nanos / 1e9,
    )


def _interval(end: float) -> TimeInterval:
    return TimeInterval(start_time=Timestamp(seconds=int(end) - 60), end_time=Timestamp(seconds=int(end)))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def host(service: Service) -> Iterator[str]:
    """Where the service answers."""
    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(service.list_time_series)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("google.monitoring.v3.MetricService", {"ListTimeSeries": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


class World:
    """A source with its store, at 12:05:30: minutes up to 12:01 have settled."""

    def __init__(self, host: str) -> None:
        self.store = SeriesStore()
        self.clock = ManualClock(datetime.fromtimestamp(NOON + 330, UTC))
        self.freshness = Freshness(clock=self.clock, telemetry=quiet_telemetry())
        self.source = CloudMonitoringSource(
            project="shop",
            database="(default)",
            interval=60.0,
            store=self.store,
            freshness=self.freshness,
            clock=self.clock,
            host=host,
        )

    def readings(self, name: str, **labels: str) -> list[tuple[float, float]]:
        """Times after noon and values of one series, in its order."""
        wanted = labels_of(name, {"job": "cloud_monitoring", **labels})
        return self.all_readings(name).get(wanted, [])

    def all_readings(self, name: str) -> Mapping[Labels, list[tuple[float, float]]]:
        matrix = Engine(self.store).instant(compile_expression(f"{name}[1d]"), self.clock.now().timestamp())
        assert isinstance(matrix, Matrix)
        return {
            series.labels: [
                (round(float(time) - NOON, 3), float(value))
                for time, value in zip(series.timestamps, series.values, strict=True)
            ]
            for series in matrix.series
        }

    def value(self, expression: str) -> float:
        """The only element of an instant query."""
        vector = Engine(self.store).instant(compile_expression(expression), self.clock.now().timestamp())
        assert isinstance(vector, Vector)
        (element,) = vector.elements
        return element.value


@pytest.fixture
def world(host: str) -> Iterator[World]:
    world = World(host)
    yield world
    world.source.stop()


def test_settled_minutes_alone_are_asked_for_and_each_once(service: Service, world: World) -> None:
    """The interval ends on a whole minute 240 s ago, and the next poll carries on where this one ended."""
    world.source.poll()
    assert service.asked == [(metric.type, NOON - 540, NOON + 60) for metric in METRICS]
    service.asked.clear()
    world.clock.advance(25)
    world.source.poll()
    assert service.asked == []
    world.clock.advance(65)
    world.source.poll()
    assert service.asked == [(metric.type, NOON + 60, NOON + 180) for metric in METRICS]


def test_deltas_become_counters_at_the_points_own_times(service: Service, world: World) -> None:
    """From zero at the start of its first minute, a counter grows by every point, and stays through quiet minutes."""
    labels = {"api_method": "Commit", "response_code": "OK"}
    service.add(REQUESTS, NOON - 60, 30, **labels)
    service.add(REQUESTS, NOON + 60, 12, **labels)
    service.add(REQUESTS, NOON + 60, 2, api_method="Commit", response_code="UNAVAILABLE")
    service.add(REQUESTS, NOON + 120, 1000, **labels)  # has not settled
    world.source.poll()
    name = "cloud_firestore_api_requests_total"
    assert [r for r in world.readings(name, **labels) if r[0] % 1 == 0] == [(-60, 30), (0, 30), (60, 42)]
    assert world.readings(name, **labels)[0] == (-119.999, 0)
    assert world.readings(name, api_method="Commit", response_code="UNAVAILABLE") == [(0.001, 0), (60, 2)]
    assert len(world.all_readings(name)) == 2
    # A counter's first minute is seen, because it starts from a zero; increase() extrapolates by half a minute.
    assert world.value(f'increase({name}{{response_code="UNAVAILABLE"}}[10m])') == pytest.approx(3, abs=0.01)


def test_a_later_poll_goes_on_counting(service: Service, world: World) -> None:
    """Totals carry on from poll to poll; a minute without a point leaves them as they are."""
    service.add(WRITES, NOON + 60, 500)
    world.source.poll()
    service.add(WRITES, NOON + 180, 250)
    world.clock.advance(120)
    world.source.poll()
    whole = [r for r in world.readings("cloud_firestore_documents_written_total") if r[0] % 1 == 0]
    assert whole == [(60, 500), (120, 500), (180, 750)]


def test_points_from_before_are_ignored(service: Service, world: World) -> None:
    """A point that turns up in a minute already filed changes nothing, and nor does a clock that goes back."""
    service.add(WRITES, NOON + 60, 500)
    world.source.poll()
    before = world.readings("cloud_firestore_documents_written_total")
    service.add(WRITES, NOON, 7)
    service.add(WRITES, NOON + 60, 9000)
    world.clock.jump(-3600)
    world.source.poll()
    world.clock.jump(3600)
    world.clock.advance(60)
    world.source.poll()
    after = world.readings("cloud_firestore_documents_written_total")
    assert after == [*before, (120, 500)]


def test_a_distribution_becomes_a_histogram_in_seconds(service: Service, world: World) -> None:
    """Buckets are cumulative with upper bounds; buckets that the service leaves out at the end are empty ones."""
    explicit = Distribution.BucketOptions(explicit_buckets=Distribution.BucketOptions.Explicit(bounds=[10, 50, 100]))
    service.unit = "ms"
    service.add(
        LATENCIES,
        NOON + 60,
        Distribution(count=10, mean=40.0, bucket_options=explicit, bucket_counts=[1, 6, 3]),
        api_method="Commit",
    )
    world.source.poll()
    name = "cloud_firestore_api_request_duration_seconds"
    buckets = {
        bound: world.readings(f"{name}_bucket", api_method="Commit", le=bound)
        for bound in ("0.01", "0.05", "0.1", "+Inf")
    }
    assert buckets == {
        "0.01": [(0.001, 0), (60, 1)],
        "0.05": [(0.001, 0), (60, 7)],
        "0.1": [(0.001, 0), (60, 10)],
        "+Inf": [(0.001, 0), (60, 10)],
    }
    assert world.readings(f"{name}_count", api_method="Commit")[-1] == (60, 10)
    assert world.readings(f"{name}_sum", api_method="Commit")[-1][1] == pytest.approx(0.4)
    assert world.value(f"histogram_quantile(0.5, rate({name}_bucket[10m]))") == pytest.approx(0.01 + 0.04 * 4 / 6)


@pytest.mark.parametrize(
    ("options", "bounds"),
    [
        (
            Distribution.BucketOptions(
                exponential_buckets=Distribution.BucketOptions.Exponential(
                    num_finite_buckets=2, growth_factor=2, scale=0.5
                )
            ),
            {"0.5", "1", "2", "+Inf"},
        ),
        (
            Distribution.BucketOptions(
                linear_buckets=Distribution.BucketOptions.Linear(num_finite_buckets=2, width=0.25, offset=0.5)
            ),
            {"0.5", "0.75", "1", "+Inf"},
        ),
        (Distribution.BucketOptions(), {"+Inf"}),
    ],
    ids=["exponential", "linear", "none"],
)
def test_every_way_to_say_buckets(
    service: Service, world: World, options: Distribution.BucketOptions, bounds: set[str]
) -> None:
    """Exponential and linear buckets have one bound more than finite buckets."""
    service.add(LATENCIES, NOON + 60, Distribution(count=3, mean=0.6, bucket_options=options, bucket_counts=[0, 3]))
    world.source.poll()
    found = world.store.series(
        [
            Matcher(
                operator=MatchOperator.EQUAL,
                name="__name__",
                value="cloud_firestore_api_request_duration_seconds_bucket",
            )
        ]
    )
    assert {dict(labels)["le"] for labels in found} == bounds


def test_other_buckets_start_a_histogram_anew(service: Service, world: World) -> None:
    """Counts in different buckets are not added; the old buckets' series end."""
    for end, bounds in ((NOON, [0.1, 0.5]), (NOON + 60, [0.2])):
        options = Distribution.BucketOptions(explicit_buckets=Distribution.BucketOptions.Explicit(bounds=bounds))
        service.add(
            LATENCIES,
            end,
            Distribution(count=4, mean=0.05, bucket_options=options, bucket_counts=[4]),
            api_method="Commit",
        )
    world.source.poll()
    name = "cloud_firestore_api_request_duration_seconds_bucket"
    assert world.readings(name, api_method="Commit", le="0.5") == [(-59.999, 0), (0, 4)]
    assert world.readings(name, api_method="Commit", le="0.2") == [(0.001, 0), (60, 4)]


def test_a_metric_that_never_had_a_point_is_no_failure(service: Service, world: World) -> None:
    """In a new project the service doesn't know the type yet; the other metrics are filed."""
    service.unknown = frozenset({REQUESTS})
    service.add(WRITES, NOON + 60, 5)
    world.source.poll()
    assert world.readings("cloud_firestore_documents_written_total")[-1] == (60, 5)


def test_delivery_is_an_answer_not_a_point(world: World) -> None:
    """An idle database answers with nothing, and that is fresh; its patience keeps a minute's rhythm from alarming."""
    world.freshness.expect("cloud_monitoring", patience=300)
    world.clock.advance(100)
    world.source.poll()
    assert world.freshness.ages() == {"cloud_monitoring": 0.0}
    world.clock.advance(299)
    assert world.freshness.overdue(60) == {}
    world.clock.advance(2)
    assert world.freshness.overdue(60) == {"cloud_monitoring": 301.0}


@pytest.mark.parametrize(
    ("code", "kind", "reason", "hint"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, Misconfigured, MisconfiguredReason.CREDENTIALS, "roles/monitoring.viewer"),
        (grpc.StatusCode.UNAUTHENTICATED, Misconfigured, MisconfiguredReason.CREDENTIALS, "roles/monitoring.viewer"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Transient, TransientReason.RESOURCE_EXHAUSTED, ""),
        (grpc.StatusCode.UNAVAILABLE, Transient, TransientReason.UNAVAILABLE, ""),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Transient, TransientReason.DEADLINE_EXCEEDED, ""),
        (grpc.StatusCode.INTERNAL, Transient, TransientReason.SERVER_ERROR, ""),
    ],
)
def test_what_the_service_refuses_says_what_to_do(
    service: Service, world: World, code: grpc.StatusCode, kind: type[RunbookdError], reason: str, hint: str
) -> None:
    """A missing role names the role to grant; a quota passes; the minutes are read by the next poll."""
    service.add(WRITES, NOON + 60, 5)
    service.failure = (code, "no")
    with pytest.raises(kind, match="project shop") as caught:
        world.source.poll()
    assert caught.value.reason == reason
    assert hint in caught.value.hint
    assert world.store.metric_names() == []
    service.failure = None
    world.source.poll()
    assert world.readings("cloud_firestore_documents_written_total")[-1] == (60, 5)


def test_a_request_that_is_not_understood_is_permanent(service: Service, world: World) -> None:
    """INVALID_ARGUMENT will not get better by itself."""
    service.failure = (grpc.StatusCode.INVALID_ARGUMENT, "bad filter")
    with pytest.raises(Permanent, match="bad filter"):
        world.source.poll()


def test_an_outage_is_made_up_for_up_to_an_hour(service: Service, world: World) -> None:
    """After three hours without an answer, the last hour is read and the counter goes on."""
    service.add(WRITES, NOON + 60, 5)
    world.source.poll()
    service.asked.clear()
    world.clock.advance(3 * 3600)
    world.source.poll()
    end = NOON + 60 + 3 * 3600
    assert service.asked[0] == (REQUESTS, end - 3600, end)
    assert world.readings("cloud_firestore_documents_written_total")[-1] == (60 + 3 * 3600, 5)


def test_the_thread_polls_and_tells_its_problem(service: Service, host: str) -> None:
    """A failing poll is a problem to be read, and the thread lives on until it succeeds."""
    service.failure = (grpc.StatusCode.PERMISSION_DENIED, "no")
    clock, store = SystemClock(), SeriesStore()
    freshness = Freshness(clock=clock, telemetry=quiet_telemetry())
    source = CloudMonitoringSource(
        project="shop",
        database="(default)",
        interval=0.02,
        store=store,
        freshness=freshness,
        clock=clock,
        host=host,
    )
    minute = clock.now().timestamp() // 60 * 60
    for number in range(4, 12):
        service.add(WRITES, minute - 60 * number, 1)

    source.start()
    try:
        pause = threading.Event()
        assert any("monitoring.viewer" in source.problem() or pause.wait(0.02) for _ in range(250))
        service.failure = None
        assert any(bool(store.metric_names()) or pause.wait(0.02) for _ in range(250))
    finally:
        source.stop()
