"""What a step of a journey expects, held to what happened on the stage.

``notified`` and ``decided`` are complete: they list everything since the step before that asked the same, in order, so
that one page too many fails a journey as one too few does. Each entry names as much of it as matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from agent.alerting import AlertState, parse_duration
from agent.alerting.scripts import EPOCH
from agent.decisions import Decision
from agent.notifications import Kind
from agent.rehearsal.stage import Notice, Stage

EXPECTATIONS = ("alerts", "notified", "decided", "recovery", "maintenance", "heartbeat")
Judged = tuple[bool, str, str]
"""Whether it is so, what was expected, what there was."""


class Expectation:
    """Judges a stage; remembers what has been asked about."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._notices = 0
        self._decisions = 0

    def judge(self, kind: str, wanted: Any) -> Judged:
        """Hold ``wanted`` to the stage.

        Raises:
            ValueError: it is not understood.
        """
        match kind:
            case "alerts":
                return self._alerts(_mapping(wanted, kind))
            case "notified":
                found = [_noticed(each) for each in self._stage.notices[self._notices :] if _calls(each)]
                self._notices = len(self._stage.notices)
                return _listed(wanted, found, frozenset({"title"}))
            case "decided":
                fresh = [_decision(each) for each in self._stage.decided[self._decisions :]]
                self._decisions = len(self._stage.decided)
                return _listed(wanted, fresh, frozenset({"guards", "reasons"}))
            case "recovery":
                recovery = self._stage.recovery
                return _same(str(wanted), str(recovery.state) if recovery else "none")
            case "heartbeat":
                return _same(str(wanted).lower(), "on" if self._stage.heartbeat.alive else "off")
            case _:
                return _same(str(wanted).lower(), "on" if self._stage.world.maintenance else "off")

    def _alerts(self, wanted: Mapping[str, Any]) -> Judged:
        """States by name; a rule at two severities has the weightier state."""
        order = [AlertState.FIRING, AlertState.RECOVERING, AlertState.PENDING]
        got = {}
        for name in wanted:
            states = [alert.state for alert in self._stage.evaluator.active() if alert.rule == name]
            got[name] = str(next((state for state in order if state in states), AlertState.INACTIVE))
        return _same(_text({name: str(state) for name, state in wanted.items()}), _text(got))


def _calls(notice: Notice) -> bool:
    """Whether somebody was told of an incident; a change event calls nobody."""
    return notice.notification.kind is not Kind.CHANGE


def _noticed(notice: Notice) -> dict[str, str]:
    notification = notice.notification
    return {
        "at": _since_start(notice.at - EPOCH),
        "channel": str(notification.channel),
        "kind": str(notification.kind),
        "condition": notification.condition,
        "severity": str(notification.message.severity),
        "rules": ", ".join(sorted(notice.rules)),
        "title": notification.message.title,
    }


def _decision(decision: Decision) -> dict[str, str]:
    return {
        "at": _since_start(decision.decided_at - EPOCH),
        "row": decision.condition,
        "verdict": str(decision.verdict),
        "run": decision.run_id,
        "means": str(decision.means or ""),
        "pace": str(decision.pace or ""),
        "guards": ", ".join(decision.guards),
        "reasons": "; ".join(decision.reasons),
    }


def _listed(wanted: Any, found: Sequence[Mapping[str, str]], partly: frozenset[str]) -> Judged:
    if not isinstance(wanted, list):
        raise ValueError("a list is expected; [] for nothing")
    entries = [_mapping(each, "an entry") for each in wanted]
    same = len(entries) == len(found)
    for entry, got in zip(entries, found, strict=False):
        for key, value in entry.items():
            if key not in got and found:
                raise ValueError(f"unknown key {key!r}; known are {', '.join(found[0])}")
            text = _since_start(parse_duration(str(value))) if key == "at" else str(value)
            same = same and (text in got[key] if key in partly else text == got[key])
    return same, "; ".join(map(_text, entries)) or "nothing", "; ".join(map(_text, found)) or "nothing"


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a mapping")
    return value


def _same(wanted: str, got: str) -> Judged:
    return wanted == got, wanted, got


def _text(mapping: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in mapping.items() if value)


def _since_start(moment: timedelta) -> str:
    seconds = moment.total_seconds()
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
