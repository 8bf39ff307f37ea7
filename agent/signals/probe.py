"""Probes: the agent asks the database itself, so that a verdict never rests on the application's word alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from agent.clock import Clock
from agent.faults import RunbookdError
from agent.signals.freshness import Freshness
from agent.telemetry import Telemetry
from agent.telemetry.catalogue import PROBE_SUCCESS

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A check by name; ``run`` returns, or raises what was wrong."""

    name: str
    run: Callable[[], None]


class ProbeRunner:
    """Runs each probe in a thread of its own every ``interval`` seconds: one that hangs delays no other."""

    def __init__(
        self,
        probes: Iterable[Probe],
        *,
        interval: float,
        clock: Clock,
        telemetry: Telemetry,
        freshness: Freshness,
    ) -> None:
        self._probes = tuple(probes)
        self._interval = interval
        self._clock = clock
        self._freshness = freshness
        self._telemetry = telemetry
        self._results: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        telemetry.observe(PROBE_SUCCESS, self._observe)

    def start(self) -> None:
        for probe in self._probes:
            self._freshness.expect(f"probe:{probe.name}")
            thread = threading.Thread(target=self._loop, args=(probe,), daemon=True, name=f"probe-{probe.name}")
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=2.0)

    def check(self) -> dict[str, str]:
        """Run every probe now; returns the problems by name (empty: all is well)."""
        return {probe.name: problem for probe in self._probes if (problem := self._run(probe))}

    def problems(self) -> dict[str, str]:
        """Problems found by each probe's last run."""
        with self._lock:
            return {name: problem for name, problem in self._results.items() if problem}

    def results(self) -> dict[str, str]:
        """Every probe that has run, with its problem (``""`` if it had none)."""
        with self._lock:
            return dict(self._results)

    def _loop(self, probe: Probe) -> None:
        while not self._stop.is_set():
            self._run(probe)
            self._stop.wait(self._interval)

    def _run(self, probe: Probe) -> str:
        problem = ""
        try:
            with self._telemetry.span(f"probe {probe.name}"):
                probe.run()
        except RunbookdError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - a probe's own bug is a failed probe, not a dead thread
            problem = repr(error)
        with self._lock:
            before, self._results[probe.name] = self._results.get(probe.name, ""), problem
        if problem and problem != before:
            _log.warning("a probe fails", extra={"probe": probe.name, "why": problem})
        self._freshness.delivered(f"probe:{probe.name}")
        return problem

    def _observe(self) -> Iterable[tuple[float, Mapping[str, str]]]:
        with self._lock:
            results = dict(self._results)
        for name, problem in results.items():
            yield 0.0 if problem else 1.0, {"probe": name}
