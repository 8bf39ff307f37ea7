"""The process that is watched: applications whose database begins to fail when they are told to.

``python -m bench.stepping DEAD ILL``, started by :mod:`bench.race`. It exposes the client metrics of so many
applications (``db_query_summary="dead-0"``, ..., ``"ill-0"``, ...) at 50 operations a second each, as the catalogue's
instrument records them. ``{"step": "dead-0"}`` is answered with the unix time from which on its operations fail: all of
a dead one's, every fifth of an ill one's.
"""

from __future__ import annotations

import asyncio
import sys
import time
from itertools import count

from agent.sandbox.child import Line, say, serve
from agent.sandbox.frontdoor import Answer, FrontDoor
from agent.telemetry import quiet_telemetry
from agent.telemetry.catalogue import DB_OPERATION_DURATION
from agent.telemetry.exposition import text_of

EVERY_S = 0.02
ILL_ONE_IN = 5


async def _run(dead: int, ill: int) -> None:
    telemetry = quiet_telemetry()
    applications = {**{f"dead-{n}": 1 for n in range(dead)}, **{f"ill-{n}": ILL_ONE_IN for n in range(ill)}}
    failing: set[str] = set()

    async def work() -> None:
        began = time.monotonic()
        for number in count(1):
            for name, one_in in applications.items():
                attributes = {"db.operation.name": "RunQuery", "db.query.summary": name}
                if name in failing and number % one_in == 0:
                    attributes["error.type"] = "unavailable"
                telemetry.record(DB_OPERATION_DURATION, 0.004, attributes)
            await asyncio.sleep(began + number * EVERY_S - time.monotonic())

    def step(question: Line) -> Line:
        failing.add(question["step"])
        return {"at": time.time()}

    async def scraped(path: str, accept: str) -> Answer:
        del path
        body, content_type = text_of(await asyncio.to_thread(telemetry.families), accept=accept)
        return Answer(200, content_type, body)

    async with FrontDoor(scraped) as door:
        say({"target": door.url.removeprefix("http://")})
        working = asyncio.create_task(work())
        await serve(step)
        working.cancel()


if __name__ == "__main__":
    asyncio.run(_run(*map(int, sys.argv[1:])))
