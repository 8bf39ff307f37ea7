"""A daemon's insides on a manual clock, with bodies as a test dictates them, behind the real HTTP application."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from agent.alerting import RuleEvaluator, StoredExemplars, load_rules
from agent.api import Control, Sources, create_app
from agent.clock import ManualClock, rfc3339
from agent.promql import Engine
from agent.runbook import Policy, load_runbook
from agent.samples import Sample, SeriesStore, labels_of
from agent.state import StateFile
from agent.telemetry import quiet_telemetry
from agent.telemetry.catalogue import BUILD_INFO

START = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
TOKEN = "correct horse"
RULES = """
groups:
  - name: database
    interval: 1s
    rules:
      - record: job:requests:rate30s
        expr: sum by (job) (rate(requests_total[30s]))
      - alert: ErrorRateHigh
        expr: error_ratio > 0.01
        for: 3s
        labels: {severity: critical, metric: error_rate, condition: error_rate}
        annotations:
          summary: "{{ $value | humanizePercentage }} fail"
          runbook_url: runbooks/firestore-operations.md#error-rate
  - name: agent
    interval: 5s
    rules:
      - alert: TargetDown
        expr: up == 0
        keep_firing_for: 10s
        labels: {severity: warning}
"""


class Orders:
    """A control that notes what it is told; ``fail`` is raised instead, once set."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.fail: Exception | None = None

    def _note(self, order: str, **said: Any) -> Mapping[str, Any]:
        if self.fail is not None:
            raise self.fail
        self.told.append((order, said))
        return {"done": order}

    def hold(self, *, owner: str, reason: str, seconds: float) -> Mapping[str, Any]:
        return self._note("hold", owner=owner, reason=reason, seconds=seconds)

    def release(self, *, owner: str) -> Mapping[str, Any]:
        return self._note("release", owner=owner)

    def approve(self, decision_id: str, *, owner: str) -> Mapping[str, Any]:
        return self._note("approve", id=decision_id, owner=owner)

    def abort(self, decision_id: str, *, owner: str, reason: str) -> Mapping[str, Any]:
        return self._note("abort", id=decision_id, owner=owner, reason=reason)

    def maintenance(self, *, enabled: bool, message: str, owner: str) -> Mapping[str, Any]:
        return self._note("maintenance", enabled=enabled, message=message, owner=owner)

    def pause(self, run_id: str, *, owner: str, reason: str, seconds: float | None) -> Mapping[str, Any]:
        return self._note("pause", run=run_id, owner=owner, reason=reason, seconds=seconds)

    def resume(self, run_id: str, *, owner: str) -> Mapping[str, Any]:
        return self._note("resume", run=run_id, owner=owner)

    def set(
        self, run_id: str, *, owner: str, reason: str, batch_size: int | None, rate: float | None
    ) -> Mapping[str, Any]:
        return self._note("set", run=run_id, owner=owner, reason=reason, batch_size=batch_size, rate=rate)

    def reload(self) -> Mapping[str, Any]:
        return self._note("reload")


@dataclass
class Bodies:
    """What the daemon says of itself; a test changes it as it goes."""

    alive: bool = True
    problems: dict[str, str] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=lambda: {"status": "ok", "maintenance": {"enabled": False}})
    migration: dict[str, Any] = field(default_factory=lambda: {"run": None, "recovery": None})
    backups: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    automation: dict[str, Any] = field(default_factory=lambda: {"hold": None, "waiting": [], "recent": []})
    recent: list[dict[str, Any]] = field(default_factory=list)
    schedule: dict[str, datetime] = field(default_factory=dict)


class World:
    """The sources of an API, and a client of it. Time is in seconds since the beginning."""

    def __init__(self, folder: Path, *, token: str | None = TOKEN) -> None:
        self.clock = ManualClock(START)
        self.telemetry = quiet_telemetry()
        self.telemetry.set(BUILD_INFO, 1, {"version": "test"})
        self.store = SeriesStore()
        self.engine = Engine(self.store)
        self.state = StateFile(folder / "state.db")
        rules = folder / "rules.yaml"
        rules.write_text(RULES)
        self.evaluator = RuleEvaluator(
            rules=load_rules([rules]),
            engine=self.engine,
            store=self.store,
            state=self.state,
            clock=self.clock,
            telemetry=self.telemetry,
            exemplars=StoredExemplars(self.store),
        )
        self.page: Policy = load_runbook(ROOT / "runbooks" / "firestore-operations.md")
        self.bodies = Bodies()
        self.orders = Orders()
        self.sources = Sources(
            policy=lambda: self.page,
            store=self.store,
            engine=self.engine,
            rules=self.evaluator,
            started_at=START,
            alive=lambda: self.bodies.alive,
            problems=lambda: self.bodies.problems,
            database_health=lambda: self.bodies.health,
            migration_status=lambda: self.bodies.migration,
            backup_status=lambda: self.bodies.backups,
            metrics=lambda: self.bodies.metrics,
            families=self.telemetry.families,
            recent=lambda: self.bodies.recent,
            schedule=lambda: self.bodies.schedule,
            automation=lambda: self.bodies.automation,
            control=self._control(),
            token=token,
            clock=self.clock,
        )
        self.client = self.client_of(self.sources)

    def _control(self) -> Control:
        return self.orders

    def client_of(self, sources: Sources) -> TestClient:
        return TestClient(create_app(sources), raise_server_exceptions=False)

    def broken(self, **parts: Any) -> TestClient:
        """A client of the same daemon with some of its sources replaced."""
        return self.client_of(replace(self.sources, **parts))

    def at(self, second: float) -> float:
        """Unix seconds."""
        return START.timestamp() + second

    def time(self, second: float) -> str:
        return rfc3339(START + timedelta(seconds=second))

    def deliver(self, **values: float) -> None:
        """One reading of the application."""
        samples = [Sample(labels_of(name, {"job": "app"}), value) for name, value in values.items()]
        self.store.ingest("app", self.clock.now().timestamp(), samples)

    def run(self, seconds: int, **values: float) -> None:
        """Deliver ``values`` and tick, once a second."""
        for _ in range(seconds):
            self.deliver(**values)
            self.evaluator.tick(self.clock.now())
            self.clock.advance(1)

    def get(self, path: str, **parameters: Any) -> Any:
        """Data of a successful answer of the Prometheus API."""
        answer = self.client.get(path, params={name.replace("match", "match[]"): v for name, v in parameters.items()})
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "success"
        return answer.json()["data"]

    def close(self) -> None:
        self.client.close()
        self.state.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()
