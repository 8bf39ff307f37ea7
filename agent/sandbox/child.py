"""A companion process: started, spoken to in lines of JSON, and gone when its parent goes.

The child says one line when it is ready and answers each line that it is sent. Its standard input is its lifeline:
the kernel closes it when the parent ends in whatever way, and at the end of input the child ends. Used by the handles
of the proxy and the application (:mod:`agent.sandbox.companions`); the children use :func:`serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import agent
from agent.faults import Transient, TransientReason

Line = Mapping[str, Any]

_GRACE_SECONDS = 3.0


class Child:
    """A Python module running as a process of its own; a context manager that stops it.

    Args:
        module: what ``python -m`` runs.
        arguments: its command line.
        name: what a person calls it, for errors.
        ready_within: seconds it may take to say its first line.

    Raises:
        Transient: ``WORKER_DIED`` if it ended or said nothing in time.
    """

    def __init__(self, module: str, arguments: Sequence[str], *, name: str, ready_within: float = 30.0) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        checkout = str(Path(agent.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (checkout, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            # Ctrl-C at a terminal is for the parent, which then stops its children in its own order.
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read, name=f"{name}-lines", daemon=True)
        self._reader.start()
        try:
            self.ready = self._next_line(ready_within)
        except Transient:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, question: Line, *, within: float = 10.0) -> Line:
        """Send one line and return the answer to it.

        Raises:
            Transient: ``WORKER_DIED`` if the process ended or doesn't answer ``within`` seconds.
        """
        assert self._process.stdin is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
            except (OSError, ValueError) as error:
                raise self._died() from error
            return self._next_line(within)

    def stop(self) -> None:
        """End the process: politely, then by force after 3 seconds. Nothing happens if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # it died with a question unread
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _next_line(self, within: float) -> Line:
        try:
            line = self._lines.get(timeout=within)
        except queue.Empty:
            line = ""
        if not line:
            raise self._died()
        answer: Line = json.loads(line)
        return answer

    def _died(self) -> Transient:
        code = self._process.poll()
        state = "does not answer" if code is None else f"has ended with exit code {code}"
        return Transient(TransientReason.WORKER_DIED, f"the {self._name} process {state}")


class ChildHandle:
    """What a caller holds of a child: a context manager that stops it. Subclasses say what it can be asked."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def stop(self) -> None:
        """End the process and whatever it is doing; data that it was asked to keep stays."""
        self._child.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def say(line: Line) -> None:
    """Called in the child: write one line to the parent."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def serve(answer: Callable[[Line], Line]) -> None:
    """Called in a child that lives on an event loop: answer the parent's lines until it closes the pipe or ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        async for line in reader:
            say(answer(json.loads(line)))
    finally:
        pipe.close()
