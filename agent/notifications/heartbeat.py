"""The heartbeat to a dead-man's switch: somebody elsewhere who calls people when runbookd falls silent.

The rule loop reports each pass that ended with the watchdog alert firing; a thread of its own asks the switch's
address by interval, but only if there was such a pass just now. A loop that hangs, rules that can't be evaluated, a
process or a machine that is gone: all of them end the heartbeat. https://healthchecks.io/docs/http_api/
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import httpx

from agent.clock import Clock
from agent.faults import Misconfigured, MisconfiguredReason
from agent.notifications.http import is_loopback

_log = logging.getLogger(__name__)

_TIMEOUT = 10.0
# A pass every second: what is older than this many seconds is no sign of life.
_FRESH = 15.0


class Heartbeat:
    """Asks ``url`` every ``interval`` seconds as long as :meth:`ticked` is called.

    Args:
        url: of the switch (secret: whoever knows it can keep the switch quiet); any answer below 400 will do.
        send: puts one heartbeat on its way and raises ``httpx.HTTPError`` if it does not arrive; None: a GET.

    Raises:
        Misconfigured: ``url`` is neither https nor on loopback.
    """

    def __init__(
        self, url: str, *, clock: Clock, interval: float = 60.0, send: Callable[[str], None] | None = None
    ) -> None:
        if not (url.startswith("https://") or is_loopback(url)):
            raise Misconfigured(
                MisconfiguredReason.SETTINGS, "notifications.heartbeat_url is not an https address", hint="use https://"
            )
        self._url = url
        self._clock = clock
        self._interval = interval
        self._send = send or _get
        self._alive_at: float | None = None
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the first heartbeat goes out with the first pass over the rules."""
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")
        self._thread.start()

    def stop(self) -> None:
        """End; the switch will call people unless a new process takes over in time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=_TIMEOUT + 1.0)

    def ticked(self, watched: bool) -> None:
        """A pass over the rules has ended.

        Args:
            watched: the watchdog alert fired in it.
        """
        if watched:
            self._alive_at = self._clock.monotonic()

    @property
    def alive(self) -> bool:
        """Whether there was such a pass just now."""
        alive_at = self._alive_at
        return alive_at is not None and self._clock.monotonic() - alive_at <= _FRESH

    def beat(self) -> bool:
        """Send a heartbeat if there is life; whether there was."""
        if not self.alive:
            _log.warning("no heartbeat is sent: the rules have not been evaluated")
            return False
        try:
            self._send(self._url)
        except httpx.HTTPError as error:
            # The kind alone: the message holds the address.
            level = logging.DEBUG if self._lost else logging.WARNING
            _log.log(level, "the heartbeat does not arrive", extra={"error": type(error).__name__})
            self._lost = True
            return True
        if self._lost:
            _log.info("the heartbeat arrives again")
        self._lost = False
        return True

    def _run(self) -> None:
        # Not before there is life: a start takes its time, and is no reason to warn.
        while self._alive_at is None and not self._stop.wait(min(1.0, self._interval)):
            pass
        while not self._stop.is_set():
            self.beat()
            self._stop.wait(self._interval)


def _get(url: str) -> None:
    response = httpx.get(url, timeout=_TIMEOUT, follow_redirects=False, trust_env=not is_loopback(url))
    if response.status_code >= 400:
        raise httpx.HTTPStatusError("refused", request=response.request, response=response)
