"""Our side of the detection bench, in a process of its own: the daemon's senses, judgement and voice.

``python -m bench.watcher TARGET RULES PAGERDUTY INTERVAL``, started by :mod:`bench.race`. It scrapes TARGET and looks
at the rule file RULES every INTERVAL seconds, and pages at PAGERDUTY with the real ``pagerduty`` client; alerts and
outbox go through a state file. It ends with its parent.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from agent.alerting import RuleEvaluator, load_rules
from agent.clock import SystemClock
from agent.daemon.loop import Loop
from agent.notifications import Notifier, PagerDutyChannel
from agent.promql import Engine
from agent.runbook import load_runbook
from agent.samples import SeriesStore
from agent.sandbox.child import Line, say, serve
from agent.settings import ScrapeTarget
from agent.signals import Freshness, Scraper
from agent.state import StateFile
from agent.telemetry import quiet_telemetry

PAGE = Path(__file__).parents[1] / "runbooks" / "firestore-operations.md"
ROUTING_KEY = "0" * 32


def main(target: str, rules: str, pagerduty: str, interval: float, folder: Path) -> None:
    logging.disable(logging.ERROR)  # that the page's other channels are not configured here
    clock, telemetry, store = SystemClock(), quiet_telemetry(), SeriesStore()
    state = StateFile(folder / "state.db")
    scraper = Scraper(
        [ScrapeTarget(job="application", url=f"http://{target}/metrics", interval=interval)],
        store=store,
        freshness=Freshness(clock=clock, telemetry=telemetry),
        clock=clock,
        telemetry=telemetry,
    )
    evaluator = RuleEvaluator(
        rules=load_rules([Path(rules)], default_interval=timedelta(seconds=interval)),
        engine=Engine(store),
        store=store,
        state=state,
        clock=clock,
        telemetry=telemetry,
    )
    notifier = Notifier(
        policy=load_runbook(PAGE),
        channels=[PagerDutyChannel(routing_key=ROUTING_KEY, url=pagerduty)],
        state=state,
        clock=clock,
        telemetry=telemetry,
        project="bench",
    )

    def tick() -> None:
        now = clock.now()
        result = evaluator.tick(now)
        notifier.alerts_changed(result.changes, result.active, now)

    loop = Loop(tick, interval=interval, clock=clock, telemetry=telemetry)
    with ExitStack() as stack:
        stack.callback(state.close)
        for part in (notifier, scraper, loop):
            part.start()
            stack.callback(part.stop)
        say({"ready": True})
        asyncio.run(serve(_nothing))


def _nothing(question: Line) -> Line:
    return question


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as _folder:
        main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), Path(_folder))
