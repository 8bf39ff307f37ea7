"""How late the rules are looked at while the machine is busy with what the daemon itself started.

    python -m bench lateness

The real daemon, with the shipped rules, scrapes an application of some 900 series. Its workers take full backups, and
migrate and undo, without a pause and without a ceiling on the write rate, on the sandbox; four clients ask its API for
range queries of all buckets, each as soon as it has its last answer. A look is due on every whole second of the
monotonic clock; one that never came counts as late as the next one that did.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from agent.sandbox import start_sandbox
from agent.sandbox.child import Child
from agent.sandbox.seeding import seed
from bench.measure import Measure, Setup, Table, Target

_ROOT = Path(__file__).parents[1]
_CLIENTS = 4
_APPLICATIONS = 20
_WARM_UP_S = 20.0  # samples to query, and the workers' first imports
_ROUND_S = 20.0  # how long a round lasts
_QUERY = "rate(db_client_operation_duration_seconds_bucket[30s])"
_STEPS = 300
_LIMIT = Target(limit=250.0, at_least=False)


class Hammer:
    """Clients that ask for range queries until the end of the block, which gives how many answers they got."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(_CLIENTS)]
        self.answers = 0
        self.refused = 0
        self.size = 0

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60.0) as client:
            while not self._stop.is_set():
                now = time.time()
                asked: dict[str, Any] = {"query": _QUERY, "start": now - _STEPS, "end": now, "step": 1}
                response = client.get("/api/v1/query_range", params=asked)
                if response.status_code == 200:
                    self.answers += 1
                    self.size += len(response.content)
                else:
                    self.refused += 1


def measure(setup: Setup) -> list[Measure]:
    """Twenty seconds for each of the rounds; ``scale`` is the database's, the backend plays no part."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sandbox = stack.enter_context(start_sandbox(folder / "sandbox"))
        seed(sandbox.host, "bench", setup.scale)
        live = stack.enter_context(Child("bench.stepping", [str(_APPLICATIONS), "0"], name="application"))
        config = _config(folder, sandbox.host, live.ready["target"])
        daemon = stack.enter_context(Child("bench.loaded", [str(config)], name="daemon", ready_within=60.0))
        daemon.ask({"do": "work"}, within=600.0)
        time.sleep(_WARM_UP_S)
        began, before = time.monotonic(), daemon.ask({"do": "report"})["done"]
        with Hammer(daemon.ready["url"]) as hammer:
            time.sleep(_ROUND_S * setup.rounds)
            ended = time.monotonic()
        report = daemon.ask({"do": "report"}, within=30.0)
    if report["failed"]:
        raise RuntimeError(f"the load ended early: {report['failed']}")
    starts, ends = lateness(report["ticks"], began, ended)
    table = Table("lateness", setup)
    table.add("a look begins late, p99", float(np.percentile(starts, 99)) * 1000, "ms", _LIMIT)
    table.add("a look begins late, median", float(np.median(starts)) * 1000, "ms")
    table.add("a look is done after it was due, p99", float(np.percentile(ends, 99)) * 1000, "ms", _LIMIT)
    table.add("looks", len(starts), "")
    for kind, count in report["done"].items():
        table.add(f"meanwhile: {kind}s finished", count - before[kind], "")
    table.add("meanwhile: range queries answered", hammer.answers / (ended - began), "/s")
    table.add("meanwhile: an answer's size", hammer.size / max(hammer.answers, 1) / 1e6, "MB")
    return table.measures


def lateness(
    ticks: Sequence[tuple[float, float]], began: float, ended: float, interval: float = 1.0
) -> tuple[list[float], list[float]]:
    """Seconds by which each look due between ``began`` and ``ended`` began late, and after which it was done.

    Args:
        ticks: when each began and ended, ascending, by the clock on whose multiples of ``interval`` they are due.
    """
    starts, ends = [], []
    due = int(began // interval) + 1
    for start, end in ticks:
        # A look belongs to the beat before it; beats that are passed over get the same look.
        while due * interval <= start and due * interval <= ended:
            starts.append(start - due * interval)
            ends.append(end - due * interval)
            due += 1
    return starts, ends


def _config(folder: Path, host: str, target: str) -> Path:
    values: dict[str, Any] = {
        "runbook": str(_ROOT / "runbooks" / "firestore-operations.md"),
        "rules": [str(_ROOT / "rules" / "*.yaml")],
        "data_dir": str(folder / "data"),
        "reports_dir": str(folder / "reports"),
        "database": {"project": "bench", "host": host},
        "storage": {"local": str(folder / "backups"), "capacity_bytes": 10**12},
        "migration": {"definitions": str(_ROOT / "migrations"), "max_write_rate": 1_000_000.0},
        "signals": {"scrape": [{"job": "application", "url": f"http://{target}/metrics"}]},
        "api": {"port": 0},
        "recovery": {"check_health_url": False},
    }
    path = folder / "runbookd.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
