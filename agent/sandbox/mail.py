"""A mail server on loopback that keeps what it gets: enough of RFC 5321 for any client, and strict about it.

Called by the demo and by the tests of the e-mail notifier. It refuses what strict servers refuse: bare line feeds,
lines over 1,000 octets, messages without From or Date.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from types import TracebackType
from typing import Self, cast

from agent.clock import Clock
from agent.sandbox.recording import Recorder

_LINE_OCTETS = 1000  # RFC 5321, 4.5.3.1.6, CRLF included
_MESSAGE_OCTETS = 10 * 1024 * 1024
_PATH = re.compile(rb"^(?:FROM|TO):\s*<([^>]*)>", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Mail:
    """One message, accepted.

    Args:
        sender: of the envelope (MAIL FROM).
        recipients: of the envelope (RCPT TO).
        message: headers and body, parsed.
        raw: as it came, dots unstuffed.
    """

    received_at: datetime
    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage
    raw: bytes

    @property
    def subject(self) -> str:
        """The subject, decoded."""
        return str(self.message["Subject"] or "")

    @property
    def text(self) -> str:
        """The plain text part."""
        part = self.message.get_body(("plain",))
        return str(part.get_content()) if part is not None else ""


class MailReceiver(Recorder[Mail]):
    """An SMTP server without TLS and without accounts, on a thread with its own event loop.

    Args:
        port: 0 for one that is free.
        clock: stamps the mails.
    """

    host = "127.0.0.1"

    def __init__(self, *, port: int = 0, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._failures: deque[bytes] = deque()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._converse, self.host, port, limit=_MESSAGE_OCTETS)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="MailReceiver", daemon=True)

    def start(self) -> Self:
        """Begin to answer; the port is taken since construction."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop answering and free the port, whether it was started or not."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        else:
            self._loop.run_until_complete(self._close())
        self._loop.close()

    def fail_next(self, code: int, text: str = "injected failure", *, times: int = 1) -> None:
        """Answer the next ``times`` messages with ``code`` (e.g. 451: try again later) after their last line."""
        self._failures.extend([f"{code} {text}".encode()] * times)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _close(self) -> None:
        self._server.close()
        conversations = asyncio.all_tasks() - {cast("asyncio.Task[None]", asyncio.current_task())}
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _Conversation(self, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client hung up or talks nonsense, or the server stops: there is nobody to tell
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def accept(self, sender: str, recipients: tuple[str, ...], raw: bytes) -> bytes:
        """Keep one message; the reply to its last line."""
        if self._failures:
            return self._failures.popleft()
        lines = raw.split(b"\r\n")
        if any(b"\n" in line or b"\r" in line for line in lines):
            return b"500 5.5.2 bare CR or LF in the message"
        if any(len(line) + 2 > _LINE_OCTETS for line in lines):
            return b"500 5.5.2 line too long"
        message = message_from_bytes(raw, policy=policy.default)
        missing = [name for name in ("From", "Date") if name not in message]
        if missing:
            return f"550 5.6.0 no {' and no '.join(missing)} header".encode()
        self._record(
            Mail(received_at=self._clock.now(), sender=sender, recipients=recipients, message=message, raw=raw)
        )
        return b"250 2.0.0 kept"


class _Conversation:
    """One client's session."""

    def __init__(self, owner: MailReceiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._owner = owner
        self._reader = reader
        self._writer = writer
        self._sender: str | None = None
        self._recipients: list[str] = []

    async def run(self) -> None:
        await self._say(b"220 runbookd sandbox ESMTP")
        while True:
            line = (await self._reader.readuntil(b"\r\n"))[:-2]
            verb, _, argument = line.partition(b" ")
            match verb.upper():
                case b"EHLO":
                    self._forget()
                    await self._say(b"250-runbookd", b"250-8BITMIME", b"250-SMTPUTF8", b"250 SIZE %d" % _MESSAGE_OCTETS)
                case b"HELO" | b"RSET":
                    self._forget()
                    await self._say(b"250 OK")
                case b"NOOP":
                    await self._say(b"250 OK")
                case b"MAIL":
                    await self._say(self._mail(argument))
                case b"RCPT":
                    await self._say(self._recipient(argument))
                case b"DATA":
                    await self._data()
                case b"QUIT":
                    await self._say(b"221 bye")
                    return
                case _:
                    await self._say(b"500 5.5.1 unknown command")

    def _mail(self, argument: bytes) -> bytes:
        path = _PATH.match(argument)
        if path is None:
            return b"501 5.5.4 syntax: MAIL FROM:<address>"
        if self._sender is not None:
            return b"503 5.5.1 there is a sender already"
        self._sender = path[1].decode(errors="replace")
        return b"250 OK"

    def _recipient(self, argument: bytes) -> bytes:
        path = _PATH.match(argument)
        if self._sender is None:
            return b"503 5.5.1 MAIL first"
        if path is None or b"@" not in path[1]:
            return b"501 5.5.4 syntax: RCPT TO:<address>"
        self._recipients.append(path[1].decode(errors="replace"))
        return b"250 OK"

    async def _data(self) -> None:
        if self._sender is None or not self._recipients:
            await self._say(b"503 5.5.1 MAIL and RCPT first")
            return
        await self._say(b"354 end with a line that holds a dot")
        lines: list[bytes] = []
        while (line := await self._reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        reply = self._owner.accept(self._sender, tuple(self._recipients), b"".join(lines))
        self._forget()
        await self._say(reply)

    def _forget(self) -> None:
        self._sender, self._recipients = None, []

    async def _say(self, *lines: bytes) -> None:
        self._writer.write(b"".join(line + b"\r\n" for line in lines))
        await self._writer.drain()
