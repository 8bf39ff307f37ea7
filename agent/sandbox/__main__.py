"""``python -m agent.sandbox``: serve until stopped. Says one JSON line when it is ready: its address.

Started by :func:`agent.sandbox.process.start_sandbox` and by hand.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from agent.faults import Misconfigured
from agent.sandbox.child import say
from agent.sandbox.composite import load_indexes
from agent.sandbox.server import SandboxServer
from agent.sandbox.store import Store


def main() -> int:
    """Run the server; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m agent.sandbox", description="An embedded Firestore server.")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 for any free one")
    parser.add_argument("--data", default="memory", help="folder that keeps the documents, or 'memory'")
    parser.add_argument("--indexes", type=Path, help="firestore.indexes.json: refuse what lacks an index")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        indexes = load_indexes(arguments.indexes) if arguments.indexes else None
        store = Store(None if arguments.data == "memory" else Path(arguments.data))
        server = SandboxServer(store, port=arguments.port, indexes=indexes)
    except Misconfigured as error:
        say({"error": error.message, "reason": error.reason, "hint": error.hint})
        return error.exit_code
    server.start()
    say({"host": server.host})
    if arguments.until_eof:
        threading.Thread(target=_wait_for_end, args=(stopped,), daemon=True).start()
    stopped.wait()
    server.stop()
    store.close()
    return 0


def _wait_for_end(stopped: threading.Event) -> None:
    """The parent holds the other end of our standard input; whatever ends it closes that."""
    while sys.stdin.buffer.raw.read(4096):  # type: ignore[union-attr]
        pass
    stopped.set()


if __name__ == "__main__":
    sys.exit(main())
