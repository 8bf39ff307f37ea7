"""What may be done over HTTP with the bearer token; the same calls that the command line makes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from agent.clock import rfc3339
from agent.daemon.daemon import Daemon
from agent.faults import Permanent, PermanentReason
from agent.firestore import set_maintenance
from agent.migration import Entry, Event, RunRecord


class DaemonControl:
    """The :class:`agent.api.Control` of a running daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def hold(self, *, owner: str, reason: str, seconds: float) -> Mapping[str, Any]:
        hold = self._daemon.parts.decisions.hold(owner=owner, reason=reason, lasting=timedelta(seconds=seconds))
        return {"owner": hold.owner, "reason": hold.reason, "expires_at": rfc3339(hold.expires_at)}

    def release(self, *, owner: str) -> Mapping[str, Any]:
        return {"ended": len(self._daemon.parts.decisions.release(owner=owner))}

    def approve(self, decision_id: str, *, owner: str) -> Mapping[str, Any]:
        given = self._daemon.parts.decisions.approve(decision_id, owner=owner)
        return {"run": given.run_id, "expires_at": rfc3339(given.expires_at)}

    def abort(self, decision_id: str, *, owner: str, reason: str) -> Mapping[str, Any]:
        return {"run": self._daemon.parts.decisions.abort(decision_id, owner=owner, reason=reason).run_id}

    def maintenance(self, *, enabled: bool, message: str, owner: str) -> Mapping[str, Any]:
        parts = self._daemon.parts
        text = message or (parts.policy().maintenance.message if enabled else "")
        set_maintenance(parts.firestore, enabled=enabled, now=parts.clock.now(), message=text, by=owner)
        return {"enabled": enabled, "message": text}

    def pause(self, run_id: str, *, owner: str, reason: str, seconds: float | None) -> Mapping[str, Any]:
        now = self._daemon.parts.clock.now()
        until = now + timedelta(seconds=seconds) if seconds is not None else None
        record = self._order(run_id, Entry(at=now, event=Event.PAUSE, owner=owner, reason=reason, until=until))
        return {"run": record.id, "until": rfc3339(until) if until is not None else None}

    def resume(self, run_id: str, *, owner: str) -> Mapping[str, Any]:
        """Let a paused run go on; if no process works on it, one is started."""
        parts = self._daemon.parts
        record = self._order(run_id, Entry(at=parts.clock.now(), event=Event.GO_ON, owner=owner))
        started = not parts.runs.alive(record)
        if started:
            self._daemon.resume(record.id)
        return {"run": record.id, "started": started}

    def set(
        self, run_id: str, *, owner: str, reason: str, batch_size: int | None, rate: float | None
    ) -> Mapping[str, Any]:
        now = self._daemon.parts.clock.now()
        wanted = {Event.BATCH_SIZE: batch_size, Event.RATE: rate}
        if not any(wanted.values()):
            raise Permanent(PermanentReason.INVALID, "nothing is to be set", hint="send batch_size or rate")
        record = self._daemon.parts.runs.resumable(run_id or None)
        for event, value in wanted.items():
            if value is not None:
                self._order(record.id, Entry(at=now, event=event, value=value, owner=owner, reason=reason))
        return {"run": record.id, "batch_size": batch_size, "rate": rate}

    def _order(self, run_id: str, entry: Entry) -> RunRecord:
        runs = self._daemon.parts.runs
        record = runs.resumable(run_id or None)
        runs.chronicle(record.id).append(entry)
        return record

    def reload(self) -> Mapping[str, Any]:
        self._daemon.reload()
        return {"reloaded": True}
