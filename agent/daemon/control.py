"""What may be done over HTTP with the bearer token; the same calls that the command line makes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from agent.clock import rfc3339
from agent.daemon.daemon import Daemon
from agent.firestore import set_maintenance


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

    def reload(self) -> Mapping[str, Any]:
        self._daemon.reload()
        return {"reloaded": True}
