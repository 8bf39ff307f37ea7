"""The rule loop's body: groups that are due are evaluated, alerts move on, and what changed is handed out.

The daemon calls :meth:`RuleEvaluator.tick` about once a second; everything else here is for looking on. Whatever is
returned as changed is in the state file already.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from agent.alerting.alert import Alert, AlertState
from agent.alerting.book import AlertBook, Entry, resolved
from agent.alerting.description import Describer
from agent.alerting.exemplars import Exemplars, no_exemplars
from agent.alerting.rules import AlertRule, RecordingRule, Rule, RuleGroup, RuleSet
from agent.alerting.sight import SIGHTLESS, Lack, Policy, Unseen, lack_of
from agent.alerting.states import GAP_INTERVALS, Observation, Patience, Sight, Timer, is_blind, transition
from agent.alerting.status import GroupStatus, Health, RuleStatus, TickResult
from agent.alerting.succession import successor
from agent.alerting.templates import NOWHERE, Surroundings
from agent.clock import Clock
from agent.faults import Permanent, PermanentReason
from agent.promql import Element, Engine, Evaluation, Node
from agent.promql.expressions import Binary
from agent.samples import METRIC_NAME, Labels, Sample, SeriesStore, labels_of
from agent.state import StateFile
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import RULE_FAILURES, RULE_TICK_DURATION, RULES_UNSEEN

# Times of pending and recovering alerts are written down this often: what a crash can take from their clocks.
REFRESH_EVERY = timedelta(seconds=5)
# A tick that comes early by less than this is the tick that was meant; the loop's sleep is not exact.
_EARLY = timedelta(milliseconds=50)


@dataclass
class _Pass:
    """What a tick collects."""

    changed: list[Entry] = field(default_factory=list)
    sight: list[Entry] = field(default_factory=list)
    gone: list[tuple[str, Labels]] = field(default_factory=list)
    moved: list[tuple[tuple[str, Labels], str]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


class RuleEvaluator:
    """Evaluates rules, keeps their alerts and writes what they record back to the store.

    Not for concurrent ticks; :meth:`active`, :meth:`groups` and :meth:`replace_rules` may be called from any thread.

    Args:
        exemplars: finds a trace for an alert that begins to be pending or firing.
        around: what templates may say of the deployment.
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
        around: Surroundings = NOWHERE,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._describer = Describer(engine, exemplars, around)
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
        telemetry.observe(RULES_UNSEEN, self._observe_unseen)

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
        with self._lock:
            self._adopt_rules(found, now)
            repeated = [self._entries[key] for key in self._to_repeat if key in self._entries]
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
        before = {rule.key for rule in self._rules.rules}
        self._rules, self._replacement = self._replacement, None
        self._describer.use(self._rules)
        kept = {rule.key for rule in self._rules.rules}
        for entry in list(self._entries.values()):
            if entry.rule in kept or entry.timer.state is AlertState.RESOLVED:
                continue
            heir = successor(entry, self._rules, before)
            if heir is not None and (heir.key, entry.element) not in self._entries:
                self._inherit(entry, heir, found)
            elif entry.timer.state is AlertState.PENDING:
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

    def _inherit(self, entry: Entry, heir: AlertRule, found: _Pass) -> None:
        """Let an alert go on under another rule."""
        found.moved.append((entry.key, heir.key))
        del self._entries[entry.key]
        moved = replace(entry, rule=heir.key)
        self._entries[moved.key] = moved
        self._unheard = {moved.key if key == entry.key else key for key in self._unheard}
        self._to_repeat = frozenset(moved.key if key == entry.key else key for key in self._to_repeat)

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
            error, lack = "", None
            try:
                if isinstance(rule, RecordingRule):
                    health = self._record(rule, group, shared, now)
                else:
                    lack = self._judge(rule, group, shared, found, now)
                    health = Health.OK if lack is None else Health(lack.unseen)
            except Exception as problem:  # noqa: BLE001 - one rule's failure, a bug's too, must not blind the others
                health, error = Health.ERROR, str(problem) or type(problem).__name__
                lack = Lack(unseen=Unseen.ERROR, reason=error)
                self._failed(rule, group, lack, shared, found, now)
            with self._lock:
                self._statuses[rule.key] = RuleStatus(
                    rule=rule,
                    health=health,
                    error=error,
                    lack=lack,
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

    def _judge(self, rule: AlertRule, group: RuleGroup, shared: Evaluation, found: _Pass, now: datetime) -> Lack | None:
        """Give every alert of the rule its observation; returns why the rule as a whole did not see, if it did not."""
        elements = _limited(shared.elements(rule.expression.root), group.limit)
        true = {_nameless(element.labels): element for element in elements if not math.isnan(element.value)}
        if len({_nameless(element.labels) for element in elements}) != len(elements):
            raise _repeated_labels("the alert's labels")
        known = [key[1] for key in self._entries if key[0] == rule.key and key[1] not in SIGHTLESS.values()]
        witness = rule.expression.witness
        opened: list[Element] = []
        if witness is not None and (not true or any(element not in true for element in known)):
            opened = shared.elements(witness)
        witnessed = {_nameless(element.labels) for element in opened if not math.isnan(element.value)}
        lack = None
        if not true and not witnessed and witness is not None:
            lack = self._lack(rule, now, undefined=_undefined(rule.expression.root, shared))
        for element in dict.fromkeys((*known, *true)):
            if element in true:
                value = Observation(sight=Sight.TRUE, value=true[element].value)
                self._observe(rule, group, element, value, found, now, named=true[element].labels)
            elif witness is None or element in witnessed:
                self._observe(rule, group, element, Observation(sight=Sight.FALSE), found, now)
            else:
                missing = lack or self._lack(rule, now, element=element)
                self._unseen(rule, group, element, missing, found, now)
        self._call_out(rule, group, lack, found, now)
        return lack

    def _lack(self, rule: AlertRule, now: datetime, *, element: Labels = (), undefined: bool = False) -> Lack:
        return lack_of(
            self._describer.measured_by(rule.expression),
            self._engine,
            now.timestamp(),
            element=element,
            undefined=undefined,
        )

    def _failed(
        self, rule: Rule, group: RuleGroup, lack: Lack, shared: Evaluation, found: _Pass, now: datetime
    ) -> None:
        found.failures[rule.name] = lack.reason
        self._telemetry.add(RULE_FAILURES, 1, {"rule": rule.name})
        if isinstance(rule, RecordingRule):
            if _source(rule) in self._recorded:
                # What can't be computed must not pass for a measurement until the lookback ends.
                self._store.stale(_source(rule), now.timestamp())
                self._recorded.discard(_source(rule))
                shared.forget(frozenset({rule.name}))
            return
        for _, element in [key for key in self._entries if key[0] == rule.key and key[1] not in SIGHTLESS.values()]:
            self._unseen(rule, group, element, lack, found, now)
        self._call_out(rule, group, lack, found, now)

    def _unseen(
        self, rule: AlertRule, group: RuleGroup, element: Labels, lack: Lack, found: _Pass, now: datetime
    ) -> None:
        """One alert without an answer: its state is kept, unless its rule takes want of data for health."""
        if rule.unseen.of(lack.unseen) is Policy.OK:
            self._observe(rule, group, element, Observation(sight=Sight.FALSE), found, now)
            return
        sight = Sight.ERROR if lack.unseen is Unseen.ERROR else Sight.NO_DATA
        self._observe(rule, group, element, Observation(sight=sight), found, now, lack=lack)

    def _call_out(self, rule: AlertRule, group: RuleGroup, lack: Lack | None, found: _Pass, now: datetime) -> None:
        """Move on the alerts that say that the rule itself can't see, for policies that ask for them."""
        for unseen, element in SIGHTLESS.items():
            if lack is not None and lack.unseen is unseen and rule.unseen.of(unseen) is Policy.ALERTING:
                self._observe(rule, group, element, Observation(sight=Sight.TRUE), found, now, lack=lack)
            elif (rule.key, element) in self._entries:
                self._observe(rule, group, element, Observation(sight=Sight.FALSE), found, now)

    def _observe(
        self,
        rule: AlertRule,
        group: RuleGroup,
        element: Labels,
        observation: Observation,
        found: _Pass,
        now: datetime,
        *,
        lack: Lack | None = None,
        named: Labels = (),
    ) -> None:
        """Move one alert on; templates see its labels as ``named``, with the metric's name."""
        key = (rule.key, element)
        before = self._entries.get(key)
        patience = _patience(rule, group, about_sight=element in SIGHTLESS.values())
        moved = transition(before.timer if before else None, observation, now, patience)
        if moved.timer is None:
            if before is not None and key not in self._to_repeat:
                found.gone.append(key)
                with self._lock:
                    del self._entries[key]
            return
        over = before is None or before.timer.state in _OVER
        entry = self._describer.begun(rule, element, moved.timer, named) if before is None or over else before
        state_changed = before is None or before.timer.state is not moved.timer.state
        entry = replace(entry, timer=moved.timer, blind=self._blindness(moved.timer, group, observation, lack, now))
        if observation.sight is Sight.TRUE:
            entry = self._describer.described(rule, entry, named, look_for_trace=state_changed)
        if state_changed:
            found.changed.append(entry)
        if before is not None and bool(before.blind) != bool(entry.blind):
            found.sight.append(entry)
        with self._lock:
            self._entries[key] = entry

    def _blindness(
        self, timer: Timer, group: RuleGroup, observation: Observation, lack: Lack | None, now: datetime
    ) -> str:
        """Why an alert is blind, or "" while it is not, or its want of sight may be a moment's gap."""
        if lack is None:
            return ""
        looking = max(timer.seen_at, self._first_tick or now)  # a daemon that just started has not looked in vain
        return lack.mark if observation.definite or is_blind(looking, now, group.interval) else ""

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
        if found.changed or found.gone or found.moved or written or heard:
            self._book.save(
                changed=found.changed,
                refreshed=[self._entries[key] for key in written if key in self._entries],
                heard=heard - fresh,
                gone=found.gone,
                moved=found.moved,
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

    def _observe_unseen(self) -> list[tuple[float, Mapping[str, str]]]:
        with self._lock:
            lacks = [status.lack.unseen for status in self._statuses.values() if status.lack is not None]
        return [(float(lacks.count(unseen)), {"sight": str(unseen)}) for unseen in Unseen]

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


def _patience(rule: AlertRule, group: RuleGroup, *, about_sight: bool) -> Patience:
    """A rule's own; a want of sight must also be more than a moment's gap, or the first seconds of a start."""
    patience = rule.patience(group.interval)
    if not about_sight:
        return patience
    return replace(patience, pending_for=max(patience.pending_for, GAP_INTERVALS * group.interval))


def _nameless(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != METRIC_NAME)


def _renamed(labels: Labels, rule: RecordingRule) -> Labels:
    return labels_of(rule.name, {**dict(labels), **rule.labels})


def _undefined(root: Node, shared: Evaluation) -> bool:
    """Whether something that ``root`` compares is NaN; it has been evaluated, so this costs a look."""
    sides = (root.left, root.right) if isinstance(root, Binary) and root.comparison is not None else (root,)
    return any(math.isnan(element.value) for side in sides for element in shared.elements(side))


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
