"""Journeys: rule scripts that go on to notices, decisions and recoveries, and through restarts.

promtool refuses a file with keys that it doesn't know, so a journey is a file of its own beside the script that
promtool runs; it may take that script's series by the name of a test. ``runbookd rules test`` runs both. The format
is told by the first lines of ``rules/tests/decision-matrix.journey.yaml``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from agent.alerting import RuleSet, load_rules, parse_matcher
from agent.alerting.scripts import (
    EPOCH,
    Assertion,
    Given,
    check_keys,
    deliver,
    duration_of,
    given_series,
    read_mapping,
    unreadable,
)
from agent.clock import ManualClock
from agent.decisions import Decision, Probe
from agent.faults import RunbookdError
from agent.rehearsal.expectations import EXPECTATIONS, Expectation
from agent.rehearsal.stage import Stage
from agent.rehearsal.world import World
from agent.runbook import ChannelKind, Policy, load_runbook
from agent.samples import METRIC_NAME, Sample
from agent.signals import observe_policy
from agent.signals.instruments import TARGET_LABELS, LabelCache, samples_of
from agent.telemetry import quiet_telemetry

_FILE_KEYS = frozenset({"script", "rule_files", "evaluation_interval", "runbook", "journeys"})
_JOURNEY_KEYS = frozenset({"name", "test", "interval", "input_series", "world", "steps"})
_WORLD_KEYS = frozenset({"migration", "backup", "baseline", "probe", "put_back", "documents", "failing", "channels"})
_MIGRATION_KEYS = frozenset({"run", "name", "started", "finished", "journal"})
_DEEDS = frozenset({"restart", "kill", "hold", "release", "approve", "abort", "silence", "acknowledge"})
_DEED_KEYS = frozenset({"do", "owner", "reason", "for", "matchers", "alert"})


def is_journey(path: Path) -> bool:
    """Whether a script is a journey, and not promtool's."""
    return "journeys" in read_mapping(path)


def run_journey(path: Path) -> tuple[Assertion, ...]:
    """Play all journeys of a file; one assertion for each expectation of each step.

    Raises:
        Misconfigured: the file, or one that it names, can't be read or understood.
    """
    file = read_mapping(path)
    check_keys(path, file, _FILE_KEYS, "a file of journeys")
    script = read_mapping(path.parent / str(file["script"])) if "script" in file else {}
    names = file.get("rule_files") or script.get("rule_files") or ()
    interval = duration_of(path, {**script, **file}, "evaluation_interval", timedelta(minutes=1))
    rules = load_rules([path.parent / str(name) for name in names], default_interval=interval)
    if "runbook" not in file:
        raise unreadable(path, "a journey needs the `runbook` by which is decided and paged")
    policy = load_runbook(path.parent / str(file["runbook"]))
    tests = {str(test.get("name")): test for test in script.get("tests") or ()}
    found: list[Assertion] = []
    for number, journey in enumerate(file.get("journeys") or (), start=1):
        check_keys(path, journey, _JOURNEY_KEYS, "a journey")
        name = str(journey.get("name") or journey.get("test") or f"journey {number}")
        if "test" in journey and str(journey["test"]) not in tests:
            raise unreadable(path, f"{name}: there is no test {journey['test']!r} in the script")
        whole = {**tests.get(str(journey.get("test")), {}), **journey}
        found.extend(_Journey(path, whole, name, rules, policy, interval).assertions())
    return tuple(found)


def thresholds_of(policy: Policy, *, without: frozenset[str] = frozenset()) -> list[Sample]:
    """The page's figures as the daemon's rules read them, but for the metrics named in ``without``."""
    telemetry = quiet_telemetry()
    observe_policy(lambda: policy, telemetry)
    families = [family for family in telemetry.families() if family.name.startswith("runbook_")]
    samples = samples_of(families, LabelCache(TARGET_LABELS))
    return [sample for sample in samples if dict(sample.labels)[METRIC_NAME] not in without]


@dataclass
class _Journey:
    """One journey."""

    path: Path
    body: Mapping[str, Any]
    name: str
    rules: RuleSet
    policy: Policy
    interval: timedelta
    _down_until: timedelta = field(default=timedelta(0))

    def assertions(self) -> Iterator[Assertion]:
        steps = sorted(self.body.get("steps") or (), key=self._at)
        for step in steps:
            known = _DEED_KEYS if "do" in step else frozenset(EXPECTATIONS)
            check_keys(self.path, step, known | {"at"}, f"a step of {self.name!r}")
        if not steps:
            raise unreadable(self.path, f"{self.name}: a journey needs steps")
        series = given_series(self.path, self.body, self.name)
        given = frozenset(dict(labels).get(METRIC_NAME, "") for labels, _ in series)
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(
                folder=Path(folder),
                rules=self.rules,
                policy=self.policy,
                world=self._world(),
                clock=ManualClock(EPOCH),
                thresholds=thresholds_of(self.policy, without=given),
                channels=self._channels(),
            )
            expectation = Expectation(stage)
            try:
                for step in self._play(stage, series, steps):
                    for kind in EXPECTATIONS:
                        if kind in step:
                            yield self._assertion(expectation, kind, step)
            finally:
                stage.stop(killed=True)

    def _play(self, stage: Stage, series: Given, steps: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Samples, passes over the rules and steps in the order of time; yields the steps that expect something."""
        every = duration_of(self.path, self.body, "interval", self.interval)
        remaining = list(steps)
        sample = 0
        tick = timedelta(0)
        while remaining:
            now = min(sample * every, tick, self._at(remaining[0]))
            stage.clock.advance(max(0.0, (EPOCH + now - stage.clock.now()).total_seconds()))
            up = now >= self._down_until
            if now == sample * every:
                if up:
                    deliver(stage.store, series, sample, now)
                sample += 1
            if now == tick:
                if up:
                    stage.tick()
                tick += self.interval
            while remaining and now == self._at(remaining[0]):
                step = remaining.pop(0)
                if "do" in step:
                    self._do(stage, step)
                else:
                    yield step

    def _assertion(self, expectation: Expectation, kind: str, step: Mapping[str, Any]) -> Assertion:
        try:
            passed, expected, got = expectation.judge(kind, step[kind])
        except ValueError as error:
            raise unreadable(self.path, f"{self.name}, at {step.get('at')}: {error}") from error
        return Assertion(
            file=str(self.path),
            test=self.name,
            kind=kind,
            subject=kind,
            at=self._at(step).total_seconds(),
            passed=passed,
            expected=expected,
            got=got,
        )

    # --- what people and machines do --------------------------------------------------------------------------------

    def _do(self, stage: Stage, step: Mapping[str, Any]) -> None:
        deed, owner, reason = str(step["do"]), str(step.get("owner", "on-call")), str(step.get("reason", "rehearsed"))
        lasting = duration_of(self.path, step, "for", timedelta(hours=1))
        now = stage.clock.now()
        try:
            match deed:
                case "restart" | "kill":
                    stage.stop(killed=deed == "kill")
                    down = duration_of(self.path, step, "for", timedelta(0))
                    self._down_until = now - EPOCH + down
                    stage.start()
                case "hold":
                    stage.decisions.hold(owner=owner, reason=reason, lasting=lasting)
                case "release":
                    stage.decisions.release(owner=owner)
                case "approve":
                    stage.decisions.approve(self._waiting(stage).id, owner=owner)
                case "abort":
                    stage.decisions.abort(stage.decided[-1].id, owner=owner, reason=reason)
                case "silence":
                    matchers = [parse_matcher(str(text)) for text in step.get("matchers") or ()]
                    stage.silences.add(matchers, owner=owner, reason=reason, now=now, lasting=lasting)
                case "acknowledge":
                    for alert in stage.evaluator.active():
                        if alert.rule == str(step.get("alert")):
                            stage.silences.acknowledge(alert, owner=owner, now=now)
                case _:
                    raise unreadable(self.path, f"{self.name}: nobody can {deed!r}; known: {', '.join(sorted(_DEEDS))}")
        except RunbookdError as error:
            raise unreadable(self.path, f"{self.name}, at {step.get('at')}: {deed}: {error}") from error

    def _waiting(self, stage: Stage) -> Decision:
        waiting = stage.decisions.journal.waiting()
        if not waiting:
            raise unreadable(self.path, f"{self.name}: no decision waits for an approval")
        return waiting[0]

    # --- reading ----------------------------------------------------------------------------------------------------

    def _world(self) -> World:
        body = self.body.get("world") or {}
        check_keys(self.path, body, _WORLD_KEYS, "a world")
        migration, backup = body.get("migration") or {}, body.get("backup") or {}
        check_keys(self.path, migration, _MIGRATION_KEYS, "a migration")
        check_keys(self.path, backup, frozenset({"id", "at"}), "a backup")
        return World(
            started=self._moment(migration, "started"),
            finished=self._moment(migration, "finished"),
            run_id=str(migration.get("run", "run-1")),
            revision=str(migration.get("name", "migration")),
            journal=_yes(migration.get("journal", "true")),
            backup=(str(backup.get("id")), self._moment(backup, "at") or EPOCH) if backup else None,
            baseline=_yes(body.get("baseline", "true")),
            probe=Probe(str(body.get("probe", Probe.UNKNOWN))),
            put_back=duration_of(self.path, body, "put_back", timedelta(seconds=30)),
            documents=int(body.get("documents", 1_000)),
            failing=frozenset(map(str, body.get("failing") or ())),
        )

    def _channels(self) -> tuple[ChannelKind, ...]:
        names = (self.body.get("world") or {}).get("channels") or [ChannelKind.PAGERDUTY]
        return tuple(ChannelKind(str(name)) for name in names)

    def _moment(self, body: Mapping[str, Any], key: str) -> datetime | None:
        """A time since the beginning, or before it: ``-66m``."""
        if key not in body:
            return None
        text = str(body[key])
        span = duration_of(self.path, {key: text.removeprefix("-")}, key, timedelta(0))
        return EPOCH - span if text.startswith("-") else EPOCH + span

    def _at(self, step: Mapping[str, Any]) -> timedelta:
        return duration_of(self.path, step, "at", timedelta(0))


def _yes(text: object) -> bool:
    return str(text).lower() in ("true", "yes", "1")
