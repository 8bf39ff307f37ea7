"""Slack: an incoming webhook through ``slack_sdk``, whose sole importer this module is.

A webhook can post and nothing else, so an incident's messages follow one another in the channel; each says at its
beginning what it is. https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

from __future__ import annotations

import logging
from http.client import HTTPException
from typing import Any

from slack_sdk.errors import SlackClientError
from slack_sdk.webhook import WebhookClient

from agent.clock import Clock, SystemClock
from agent.faults import Misconfigured, MisconfiguredReason, Transient, TransientReason
from agent.notifications.channel import Notification, Receipt
from agent.notifications.http import is_loopback, refusal
from agent.notifications.message import headline
from agent.runbook import ChannelKind

_SECTION = 2900  # of 3000, so that escaping the last character still fits
_HEADER = 150
_FACT = 500
_TIMEOUT = 10

# slack_sdk logs the webhook's address, which is the secret, at DEBUG; this logger never passes that on.
_logger = logging.getLogger("agent.notifications.slack.sdk")
_logger.setLevel(logging.CRITICAL)


class SlackChannel:
    """Posts to one channel.

    Args:
        webhook_url: the webhook's address (secret).
        channel: the channel's name on the page, for people; the webhook itself decides where it posts.

    Raises:
        Misconfigured: the address is neither https nor on loopback.
    """

    kind = ChannelKind.SLACK

    def __init__(
        self, *, webhook_url: str, channel: str = "", clock: Clock | None = None, timeout: int = _TIMEOUT
    ) -> None:
        if not (webhook_url.startswith("https://") or is_loopback(webhook_url)):
            raise Misconfigured(
                MisconfiguredReason.SETTINGS,
                "notifications.slack.webhook_url is not an https address",
                hint="copy the webhook's address from Slack's app settings",
            )
        self.target = channel or "Slack"
        self._clock = clock or SystemClock()
        # No retry handlers: when to try again is the outbox's decision.
        self._client = WebhookClient(webhook_url, timeout=timeout, retry_handlers=[], logger=_logger)
        if is_loopback(webhook_url):
            self._client.proxy = None

    def deliver(self, notification: Notification) -> Receipt:
        try:
            answer = self._client.send(
                text=_escaped(headline(notification))[:_SECTION],
                blocks=_blocks(notification),
                unfurl_links=False,
                unfurl_media=False,
            )
        except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
            raise Transient(TransientReason.UNAVAILABLE, f"Slack can't be reached ({error})") from error
        except SlackClientError as error:
            raise Misconfigured(
                MisconfiguredReason.SETTINGS, f"Slack's webhook can't be used ({error})", hint="check the address"
            ) from error
        if answer.status_code != 200:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            raise refusal("Slack", answer.status_code, headers.get("retry-after"), answer.body, self._clock.now())
        return Receipt(reference=notification.id)


def _blocks(notification: Notification) -> list[dict[str, Any]]:
    message = notification.message
    title = headline(notification)
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(title, _HEADER), "emoji": False}}
    ]
    # A header ends at 150 characters; the whole title goes below where it is longer.
    lead = "\n".join(part for part in (title if len(title) > _HEADER else "", message.action) if part)
    if lead:
        blocks.append(_section(_escaped(lead)))
    if message.facts:
        blocks.append(
            _section("\n".join(f"*{_escaped(name)}:* {_escaped(_cut(value, _FACT))}" for name, value in message.facts))
        )
    context = [f"<{href}|{_escaped(text)}>" for text, href in message.links]
    if notification.incident:
        context.append(f"incident {notification.incident}, message {notification.sequence}")
    context.append(_escaped(notification.source))
    text = " · ".join(context)[:_SECTION]
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": text}]})
    return blocks


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": _cut(text, _SECTION)}}


def _escaped(text: str) -> str:
    """The three characters that mrkdwn gives a meaning to links and entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
