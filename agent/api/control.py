"""The control endpoints: what a person with the bearer token may tell the automation.

``POST /api/control/{hold,release,approve,abort,maintenance,pause,resume,set,reload}`` with a JSON body. They do what
the command line does, for chat bots and for people who only have the status page. Closed unless the settings hold a
token. The token is checked before the body is read.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.concurrency import run_in_threadpool

from agent.api.sources import Body, Control, Sources

_log = logging.getLogger(__name__)

_LARGEST_BODY = 64 * 1024
_WEEK_S = 7 * 24 * 3600.0

Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class _Words(BaseModel):
    """A body; a field that is not known is an error, because a misspelt one would be ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Nothing(_Words):
    """A body without fields."""


class Owned(_Words):
    """Somebody stands by what is asked."""

    owner: Said


class Hold(Owned):
    """Keep the automation's hands off for ``seconds``, an hour unless said otherwise and a week at most."""

    reason: Said
    seconds: float = Field(default=3600.0, gt=0, le=_WEEK_S)


class Approve(Owned):
    """Approve the decision ``id``."""

    id: Said


class Abort(Owned):
    """Take the run of decision ``id`` out of the automation."""

    id: Said
    reason: Said


class Maintenance(Owned):
    """Maintenance mode on or off; an empty message is the page's."""

    enabled: bool
    message: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] = ""


class Paced(Owned):
    """Something about a migration run; without ``run`` the latest one."""

    run: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] = ""


class Pause(Paced):
    """Have a run stop writing, until somebody says otherwise or for ``seconds``."""

    reason: Said
    seconds: float | None = Field(default=None, gt=0, le=_WEEK_S)


class Pacing(Paced):
    """Other documents a batch, or a second, while a run works."""

    reason: Said
    batch_size: int | None = Field(default=None, ge=1, le=100_000)
    rate: float | None = Field(default=None, gt=0)


W = TypeVar("W", bound=_Words)


@dataclass(frozen=True)
class _Order(Generic[W]):
    """What one endpoint takes and does."""

    words: type[W]
    carry_out: Callable[[Control, W], Body]

    def given(self, control: Control, body: bytes) -> Body:
        return self.carry_out(control, self.words.model_validate_json(body or b"{}"))


_ORDERS: dict[str, _Order[Any]] = {
    "hold": _Order(Hold, lambda to, said: to.hold(owner=said.owner, reason=said.reason, seconds=said.seconds)),
    "release": _Order(Owned, lambda to, said: to.release(owner=said.owner)),
    "approve": _Order(Approve, lambda to, said: to.approve(said.id, owner=said.owner)),
    "abort": _Order(Abort, lambda to, said: to.abort(said.id, owner=said.owner, reason=said.reason)),
    "maintenance": _Order(
        Maintenance, lambda to, said: to.maintenance(enabled=said.enabled, message=said.message, owner=said.owner)
    ),
    "pause": _Order(
        Pause, lambda to, said: to.pause(said.run, owner=said.owner, reason=said.reason, seconds=said.seconds)
    ),
    "resume": _Order(Paced, lambda to, said: to.resume(said.run, owner=said.owner)),
    "set": _Order(
        Pacing,
        lambda to, said: to.set(
            said.run, owner=said.owner, reason=said.reason, batch_size=said.batch_size, rate=said.rate
        ),
    ),
    "reload": _Order(Nothing, lambda to, _: to.reload()),
}


def router(sources: Sources) -> APIRouter:
    """Routes below ``/api/control``. Errors of the product are answered by the application."""
    routes = APIRouter(prefix="/api/control")

    @routes.post("/{order}")
    async def control(order: str, request: Request) -> JSONResponse:
        refusal = _refusal(sources, request.headers.get("authorization", ""))
        if refusal is not None:
            return refusal
        assert sources.control is not None
        known = _ORDERS.get(order)
        if known is None:
            return _problem(404, f"there is no order {order!r}", "not_found", f"orders are {', '.join(_ORDERS)}")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _LARGEST_BODY:
                return _problem(413, "the body is too large", "too_large", f"use at most {_LARGEST_BODY} bytes")
        try:
            answer = await run_in_threadpool(known.given, sources.control, bytes(body))
        except ValidationError as error:
            return _problem(422, _wording(error), "invalid_body", f"send {_fields(known.words)}")
        _log.info("an order was carried out", extra={"order": order})
        return JSONResponse(dict(answer))

    return routes


def _refusal(sources: Sources, authorization: str) -> JSONResponse | None:
    if not sources.token or sources.control is None:
        return _problem(
            403,
            "the control endpoints are closed: no token is configured",
            "closed",
            "set api.token (RUNBOOKD_API__TOKEN), or use the command line",
        )
    scheme, _, given = authorization.partition(" ")
    # Compared as bytes and in constant time: neither what the header holds nor how long it takes may tell anything.
    matches = hmac.compare_digest(given.strip().encode(), sources.token.encode())
    if scheme.lower() != "bearer" or not matches:
        response = _problem(401, "the token is missing or wrong", "unauthorized", "send Authorization: Bearer <token>")
        response.headers["WWW-Authenticate"] = 'Bearer realm="runbookd"'
        return response
    return None


def _problem(status: int, error: str, reason: str, hint: str) -> JSONResponse:
    return JSONResponse({"error": error, "reason": reason, "hint": hint}, status_code=status)


def _wording(error: ValidationError) -> str:
    """Every problem of a body in words."""
    said = []
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"])
        match problem["type"]:
            case "json_invalid":
                return "the body is not valid JSON"
            case "missing":
                said.append(f"{where} is missing")
            case "extra_forbidden":
                said.append(f"{where} is not known")
            case "string_too_short":
                said.append(f"{where} is empty")
            case _:
                text = str(problem["msg"])
                said.append(f"{where or 'the body'}: {text[:1].lower()}{text[1:]}")
    return "; ".join(said)


def _fields(words: type[_Words]) -> str:
    """The fields of a body, for a hint."""
    fields = words.model_fields.items()
    named = [name if field.is_required() else f"{name} (optional)" for name, field in fields]
    return f"a JSON object with {', '.join(named)}" if named else "an empty JSON object, or nothing"
