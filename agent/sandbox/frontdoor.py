"""An HTTP server of one screen for a process that lives on an event loop: GET, one answer a connection, loopback only.

Called by :mod:`agent.sandbox.application`. The product's own API is FastAPI (room ``api``); an application that
competes with the database for two cores is better served by forty lines on the loop that it has anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    content_type: str
    body: bytes

    @classmethod
    def json(cls, status: int, body: Mapping[str, Any]) -> Answer:
        """An answer in JSON."""
        return cls(status, "application/json", json.dumps(body).encode())


class FrontDoor:
    """The server; an async context manager.

    Args:
        answer: called with the path and the Accept header of each GET.
        port: 0 for one that is free.
    """

    def __init__(self, answer: Callable[[str, str], Awaitable[Answer]], *, port: int = 0) -> None:
        self._answer = answer
        self._port = port
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``; known once it is entered."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, _, rest = head[0].partition(" ")
            path = rest.partition(" ")[0].partition("?")[0]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            if method == "GET":
                answer = await self._answer(path, headers.get("accept", ""))
            else:
                answer = Answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"GET only")
            writer.write(
                f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
                f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + answer.body
            )
            await writer.drain()
        writer.close()
