"""A gRPC pass-through in front of any Firestore, in which faults can be injected.

Runs as a process of its own (``python -m agent.sandbox.proxy --upstream HOST:PORT``), started by
:func:`agent.sandbox.companions.start_proxy` and steered over its standard input. Messages stay bytes in both
directions. Every RPC, unary or streaming, goes through the same handler: to gRPC a unary call is a stream of one
message. Deadlines, cancellation, metadata and status details are handed on, so that a client can't tell the proxy
from what is behind it.

On asyncio because an injected delay or blackhole then costs a coroutine, not a thread, and because that was the
cheaper of gRPC's two servers: about 1.5 ms of CPU for a Commit of 500 documents of 1 KB, 50 us for a streamed document.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from random import Random
from typing import Any

import grpc
import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs forgot it

from agent.sandbox.child import Line, say, serve
from agent.sandbox.injection import Delay, Direction, Fail, Fault, Message, Pass, ProxyStats, Replace, decide

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 1 << 20),
)
_SERVER_OPTIONS = (
    *_OPTIONS,
    # How often clients ping is between them and their server; the proxy has no opinion on it.
    ("grpc.http2.max_ping_strikes", 0),
    # Else a port that is in use would be shared with whoever uses it.
    ("grpc.so_reuseport", 0),
)
_UPSTREAM_OPTIONS = (
    *_OPTIONS,
    ("grpc.enable_http_proxy", 0),
    # A restarted upstream is found again at once, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_USER_AGENT = "user-agent"  # each gRPC library sends its own


class Refusal(Exception):
    """A fault ends the call."""

    def __init__(self, verdict: Fail) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


class ActiveFault:
    """A fault with its dice and its count of calls."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.random = Random(fault.seed)
        self.ordinals = itertools.count(1)


class Injector:
    """The active faults and the count of what they did. Lives on the event loop; not thread-safe."""

    def __init__(self) -> None:
        self.active: tuple[ActiveFault, ...] = ()
        self.counts: Counter[str] = Counter()

    def inject(self, fault: Fault) -> None:
        """Add ``fault`` to the active ones; calls under way meet it with their next message."""
        self.active = (*self.active, ActiveFault(fault))

    def clear(self) -> None:
        """Remove all faults."""
        self.active = ()

    def stats(self) -> ProxyStats:
        """The figures now."""
        return ProxyStats(**self.counts)


class Passage:
    """One call on its way through: which faults it has met and what they decided."""

    def __init__(self, method: str, caller: str, injector: Injector) -> None:
        self._method = method.rpartition("/")[2]
        self._caller = caller
        self._injector = injector
        self._ordinals: dict[ActiveFault, int] = {}
        self._settled: set[ActiveFault] = set()

    async def admit(self, direction: Direction, payload: bytes) -> bytes:
        """The payload to deliver, perhaps after a while, perhaps not the one given.

        Raises:
            Refusal: if a fault ends the call here.
        """
        for active in self._injector.active:
            if active in self._settled or not active.fault.concerns(self._method, self._caller):
                continue
            if active not in self._ordinals:
                self._ordinals[active] = next(active.ordinals)
            message = Message(self._method, direction, payload, self._ordinals[active], self._caller)
            verdict = decide(active.fault, message, active.random)
            match verdict:
                case Replace():
                    payload = verdict.payload
                    self._injector.counts["corrupted"] += verdict.documents
                case Pass():
                    pass
                case _:
                    self._settled.add(active)
            match verdict:
                case Delay():
                    self._injector.counts["delayed"] += 1
                    await asyncio.sleep(verdict.seconds)
                case Fail():
                    self._injector.counts["failed"] += 1
                    raise Refusal(verdict)
        return payload


class PassThrough(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    """Serves every method by calling the same method upstream."""

    def __init__(self, upstream: Any, injector: Injector) -> None:
        self._upstream = upstream
        self._injector = injector
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of one method, made at its first call."""
        method = handler_call_details.method
        if method not in self._handlers:
            self._handlers[method] = grpc.stream_stream_rpc_method_handler(self._handler(method))
        return self._handlers[method]

    def _handler(self, method: str) -> Callable[[Any, Any], Any]:
        stub = self._upstream.stream_stream(method)

        async def handle(_: Any, context: Any) -> None:
            metadata = [pair for pair in context.invocation_metadata() if pair[0] != _USER_AGENT]
            caller = next((value for key, value in context.invocation_metadata() if key == _USER_AGENT), "")
            call = stub(timeout=context.time_remaining(), metadata=metadata)
            counts = self._injector.counts
            counts["calls"] += 1
            counts["open"] += 1
            try:
                await self._relay(call, context, Passage(method, caller, self._injector))
            finally:
                counts["open"] -= 1

        return handle

    async def _relay(self, call: Any, context: Any, passage: Passage) -> None:
        requests = asyncio.create_task(self._requests(call, context, passage))
        try:
            await self._responses(call, context, passage)
        except asyncio.CancelledError:
            # Either the client is gone, or the requests' side met a fault and cancelled the call.
            refusal = _refusal(requests)
            if refusal is None:
                raise
            await context.abort(refusal.verdict.code, refusal.verdict.message)
        except Refusal as refusal:
            await context.abort(refusal.verdict.code, refusal.verdict.message)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata()))
        finally:
            requests.cancel()
            call.cancel()

    async def _requests(self, call: Any, context: Any, passage: Passage) -> None:
        # An upstream that has already answered takes no more requests; what it answered reaches the client anyway.
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.InternalError):
            await call.wait_for_connection()
            while (payload := await context.read()) is not EOF:
                try:
                    payload = await passage.admit(Direction.REQUEST, payload)
                except Refusal:
                    call.cancel()
                    raise
                await _send(call, payload)
                self._injector.counts["request_bytes"] += len(payload)
            await call.done_writing()

    async def _responses(self, call: Any, context: Any, passage: Passage) -> None:
        initial = await call.initial_metadata()
        if initial:
            await context.send_initial_metadata(tuple(initial))
        while (payload := await call.read()) is not EOF:
            payload = await passage.admit(Direction.RESPONSE, payload)
            await context.write(payload)
            self._injector.counts["response_bytes"] += len(payload)
        context.set_trailing_metadata(tuple(await call.trailing_metadata()))


async def _send(call: Any, payload: bytes) -> None:
    """Send a message upstream, and leave the call as it is if upstream takes none any more.

    The library's own ``call.write`` gives a call whose request can't be sent the status INTERNAL (grpc/grpc#36066).
    Where upstream refused the call before it had the request, that took the place of its refusal for whoever asked
    first: two calls in five, with 32 unknown methods at once. What upstream said comes by itself.

    Raises:
        grpc.aio.InternalError: the call has ended.
    """
    await call._cython_call.send_serialized_message(payload)  # see above; nothing public sends and does no more


def _refusal(requests: asyncio.Task[None]) -> Refusal | None:
    if requests.done() and not requests.cancelled():
        error = requests.exception()
        return error if isinstance(error, Refusal) else None
    return None


def _answer(injector: Injector, line: Line) -> Line:
    match line["do"]:
        case "inject":
            injector.inject(Fault.from_json(line["fault"]))
        case "clear":
            injector.clear()
    return asdict(injector.stats())


async def run(upstream: str, port: int) -> None:
    """Serve on loopback until the parent goes; says ``{"host": ...}`` when ready."""
    injector = Injector()
    async with grpc.aio.insecure_channel(upstream, options=_UPSTREAM_OPTIONS) as channel:
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        server.add_generic_rpc_handlers((PassThrough(channel, injector),))
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        say({"host": f"127.0.0.1:{bound}"})
        await serve(lambda line: _answer(injector, line))
        await server.stop(None)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m agent.sandbox.proxy", description=__doc__)
    parser.add_argument("--upstream", required=True, help="host:port of the Firestore behind the proxy")
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0: one that is free")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.upstream, arguments.port))


if __name__ == "__main__":
    main()
