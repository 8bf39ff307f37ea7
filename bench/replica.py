"""Our side of the query bench, in a process of its own: a store with the population, and our API in front of it.

``python -m bench.replica BEGAN SECOND...``, started by :mod:`bench.prometheus`: of the population that began then, the
readings of these seconds. It says its address and answers
``{"query": ..., "start": ..., "end": ..., "step": ...}`` with the seconds that our engine alone takes; it ends with its
parent.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from itertools import takewhile
from pathlib import Path
from typing import Any

from agent.alerting import RuleEvaluator, RuleSet
from agent.api import ApiServer, Sources, create_app
from agent.clock import SystemClock
from agent.promql import Engine, compile_expression
from agent.runbook import load_runbook
from agent.samples import SeriesStore
from agent.sandbox.child import Line, say, serve
from agent.state import StateFile
from agent.telemetry import quiet_telemetry
from bench.population import Population

_PAGE = Path(__file__).parents[1] / "runbooks" / "firestore-operations.md"


def main() -> None:
    began, *seconds = map(int, sys.argv[1:])
    population, store, wanted = Population(began), SeriesStore(), set(seconds)
    for reading in takewhile(lambda reading: reading[0] <= max(seconds), population):
        if reading[0] in wanted:
            population.file(store, reading)
    engine = Engine(store)

    def answer(question: Line) -> dict[str, Any]:
        plan = compile_expression(question["query"])
        before = time.perf_counter()
        engine.range(plan, question["start"], question["end"], question["step"])
        return {"seconds": time.perf_counter() - before}

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        state = stack.enter_context(closing(StateFile(folder / "state.db")))
        server = ApiServer(create_app(_sources(store, engine, state)), host="127.0.0.1", port=0)
        server.start()
        stack.callback(server.stop)
        say({"url": server.url})
        asyncio.run(serve(answer))


def _sources(store: SeriesStore, engine: Engine, state: StateFile) -> Sources:
    """A daemon's insides as far as queries need them."""
    clock, telemetry, page = SystemClock(), quiet_telemetry(), load_runbook(_PAGE)
    rules = RuleEvaluator(rules=RuleSet(), engine=engine, store=store, state=state, clock=clock, telemetry=telemetry)
    return Sources(
        policy=lambda: page,
        store=store,
        engine=engine,
        rules=rules,
        started_at=clock.now(),
        alive=lambda: True,
        problems=dict,
        database_health=dict,
        migration_status=dict,
        backup_status=dict,
        metrics=dict,
        families=telemetry.families,
        recent=tuple,
        schedule=dict,
        automation=dict,
        clock=clock,
    )


if __name__ == "__main__":
    main()
