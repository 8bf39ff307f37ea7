"""The proxy's process, in front of a small gRPC server whose every answer is known."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NoReturn

import grpc
import pytest

from agent.faults import Transient, TransientReason
from agent.sandbox.companions import ProxyProcess, start_proxy
from agent.sandbox.injection import Direction, Fault, FaultKind

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
SERVICE = "/google.firestore.v1.Firestore/"


class Upstream:
    """A server of bytes; it remembers what reached it."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.metadata: dict[str, Any] = {}
        self.time_remaining: float | None = None
        self.entered = threading.Event()
        self.cancelled = threading.Event()

    def unary(self, request: bytes, _: Any) -> bytes:
        self.requests.append(request)
        return request

    def pages(self, request: bytes, _: Any) -> Iterator[bytes]:
        yield from request.split(b",")

    def chat(self, requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for request in requests:
            yield b"re: " + request

    def refuse(self, _: bytes, context: Any) -> NoReturn:
        context.send_initial_metadata((("x-initial", "early"),))
        context.set_trailing_metadata((("x-reason", "late"), ("grpc-status-details-bin", b"\x00\xff")))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the index is missing")
        raise AssertionError("abort raises")

    def describe(self, _: bytes, context: Any) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        self.time_remaining = context.time_remaining()
        context.set_trailing_metadata((("x-trailing", "bye"),))
        return b"ok"

    def hang(self, _: bytes, context: Any) -> bytes:
        context.add_callback(self.cancelled.set)
        self.entered.set()
        self.cancelled.wait(20)
        return b""


class _Methods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    def __init__(self, upstream: Upstream) -> None:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        self._handlers: dict[str, Any] = {
            "Commit": unary(upstream.unary),
            "GetDocument": unary(upstream.unary),
            "RunQuery": stream(upstream.pages),
            "Write": grpc.stream_stream_rpc_method_handler(upstream.chat),
            "Refuse": unary(upstream.refuse),
            "Describe": unary(upstream.describe),
            "Hang": unary(upstream.hang),
        }

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method.rpartition("/")[2])


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Upstream, str]]:
    upstream = Upstream()
    server = grpc.server(futures.ThreadPoolExecutor(8), options=UNLIMITED)
    server.add_generic_rpc_handlers((_Methods(upstream),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield upstream, f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(scope="module")
def running(served: tuple[Upstream, str]) -> Iterator[ProxyProcess]:
    with start_proxy(served[1]) as process:
        yield process


@pytest.fixture
def proxy(running: ProxyProcess) -> Iterator[ProxyProcess]:
    yield running
    running.clear()


@pytest.fixture
def upstream(served: tuple[Upstream, str]) -> Upstream:
    served[0].requests.clear()
    return served[0]


@pytest.fixture
def channel(proxy: ProxyProcess) -> Iterator[Any]:
    with grpc.insecure_channel(proxy.host, options=UNLIMITED) as channel:
        yield channel


def unary(channel: Any, method: str) -> Callable[..., bytes]:
    call: Callable[..., bytes] = channel.unary_unary(SERVICE + method)
    return call


def refused(call: Callable[[], Any]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_large_unary_call_passes_byte_for_byte(channel: Any) -> None:
    """Nine megabytes, far over gRPC's default limit of four, arrive as they were sent."""
    payload = bytes(range(256)) * 36_000
    assert unary(channel, "Commit")(payload) == payload


def test_a_stream_of_responses_passes_in_order(channel: Any) -> None:
    """Server streaming goes through the same handler as everything else."""
    answers = channel.unary_stream(SERVICE + "RunQuery")(b",".join(b"%d" % i for i in range(500)))
    assert list(answers) == [b"%d" % i for i in range(500)]


def test_both_sides_of_a_stream_pass_as_they_come(channel: Any) -> None:
    """In a Write stream the next request depends on the answer before it; the proxy doesn't wait for the end."""
    sent: list[bytes] = [b"one"]
    more = threading.Semaphore(1)

    def requests() -> Iterator[bytes]:
        for number in range(3):
            more.acquire()
            yield sent[number]

    answers = []
    for answer in channel.stream_stream(SERVICE + "Write")(requests()):
        answers.append(answer)
        sent.append(answer)
        more.release()
    assert answers == [b"re: one", b"re: re: one", b"re: re: re: one"]


def test_status_message_and_metadata_of_an_error_arrive(channel: Any) -> None:
    """The client sees the status, its text, its details and the metadata that the server sent."""
    error: Any = refused(lambda: unary(channel, "Refuse")(b""))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "the index is missing"
    trailing = dict(error.trailing_metadata())
    assert trailing["x-reason"] == "late"
    assert trailing["grpc-status-details-bin"] == b"\x00\xff"


def test_metadata_and_deadline_reach_the_server(channel: Any, upstream: Upstream) -> None:
    """What routes a request (google-cloud-resource-prefix) and what limits it pass upstream; trailers come back."""
    metadata = (("google-cloud-resource-prefix", "projects/p/databases/(default)"),)
    answer, call = channel.unary_unary(SERVICE + "Describe").with_call(b"", timeout=7, metadata=metadata)
    assert answer == b"ok"
    assert dict(call.trailing_metadata())["x-trailing"] == "bye"
    assert upstream.metadata["google-cloud-resource-prefix"] == "projects/p/databases/(default)"
    assert upstream.time_remaining is not None
    assert 0 < upstream.time_remaining < 8  # gRPC rounds a deadline up on its way


def test_an_unknown_method_is_unimplemented_as_upstream_says(channel: Any) -> None:
    """The proxy has no list of methods of its own."""
    error: Any = refused(lambda: unary(channel, "NoSuchMethod")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_refusal_overtakes_the_request(channel: Any, size: int) -> None:
    """Upstream refuses before it has the request, which then can't be delivered: its refusal is what counts."""
    with futures.ThreadPoolExecutor(32) as pool:
        calls = [pool.submit(refused, lambda: unary(channel, "NoSuchMethod")(bytes(size))) for _ in range(300)]
        errors: list[Any] = [call.result() for call in calls]
    assert {(error.code(), error.details()) for error in errors} == {
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    }


def test_cancelling_the_call_cancels_it_upstream(channel: Any, upstream: Upstream, proxy: ProxyProcess) -> None:
    """A client that goes away frees the server's worker at once."""
    call = channel.unary_unary(SERVICE + "Hang").future(b"")
    assert upstream.entered.wait(10)
    assert proxy.stats().open == 1
    call.cancel()
    assert upstream.cancelled.wait(10)
    assert eventually(lambda: proxy.stats().open == 0)


def test_without_an_upstream_calls_are_unavailable() -> None:
    """The proxy itself never answers for the database."""
    with start_proxy("127.0.0.1:1") as process, grpc.insecure_channel(process.host) as channel:
        error: Any = refused(lambda: unary(channel, "GetDocument")(b""))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_only_reads_of_migrated_documents_fail(channel: Any, proxy: ProxyProcess) -> None:
    """The causal fault: the same read works for old documents and after the fault is cleared."""
    get = unary(channel, "GetDocument")
    proxy.inject(Fault(kind=FaultKind.ERRORS, share=1.0))
    error: Any = refused(lambda: get(b"user schemaVersion 2"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert get(b"user") == b"user"
    assert unary(channel, "Commit")(b"user schemaVersion 2") == b"user schemaVersion 2"
    proxy.clear()
    assert get(b"user schemaVersion 2") == b"user schemaVersion 2"


def test_a_fault_of_one_client_leaves_the_others_alone(channel: Any, proxy: ProxyProcess) -> None:
    """A release that can't read migrated documents is the application's trouble, not the agent's."""
    proxy.inject(Fault(kind=FaultKind.ERRORS, share=1.0, caller="the-application"))
    options = (("grpc.primary_user_agent", "the-application/2.0"),)
    with grpc.insecure_channel(proxy.host, options=options) as application:
        refused(lambda: unary(application, "GetDocument")(b"schemaVersion"))
    assert unary(channel, "GetDocument")(b"schemaVersion") == b"schemaVersion"


def test_a_stream_fails_at_the_migrated_document(channel: Any, proxy: ProxyProcess) -> None:
    """Results before the first migrated document arrive; then the call ends."""
    proxy.inject(Fault(kind=FaultKind.ERRORS, share=1.0))
    answers = channel.unary_stream(SERVICE + "RunQuery")(b"a,b,schemaVersion,c")
    received: list[bytes] = []
    error: Any = refused(lambda: received.extend(iter(answers.next, None)))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert b"schemaVersion" not in b"".join(received)


def test_one_throw_of_the_dice_decides_about_a_whole_stream(channel: Any, proxy: ProxyProcess) -> None:
    """A share of 30 % means 30 % of the queries, however many migrated documents each returns."""
    proxy.inject(Fault(kind=FaultKind.ERRORS, share=0.3, seed=1))
    query = channel.unary_stream(SERVICE + "RunQuery")
    failed = 0
    for _ in range(100):
        try:
            list(query(b",".join([b"schemaVersion"] * 50)))
        except grpc.RpcError:
            failed += 1
    assert 15 <= failed <= 45


def test_a_refused_request_never_reaches_the_database(channel: Any, proxy: ProxyProcess, upstream: Upstream) -> None:
    """An error on the request's side: not applied."""
    proxy.inject(
        Fault(kind=FaultKind.ERRORS, marker=b"", share=1.0, code="ABORTED", methods=(), direction=Direction.REQUEST)
    )
    error: Any = refused(lambda: unary(channel, "Commit")(b"write"))
    assert error.code() is grpc.StatusCode.ABORTED
    assert upstream.requests == []
    assert proxy.stats().failed > 0


def test_applied_and_then_deadline_exceeded(channel: Any, proxy: ProxyProcess, upstream: Upstream) -> None:
    """An error on the response's side of a write: the database has it, the client doesn't know."""
    proxy.inject(
        Fault(
            kind=FaultKind.ERRORS,
            marker=b"",
            share=1.0,
            code="DEADLINE_EXCEEDED",
            methods=("Commit",),
            direction=Direction.RESPONSE,
        )
    )
    error: Any = refused(lambda: unary(channel, "Commit")(b"write"))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert upstream.requests == [b"write"]


def test_every_third_batch_fails(channel: Any, proxy: ProxyProcess) -> None:
    """``every`` counts calls of the fault's methods from its injection on."""
    proxy.inject(Fault(kind=FaultKind.ERRORS, marker=b"", every=3, methods=("Commit",)))
    outcomes = []
    for _ in range(6):
        try:
            unary(channel, "Commit")(b"batch")
            outcomes.append("ok")
        except grpc.RpcError:
            outcomes.append("failed")
    assert outcomes == ["ok", "ok", "failed"] * 2


def test_latency_holds_up_migrated_reads_only(channel: Any, proxy: ProxyProcess) -> None:
    """The delay applies once a call, not once a document."""
    proxy.inject(Fault(kind=FaultKind.LATENCY, share=1.0, delay=0.3))
    query = channel.unary_stream(SERVICE + "RunQuery")
    started = time.monotonic()
    assert len(list(query(b",".join([b"schemaVersion"] * 20)))) == 20
    assert 0.3 <= time.monotonic() - started < 3.0
    assert proxy.stats().delayed > 0


def test_a_blackhole_swallows_calls_until_their_deadline(channel: Any, proxy: ProxyProcess) -> None:
    """Nothing comes back; the deadline is what ends the call, here and in the proxy."""
    proxy.inject(Fault(kind=FaultKind.BLACKHOLE, marker=b"", share=1.0))
    error: Any = refused(lambda: unary(channel, "GetDocument")(b"", timeout=0.2))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert eventually(lambda: proxy.stats().open == 0)


def test_it_ends_with_its_parent() -> None:
    """However the parent ends, the pipe closes and the proxy goes: here by SIGKILL."""
    script = (
        "import sys; from agent.sandbox.companions import start_proxy\n"
        "p = start_proxy('127.0.0.1:1'); print(p._child.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    assert eventually(lambda: not _runs(pid))


def test_a_proxy_that_cannot_start_says_so(proxy: ProxyProcess) -> None:
    """A port in use ends the child, and the parent reports a dead worker instead of waiting."""
    with pytest.raises(Transient) as caught:
        start_proxy("127.0.0.1:1", port=int(proxy.host.rpartition(":")[2]))
    assert caught.value.reason is TransientReason.WORKER_DIED


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123  # procfs, read once
            return stat.read().split()[2] != "Z"
    except OSError:
        return False
