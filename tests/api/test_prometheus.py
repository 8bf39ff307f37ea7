"""The read API where Debian's Prometheus can't be asked: limits, times, order, many clients at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from agent.api.answers import number
from agent.api.prometheus import router
from agent.promql import format_exponent
from agent.samples import Exemplar, Sample, labels_of
from tests.api.conftest import World


def _series(world: World, count: int) -> None:
    world.store.ingest("many", world.at(0), [Sample(labels_of("n", {"i": str(i)}), float(i)) for i in range(count)])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0, "-0"), (1e-6, "0.000001"), (9e-7, "9e-07"), (1e20, "100000000000000000000"), (1e21, "1e+21"),
     (-1.5e300, "-1.5e+300"), (0.1, "0.1"), (float("nan"), "NaN"), (float("inf"), "+Inf")],
)  # fmt: skip
def test_numbers_take_an_exponent_only_far_from_one(value: float, text: str) -> None:
    """Below a millionth and from 1e21 on."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.05, "5e-02"), (1234.5, "1.2345e+03"), (0.0, "0e+00"), (-3.0, "-3e+00"), (1e100, "1e+100")]
)
def test_an_alerts_value_always_has_an_exponent(value: float, text: str) -> None:
    """As Prometheus writes it, so that what reads one reads the other."""
    assert format_exponent(value) == text


def test_a_limit_cuts_and_says_so(world: World) -> None:
    """Queries, series, labels and values are cut at the limit, with a warning; uncut ones carry none."""
    _series(world, 5)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/api/v1/query", {"query": "n", "time": world.at(0)}),
        ("/api/v1/query_range", {"query": "n", "start": world.at(0), "end": world.at(1), "step": 1}),
        ("/api/v1/series", {"match[]": "n"}),
        ("/api/v1/label/i/values", {}),
        ("/api/v1/label/i/values", {"match[]": "n"}),
    ]
    for path, parameters in asked:
        for limit, expected in ((0, 5), (2, 2), (5, 5), (9, 5)):
            body = world.client.get(path, params={**parameters, "limit": limit}).json()
            found = body["data"]["result"] if isinstance(body["data"], dict) else body["data"]
            assert len(found) == expected
            assert ("warnings" in body) is (expected < 5)


def test_remarks_stand_beside_the_answer(world: World) -> None:
    """Warnings and infos with their places, no more than ten of each; none where there is nothing to say."""
    _series(world, 3)
    moment, span = {"time": world.at(0)}, {"start": world.at(0), "end": world.at(1), "step": 1}
    body = world.client.get("/api/v1/query", params={"query": "quantile(2, n) + sum(rate(n[5m]))", **moment}).json()
    assert body["warnings"] == ["PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)"]
    assert "infos" not in body  # a rate of one sample is nothing to remark on
    many = " or ".join(f"quantile({number}, n)" for number in range(2, 15))
    body = world.client.get("/api/v1/query_range", params={"query": many, **span}).json()
    assert len(body["warnings"]) == 11
    assert body["warnings"][-1] == "3 more warning annotations omitted"
    assert not {"warnings", "infos"} & world.client.get("/api/v1/query", params={"query": "n", **moment}).json().keys()


def test_a_query_may_ask_for_less_time(world: World) -> None:
    """What takes longer ends with Prometheus's error for it."""
    for path, more in (("query", {}), ("query_range", {"start": 0, "end": 10, "step": 1})):
        answer = world.client.get(f"/api/v1/{path}", params={"query": "sum(n)", "timeout": "-1s", **more})
        assert answer.json()["errorType"] in ("timeout", "bad_data")
        answer = world.client.get(f"/api/v1/{path}", params={"query": "sum(n)", "timeout": "0.000001", **more})
        assert (answer.status_code, answer.json()["errorType"]) == (503, "timeout")
        assert "query timed out" in answer.json()["error"]


def test_a_limit_must_be_a_number(world: World) -> None:
    """What isn't one is refused instead of being ignored."""
    for limit in ("-1", "x", "1.5"):
        answer = world.client.get("/api/v1/query", params={"query": "1", "limit": limit})
        assert (answer.status_code, answer.json()["errorType"]) == (400, "bad_data")


def test_series_are_found_in_the_time_asked_for(world: World) -> None:
    """A series that ended before the span, or began after it, is not listed; without a span it is."""
    for second in range(600):
        values = {"always": 1.0} | ({"early": 1.0} if second < 100 else {}) | ({"late": 1.0} if second > 500 else {})
        world.deliver(**values)
        world.clock.advance(1)
    match = '{job="app"}'

    def names(**span: float) -> set[str]:
        return {labels["__name__"] for labels in world.get("/api/v1/series", match=match, **span)}

    assert names() == {"always", "early", "late"}
    assert names(start=world.at(0), end=world.at(50)) == {"always", "early"}
    assert names(start=world.at(200), end=world.at(400)) == {"always"}
    assert names(start=world.at(200)) == {"always", "late"}
    assert names(end=world.at(99)) == {"always", "early"}
    assert world.get("/api/v1/label/__name__/values", match=match, start=world.at(550)) == ["always", "late"]


@pytest.mark.parametrize(
    ("name", "values"),
    [("tenant.id", ["7"]), ("U__tenant_2e_id", ["7"]), ("straße", ["9"]), ("U__stra_df_e", ["9"]), ("U__a__b", ["8"]),
     ("U___d800_", []), ("U__a_b", ["1"]), ("no-name", [])],
)  # fmt: skip
def test_a_labels_name_may_be_any_text(world: World, name: str, values: list[str]) -> None:
    """Plain or in Prometheus's value encoding, which Grafana uses for names that are no words."""
    labels = {"tenant.id": "7", "a_b": "8", "straße": "9", "U__a_b": "1"}
    world.store.ingest("many", world.at(0), [Sample(labels_of("n", labels), 1.0)])
    assert world.get(f"/api/v1/label/{name}/values") == values


def test_a_time_without_a_date_means_now(world: World) -> None:
    """A query without ``time`` is evaluated at the daemon's now."""
    world.clock.advance(90)
    assert world.get("/api/v1/query", query="time()")["result"] == [world.at(90), str(int(world.at(90)))]


def test_a_form_comes_before_the_address(world: World) -> None:
    """A parameter that is given in both is the form's, as with Prometheus."""
    answer = world.client.post("/api/v1/query?query=1", data={"query": "2"})
    assert answer.json()["data"]["result"][1] == "2"


def test_a_form_of_any_size_is_not_read(world: World) -> None:
    """More than a mebibyte is no query; it is turned away before it fills the memory."""
    answer = world.client.post("/api/v1/query", data={"query": "1" * (1 << 21)})
    assert (answer.status_code, answer.json()["errorType"]) == (413, "bad_data")


def test_what_the_data_do_not_allow_is_an_execution_error(world: World) -> None:
    """The query is well written, and two series meet that must not: 422."""
    _series(world, 2)
    answer = world.client.get("/api/v1/query", params={"query": "n * on () n", "time": world.at(0)})
    assert (answer.status_code, answer.json()["errorType"]) == (422, "execution")


def test_what_the_engine_can_not_do_is_said_as_bad_data(world: World) -> None:
    """PromQL that isn't supported is refused with a hint, never answered wrongly."""
    for parameters in ({"query": "info(n)"}, {"query": "+".join("n" * 9_000)}, {"query": "n", "lookback_delta": "1m"}):
        answer = world.client.get("/api/v1/query", params=parameters)
        assert (answer.status_code, answer.json()["errorType"]) == (400, "bad_data")


def test_a_bug_is_answered_in_the_envelope(world: World) -> None:
    """A client of this API never sees anything but its envelope."""
    answer = world.broken(engine=None).get("/api/v1/query", params={"query": "1"})
    assert answer.status_code == 500
    assert answer.json()["status"] == "error"
    assert answer.json()["errorType"] == "internal"


def test_rules_can_be_chosen(world: World) -> None:
    """By kind, by name, by group and without their alerts."""
    world.run(5, error_ratio=0.5)

    def names(**parameters: Any) -> list[str]:
        answer = world.client.get("/api/v1/rules", params=parameters).json()
        return [rule["name"] for group in answer["data"]["groups"] for rule in group["rules"]]

    assert names() == ["job:requests:rate30s", "ErrorRateHigh", "TargetDown"]
    assert names(type="record") == ["job:requests:rate30s"]
    assert names(**{"rule_name[]": "TargetDown"}) == ["TargetDown"]
    assert names(**{"rule_group[]": "database", "type": "alert"}) == ["ErrorRateHigh"]
    bare = world.client.get("/api/v1/rules", params={"exclude_alerts": "true"}).json()
    assert "alerts" not in bare["data"]["groups"][0]["rules"][1]


def test_a_recovering_alert_still_fires(world: World) -> None:
    """What Prometheus has no state for shows as firing; then it is gone."""
    world.run(6, up=0.0)
    world.run(5, up=1.0)
    assert [str(alert.state) for alert in world.evaluator.active()] == ["recovering"]
    (alert,) = world.get("/api/v1/alerts")["alerts"]
    assert alert["state"] == "firing"
    world.run(15, up=1.0)
    assert world.get("/api/v1/alerts") == {"alerts": []}


def test_exemplars_are_those_of_the_series_a_query_reads(world: World) -> None:
    """Traces are found by the query's own selectors, within the time asked for."""
    labels = labels_of("slow_bucket", {"le": "1"})
    for second in (0, 60):
        exemplar = Exemplar(trace_id=f"{second:032x}", value=0.5, timestamp=world.at(second))
        world.store.ingest("app", world.at(second), [Sample(labels, 1.0, exemplar)])
    query = "histogram_quantile(0.9, rate(slow_bucket[5m]))"
    (found,) = world.get("/api/v1/query_exemplars", query=query, start=world.at(0), end=world.at(30))
    assert found["seriesLabels"] == {"__name__": "slow_bucket", "le": "1"}
    assert [exemplar["timestamp"] for exemplar in found["exemplars"]] == [world.at(0)]
    assert world.get("/api/v1/query_exemplars", query="other", start=world.at(0), end=world.at(30)) == []


def test_only_a_few_queries_run_at_a_time_and_the_rest_give_up(world: World) -> None:
    """While two queries run a third waits without a thread, and is told to try again when it has waited enough."""
    gate, inside = threading.Event(), threading.Semaphore(0)

    class Slow:
        """An engine whose queries end when the test says so."""

        way = world.engine.way

        def query(self, plan: object, at: float, *, timeout: float | None) -> object:
            inside.release()
            assert gate.wait(20)
            return world.engine.query(plan, at, timeout=timeout)  # type: ignore[arg-type]

    app = FastAPI()
    sources = type(world.sources)(**{**vars(world.sources), "engine": Slow()})
    app.include_router(router(sources, at_once=2, patience=0.05))

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.get("/api/v1/query", params={"query": "1"})

    async def crowd() -> tuple[list[httpx.Response], httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://runbookd") as client:
            first = [asyncio.create_task(ask(client)) for _ in range(2)]
            await asyncio.to_thread(lambda: [inside.acquire(timeout=20) for _ in range(2)])
            third = await ask(client)
            gate.set()
            return list(await asyncio.gather(*first)), third

    answered, third = asyncio.run(crowd())
    assert [answer.status_code for answer in answered] == [200, 200]
    assert (third.status_code, third.json()["errorType"]) == (503, "timeout")


def test_queries_do_not_delay_the_rules(world: World) -> None:
    """While dashboards ask as much as they can, a pass over the rules stays well under a second."""
    for second in range(300):
        samples = [Sample(labels_of("n", {"i": str(i)}), float(second)) for i in range(300)]
        world.store.ingest("many", world.at(second), samples)
    world.clock.advance(300)
    world.run(1, error_ratio=0.0)
    done = threading.Event()

    def dashboard() -> None:
        client = TestClient(world.client.app)
        span = {"start": world.at(0), "end": world.at(300), "step": 1}
        while not done.is_set():
            client.get("/api/v1/query_range", params={"query": "sum(rate(n[1m]))", **span})

    askers = [threading.Thread(target=dashboard) for _ in range(4)]
    for asker in askers:
        asker.start()
    longest = 0.0
    for _ in range(20):
        begun = time.monotonic()
        world.run(1, error_ratio=0.0)
        longest = max(longest, time.monotonic() - begun)
    done.set()
    for asker in askers:
        asker.join()
    assert longest < 1.0
