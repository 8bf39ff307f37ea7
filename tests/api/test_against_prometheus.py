"""The read API held to a real Prometheus that scrapes the same process: shapes, numbers, error types.

Debian's Prometheus 2.42 reads our own ``/metrics`` while our store reads the same instruments; the same requests then
go to both. Messages may differ in words; everything a program looks at may not.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.alerting import RuleEvaluator, load_rules
from agent.api import ApiServer, Sources, create_app
from agent.clock import SystemClock
from agent.promql import Engine
from agent.runbook import load_runbook
from agent.samples import SeriesStore
from agent.signals import Freshness, InstrumentSource
from agent.state import StateFile
from agent.telemetry import quiet_telemetry
from agent.telemetry.catalogue import DB_OPERATION_DURATION, DOCUMENTS_WRITTEN, RUNBOOK_THRESHOLD
from tests.api.conftest import ROOT
from tests.conftest import binary, free_port

pytestmark = pytest.mark.prometheus

RULES = """
groups:
  - name: first
    interval: 1s
    rules:
      - record: thresholds:count
        expr: count(runbook_threshold)
      - record: thresholds:labelled
        expr: max by (level) (runbook_threshold{metric="tenth"})
        labels: {team: db}
      - alert: Firing
        expr: runbook_threshold{metric="tenth"} > 0.05
        labels: {severity: critical}
        annotations: {summary: "it is {{ $value }}"}
      - alert: Pending
        expr: runbook_threshold{metric="tenth"} > 0.05
        for: 1h
        keep_firing_for: 90s
  - name: second
    interval: 2s
    rules:
      - alert: Quiet
        expr: runbook_threshold{metric="tenth"} > 99
"""
ODD = {
    "tenth": 0.1, "tiny": 1.5e-7, "huge": 1.25e21, "whole": 1_234_567.0, "nan": float("nan"),
    "up": float("inf"), "down": float("-inf"), "less": -0.5, "third": 1 / 3,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Both:
    """Two servers that should answer alike, and moments (unix seconds) at which both have samples."""

    ours: str
    theirs: str
    begin: float
    end: float

    def ask(self, method: str, path: str, **parameters: Any) -> tuple[httpx.Response, httpx.Response]:
        sent: dict[str, Any] = {"data" if method == "POST" else "params": parameters} if parameters else {}
        ours, theirs = (
            httpx.request(method, f"{base}/api/v1{path}", timeout=10.0, **sent) for base in (self.ours, self.theirs)
        )
        return ours, theirs


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    prometheus = binary("prometheus", "prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "rules.yaml").write_text(RULES)
    clock, telemetry, store = SystemClock(), quiet_telemetry(), SeriesStore()
    for metric, value in ODD.items():
        telemetry.set(RUNBOOK_THRESHOLD, value, {"metric": metric, "level": "warning"})
    telemetry.add(DOCUMENTS_WRITTEN, 5, {"origin": "undo"})
    with telemetry.span("an operation"):
        telemetry.record(DB_OPERATION_DURATION, 0.42, {"db.query.summary": "user_lookup"})
    engine = Engine(store)
    state = StateFile(folder / "state.db")
    evaluator = RuleEvaluator(
        rules=load_rules([folder / "rules.yaml"]),
        engine=engine,
        store=store,
        state=state,
        clock=clock,
        telemetry=telemetry,
    )
    page = load_runbook(ROOT / "runbooks" / "firestore-operations.md")
    sources = Sources(
        policy=lambda: page,
        store=store,
        engine=engine,
        rules=evaluator,
        started_at=clock.now(),
        alive=lambda: True,
        problems=dict,
        database_health=dict,
        migration_status=dict,
        backup_status=dict,
        metrics=dict,
        families=telemetry.families,
        recent=tuple,
        schedule=dict,
        automation=dict,
        clock=clock,
    )
    server = ApiServer(create_app(sources), host="127.0.0.1", port=0)
    server.start()
    theirs = f"http://127.0.0.1:{free_port()}"
    process = _start(prometheus, folder, server.port, theirs)
    instruments = InstrumentSource(
        telemetry=telemetry, store=store, freshness=Freshness(clock=clock, telemetry=telemetry), clock=clock
    )
    try:
        begin = end = 0.0
        deadline = time.monotonic() + 40
        while not begin or end < begin + 4:
            assert time.monotonic() < deadline, "Prometheus does not come up"
            assert process.poll() is None, "Prometheus ended"
            instruments.collect()
            evaluator.tick(clock.now())
            time.sleep(0.5)  # a real server's own rhythm
            if _sees(theirs, 'ALERTS{alertname="Pending"}'):
                end = float(int(time.time()))
                begin = begin or end + 1
        yield Both(ours=server.url.rstrip("/"), theirs=theirs, begin=begin, end=end)
    finally:
        process.kill()
        process.wait()
        server.stop()
        state.close()


def _start(prometheus: str, folder: Path, port: int, address: str) -> subprocess.Popen[bytes]:
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": [
            {
                "job_name": "runbookd",
                "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
                "metric_relabel_configs": [{"action": "labeldrop", "regex": "instance"}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    return subprocess.Popen(
        [
            prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address.removeprefix('http://')}",
            "--enable-feature=exemplar-storage",
            "--log.level=error",
        ]
    )


def _sees(address: str, expression: str) -> bool:
    try:
        answer = httpx.get(f"{address}/api/v1/query", params={"query": expression}, timeout=5.0).json()
    except (httpx.HTTPError, ValueError):
        return False
    return bool(answer.get("data", {}).get("result"))


def _told(answer: httpx.Response) -> Any:
    """Status and body, without words that are for people."""
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()
    body.pop("warnings", None)
    if body["status"] == "error":
        assert body.pop("error")
    return answer.status_code, body


QUERIES = [
    "runbook_threshold",
    'runbook_threshold{metric="huge"} / 7',
    'sum by (level) (runbook_threshold{metric=~"t.*"})',
    "1 / 3",
    "vector(1e300)",
    "scalar(firestore_documents_written_total)",
    '"a string"',
    "nothing_of_that_name",
    "db_client_operation_duration_seconds_bucket",
    "thresholds:labelled",
    "ALERTS",
    "1 / 0",
    "-1 / 0",
    "0 / 0",
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("query", QUERIES)
def test_instant_queries_answer_alike(both: Both, query: str, method: str) -> None:
    """The same result, number by number, in the same writing."""
    ours, theirs = both.ask(method, "/query", query=query, time=str(both.end))
    assert _sorted(_told(ours)) == _sorted(_told(theirs))


@pytest.mark.parametrize("query", [query for query in QUERIES if query[0] != '"' and not query.startswith("ALERTS")])
def test_range_queries_answer_alike(both: Both, query: str) -> None:
    """The same matrix, timestamps included."""
    for step in ("1", "0.5", "2s"):
        ours, theirs = both.ask("GET", "/query_range", query=query, start=both.begin, end=both.end - 0.25, step=step)
        assert _sorted(_told(ours)) == _sorted(_told(theirs))


def _sorted(told: Any) -> Any:
    """Elements in label order: Prometheus leaves the order of an instant vector open."""
    status, body = told
    result = body.get("data", {}).get("result") if isinstance(body.get("data"), dict) else None
    if isinstance(result, list) and result and isinstance(result[0], dict):
        result.sort(key=lambda element: sorted(element["metric"].items()))
    return status, body


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("/query", {}),
    ("/query", {"query": ""}),
    ("/query", {"query": "1 +"}),
    ("/query", {"query": "rate(runbook_threshold)"}),
    ("/query", {"query": "1", "time": "yesterday"}),
    ("/query", {"query": "1", "time": "2026-01-01T00:00:00"}),
    ("/query", {"query": "1", "timeout": "soon"}),
    ("/query", {"query": "runbook_threshold * on (level) group_left runbook_threshold"}),
    ("/query_range", {"query": "1"}),
    ("/query_range", {"query": "1", "start": 0, "end": 10}),
    ("/query_range", {"query": "1", "start": 10, "end": 0, "step": 1}),
    ("/query_range", {"query": "1", "start": 0, "end": 10, "step": 0}),
    ("/query_range", {"query": "1", "start": 0, "end": 10, "step": -1}),
    ("/query_range", {"query": "1", "start": 0, "end": 10, "step": "often"}),
    ("/query_range", {"query": "1", "start": 0, "end": 11_001, "step": 1}),
    ("/query_range", {"query": "runbook_threshold[5m]", "start": 0, "end": 10, "step": 1}),
    ("/query_range", {"query": '"text"', "start": 0, "end": 10, "step": 1}),
    ("/series", {}),
    ("/series", {"match[]": "rate(x[5m])"}),
    ("/series", {"match[]": "{}"}),
    ("/series", {"match[]": "x offset 5m"}),
    ("/series", {"match[]": "x", "start": "soon"}),
    ("/labels", {"match[]": '{a=~".*"}'}),
    ("/labels", {"start": "soon"}),
    ("/label/level/values", {"match[]": "1"}),
    ("/rules", {"type": "other"}),
    ("/query_exemplars", {"query": "1 +"}),
    ("/metadata", {"limit": "many"}),
]


@pytest.mark.parametrize(("path", "parameters"), WRONG, ids=lambda value: str(value))
def test_what_is_wrong_is_wrong_alike(both: Both, path: str, parameters: dict[str, Any]) -> None:
    """The same status and the same error type."""
    ours, theirs = both.ask("GET", path, **parameters)
    assert _told(ours) == _told(theirs)


RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("/query_range", {"query": "1", "start": 0, "end": 11_000, "step": 1}),
    ("/query_range", {"query": "1", "start": 0, "end": 0, "step": "1m"}),
    ("/query", {"query": "1", "time": "2026-01-01T00:00:00.5Z"}),
    ("/query", {"query": "1", "time": "2026-01-01T02:00:00+02:00"}),
    ("/series", {"match[]": "runbook_threshold"}),
    ("/series", {"match[]": ["runbook_threshold", 'firestore_documents_written_total{origin="undo"}']}),
    ("/series", {"match[]": "nothing_of_that_name"}),
    ("/labels", {"match[]": "runbook_threshold"}),
    ("/label/level/values", {}),
    ("/label/metric/values", {"match[]": 'runbook_threshold{metric=~"t.*"}'}),
    ("/label/nothing/values", {}),
    ("/metadata", {"metric": "runbook_threshold"}),
    ("/metadata", {"metric": "db_client_operation_duration_seconds"}),
    ("/metadata", {"metric": "nothing_of_that_name"}),
    ("/metadata", {"limit": "0"}),
]


@pytest.mark.parametrize(("path", "parameters"), RIGHT, ids=lambda value: str(value))
def test_what_is_right_is_answered_alike(both: Both, path: str, parameters: dict[str, Any]) -> None:
    """The same data, to the letter."""
    ours, theirs = both.ask("GET", path, **parameters)
    assert _told(ours) == _told(theirs)


def test_answers_are_the_same_bytes(both: Both) -> None:
    """Order of keys, blanks, digits of numbers and moments: a reader that doesn't parse JSON sees no difference.

    What is left out differs by nature: exemplars, rules and alerts hold moments of each server's own evaluations (those
    of Prometheus in nanoseconds) and how long they took; the sorting of an instant vector of several elements is left
    open by Prometheus; it writes <, > and & in a label's value as \\u003c and so on, the same JSON value.
    """
    known: dict[str, Any] = {"match[]": "runbook_threshold", "start": both.begin, "end": both.end}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        *(("GET", path, parameters) for path, parameters in RIGHT),
        *(("GET", path, known) for path in ("/series", "/labels", "/label/metric/values")),
        *(("POST", path, known) for path in ("/series", "/labels")),
    ]
    for query in QUERIES:
        if not query.startswith("ALERTS"):
            asked.extend((method, "/query", {"query": query, "time": both.end - 0.25}) for method in ("GET", "POST"))
        if query[0] != '"' and not query.startswith("ALERTS"):
            span = {"query": query, "start": both.begin, "end": both.end - 0.25}
            asked.extend(("GET", "/query_range", {**span, "step": step}) for step in ("1", "0.05", "2s"))
    for method, path, parameters in asked:
        ours, theirs = both.ask(method, path, **parameters)
        what = (method, path, parameters)
        assert (ours.status_code, ours.headers["content-type"]) == (200, theirs.headers["content-type"]), what
        if (
            path == "/query"
            and len(theirs.json()["data"]["result"]) > 1
            and theirs.json()["data"]["resultType"] == "vector"
        ):
            assert sorted(_elements(ours.content)) == sorted(_elements(theirs.content)), what
        else:
            assert ours.content == theirs.content, what


def _elements(vector: bytes) -> list[bytes]:
    """The elements of an instant vector, as they were written, with the envelope as the first."""
    head, _, body = vector.partition(b'"result":[')
    return [head, *body.removesuffix(b"]}}").removeprefix(b"{").removesuffix(b"}").split(b"},{")]


@pytest.mark.parametrize(("path", "parameters"), WRONG, ids=lambda value: str(value))
def test_errors_are_the_same_bytes_but_for_their_words(both: Both, path: str, parameters: dict[str, Any]) -> None:
    """Status, header, order of keys and error type; the words are ours, because they go on to say what to do."""
    ours, theirs = both.ask("GET", path, **parameters)
    assert (ours.status_code, ours.headers["content-type"]) == (theirs.status_code, theirs.headers["content-type"])
    assert _without_words(ours) == _without_words(theirs)


def _without_words(answer: httpx.Response) -> bytes:
    words = re.search(rb'"error":("(?:[^"\\]|\\.)+")', answer.content)
    assert words is not None
    return answer.content.replace(words[1], b'"words"')


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_probes_of_a_prometheus_are_answered(both: Both, path: str, method: str) -> None:
    """The same status and kind of text, in a name of our own; HEAD has no body."""
    ours, theirs = (httpx.request(method, f"{base}{path}", timeout=10.0) for base in (both.ours, both.theirs))
    assert ours.status_code == theirs.status_code == 200
    assert ours.text == theirs.text.replace("Prometheus Server is Healthy", "runbookd is healthy").replace(
        "Prometheus Server is Ready", "runbookd is ready"
    )
    if method == "GET":
        assert ours.headers["content-type"] == theirs.headers["content-type"]


def test_addresses_that_are_not_there_have_the_same_status(both: Both) -> None:
    """Unknown ones are 404, other methods 405; Prometheus says so in plain text, we in JSON with a hint."""
    for method, path in (("GET", "/nothing"), ("POST", "/label/level/values"), ("DELETE", "/query")):
        ours, theirs = both.ask(method, path)
        assert ours.status_code == theirs.status_code
        assert ours.json()["hint"]


def test_series_and_labels_of_a_time_that_both_know(both: Both) -> None:
    """With start and end of the present, what both have is found."""
    for path in ("/series", "/labels", "/label/metric/values"):
        ours, theirs = both.ask("GET", path, **{"match[]": "runbook_threshold", "start": both.begin, "end": both.end})
        assert _told(ours) == _told(theirs)
        assert ours.json()["data"]


def test_exemplars_look_alike(both: Both) -> None:
    """The trace of a slow operation is found under its bucket; Prometheus keeps the span beside it."""
    query = "rate(db_client_operation_duration_seconds_bucket[5m])"
    ours, theirs = both.ask("GET", "/query_exemplars", query=query, start=0, end=both.end + 60)
    (found,), (expected,) = ours.json()["data"], theirs.json()["data"]
    assert found["seriesLabels"] == expected["seriesLabels"]
    (mine,), (its,) = found["exemplars"], expected["exemplars"]
    assert mine["labels"]["trace_id"] == its["labels"]["trace_id"]
    assert mine["value"] == its["value"]
    assert mine["timestamp"] == pytest.approx(its["timestamp"], abs=0.002)  # theirs is cut, ours rounded


def test_rules_and_alerts_look_alike(both: Both) -> None:
    """The same keys with values of the same kind, the same states, values and labels."""
    for path in ("/rules", "/rules?type=alert", "/rules?type=record", "/alerts"):
        ours, theirs = both.ask("GET", path)
        # Prometheus 3 leaves out the groups of which nothing was asked for; 2.42 still lists them.
        expected = theirs.json()
        if "groups" in expected["data"]:
            expected["data"]["groups"] = [group for group in expected["data"]["groups"] if group["rules"]]
        assert _plain(ours.json()) == _plain(expected), path


def test_the_build_is_described_alike(both: Both) -> None:
    """Grafana reads the version out of the same keys."""
    ours, theirs = both.ask("GET", "/status/buildinfo")
    assert ours.json()["data"].keys() == theirs.json()["data"].keys()


_MOMENTS = {"lastEvaluation", "activeAt"}
_SECONDS = {"evaluationTime"}


def _plain(node: Any) -> Any:
    """Without what differs by nature: moments and durations become their kind."""
    if isinstance(node, dict):
        return {
            key: "a moment" if key in _MOMENTS else "seconds" if key in _SECONDS else _plain(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return sorted((_plain(item) for item in node), key=lambda item: json.dumps(item, sort_keys=True))
    return node
