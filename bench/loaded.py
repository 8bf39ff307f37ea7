"""The daemon of the lateness bench: the real one, built from a settings file, which works as hard as it can.

``python -m bench.loaded CONFIG``, started by :mod:`bench.lateness`. It says where its API is; ``{"do": "work"}`` makes
it take one full backup after the other, and migrate and undo without a pause, in its workers; ``{"do": "report"}``
gives what it saw of its own ticks, by the monotonic clock, and how often either kind of worker got through.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

from agent.alerting import TickResult
from agent.daemon.daemon import Daemon
from agent.daemon.observer import Observer
from agent.daemon.serving import serve_api
from agent.daemon.wiring import build
from agent.faults import RunbookdError
from agent.sandbox.child import Line, say, serve
from agent.settings import load_settings
from agent.telemetry import start_telemetry

_MIGRATION = "0001"


class Ticks(Observer):
    """When each look at the rules began, and when all that follows from it was done."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def ticked(self, result: TickResult) -> None:
        ended = time.monotonic()
        self.seen.append((ended - (time.time() - result.at.timestamp()), ended))


class Work:
    """Two threads that keep a worker of each kind busy until told to stop."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.stop = threading.Event()
        self.done = {"backup": 0, "migration": 0}
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._repeat, args=(kind,), daemon=True) for kind in self.done]

    def start(self) -> None:
        hold = timedelta(hours=1)  # what the load does to latencies must not have the bench's own migration undone
        self._daemon.parts.decisions.hold(owner="bench", reason="the load is on purpose", lasting=hold)
        self._daemon.backup("full")  # a migration wants a restore point
        for thread in self._threads:
            thread.start()

    def _repeat(self, kind: str) -> None:
        while not self.stop.is_set():
            try:
                self._once(kind)
            except RunbookdError as error:
                if not self.stop.is_set():
                    self.failed.append(f"{kind}: {error}")
                return
            self.done[kind] += 1

    def _once(self, kind: str) -> None:
        if kind == "backup":
            self._daemon.backup("full")
            return
        outcome = self._daemon.migrate(_MIGRATION, again=True).wait()
        assert outcome is not None
        report = outcome.unwrap()
        self._daemon.parts.supervisor.run("undo", {"run_id": report["record"]["id"]})


def main(config: Path) -> None:
    logging.disable(logging.ERROR)  # there are no channels here, and alerts about the load
    ticks = Ticks()
    daemon = build(load_settings(config), config=config, telemetry=start_telemetry("daemon"), observer=ticks)
    server = serve_api(daemon)
    daemon.start()
    work = Work(daemon)

    def answer(question: Line) -> Line:
        if question["do"] == "work":
            work.start()
        return {"ticks": ticks.seen, "done": work.done, "failed": work.failed}

    try:
        say({"url": server.url})
        asyncio.run(serve(answer))
    finally:
        work.stop.set()
        daemon.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
