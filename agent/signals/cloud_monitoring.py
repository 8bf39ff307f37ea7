"""Cloud Monitoring as a source of samples: what Google's own servers counted, seen from their side, minutes late.

Nothing urgent rests on it. Google samples these metrics every 60 s and documents that a point may stay invisible for up
to 240 s after that; with our own interval a figure here is four to six minutes old, which is more than a whole rollback
may take. Rules that page or roll back read the clients' own measurements. What this is for: seeing what no client of
ours sees (other services, the console, billing), and a second opinion in the report afterwards. Hence names of their
own, all with the prefix ``cloud_firestore_``, so that no rule on fresh figures ever reads a late one.

The service reports deltas: so many requests in this minute. They are added up into counters, because that is what
``rate()`` and ``histogram_quantile()`` read; ask with windows of ten minutes and more. Only minutes that have settled
are read, each once: a minute read too early would be counted short for ever. Samples carry the time of the point. A
point that becomes visible later than documented is not counted.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import google.auth.exceptions
import grpc
from google.api_core import exceptions
from google.cloud.monitoring_v3 import (
    Aggregation,
    ListTimeSeriesRequest,
    ListTimeSeriesResponse,
    MetricServiceClient,
    TimeInterval,
)
from google.cloud.monitoring_v3.services.metric_service.transports import MetricServiceGrpcTransport
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agent.clock import Clock
from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    RunbookdError,
    Transient,
    TransientReason,
)
from agent.samples import Labels, Sample, SeriesStore, labels_of
from agent.signals.freshness import Freshness
from agent.telemetry import Kind, MetricSpec
from agent.telemetry.catalogue import (
    CLOUD_DOCUMENTS_DELETED,
    CLOUD_DOCUMENTS_READ,
    CLOUD_DOCUMENTS_WRITTEN,
    CLOUD_REQUEST_DURATION,
    CLOUD_REQUESTS,
)

_log = logging.getLogger(__name__)

SOURCE = "cloud_monitoring"
# As the document counts of one database do; the older firestore_instance does not say which database.
_RESOURCE = "firestore.googleapis.com/Database"
_TARGET_LABELS: Mapping[str, str] = {"job": SOURCE}
_MINUTE_S = 60
_SETTLED_AFTER_S = 240
_FIRST_LOOK_S = 600
_LONGEST_GAP_S = 3600
_DEADLINE_S = 30.0
_SECONDS_PER_UNIT = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, kw_only=True)
class CloudMetric:
    """One of the service's metrics and the name we keep it under.

    Args:
        type: as in Google's list of metrics.
        spec: its attributes are the metric labels that are kept; the service adds up over all others.
    """

    type: str
    spec: MetricSpec


METRICS = (
    CloudMetric(type="firestore.googleapis.com/api/request_count", spec=CLOUD_REQUESTS),
    # Without the streaming calls (RunQuery, Listen, BatchGetDocuments): the service measures no latency of those.
    CloudMetric(type="firestore.googleapis.com/api/request_latencies", spec=CLOUD_REQUEST_DURATION),
    CloudMetric(type="firestore.googleapis.com/document/write_ops_count", spec=CLOUD_DOCUMENTS_WRITTEN),
    CloudMetric(type="firestore.googleapis.com/document/read_ops_count", spec=CLOUD_DOCUMENTS_READ),
    CloudMetric(type="firestore.googleapis.com/document/delete_ops_count", spec=CLOUD_DOCUMENTS_DELETED),
)


@dataclass(frozen=True, slots=True)
class _Point:
    """What was added to one series in the minute up to ``end`` (unix seconds).

    Args:
        family: the labels that the series of one histogram share.
        increments: by series; cumulative over the buckets, where there are any.
    """

    end: float
    family: Labels
    increments: Mapping[Labels, float]


class CloudMonitoringSource:
    """Asks the service every ``interval`` seconds, in a thread of its own.

    Args:
        project: whose metrics.
        database: its id, e.g. ``(default)``.
        interval: seconds between two polls; less than a minute finds nothing more.
        host: ``host:port`` of another server that speaks ``google.monitoring.v3`` without TLS; ``None`` is Google.

    Raises:
        Misconfigured: there are no credentials.
    """

    def __init__(
        self,
        *,
        project: str,
        database: str,
        interval: float,
        store: SeriesStore,
        freshness: Freshness,
        clock: Clock,
        host: str | None = None,
    ) -> None:
        self._project = project
        self._database = database
        self._interval = interval
        self._store = store
        self._freshness = freshness
        self._clock = clock
        self._client = _client(project, host)
        self._filed: float | None = None
        self._totals: dict[Labels, float] = {}
        self._shapes: dict[Labels, frozenset[Labels]] = {}
        self._problem = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._freshness.expect(SOURCE, patience=5 * max(self._interval, _MINUTE_S))
        self._thread = threading.Thread(target=self._loop, daemon=True, name=SOURCE)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        transport: Any = self._client.transport
        transport.close()  # ends a call under way
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def problem(self) -> str:
        """What was wrong with the last poll; empty if it went well."""
        return self._problem

    def poll(self) -> None:
        """Read the minutes that have settled since the last poll and file them; all of them, or none.

        Raises:
            Transient: the next poll may succeed, and will read what this one missed (up to an hour).
            Misconfigured: credentials, a role or an API is missing; the hint says what to grant.
            Permanent: the service does not understand the request.
        """
        now = self._clock.now().timestamp()
        # Whole minutes: the service cuts its periods backwards from the end of the interval, and two polls have to
        # cut at the same places.
        until = float((now - _SETTLED_AFTER_S) // _MINUTE_S * _MINUTE_S)
        after = self._filed if self._filed is not None else until - _FIRST_LOOK_S
        if until <= after:
            return
        after = max(after, until - _LONGEST_GAP_S)
        points = [point for metric in METRICS for point in self._points(metric, after, until)]
        self._file(points, after, until)
        self._filed = until
        self._freshness.delivered(SOURCE)

    def _loop(self) -> None:
        while not self._stop.is_set():
            before, problem = self._problem, ""
            try:
                self.poll()
            except RunbookdError as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001 - a bug costs one poll, not the thread
                problem = repr(error)
            self._problem = problem
            if problem and problem != before and not self._stop.is_set():
                _log.warning("Cloud Monitoring can't be read", extra={"why": problem})
            self._stop.wait(self._interval)

    # --- asking ---------------------------------------------------------------------------------------------------

    def _points(self, metric: CloudMetric, after: float, until: float) -> Iterator[_Point]:
        request = ListTimeSeriesRequest(
            name=f"projects/{self._project}",
            filter=(
                f'metric.type = "{metric.type}" AND resource.type = "{_RESOURCE}"'
                f' AND resource.labels.database_id = "{self._database}"'
            ),
            interval=TimeInterval(start_time=Timestamp(seconds=int(after)), end_time=Timestamp(seconds=int(until))),
            aggregation=Aggregation(
                alignment_period=Duration(seconds=_MINUTE_S),
                per_series_aligner=Aggregation.Aligner.ALIGN_DELTA,
                cross_series_reducer=Aggregation.Reducer.REDUCE_SUM,
                group_by_fields=[f"metric.label.{name}" for name in metric.spec.attributes],
            ),
            view=ListTimeSeriesRequest.TimeSeriesView.FULL,
        )
        with _translated(self._project, metric.type):
            try:
                # Not retried here: the next poll asks for the same minutes again.
                for page in self._client.list_time_series(request=request, retry=None, timeout=_DEADLINE_S).pages:
                    for series in ListTimeSeriesResponse.pb(page).time_series:
                        for point in series.points:
                            end = point.interval.end_time.seconds + point.interval.end_time.nanos / 1e9
                            if after < end <= until:
                                yield _point(metric.spec, series, end, point.value)
            except exceptions.NotFound:
                # A type that has never had a point in this project is unknown to the service: nothing was measured.
                _log.debug("no such metric yet", extra={"metric": metric.type})

    # --- filing ---------------------------------------------------------------------------------------------------

    def _file(self, points: Sequence[_Point], after: float, until: float) -> None:
        """One reading a minute with every counter, changed or not: a series left out would count as ended."""
        by_end: dict[float, list[_Point]] = defaultdict(list)
        for point in points:
            by_end[point.end].append(point)
        quiet = {after + number * _MINUTE_S for number in range(1, int((until - after) // _MINUTE_S) + 1)}
        for end in sorted(quiet | set(by_end)):
            self._file_minute(end, by_end[end])

    def _file_minute(self, end: float, points: Sequence[_Point]) -> None:
        for point in points:
            self._reshape(point)
        born = {labels for point in points for labels in point.increments if labels not in self._totals}
        if born:
            # Without a zero to start from, rate() would not see the first minute of a counter; with errors, that is
            # often the only one.
            self._totals.update(dict.fromkeys(born, 0.0))
            self._ingest(end - _MINUTE_S + 0.001)
        for point in points:
            for labels, increment in point.increments.items():
                self._totals[labels] += increment
        self._ingest(end)

    def _reshape(self, point: _Point) -> None:
        """Start a histogram anew whose buckets have changed: counts in different buckets can't be added."""
        shape = frozenset(point.increments)
        before = self._shapes.get(point.family, shape)
        self._shapes[point.family] = shape
        if before != shape:
            for labels in before:
                self._totals.pop(labels, None)

    def _ingest(self, at: float) -> None:
        if self._totals:
            self._store.ingest(SOURCE, at, [Sample(labels, value) for labels, value in self._totals.items()])


def _point(spec: MetricSpec, series: Any, end: float, value: Any) -> _Point:
    """A ``google.monitoring.v3.Point`` of a delta metric as increments of our series."""
    kept = {name: series.metric.labels[name] for name in spec.attributes if name in series.metric.labels}
    pairs = {**kept, **_TARGET_LABELS}
    name = spec.prometheus_name
    family = labels_of(name, pairs)
    if spec.kind is not Kind.HISTOGRAM:
        number = value.double_value if value.WhichOneof("value") == "double_value" else float(value.int64_value)
        return _Point(end, family, {family: number})
    distribution = value.distribution_value
    unit = _SECONDS_PER_UNIT.get(series.unit, 1.0)
    bounds = [f"{bound * unit:.9g}" for bound in _bounds(distribution.bucket_options)]
    # The service leaves out empty buckets at the end; the last one has no upper bound and is the count.
    counts = list(distribution.bucket_counts) + [0] * len(bounds)
    increments = {
        labels_of(f"{name}_bucket", {**pairs, "le": bound}): float(count)
        for bound, count in zip(bounds, accumulate(counts), strict=False)
    }
    increments[labels_of(f"{name}_bucket", {**pairs, "le": "+Inf"})] = float(distribution.count)
    increments[labels_of(f"{name}_count", pairs)] = float(distribution.count)
    increments[labels_of(f"{name}_sum", pairs)] = distribution.mean * distribution.count * unit
    return _Point(end, family, increments)


def _bounds(options: Any) -> list[float]:
    """Upper bounds of all buckets but the last; the three ways in which a distribution may say them."""
    match options.WhichOneof("options"):
        case "explicit_buckets":
            return list(options.explicit_buckets.bounds)
        case "exponential_buckets":
            way = options.exponential_buckets
            return [way.scale * way.growth_factor**number for number in range(way.num_finite_buckets + 1)]
        case "linear_buckets":
            way = options.linear_buckets
            return [way.offset + way.width * number for number in range(way.num_finite_buckets + 1)]
        case _:
            return []


def _client(project: str, host: str | None) -> MetricServiceClient:
    if host is not None:
        channel = grpc.insecure_channel(host, options=[("grpc.enable_http_proxy", 0)])
        return MetricServiceClient(transport=MetricServiceGrpcTransport(channel=channel))
    with _translated(project, "Cloud Monitoring"):
        return MetricServiceClient()


@contextmanager
def _translated(project: str, what: str) -> Iterator[None]:
    """The vendor's errors as ours."""
    where = f"reading {what} of project {project}"
    try:
        yield
    except google.auth.exceptions.TransportError as error:
        raise Transient(TransientReason.UNAVAILABLE, f"{where} failed: {error}") from error
    except google.auth.exceptions.GoogleAuthError as error:
        raise Misconfigured(
            MisconfiguredReason.CREDENTIALS,
            f"{where}: there are no usable credentials ({error})",
            hint="set GOOGLE_APPLICATION_CREDENTIALS, or signals.cloud_monitoring.enabled to false",
        ) from error
    except exceptions.GoogleAPICallError as error:
        raise _from_call_error(error, where, project) from error


def _from_call_error(error: exceptions.GoogleAPICallError, where: str, project: str) -> RunbookdError:
    said = f"{where} failed: {error.message}"
    match error:
        case exceptions.Forbidden() if error.reason == "SERVICE_DISABLED":
            return Misconfigured(
                MisconfiguredReason.CREDENTIALS,
                said,
                hint=f"gcloud services enable monitoring.googleapis.com --project {project}",
            )
        case exceptions.Forbidden() | exceptions.Unauthorized():
            return Misconfigured(
                MisconfiguredReason.CREDENTIALS,
                said,
                hint=f"grant roles/monitoring.viewer on project {project} to the account that runbookd runs as",
            )
        case exceptions.TooManyRequests():
            return Transient(TransientReason.RESOURCE_EXHAUSTED, said)
        case exceptions.GatewayTimeout():
            return Transient(TransientReason.DEADLINE_EXCEEDED, said)
        case exceptions.ServiceUnavailable() | exceptions.Cancelled():
            return Transient(TransientReason.UNAVAILABLE, said)
        case exceptions.ServerError():
            return Transient(TransientReason.SERVER_ERROR, said)
        case _:
            return Permanent(PermanentReason.INVALID, said)
