"""What most verbs need: settings, page, database, opened when first asked for and closed at the end."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from agent.backup import Backups
from agent.clock import SystemClock
from agent.daemon.assembly import backups_of, load_policy, migrations_of, open_firestore
from agent.daemon.operations import Operations
from agent.decisions import Decisions
from agent.firestore import Firestore
from agent.migration import Migrations
from agent.runbook import Policy
from agent.scheduling import OperationContext
from agent.settings import Settings, load_settings
from agent.state import StateFile
from agent.telemetry import ProgressSink, Telemetry, ignore_progress, start_logging, start_telemetry


@dataclass
class Runtime:
    """One invocation of the command line."""

    config: Path | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def settings(self) -> Settings:
        found = load_settings(self.config)
        start_logging("WARNING" if found.log_level == "INFO" else found.log_level)
        return found

    @property
    def config_file(self) -> Path | None:
        """The settings file in use, for worker processes."""
        default = Path("runbookd.yaml")
        return self.config or (default.resolve() if default.exists() else None)

    @cached_property
    def policy(self) -> Policy:
        return load_policy(self.settings)

    @cached_property
    def telemetry(self) -> Telemetry:
        telemetry = start_telemetry("cli")
        self._stack.callback(telemetry.shutdown)
        return telemetry

    @cached_property
    def clock(self) -> SystemClock:
        return SystemClock()

    @cached_property
    def firestore(self) -> Firestore:
        firestore = self._stack.enter_context(open_firestore(self.settings, self.telemetry, origin="cli"))
        firestore.check()
        return firestore

    @cached_property
    def backups(self) -> Backups:
        return backups_of(self.settings, self.policy, self.firestore, self.telemetry)

    @cached_property
    def migrations(self) -> Migrations:
        return migrations_of(self.settings, self.policy, self.firestore, self.telemetry, backups=self.backups)

    @cached_property
    def operations(self) -> Operations:
        _ = self.firestore  # says at once, and clearly, if nothing answers
        return Operations(self.settings, self.telemetry)

    @cached_property
    def state(self) -> StateFile:
        state = StateFile(self.settings.data_dir / "state.db")
        self._stack.callback(state.close)
        return state

    @cached_property
    def decisions(self) -> Decisions:
        return Decisions(policy=self.policy, state=self.state, clock=self.clock, telemetry=self.telemetry)

    def context(self, progress: ProgressSink = ignore_progress) -> OperationContext:
        """What an operation run in this process is handed; Ctrl-C raises KeyboardInterrupt in the middle of it."""
        return OperationContext(progress=progress, cancelled=lambda: False, telemetry=self.telemetry)

    def close(self) -> None:
        self._stack.close()
