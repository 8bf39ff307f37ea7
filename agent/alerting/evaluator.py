"""The rule loop's body: groups that are due are evaluated, alerts move on, and what changed is handed out.

The daemon calls :meth:`RuleEvaluator.tick` about once a second; everything else here is for looking on. Whatever is
returned as changed is in the state file already.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from agent.alerting.alert import Alert, AlertState
from agent.alerting.book import AlertBook, Entry, resolved
from agent.alerting.exemplars import Exemplars, no_exemplars
from agent.alerting.rules import AlertRule, RecordingRule, Rule, RuleGroup, RuleSet
from agent.alerting.states import Observation, Sight, Timer, is_blind, transition
from agent.alerting.templates import Facts
from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.promql import Element, Engine, Evaluation, Plan, Select
from agent.samples import METRIC_NAME, Labels, Sample, SeriesStore, labels_of
from agent.state import StateFile
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import RULE_FAILURES, RULE_TICK_DURATION

# Times of pending and recovering alerts are written down this often: what a crash can take from their clocks.
REFRESH_EVERY = timedelta(seconds=5)
# A tick that comes early by less than this is the tick that was meant; the loop's sleep is not exact.
_EARLY = timedelta(milliseconds=50)


class Health(StrEnum):
    """How a rule's last evaluation went."""

    UNKNOWN = "unknown"
    OK = "ok"
    NO_DATA = "no_data"
    ERROR = "err"


@dataclass(frozen=True, kw_only=True)
class RuleStatus:
    """A rule and its last evaluation, for the API."""

    rule: Rule
    health: Health = Health.UNKNOWN
    error: str = ""
    last_evaluation: datetime | None = None
    seconds: float = 0.0
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GroupStatus:
    """A group and its rules, for the API."""

    group: RuleGroup
    rules: tuple[RuleStatus, ...]
    last_evaluation: datetime | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TickResult:
    """What one pass over the rules did.

    Args:
        changes: alerts whose state changed, durably written; after a crash the last ones come once more.
        active: all alerts that are pending, firing or recovering.
        sight_changes: active alerts that became blind, or see again; ``Alert.blind`` says which.
        evaluated: groups that were due.
        failures: by rule name, the errors of this pass.
        missed: evaluations of groups that were skipped because this pass came too late.
        seconds: how long the pass took.
    """

    at: datetime
    changes: tuple[Alert, ...]
    active: tuple[Alert, ...]
    sight_changes: tuple[Alert, ...]
    evaluated: tuple[str, ...]
    failures: Mapping[str, str]
    missed: int
    seconds: float

    @property
    def watched(self) -> bool:
        """Whether an alert that is meant to fire always does: the whole way from samples to alerts works."""
        return any(not alert.calls and alert.state is AlertState.FIRING for alert in self.active)

    def calling(self) -> TickResult:
        """The same without alerts that are not meant for people."""
        return replace(
            self,
            changes=tuple(alert for alert in self.changes if alert.calls),
            active=tuple(alert for alert in self.active if alert.calls),
            sight_changes=tuple(alert for alert in self.sight_changes if alert.calls),
        )


@dataclass
class _Pass:
    """What a tick collects."""

    changed: list[Entry] = field(default_factory=list)
    sight: list[Entry] = field(default_factory=list)
    gone: list[tuple[str, Labels]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


class RuleEvaluator:
    """Evaluates rules, keeps their alerts and writes what they record back to the store.

    Not for concurrent ticks; :meth:`active`, :meth:`groups` and :meth:`replace_rules` may be called from any thread.

    Args:
        exemplars: finds a trace for an alert that begins to be pending or firing.
    """

    def __init__(
        self,
        *,
        rules: RuleSet,
        engine: Engine,
        store: SeriesStore,
        state: StateFile,
        clock: Clock,
        telemetry: Telemetry,
        exemplars: Exemplars = no_exemplars,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._exemplars = exemplars
        self._book = AlertBook(state)
        self._lock = threading.Lock()
        self._replacement: RuleSet | None = rules
        self._rules = RuleSet()
        self._due: dict[str, datetime] = {}
        self._recorded: set[str] = set()
        self._announcing: set[str] = set()
        self._refreshed_at = datetime.min.replace(tzinfo=UTC)
        entries, self._unheard = self._book.load()
        self._entries = {entry.key: entry for entry in entries}
        self._to_repeat = frozenset(self._unheard)
        self._unwritten: _Pass | None = None
        self._first_tick: datetime | None = None
        self._statuses: dict[str, RuleStatus] = {}
        self._group_times: dict[str, tuple[datetime, float]] = {}

    # --- looking on -----------------------------------------------------------------------------------------------

    @property
    def rules(self) -> RuleSet:
        """The rules that the next tick will use."""
        with self._lock:
            return self._replacement or self._rules

    def active(self) -> tuple[Alert, ...]:
        """Alerts that are pending, firing or recovering."""
        with self._lock:
            return self._active()

    def groups(self) -> tuple[GroupStatus, ...]:
        """Every group with the state of its rules."""
        with self._lock:
            return tuple(self._group_status(group) for group in self._rules.groups)

    def replace_rules(self, rules: RuleSet) -> None:
        """Use ``rules`` from the next tick on; unchanged rules keep their alerts, those of vanished ones end."""
        with self._lock:
            self._replacement = rules

    # --- the tick -------------------------------------------------------------------------------------------------

    def tick(self, now: datetime) -> TickResult:
        """Evaluate the groups that are due at ``now``.

        Raises:
            Misconfigured: the state file can't be written; nothing was announced.
        """
        started = self._clock.monotonic()
        self._first_tick = min(self._first_tick or now, now)
        # If the last tick could not write, what it found is still to be written and handed out.
        found = self._unwritten = self._unwritten or _Pass()
        repeated = [self._entries[key] for key in self._to_repeat]
        with self._lock:
            self._adopt_rules(found, now)
            due, missed = self._take_due(now)
        shared = self._engine.at(now.timestamp())
        for group in due:
            self._evaluate_group(group, shared, found, now)
        with self._lock:
            self._write(found, now)
            changed = {entry.key: entry for entry in [*repeated, *found.changed]}
            self._unwritten = None
            self._to_repeat = frozenset()
            result = TickResult(
                at=now,
                changes=tuple(entry.alert() for entry in changed.values()),
                active=self._active(),
                sight_changes=tuple(entry.alert() for entry in found.sight),
                evaluated=tuple(group.name for group in due),
                failures=found.failures,
                missed=missed,
                seconds=self._clock.monotonic() - started,
            )
        self._telemetry.record(RULE_TICK_DURATION, result.seconds)
        return result

    def _adopt_rules(self, found: _Pass, now: datetime) -> None:
        """Take the rules that were handed in; alerts of rules that are gone end."""
        if self._replacement is None:
            return
        self._rules, self._replacement = self._replacement, None
        kept = {rule.key for rule in self._rules.rules}
        for entry in list(self._entries.values()):
            if entry.rule in kept or entry.timer.state is AlertState.RESOLVED:
                continue
            if entry.timer.state is AlertState.PENDING:
                found.gone.append(entry.key)
                del self._entries[entry.key]
            else:
                self._entries[entry.key] = resolved(entry, now)
                found.changed.append(self._entries[entry.key])
        for source in self._recorded - {_source(rule) for rule in self._rules.recordings}:
            self._store.stale(source, now.timestamp())
            self._recorded.discard(source)
        groups = {group.key for group in self._rules.groups}
        for key in self._announcing - groups:
            self._store.stale(f"alerts:{key}", now.timestamp())
            self._announcing.discard(key)
        self._due = {key: due for key, due in self._due.items() if key in groups}
        self._statuses = {key: status for key, status in self._statuses.items() if key in kept}

    def _take_due(self, now: datetime) -> tuple[list[RuleGroup], int]:
        """Groups whose time has come, and how many of their times have passed unused."""
        due: list[RuleGroup] = []
        missed = 0
        for group in self._rules.groups:
            planned = self._due.get(group.key, now)
            if planned - now > group.interval:
                planned = now  # the clock went back
            if now < planned - min(_EARLY, group.interval / 10):
                continue
            skipped = max(0, (now - planned) // group.interval)
            missed += skipped
            self._due[group.key] = planned + (skipped + 1) * group.interval
            due.append(group)
        return due, missed

    def _evaluate_group(self, group: RuleGroup, shared: Evaluation, found: _Pass, now: datetime) -> None:
        started = self._clock.monotonic()
        for rule in group.rules:
            begun = self._clock.monotonic()
            try:
                if isinstance(rule, RecordingRule):
                    health, error = self._record(rule, group, shared, now), ""
                else:
                    health, error = self._judge(rule, group, shared, found, now), ""
            except Exception as problem:  # noqa: BLE001 - one rule's failure, a bug's too, must not blind the others
                health, error = Health.ERROR, str(problem) or type(problem).__name__
                self._failed(rule, group, error, shared, found, now)
            with self._lock:
                self._statuses[rule.key] = RuleStatus(
                    rule=rule,
                    health=health,
                    error=error,
                    last_evaluation=now,
                    seconds=self._clock.monotonic() - begun,
                )
        self._write_series(group, shared, now)
        with self._lock:
            self._group_times[group.key] = (now, self._clock.monotonic() - started)

    def _record(self, rule: RecordingRule, group: RuleGroup, shared: Evaluation, now: datetime) -> Health:
        elements = _limited(shared.elements(rule.expression.root), group.limit)
        samples = {_renamed(element.labels, rule): element.value for element in elements}
        if len(samples) != len(elements):
            raise _repeated_labels("the recorded labels")
        source = _source(rule)
        if samples or source in self._recorded:
            # Without a result now or before there is nothing to write and nothing to end.
            self._store.ingest(source, now.timestamp(), [Sample(labels, value) for labels, value in samples.items()])
            if samples:
                self._recorded.add(source)
            else:
                self._recorded.discard(source)
            shared.forget(frozenset({rule.name}))
        return Health.OK if samples else Health.NO_DATA

    def _judge(self, rule: AlertRule, group: RuleGroup, shared: Evaluation, found: _Pass, now: datetime) -> Health:
        """Give every alert of the rule its observation."""
        elements = _limited(shared.elements(rule.expression.root), group.limit)
        true = {_nameless(element.labels): element.value for element in elements if not math.isnan(element.value)}
        known = [key for key in self._entries if key[0] == rule.key]
        began = [element for element in true if (rule.key, element) not in self._entries]
        if len({_nameless(element.labels) for element in elements}) != len(elements):
            raise _repeated_labels("the alert's labels")
        witnessed: set[Labels] = set()
        witness = rule.expression.witness
        if witness is not None and (not true or any(element not in true for _, element in known)):
            witnessed = {
                _nameless(element.labels) for element in shared.elements(witness) if not math.isnan(element.value)
            }
        for _, element in known:
            if element in true:
                observation = Observation(sight=Sight.TRUE, value=true[element])
            elif witness is None or element in witnessed:
                observation = Observation(sight=Sight.FALSE)
            else:
                observation = Observation(sight=Sight.NO_DATA)
            self._observe(rule, group, element, observation, found, now)
        for element in began:
            self._observe(rule, group, element, Observation(sight=Sight.TRUE, value=true[element]), found, now)
        return Health.OK if true or witnessed or witness is None else Health.NO_DATA

    def _failed(
        self, rule: Rule, group: RuleGroup, error: str, shared: Evaluation, found: _Pass, now: datetime
    ) -> None:
        found.failures[rule.name] = error
        self._telemetry.add(RULE_FAILURES, 1, {"rule": rule.name})
        if isinstance(rule, RecordingRule):
            if _source(rule) in self._recorded:
                # What can't be computed must not pass for a measurement until the lookback ends.
                self._store.stale(_source(rule), now.timestamp())
                self._recorded.discard(_source(rule))
                shared.forget(frozenset({rule.name}))
            return
        for key in [key for key in self._entries if key[0] == rule.key]:
            self._observe(rule, group, key[1], Observation(sight=Sight.ERROR), found, now, error=error)

    def _observe(
        self,
        rule: AlertRule,
        group: RuleGroup,
        element: Labels,
        observation: Observation,
        found: _Pass,
        now: datetime,
        *,
        error: str = "",
    ) -> None:
        """Move one alert on."""
        key = (rule.key, element)
        before = self._entries.get(key)
        moved = transition(before.timer if before else None, observation, now, rule.patience(group.interval))
        if moved.timer is None:
            if before is not None and key not in self._to_repeat:
                found.gone.append(key)
                with self._lock:
                    del self._entries[key]
            return
        over = before is None or before.timer.state in _OVER
        entry = self._begun(rule, element, moved.timer) if before is None or over else before
        state_changed = before is None or before.timer.state is not moved.timer.state
        blind = "" if observation.definite else self._blindness(moved.timer, group, error, now)
        entry = replace(entry, timer=moved.timer, blind=blind)
        if observation.sight is Sight.TRUE:
            entry = self._described(rule, entry, now, look_for_trace=state_changed)
        if state_changed:
            found.changed.append(entry)
        if before is not None and bool(before.blind) != bool(entry.blind):
            found.sight.append(entry)
        with self._lock:
            self._entries[key] = entry

    def _blindness(self, timer: Timer, group: RuleGroup, error: str, now: datetime) -> str:
        """Why an alert without a definite observation is blind, or "" while that may be a moment's gap."""
        looking = max(timer.seen_at, self._first_tick or now)  # a daemon that just started has not looked in vain
        if not is_blind(looking, now, group.interval):
            return ""
        return f"error: {error}" if error else "no_data"

    def _begun(self, rule: AlertRule, element: Labels, timer: Timer) -> Entry:
        facts = Facts(labels=dict(element), value=timer.value)
        labels = {**dict(element), **{name: each.render(facts) for name, each in rule.labels.items()}}
        labels["alertname"] = rule.name
        labels = {name: value for name, value in sorted(labels.items()) if value}
        return Entry(
            rule=rule.key,
            element=element,
            alertname=rule.name,
            fingerprint=fingerprint(labels),
            labels=labels,
            annotations={},
            timer=timer,
        )

    def _described(self, rule: AlertRule, entry: Entry, now: datetime, *, look_for_trace: bool) -> Entry:
        facts = Facts(labels=dict(entry.element), value=entry.timer.value)
        annotations = {name: each.render(facts) for name, each in rule.annotations.items()}
        trace_id = entry.trace_id
        if look_for_trace and not trace_id:
            trace_id = self._exemplars(self._read_by(rule.expression), entry.labels, now.timestamp())
        return replace(entry, annotations=annotations, trace_id=trace_id)

    def _read_by(self, plan: Plan) -> tuple[Select, ...]:
        """What the expression reads in the end: recorded series stand for what they were computed from."""
        recorded = {rule.name: rule.expression for rule in self._rules.recordings}
        found: dict[Select, None] = {}
        pending = [plan]
        while pending:
            for select in pending.pop(0).selectors:
                found[select] = None
                source = recorded.pop(select.metric or "", None)
                if source is not None:
                    pending.append(source)
        return tuple(found)

    # --- writing --------------------------------------------------------------------------------------------------

    def _write(self, found: _Pass, now: datetime) -> None:
        """Everything that changed, in one transaction; nothing if nothing did."""
        heard = (self._unheard - self._to_repeat) & self._entries.keys()
        refreshed: list[Entry] = []
        if now - self._refreshed_at >= REFRESH_EVERY or now < self._refreshed_at:
            changed = {entry.key for entry in found.changed}
            refreshed = [
                entry
                for entry in self._entries.values()
                if entry.timer.state in (AlertState.PENDING, AlertState.RECOVERING) and entry.key not in changed
            ]
            self._refreshed_at = now
        fresh = {entry.key for entry in found.changed}
        for key in heard - fresh:
            if self._entries[key].timer.state in _OVER:  # an end that was heard needs no keeping
                found.gone.append(key)
                del self._entries[key]
        written = {*(entry.key for entry in refreshed), *(entry.key for entry in found.sight)} - fresh
        if found.changed or found.gone or written or heard:
            self._book.save(
                changed=found.changed,
                refreshed=[self._entries[key] for key in written if key in self._entries],
                heard=heard - fresh,
                gone=found.gone,
            )
        self._unheard = fresh | self._to_repeat

    def _write_series(self, group: RuleGroup, shared: Evaluation, now: datetime) -> None:
        """``ALERTS`` and ``ALERTS_FOR_STATE`` of a group, as Prometheus writes them."""
        samples = list(self._alert_samples(group))
        if not samples and group.key not in self._announcing:
            return
        self._store.ingest(f"alerts:{group.key}", now.timestamp(), samples)
        shared.forget(frozenset({"ALERTS", "ALERTS_FOR_STATE"}))
        if samples:
            self._announcing.add(group.key)
        else:
            self._announcing.discard(group.key)

    def _alert_samples(self, group: RuleGroup) -> Iterator[Sample]:
        rules = {rule.key for rule in group.rules}
        for entry in self._entries.values():
            if entry.rule in rules and entry.timer.state in _ACTIVE:
                state = "pending" if entry.timer.state is AlertState.PENDING else "firing"
                yield Sample(labels_of("ALERTS", {**entry.labels, "alertstate": state}), 1.0)
                yield Sample(labels_of("ALERTS_FOR_STATE", entry.labels), entry.timer.active_since.timestamp())

    def _active(self) -> tuple[Alert, ...]:
        return tuple(entry.alert() for entry in self._entries.values() if entry.timer.state in _ACTIVE)

    def _group_status(self, group: RuleGroup) -> GroupStatus:
        evaluated, seconds = self._group_times.get(group.key, (None, 0.0))
        return GroupStatus(
            group=group,
            rules=tuple(self._rule_status(rule) for rule in group.rules),
            last_evaluation=evaluated,
            seconds=seconds,
        )

    def _rule_status(self, rule: Rule) -> RuleStatus:
        alerts = tuple(
            entry.alert() for entry in self._entries.values() if entry.rule == rule.key and entry.timer.state in _ACTIVE
        )
        return replace(self._statuses.get(rule.key, RuleStatus(rule=rule)), alerts=alerts)


_ACTIVE = (AlertState.PENDING, AlertState.FIRING, AlertState.RECOVERING)
_OVER = (AlertState.INACTIVE, AlertState.RESOLVED)


def fingerprint(labels: Mapping[str, str]) -> str:
    """A stable hash of an alert's labels."""
    return hashlib.sha256(json.dumps(sorted(labels.items())).encode()).hexdigest()[:16]


def _nameless(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != METRIC_NAME)


def _renamed(labels: Labels, rule: RecordingRule) -> Labels:
    return labels_of(rule.name, {**dict(labels), **rule.labels})


def _source(rule: Rule) -> str:
    return f"rule:{rule.key}"


def _limited(elements: list[Element], limit: int) -> list[Element]:
    if limit and len(elements) > limit:
        raise Permanent(
            PermanentReason.TOO_MANY_FAILURES, f"{len(elements)} elements, over the group's limit of {limit}"
        )
    return elements


def _repeated_labels(what: str) -> Permanent:
    return Permanent(PermanentReason.INVALID, f"the vector has elements with the same labels after applying {what}")
