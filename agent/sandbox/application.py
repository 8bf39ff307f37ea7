"""The first user's application: a process that makes traffic and shows how it fares.

Runs as ``python -m agent.sandbox.application --host HOST:PORT --project P``, started by
:func:`agent.sandbox.companions.start_application`. It sends the page's queries at a steady rate, each once, with a
deadline and without retries, so that whatever the database does to it is visible in its metrics; it stops while
``_config/maintenance`` is enabled; and it answers ``/metrics`` and ``/api/health`` on loopback.

The rate is an open loop: a slow database doesn't slow the questions down, it only keeps more of them waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import grpc
import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs forgot it

from agent.faults import Misconfigured, MisconfiguredReason, RunbookdError
from agent.firestore.address import DatabaseAddress
from agent.firestore.errors import from_rpc_error
from agent.firestore.maintenance import PATH as MAINTENANCE_PATH
from agent.firestore.protos import (
    SERVICE,
    BatchGetDocumentsResponse,
    DocumentMask,
    GetDocumentRequest,
    ListDocumentsRequest,
    ListDocumentsResponse,
)
from agent.firestore.protos import Document as DocumentMessage
from agent.sandbox.child import say, serve
from agent.sandbox.companions import APPLICATION_CALLER, ApplicationStats
from agent.sandbox.frontdoor import Answer, FrontDoor
from agent.sandbox.traffic import Operation, Traffic
from agent.telemetry import Telemetry, quiet_telemetry
from agent.telemetry.catalogue import DB_OPERATION_DURATION, DOCUMENTS_WRITTEN
from agent.telemetry.exposition import text_of

_DEADLINE = 2.0
_START_DEADLINE = 20.0
_WARM_UPS = 3  # rounds at least
_WARM_UP_WITHIN = 10.0
_FLAG_EVERY = 0.5
_QUEUED = ("reviews", "review_items", "progress")
_SAMPLE = 2000  # users and lessons it knows at most
_SYSTEM = "gcp.firestore"
_STREAMING = ("RunQuery", "BatchGetDocuments")
_OPTIONS = (
    ("grpc.primary_user_agent", APPLICATION_CALLER),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class Wire:
    """One channel to the database, on the event loop; requests and responses are bytes."""

    def __init__(self, address: DatabaseAddress) -> None:
        self.address = address
        self._channel: Any = grpc.aio.insecure_channel(address.target, options=_OPTIONS)
        self._stubs: dict[str, Any] = {}

    async def call(self, rpc: str, request: bytes, *, deadline: float = _DEADLINE) -> list[bytes]:
        """The responses of one RPC, tried once.

        Raises:
            RunbookdError: the database refused, or ``deadline`` seconds have passed.
        """
        try:
            if rpc in _STREAMING:
                return await self._stream(rpc, request, deadline)
            return [await self._stub(rpc, self._channel.unary_unary)(request, timeout=deadline)]
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, operation=rpc, address=self.address) from error

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _stream(self, rpc: str, request: bytes, deadline: float) -> list[bytes]:
        call = self._stub(rpc, self._channel.unary_stream)(request, timeout=deadline)
        responses = []
        while (response := await call.read()) is not EOF:
            responses.append(response)
        return responses

    def _stub(self, rpc: str, shape: Any) -> Any:
        if rpc not in self._stubs:
            self._stubs[rpc] = shape(f"/{SERVICE}/{rpc}")
        return self._stubs[rpc]


class Application:
    """The traffic, its measurements and its state. Lives on the event loop.

    Args:
        rate: operations a second while not in maintenance.
    """

    def __init__(self, wire: Wire, traffic: Traffic, *, rate: float, telemetry: Telemetry) -> None:
        self._wire = wire
        self._traffic = traffic
        self._rate = rate
        self._telemetry = telemetry
        self._operations: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._paused_seconds = 0.0
        self._paused_at: float | None = None
        self._healthy: bool | None = None  # of the last user lookup; None: none since the start or the last pause
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Make traffic until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_flag())
            tasks.create_task(self._send())

    def stats(self) -> ApplicationStats:
        """The figures now."""
        running = time.monotonic() - self._paused_at if self._paused_at is not None else 0.0
        return ApplicationStats(
            operations=dict(self._operations),
            errors=dict(self._errors),
            under_way=len(self._under_way),
            in_maintenance=self._paused_at is not None,
            paused_seconds=self._paused_seconds + running,
        )

    async def answer(self, path: str, accept: str) -> Answer:
        """One HTTP request."""
        match path:
            case "/metrics":
                body, content_type = text_of(await asyncio.to_thread(self._telemetry.families), accept=accept)
                return Answer(200, content_type, body)
            case "/api/health":
                return await self._health()
        return Answer(404, "text/plain", b"/metrics and /api/health are here")

    async def _health(self) -> Answer:
        # Whoever asks right after a change of the flag gets the state after it, not up to half a second before.
        if self._paused_at is not None:
            await self._read_flag()
        if self._paused_at is not None:
            return Answer.json(200, {"status": "maintenance"})
        if self._healthy is None:
            await self._perform(self._traffic.user_lookup())
        return Answer.json(200, {"status": "ok"}) if self._healthy else Answer.json(503, {"status": "failing"})

    async def _send(self) -> None:
        due = time.monotonic()
        while True:
            due += 1 / self._rate
            await asyncio.sleep(due - time.monotonic())
            if self._paused_at is not None:
                continue
            task = asyncio.create_task(self._perform(self._traffic.next()))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _perform(self, operation: Operation) -> None:
        attributes = {
            "db.system.name": _SYSTEM,
            "db.operation.name": operation.rpc,
            "db.query.summary": operation.query,
        }
        with self._telemetry.span(operation.query):
            started = time.perf_counter()
            error = await self._attempt(operation)
            elapsed = time.perf_counter() - started
            if error:
                attributes["error.type"] = error
                self._errors[operation.query] += 1
            self._telemetry.record(DB_OPERATION_DURATION, elapsed, attributes)
        self._operations[operation.query] += 1
        if operation.query == "user_lookup":
            self._healthy = not error
        if operation.written and not error:
            self._telemetry.add(DOCUMENTS_WRITTEN, operation.written, {"origin": "application"})

    async def _attempt(self, operation: Operation) -> str:
        """The reason of the failure, or nothing."""
        try:
            responses = await self._wire.call(operation.rpc, operation.request)
        except RunbookdError as error:
            return str(error.reason)
        if operation.rpc == "BatchGetDocuments":
            answers = [BatchGetDocumentsResponse.FromString(response) for response in responses]
            if any(answer.missing for answer in answers):
                return "not_found"
        return ""

    async def _watch_flag(self) -> None:
        while True:
            await self._read_flag()
            await asyncio.sleep(_FLAG_EVERY)

    async def _read_flag(self) -> None:
        request = GetDocumentRequest(name=self._wire.address.name(MAINTENANCE_PATH))
        try:
            (response,) = await self._wire.call("GetDocument", request.SerializeToString())
        except RunbookdError as error:
            # No flag was ever written: go on. A database that can't be asked: stay as we are.
            if error.reason == "not_found":
                self._resume()
            return
        if DocumentMessage.FromString(response).fields["enabled"].boolean_value:
            self._pause()
        else:
            self._resume()

    def _pause(self) -> None:
        if self._paused_at is None:
            self._paused_at = time.monotonic()

    def _resume(self) -> None:
        if self._paused_at is not None:
            self._paused_seconds += time.monotonic() - self._paused_at
            self._paused_at = None
            self._healthy = None


async def known_ids(wire: Wire, collection: str) -> list[str]:
    """Ids of up to 2,000 documents of ``collection``, in order.

    Raises:
        Misconfigured: ADDRESS if there are none: the database was not filled.
        RunbookdError: the database doesn't answer.
    """
    ids: list[str] = []
    token = ""
    while len(ids) < _SAMPLE:
        request = ListDocumentsRequest(
            parent=wire.address.documents,
            collection_id=collection,
            page_size=300,
            page_token=token,
            mask=DocumentMask(field_paths=["__name__"]),
        )
        (response,) = await wire.call("ListDocuments", request.SerializeToString(), deadline=_START_DEADLINE)
        page = ListDocumentsResponse.FromString(response)
        ids += [document.name.rpartition("/")[2] for document in page.documents]
        token = page.next_page_token
        if not token:
            break
    if not ids:
        raise Misconfigured(
            MisconfiguredReason.ADDRESS,
            f"{wire.address} has no {collection}",
            hint="fill it first, or name the project that was filled",
        )
    return ids


async def warm_up(wire: Wire, traffic: Traffic, *, rate: float) -> None:
    """Ask every query, one after the other, until the database keeps up with ``rate`` operations a second.

    A service does so before it takes traffic: connections, and the compiled code of a server that has just started
    (Google's emulator on two busy cores: six seconds, its commits ten times as slow at first), are not what the
    application's users wait for. A database that doesn't keep up within ten seconds gets its traffic all the same, and
    what fails here will fail later, visibly.
    """
    operations = traffic.one_of_each()
    begun = time.monotonic()
    for rounds in itertools.count(1):
        started = time.monotonic()
        for operation in operations:
            with contextlib.suppress(RunbookdError):
                await wire.call(operation.rpc, operation.request, deadline=_START_DEADLINE)
        now = time.monotonic()
        keeps_up = now - started <= len(operations) / rate
        if now - begun > _WARM_UP_WITHIN or (rounds >= _WARM_UPS and keeps_up):
            return


async def _run(address: DatabaseAddress, *, rate: float, seed: int, port: int, by_key: bool) -> None:
    wire = Wire(address)
    try:
        users, lessons = await known_ids(wire, "users"), await known_ids(wire, "lessons")
        named = {name: await known_ids(wire, name) for name in _QUEUED} if by_key else None
    except RunbookdError as error:
        await wire.close()
        say({"error": error.message, "hint": error.hint})
        return
    traffic = Traffic(address, users=users, lessons=lessons, seed=seed, by_key=named)
    await warm_up(wire, traffic, rate=rate)
    application = Application(wire, traffic, rate=rate, telemetry=quiet_telemetry())
    async with FrontDoor(application.answer, port=port) as door:
        say({"url": door.url})
        # Whichever ends first: the parent, or, by a mistake of ours that must not look like quiet, the traffic.
        serving = asyncio.create_task(serve(lambda _: asdict(application.stats())))
        running = asyncio.create_task(application.run())
        await asyncio.wait((serving, running), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await wire.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m agent.sandbox.application", description=__doc__)
    parser.add_argument("--host", required=True, help="host:port of the Firestore, or of a proxy in front of it")
    parser.add_argument("--project", required=True)
    parser.add_argument("--rate", type=float, default=50.0, help="operations a second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0: one that is free")
    parser.add_argument("--by-key", action="store_true", help="read queues by name, not by filter: for the emulator")
    options = parser.parse_args(arguments)
    address = DatabaseAddress(project=options.project, host=options.host)
    asyncio.run(_run(address, rate=options.rate, seed=options.seed, port=options.port, by_key=options.by_key))


if __name__ == "__main__":
    main()
