"""The maintenance flag as the daemon last saw it; read by a probe, never while somebody waits."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from agent.faults import RunbookdError
from agent.firestore import Firestore, Maintenance, read_maintenance
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import MAINTENANCE_MODE


class MaintenanceWatch:
    """Remembers the last answer; feeds ``runbookd_maintenance_mode``, which has no sample while it is not known."""

    def __init__(self, firestore: Firestore, telemetry: Telemetry) -> None:
        self._firestore = firestore
        self._flag: Maintenance | None = None
        self._lock = threading.Lock()
        telemetry.observe(MAINTENANCE_MODE, self._observe)

    def refresh(self) -> None:
        """Ask the database; raises if it can't be asked, and the flag is then unknown."""
        try:
            flag: Maintenance | None = read_maintenance(self._firestore)
        except RunbookdError:
            self._remember(None)
            raise
        self._remember(flag)

    def flag(self) -> Maintenance | None:
        with self._lock:
            return self._flag

    def known(self) -> bool | None:
        """Whether maintenance mode is on; ``None`` if not known."""
        flag = self.flag()
        return None if flag is None else flag.enabled

    def _remember(self, flag: Maintenance | None) -> None:
        with self._lock:
            self._flag = flag

    def _observe(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        flag = self.flag()
        if flag is not None:
            yield (1.0 if flag.enabled else 0.0), {}
