"""Seeded expressions over a range, compared with a running Prometheus that holds the same samples.

The samples are given to Prometheus as a block, so both sides hold the same to the bit; what is compared is the engine
over many steps at once, ``@ start()`` and ``@ end()``, and the join of series over time. The generator is that of the
instant queries, with what it leaves out; stale series are left out, too, because a block can't be made with them.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from agent.faults import RunbookdError
from agent.promql import Engine, Matrix, compile_expression
from agent.samples import Labels, Sample, SeriesStore, labels_of
from tests.conftest import binary, free_port
from tests.promql.test_against_promtool import INTERVAL, Input, make_expression, make_series, notation

pytestmark = pytest.mark.prometheus

BEGIN = 1_700_000_000
ERROR = "error"
RANGES = ((95.5, 391.5, 7.0), (200.5, 220.5, 0.5), (60.5, 600.5, 60.0), (210.5, 210.5, 1.0))

Points = dict[Labels, list[tuple[float, float]]]


@dataclass(frozen=True)
class Twins:
    """The same samples twice."""

    prometheus: httpx.Client
    engine: Engine

    def theirs(self, expression: str, start: float, end: float, step: float) -> Points | str:
        sent = {"query": expression, "start": str(start), "end": str(end), "step": str(step)}
        answer = self.prometheus.post("/api/v1/query_range", data=sent).json()
        if answer["status"] != "success":
            return f"{ERROR}: {answer['error']}"
        return {
            tuple(sorted(series["metric"].items())): [(float(at), float(value)) for at, value in series["values"]]
            for series in answer["data"]["result"]
        }

    def ours(self, expression: str, start: float, end: float, step: float) -> Points | str:
        try:
            matrix = self.engine.range(compile_expression(expression), start, end, step)
        except RunbookdError as error:
            return f"{ERROR}: {error}"
        assert isinstance(matrix, Matrix)
        return {
            each.labels: list(zip(each.timestamps.tolist(), each.values.tolist(), strict=True))
            for each in matrix.series
        }


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    prometheus, promtool = binary("prometheus", "prometheus"), binary("promtool", "prometheus")
    folder = tmp_path_factory.mktemp("twins")
    inputs = [without_ends(each) for each in make_series(random.Random(7))]
    store = SeriesStore()
    for each in inputs:
        for number, value in enumerate(each.values):
            if value is not None:
                moment = BEGIN + number * INTERVAL
                store.ingest(notation(each), moment, [Sample(labels_of(each.name, each.labels), float(value))])
    (folder / "samples.om").write_text(open_metrics(inputs))
    made = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(folder / "samples.om"), str(folder / "data")]
    subprocess.run(made, check=True, capture_output=True)
    (folder / "prometheus.yml").write_text(json.dumps({"global": {"evaluation_interval": "1s"}}))
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
    )
    try:
        deadline = time.monotonic() + 40
        while not ready(address):
            assert time.monotonic() < deadline, "Prometheus does not come up"
            assert process.poll() is None, "Prometheus ended"
            time.sleep(0.1)  # a real server's own rhythm
        with httpx.Client(base_url=f"http://{address}", timeout=20.0) as client:
            yield Twins(client, Engine(store, subquery_step=1.0))
    finally:
        process.kill()
        process.wait()


def without_ends(series: Input) -> Input:
    return replace(series, values=[None if value == "stale" else value for value in series.values])


def open_metrics(inputs: list[Input]) -> str:
    lines = []
    for each in sorted(inputs, key=lambda series: series.name):
        for number, value in enumerate(each.values):
            if value is not None:
                lines.append(f"{notation(each)} {float(value)!r} {BEGIN + number * INTERVAL}")
    return "\n".join([*lines, "# EOF", ""]).replace(" inf ", " +Inf ").replace(" -inf ", " -Inf ")


def ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready", timeout=5.0).status_code == 200
    except httpx.HTTPError:
        return False


def alike(one: Points | str, other: Points | str) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str)
    return one.keys() == other.keys() and all(same_points(one[key], other[key]) for key in one)


def same_points(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> bool:
    return len(one) == len(other) and all(
        at == their_at
        and (math.isclose(value, theirs, rel_tol=1e-9, abs_tol=1e-9) or (math.isnan(value) and math.isnan(theirs)))
        for (at, value), (their_at, theirs) in zip(one, other, strict=True)
    )


def compare(twins: Twins, seed: int, count: int) -> tuple[list[str], int]:
    """Differences, as text, and how many answers had points in them."""
    random_ = random.Random(seed)
    found, filled = [], 0
    for _ in range(count):
        expression = make_expression(random_).replace("@ 200.4", f"@ {BEGIN + 200.4}")
        expression = expression.replace("@ 250.4", f"@ {BEGIN + 250.4}")
        start, end, step = random_.choice(RANGES)
        asked: tuple[Any, ...] = (expression, BEGIN + start, BEGIN + end, step)
        ours, theirs = twins.ours(*asked), twins.theirs(*asked)
        filled += isinstance(theirs, dict) and bool(theirs)
        if not alike(ours, theirs):
            found.append(f"seed {seed}: {asked}: ours {ours}, Prometheus's {theirs}")
    return found, filled


@pytest.mark.parametrize("seed", range(2))
def test_random_expressions_over_a_range_agree_with_prometheus(twins: Twins, seed: int) -> None:
    """Each has the points, or the failure, that it has in Prometheus; a good part have points."""
    differences, filled = compare(twins, seed, 100)
    assert differences == []
    assert filled > 40


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_long_run_of_ranges_agrees_with_prometheus(twins: Twins) -> None:
    """3,000 expressions over a range."""
    differences, filled = compare(twins, 1_000, 3_000)
    assert differences == []
    assert filled > 1_500
