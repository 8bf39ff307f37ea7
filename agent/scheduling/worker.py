"""The worker's side of the pipe: one process, one operation.

The daemon starts a worker, writes one :class:`Assignment` as a JSON line to its standard input and keeps the pipe
open. The worker answers on standard output with JSON lines:

    {"type": "progress", "operation": ..., "stage": ..., "done": n, "total": n | null, "unit": ...}
    {"type": "telemetry", "families": [...]}           every second, cumulative
    {"type": "result", "report": {...}}                 last line of a success
    {"type": "error", "kind": "Refused", "reason": ..., "message": ..., "hint": ...}

A line ``{"cancel": true}`` from the daemon, the end of its standard input (the daemon died) or SIGTERM ask the
operation to stop at its next safe point. Logs go to standard error.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, TextIO

from agent.faults import RunbookdError
from agent.telemetry import Progress, ProgressSink, Telemetry, continued_trace

_REPORT_INTERVAL_S = 1.0
_PROGRESS_INTERVAL_S = 0.1
# Of a processor that others want too, a tenth: a backup may take longer, a look at the rules may not.
_BACKGROUND = 10
# New objects between two looks for cycles. Documents come by the hundred thousand, die young and are in no cycle: at
# Python's 700 the looking takes a tenth of a migration's CPU.
_YOUNG_OBJECTS = 20_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a worker is to do.

    Args:
        operation: a key of the operations it is served with.
        arguments: JSON-able keyword arguments of that operation.
        config: settings file both processes read; ``None`` for the defaults.
        trace: W3C trace headers of the span that asked for it.
    """

    operation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    config: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict)

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @staticmethod
    def from_line(line: str) -> Assignment:
        return Assignment(**json.loads(line))


@dataclass(frozen=True, kw_only=True)
class OperationContext:
    """What an operation is handed besides its arguments."""

    progress: ProgressSink
    cancelled: Callable[[], bool]
    telemetry: Telemetry


Operation = Callable[..., object]
"""``operation(context, **arguments)`` returns a frozen dataclass or a mapping that JSON can carry."""


def plain(report: object) -> Any:
    """``report`` as JSON-able data: dataclasses become mappings, anything unknown its text."""
    data = asdict(report) if is_dataclass(report) and not isinstance(report, type) else report
    return json.loads(json.dumps(data, default=str))


class _Pipe:
    """Lines to the daemon, whole, from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message, default=str)
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                pass  # the daemon is gone; the end of standard input has already asked the operation to stop


def serve(
    operations: Callable[[Assignment, Telemetry], Mapping[str, Operation]],
    *,
    telemetry: Telemetry,
    urgent: Container[str] = (),
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> int:
    """Run the one operation that the daemon asks for; returns the process's exit code.

    Args:
        operations: builds the operations by name once the assignment (and so the settings file) is known.
        urgent: operations that have a budget of time; all others leave the processor to the rule loop.
    """
    lines = stdin or sys.stdin
    pipe = _Pipe(stdout or sys.stdout)
    first = lines.readline()
    if not first:
        return 2
    assignment = Assignment.from_line(first)
    if assignment.operation not in urgent:
        os.nice(_BACKGROUND)
    gc.freeze()  # what was imported stays
    gc.set_threshold(_YOUNG_OBJECTS)
    cancelled = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: cancelled.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the daemon decides
    threading.Thread(target=_listen, args=(lines, cancelled), daemon=True, name="worker-stdin").start()
    done = threading.Event()
    reporter = threading.Thread(target=_report, args=(pipe, telemetry, done), daemon=True, name="worker-telemetry")
    reporter.start()
    progress = _Throttled(pipe)
    context = OperationContext(progress=progress, cancelled=cancelled.is_set, telemetry=telemetry)
    code = 0
    try:
        with (
            continued_trace(assignment.trace),
            telemetry.span(f"worker {assignment.operation}", {"process.pid": os.getpid()}),
        ):
            operation = operations(assignment, telemetry)[assignment.operation]
            report = plain(operation(context, **assignment.arguments))
        final: dict[str, Any] = {"type": "result", "report": report}
    except RunbookdError as error:
        final = {
            "type": "error",
            "kind": type(error).__name__,
            "reason": str(error.reason),
            "message": error.message,
            "hint": error.hint,
        }
        code = error.exit_code
    except Exception as error:  # noqa: BLE001 - the daemon must hear of any end, and the log keeps the traceback
        _log.exception("the operation failed unexpectedly", extra={"operation": assignment.operation})
        final = {"type": "error", "kind": "Permanent", "reason": "internal", "message": repr(error), "hint": ""}
        code = 1
    progress.flush()
    done.set()
    reporter.join(timeout=5)
    pipe.send({"type": "telemetry", "families": telemetry.relayed()})
    pipe.send(final)
    telemetry.shutdown()
    return code


def _listen(lines: TextIO, cancelled: threading.Event) -> None:
    for line in lines:
        if '"cancel"' in line:
            break
    cancelled.set()


def _report(pipe: _Pipe, telemetry: Telemetry, done: threading.Event) -> None:
    while not done.wait(_REPORT_INTERVAL_S):
        pipe.send({"type": "telemetry", "families": telemetry.relayed()})


class _Throttled:
    """A progress sink that sends ten reports a second at most, and always the last one."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self._sent_at = 0.0
        self._pending: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self._pending = progress
        now = time.monotonic()
        if now - self._sent_at >= _PROGRESS_INTERVAL_S:
            self._sent_at = now
            self.flush()

    def flush(self) -> None:
        if self._pending is not None:
            self._pipe.send({"type": "progress", **asdict(self._pending)})
            self._pending = None
