"""PagerDuty and Slack on loopback: they check what they get as the real ones do, and remember it.

Called by the demo, which shows who was paged with what, and by the tests of the notifiers. Limits and answers follow
PagerDuty's Events API v2 (https://developer.pagerduty.com/docs/events-api-v2/overview/) and Slack's incoming webhooks
and Block Kit (https://docs.slack.dev/reference/block-kit/blocks).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

from agent.clock import Clock
from agent.sandbox.recording import HttpReceiver, Reply

Json = Mapping[str, Any]

# --- PagerDuty ----------------------------------------------------------------------------------------------------

_EVENT_BYTES = 512 * 1024
_ROUTING_KEY_LENGTH = 32
_DEDUP_KEY_LENGTH = 255
_SUMMARY_LENGTH = 1024
_ACTIONS = ("trigger", "acknowledge", "resolve")
_SEVERITIES = ("critical", "error", "warning", "info")


class Fate(StrEnum):
    """What became of a request."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"  # answered 202, and without effect: PagerDuty does that to a resolve of nothing
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class PagerDutyEvent:
    """One request to PagerDuty.

    Args:
        action: ``trigger``, ``acknowledge``, ``resolve``, or ``change`` for a change event.
        dedup_key: the one sent, or the one PagerDuty made up for a trigger without.
        body: the whole JSON object, routing key included.
        errors: why it was refused.
        status: the HTTP status it was answered with.
    """

    received_at: datetime
    action: str
    dedup_key: str
    body: Json
    fate: Fate
    status: int
    errors: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The line a person sees on the phone."""
        payload = self.body.get("payload")
        return str(payload.get("summary", "")) if isinstance(payload, Mapping) else ""


class PagerDutyReceiver(HttpReceiver[PagerDutyEvent]):
    """Events API v2: ``POST /v2/enqueue`` and ``POST /v2/change/enqueue``."""

    def __init__(self, *, port: int = 0, clock: Clock | None = None) -> None:
        super().__init__(port=port, clock=clock)
        self._open: dict[tuple[str, str], str] = {}

    @property
    def open_alerts(self) -> dict[str, str]:
        """Dedup keys of the alerts not resolved, with ``triggered`` or ``acknowledged``."""
        with self._arrived:
            return {dedup_key: state for (_, dedup_key), state in self._open.items()}

    def _receive(self, path: str, content_type: str, body: bytes, failure: Reply | None) -> Reply:
        event, errors = _json_object(body)
        if path not in ("/v2/enqueue", "/v2/change/enqueue"):
            failure = failure or Reply(status=404, body="Not Found")
        change = path.startswith("/v2/change")
        if content_type != "application/json":
            errors.append(f"Content-Type is {content_type}, not application/json")
        if len(body) > _EVENT_BYTES:
            errors.append(f"The event is larger than {_EVENT_BYTES} bytes")
        if not errors:
            errors += _change_errors(event) if change else _event_errors(event)
        action = "change" if change else str(event.get("event_action", ""))
        dedup_key = str(event.get("dedup_key") or "")
        if failure is None and errors:
            failure = Reply(
                status=400,
                body={"status": "invalid event", "message": "Event object is invalid", "errors": errors},
            )
        if failure is not None:
            self._note(action, dedup_key, event, Fate.REFUSED, failure.status, errors)
            return failure
        if change:
            self._note(action, "", event, Fate.ACCEPTED, 202, errors)
            return Reply(status=202, body={"status": "success", "message": "Change event processed"})
        dedup_key = dedup_key or uuid.uuid4().hex
        fate = self._apply(action, str(event["routing_key"]), dedup_key)
        self._note(action, dedup_key, event, fate, 202, errors)
        return Reply(status=202, body={"status": "success", "message": "Event processed", "dedup_key": dedup_key})

    def _apply(self, action: str, routing_key: str, dedup_key: str) -> Fate:
        alert = (routing_key, dedup_key)
        with self._arrived:
            if action == "trigger":
                self._open.setdefault(alert, "triggered")
            elif alert not in self._open:
                return Fate.DROPPED
            elif action == "acknowledge":
                self._open[alert] = "acknowledged"
            else:
                del self._open[alert]
        return Fate.ACCEPTED

    def _note(self, action: str, dedup_key: str, body: Json, fate: Fate, status: int, errors: list[str]) -> None:
        self._record(
            PagerDutyEvent(
                received_at=self._clock.now(),
                action=action,
                dedup_key=dedup_key,
                body=body,
                fate=fate,
                status=status,
                errors=tuple(errors),
            )
        )


def _event_errors(event: Json) -> list[str]:
    errors = list(_routing_key_errors(event))
    action, dedup_key = event.get("event_action"), event.get("dedup_key")
    if action not in _ACTIONS:
        errors.append(f"'event_action' is {action!r}, not one of {', '.join(_ACTIONS)}")
    if dedup_key is not None and not isinstance(dedup_key, str):
        errors.append("'dedup_key' must be a string")
    if isinstance(dedup_key, str) and len(dedup_key) > _DEDUP_KEY_LENGTH:
        errors.append(f"'dedup_key' is longer than {_DEDUP_KEY_LENGTH} characters")
    if action in ("acknowledge", "resolve") and not dedup_key:
        errors.append("'dedup_key' is missing or blank")
    if action == "trigger":
        errors += _payload_errors(event.get("payload"))
        errors += _link_errors(event)
    return errors


def _change_errors(event: Json) -> list[str]:
    errors = list(_routing_key_errors(event))
    payload = event.get("payload")
    if not isinstance(payload, Mapping):
        return [*errors, "'payload' is missing or blank"]
    return [
        *errors,
        *_text_errors(payload, "summary", _SUMMARY_LENGTH),
        *_timestamp_errors(payload),
        *_link_errors(event),
    ]


def _routing_key_errors(event: Json) -> Iterator[str]:
    key = event.get("routing_key")
    if not isinstance(key, str) or not key:
        yield "'routing_key' is missing or blank"
    elif len(key) != _ROUTING_KEY_LENGTH:
        yield f"Length of 'routing_key' is incorrect (should be {_ROUTING_KEY_LENGTH} characters)"


def _payload_errors(payload: Any) -> Iterator[str]:
    if not isinstance(payload, Mapping):
        yield "'payload' is missing or blank"
        return
    yield from _text_errors(payload, "summary", _SUMMARY_LENGTH)
    yield from _text_errors(payload, "source", None)
    if payload.get("severity") not in _SEVERITIES:
        yield f"'payload.severity' is {payload.get('severity')!r}, not one of {', '.join(_SEVERITIES)}"
    yield from _timestamp_errors(payload)
    for key in ("component", "group", "class"):
        if not isinstance(payload.get(key, ""), str):
            yield f"'payload.{key}' must be a string"


def _text_errors(payload: Json, key: str, limit: int | None) -> Iterator[str]:
    text = payload.get(key)
    if not isinstance(text, str) or not text:
        yield f"'payload.{key}' is missing or blank"
    elif limit is not None and len(text) > limit:
        yield f"'payload.{key}' is longer than {limit} characters"


def _timestamp_errors(payload: Json) -> Iterator[str]:
    timestamp = payload.get("timestamp")
    if timestamp is None:
        return
    try:
        datetime.fromisoformat(timestamp)
    except (TypeError, ValueError):
        yield f"'payload.timestamp' is {timestamp!r}, not an ISO 8601 time"


def _link_errors(event: Json) -> Iterator[str]:
    for key, required in (("links", "href"), ("images", "src")):
        entries = event.get(key, [])
        if not isinstance(entries, list):
            yield f"'{key}' must be a list"
            continue
        for entry in entries:
            if not isinstance(entry, Mapping) or not isinstance(entry.get(required), str):
                yield f"an entry of '{key}' has no '{required}'"


# --- Slack --------------------------------------------------------------------------------------------------------

_BLOCKS = 50
_TEXT_LENGTH = 40_000
_BLOCK_TYPES = ("actions", "context", "divider", "header", "image", "markdown", "rich_text", "section", "video")


@dataclass(frozen=True, kw_only=True)
class SlackPost:
    """One request to an incoming webhook.

    Args:
        path: ``/services/T.../B.../X...``.
        text: the notification's text; what a phone shows if there are blocks.
        body: the whole JSON object.
        error: Slack's word for what was wrong, and our explanation; empty if it was posted.
        status: the HTTP status it was answered with.
    """

    received_at: datetime
    path: str
    text: str
    body: Json
    fate: Fate
    status: int
    error: str = ""


class SlackReceiver(HttpReceiver[SlackPost]):
    """An incoming webhook: ``POST /services/T/B/X``."""

    @property
    def url(self) -> str:
        """A webhook's URL; any other path of the same form works, too."""
        return f"{self.base_url}/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"

    def _receive(self, path: str, content_type: str, body: bytes, failure: Reply | None) -> Reply:
        if content_type == "application/x-www-form-urlencoded":
            body = parse_qs(body.decode(errors="replace")).get("payload", [""])[0].encode()
        message, errors = _json_object(body)
        error = f"invalid_payload: {errors[0]}" if errors else next(_slack_errors(message), "")
        segments = path.strip("/").split("/")
        if len(segments) != 4 or segments[0] != "services":
            failure = failure or Reply(status=404, body="no_service")
        if failure is None and error:
            failure = Reply(status=400, body=error.partition(":")[0])
        reply = failure or Reply(status=200, body="ok")
        self._record(
            SlackPost(
                received_at=self._clock.now(),
                path=path,
                text=str(message.get("text") or ""),
                body=message,
                fate=Fate.ACCEPTED if failure is None else Fate.REFUSED,
                status=reply.status,
                error=error,
            )
        )
        return reply


def _slack_errors(message: Json) -> Iterator[str]:
    text, blocks = message.get("text"), message.get("blocks")
    if text is not None and not isinstance(text, str):
        yield "invalid_payload: text is not a string"
    if not text and not blocks and not message.get("attachments"):
        yield "no_text: neither text nor blocks nor attachments"
    if isinstance(text, str) and len(text) > _TEXT_LENGTH:
        yield f"msg_too_long: text of {len(text)} characters"
    if blocks is not None:
        yield from _blocks_errors(blocks)
    for attachment in message.get("attachments") or ():
        if isinstance(attachment, Mapping) and "blocks" in attachment:
            yield from _blocks_errors(attachment["blocks"])


def _blocks_errors(blocks: Any) -> Iterator[str]:
    if not isinstance(blocks, list):
        yield "invalid_blocks_format: blocks is not a list"
        return
    if len(blocks) > _BLOCKS:
        yield f"invalid_blocks: {len(blocks)} blocks, {_BLOCKS} are allowed"
    for number, block in enumerate(blocks):
        if not isinstance(block, Mapping) or block.get("type") not in _BLOCK_TYPES:
            yield f"invalid_blocks: block {number} has no known type"
        else:
            yield from (f"invalid_blocks: block {number} ({block['type']}): {error}" for error in _block_errors(block))


def _block_errors(block: Json) -> Iterator[str]:
    if len(str(block.get("block_id", ""))) > 255:
        yield "block_id is longer than 255 characters"
    match block["type"]:
        case "section":
            if "text" not in block and not block.get("fields"):
                yield "neither text nor fields"
            if "text" in block:
                yield from _text_object_errors(block["text"], 3000)
            if len(block.get("fields", ())) > 10:
                yield "more than 10 fields"
            for item in block.get("fields", ()):
                yield from _text_object_errors(item, 2000)
        case "header":
            yield from _text_object_errors(block.get("text"), 150, plain=True)
        case "context":
            yield from _element_errors(block, 10)
        case "actions":
            yield from _element_errors(block, 25)


def _element_errors(block: Json, limit: int) -> Iterator[str]:
    elements = block.get("elements")
    if not isinstance(elements, list) or not 1 <= len(elements) <= limit:
        yield f"elements must be a list of 1 to {limit}"
        return
    for element in elements:
        kind = element.get("type") if isinstance(element, Mapping) else None
        if kind in ("mrkdwn", "plain_text"):
            yield from _text_object_errors(element, 3000)
        elif kind == "button":
            yield from _text_object_errors(element.get("text"), 75, plain=True)
            if len(str(element.get("url", ""))) > 3000:
                yield "url is longer than 3000 characters"
        elif kind is None:
            yield "an element has no type"


def _text_object_errors(text: Any, limit: int, *, plain: bool = False) -> Iterator[str]:
    kinds = ("plain_text",) if plain else ("plain_text", "mrkdwn")
    if not isinstance(text, Mapping) or text.get("type") not in kinds or not isinstance(text.get("text"), str):
        yield f"text is not a {' or '.join(kinds)} object"
    elif not 1 <= len(text["text"]) <= limit:
        yield f"text of {len(text['text'])} characters, 1 to {limit} are allowed"


def _json_object(body: bytes) -> tuple[Json, list[str]]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}, ["The body is not JSON"]
    if not isinstance(value, dict):
        return {}, ["The body is not a JSON object"]
    return value, []
