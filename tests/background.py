"""Something that goes on while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeatedly(action: Callable[[], object], *, pause: Callable[[], float]) -> Iterator[None]:
    """``action`` again and again in a thread of its own, after ``pause()`` seconds each; its last turn is awaited."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(pause()):
            action()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
