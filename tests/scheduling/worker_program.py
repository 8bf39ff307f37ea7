"""A worker program for the supervisor's tests: real process, real pipe, small operations."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping

from agent.faults import Permanent, PermanentReason, Refused, RefusedReason
from agent.scheduling import Assignment, Operation, OperationContext, serve
from agent.telemetry import Progress, Telemetry, quiet_telemetry
from agent.telemetry.catalogue import DOCUMENTS_WRITTEN


def count(context: OperationContext, *, upto: int) -> dict[str, int]:
    for done in range(1, upto + 1):
        context.telemetry.add(DOCUMENTS_WRITTEN, 1, {"origin": "migration"})
        context.progress(Progress(operation="count", stage="counting", done=done, total=upto))
    return {"counted": upto}


def refuse(_: OperationContext) -> None:
    raise Refused(RefusedReason.HELD, "somebody holds it", hint="release it")


def crash(_: OperationContext) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def bug(_: OperationContext) -> None:
    raise ZeroDivisionError("a bug")


def wait_for_cancel(context: OperationContext) -> None:
    context.progress(Progress(operation="wait", stage="waiting", done=0))
    while not context.cancelled():
        time.sleep(0.01)
    raise Permanent(PermanentReason.CANCELLED, "stopped at a safe point")


def priority(_: OperationContext) -> dict[str, int]:
    return {"nice": os.getpriority(os.PRIO_PROCESS, 0)}


def heaps(_: OperationContext) -> dict[str, str]:
    return {"heaps": os.environ["MALLOC_ARENA_MAX"]}


def operations(_: Assignment, __: Telemetry) -> Mapping[str, Operation]:
    return {
        "count": count,
        "refuse": refuse,
        "crash": crash,
        "bug": bug,
        "wait": wait_for_cancel,
        "priority": priority,
        "heaps": heaps,
        "urgent": priority,
    }


if __name__ == "__main__":
    sys.exit(serve(operations, telemetry=quiet_telemetry(), urgent={"urgent"}))
