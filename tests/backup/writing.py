"""Somebody who writes while a backup is made."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import Any

from agent.firestore import Firestore
from tests.background import repeatedly
from tests.backup.conftest import Running, write

Round = Callable[[int], Mapping[str, Mapping[str, Any] | None]]


class Pinning(Firestore):
    """A database whose instants can be taken between two rounds of somebody's writes; see :func:`somebody_writes`."""

    between: AbstractContextManager[object] = nullcontext()

    def server_time(self) -> datetime:
        with self.between:
            return super().server_time()


@contextmanager
def somebody_writes(writer: Firestore, changes: Round, *, beside: Pinning, on: Running) -> Iterator[None]:
    """Everything that ``changes`` names by a round's number is written, round after round.

    On Google's emulator no write is under way when an instant is taken. It gives a commit its time before the commit
    can be seen: of 500 instants taken while 1,200 documents were written, 45 showed one or two documents otherwise a
    second later, with nothing between us and it. Firestore itself, and the sandbox, have one answer for an instant.
    """
    a_round = threading.Lock()
    numbers = itertools.count(1)

    def write_round() -> None:
        with a_round:
            write(writer, changes(next(numbers)))

    if on.kind == "emulator":
        beside.between = a_round
    with repeatedly(write_round, pause=lambda: 0.005):  # in which whoever waits for the lock gets it
        yield
