"""Where alerts are written down: what is pending, firing or recovering survives ``kill -9``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from agent.alerting.alert import Alert, AlertState
from agent.alerting.states import Timer
from agent.samples import Labels
from agent.state import StateFile

_ROOM = "alerting"
_SCHEMA = (
    """
    CREATE TABLE alerting_alert (
        rule TEXT NOT NULL,
        element TEXT NOT NULL,
        announced INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (rule, element)
    );
    """,
)

_TIMES = ("active_since", "seen_at", "fired_at", "calm_since", "resolved_at")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One alert as it is kept.

    Args:
        rule: the rule's key.
        element: labels of the expression's element, the metric's name left out: the alert's identity within its rule.
        alertname: the rule's name.
        labels: of the alert, fixed when it begins.
        blind: as in :class:`Alert`.
    """

    rule: str
    element: Labels
    alertname: str
    fingerprint: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    timer: Timer
    trace_id: str = ""
    blind: str = ""

    @property
    def key(self) -> tuple[str, Labels]:
        return (self.rule, self.element)

    def alert(self) -> Alert:
        """The entry as other rooms see it."""
        timer = self.timer
        return Alert(
            fingerprint=self.fingerprint,
            rule=self.alertname,
            labels=self.labels,
            annotations=self.annotations,
            state=timer.state,
            value=timer.value,
            active_since=timer.active_since,
            fired_at=timer.fired_at,
            resolved_at=timer.resolved_at,
            trace_id=self.trace_id,
            blind=self.blind,
        )


class AlertBook:
    """The table of alerts.

    A change is written with ``announced = 0`` before anybody hears of it. When the evaluator is called again, whoever
    called it had dealt with what it returned, and the mark is set; after a crash in between, the change is returned
    once more. So a change reaches its consumer at least once.
    """

    def __init__(self, state: StateFile) -> None:
        self._state = state
        state.ensure(_ROOM, _SCHEMA)

    def load(self) -> tuple[list[Entry], set[tuple[str, Labels]]]:
        """All entries, and the keys of those whose last change may not have been heard."""
        entries = []
        unheard = set()
        for row in self._state.query("SELECT rule, element, announced, body FROM alerting_alert"):
            entry = _entry(row["rule"], row["element"], json.loads(row["body"]))
            entries.append(entry)
            if not row["announced"]:
                unheard.add(entry.key)
        return entries, unheard

    def save(
        self,
        *,
        changed: Iterable[Entry],
        refreshed: Iterable[Entry],
        heard: Iterable[tuple[str, Labels]],
        gone: Iterable[tuple[str, Labels]],
        moved: Iterable[tuple[tuple[str, Labels], str]] = (),
    ) -> None:
        """One durable step.

        Args:
            changed: entries with a new state, not announced yet.
            refreshed: entries whose times or blindness moved on.
            heard: keys whose announcement was dealt with.
            gone: keys to forget.
            moved: keys of entries that go on under another rule, with that rule's key.
        """
        with self._state.transaction() as tx:
            tx.executemany(
                "UPDATE OR REPLACE alerting_alert SET rule = ? WHERE rule = ? AND element = ?",
                [(heir, rule, json.dumps(element)) for (rule, element), heir in moved],
            )
            tx.executemany(
                "UPDATE alerting_alert SET announced = 1 WHERE rule = ? AND element = ?",
                [(rule, json.dumps(element)) for rule, element in heard],
            )
            tx.executemany(
                "UPDATE alerting_alert SET body = ? WHERE rule = ? AND element = ?",
                [(_body(each), each.rule, json.dumps(each.element)) for each in refreshed],
            )
            tx.executemany(
                "DELETE FROM alerting_alert WHERE rule = ? AND element = ?",
                [(rule, json.dumps(element)) for rule, element in gone],
            )
            tx.executemany(
                "INSERT OR REPLACE INTO alerting_alert (rule, element, announced, body) VALUES (?, ?, 0, ?)",
                [(each.rule, json.dumps(each.element), _body(each)) for each in changed],
            )


def _body(entry: Entry) -> str:
    timer = entry.timer
    return json.dumps(
        {
            "alertname": entry.alertname,
            "fingerprint": entry.fingerprint,
            "labels": dict(entry.labels),
            "annotations": dict(entry.annotations),
            "trace_id": entry.trace_id,
            "blind": entry.blind,
            "state": timer.state,
            "value": timer.value,
            **{name: moment.isoformat() if (moment := getattr(timer, name)) else None for name in _TIMES},
        }
    )


def _entry(rule: str, element: str, body: dict[str, Any]) -> Entry:
    times = {name: datetime.fromisoformat(body[name]) if body[name] else None for name in _TIMES}
    active_since, seen_at = times.pop("active_since"), times.pop("seen_at")
    assert active_since is not None
    assert seen_at is not None
    return Entry(
        rule=rule,
        element=tuple((name, value) for name, value in json.loads(element)),
        alertname=body["alertname"],
        fingerprint=body["fingerprint"],
        labels=body["labels"],
        annotations=body["annotations"],
        trace_id=body["trace_id"],
        blind=body["blind"],
        timer=Timer(
            state=AlertState(body["state"]), value=body["value"], active_since=active_since, seen_at=seen_at, **times
        ),
    )


def resolved(entry: Entry, now: datetime) -> Entry:
    """``entry`` ended from outside: its rule is gone."""
    return replace(entry, timer=replace(entry.timer, state=AlertState.RESOLVED, resolved_at=now), blind="")
