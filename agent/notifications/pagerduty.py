"""PagerDuty: Events API v2 through the ``pagerduty`` package, whose sole importer this module is.

A trigger and an update are both ``trigger`` events with the incident's dedup_key: PagerDuty opens an alert for the
first and appends the others to it. Changes go to the change-events endpoint, where nobody is paged by them.
https://developer.pagerduty.com/docs/events-api-v2/overview/
"""

from __future__ import annotations

from typing import Any

from pagerduty import Error as PagerDutyError
from pagerduty import EventsApiV2Client

from agent.clock import Clock, SystemClock, rfc3339
from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason, Transient, TransientReason
from agent.notifications.channel import Kind, Notification, Receipt
from agent.notifications.http import is_loopback, refusal
from agent.runbook import ChannelKind

_SUMMARY = 1024
_DEDUP_KEY = 255
_VALUE = 4096  # of a custom detail: far below 512 KB for the whole event, however many details there are
_TIMEOUT = 10  # seconds


class PagerDutyChannel:
    """Delivers to one PagerDuty service.

    Args:
        routing_key: integration key of the service (secret).
        service: the service's name on the page, for people.
        url: base of the API; None is PagerDuty's own. Plain http is allowed on loopback alone.
        status_url: where an event's "view in client" link leads.

    Raises:
        Misconfigured: ``url`` is neither https nor on loopback.
    """

    kind = ChannelKind.PAGERDUTY

    def __init__(
        self,
        *,
        routing_key: str,
        service: str = "",
        url: str | None = None,
        status_url: str = "",
        clock: Clock | None = None,
        timeout: int = _TIMEOUT,
    ) -> None:
        if url is not None and not (url.startswith("https://") or is_loopback(url)):
            raise Misconfigured(
                MisconfiguredReason.SETTINGS, f"notifications.pagerduty.url {url!r} is not https", hint="use https://"
            )
        self.target = service or "PagerDuty"
        self._status_url = status_url
        self._client = _Client(routing_key, url, clock or SystemClock(), timeout)

    def deliver(self, notification: Notification) -> Receipt:
        try:
            return self._deliver(notification)
        except PagerDutyError as error:
            if error.response is None:  # the package's sign for a network error
                cause = error.__cause__ or error
                raise Transient(
                    TransientReason.UNAVAILABLE, f"PagerDuty can't be reached ({type(cause).__name__}: {cause})"
                ) from error
            raise Permanent(PermanentReason.INVALID, f"PagerDuty refused the event ({error})") from error

    def _deliver(self, notification: Notification) -> Receipt:
        key = notification.dedup_key[:_DEDUP_KEY]
        match notification.kind:
            case Kind.RESOLVE:
                return Receipt(reference=self._client.resolve(key))
            case Kind.CHANGE:
                # submit() would make up a timestamp, and fails at it in version 7.
                self._client.send_change_event(payload=_change(notification), links=_links(notification))
                return Receipt(reference=notification.id)
            case Kind.TRIGGER | Kind.UPDATE:
                properties: dict[str, Any] = {"payload": _payload(notification), "client": "runbookd"}
                if links := _links(notification):
                    properties["links"] = links
                if self._status_url:
                    properties["client_url"] = self._status_url
                return Receipt(reference=self._client.send_event("trigger", dedup_key=key, **properties))


class _Client(EventsApiV2Client):
    """The vendor's client without its own patience.

    Left alone it sleeps and retries inside the call: for ever on 429, up to minutes on 5xx, and without looking at
    Retry-After. Here the first answer counts and the outbox decides when to try again, so that a wait survives a
    restart and one page doesn't hold up another.
    """

    max_network_attempts = 0

    def __init__(self, routing_key: str, url: str | None, clock: Clock, timeout: int) -> None:
        # A proxy that the environment names is for the way out, not for a receiver on this machine.
        super().__init__(routing_key, base_url=url, trust_env=url is None or not is_loopback(url))
        self.timeout = timeout
        self._clock = clock

    @property
    def url(self) -> str:
        return str(self._url)

    @url.setter
    def url(self, base_url: str) -> None:
        # The package insists on https; PagerDutyChannel has checked, and lets loopback pass.
        self._url = base_url.rstrip("/")

    def postprocess(self, response: Any) -> None:
        if not response.is_success:
            raise refusal(
                "PagerDuty",
                response.status_code,
                response.headers.get("Retry-After"),
                response.text,
                self._clock.now(),
            )


def _payload(notification: Notification) -> dict[str, Any]:
    message = notification.message
    return {
        "summary": message.title[:_SUMMARY],
        "source": notification.source,
        "severity": str(message.severity),
        "timestamp": rfc3339(notification.created_at),
        "component": "firestore",
        "group": notification.source,
        "class": notification.condition,
        "custom_details": _details(notification),
    }


def _change(notification: Notification) -> dict[str, Any]:
    return {
        "summary": notification.message.title[:_SUMMARY],
        "source": notification.source,
        "timestamp": rfc3339(notification.created_at),
        "custom_details": _details(notification),
    }


def _details(notification: Notification) -> dict[str, str]:
    message = notification.message
    details = {"What happens": message.action, **dict(message.facts)} if message.action else dict(message.facts)
    if notification.incident:
        details["Incident"] = f"{notification.incident}, message {notification.sequence}"
    if message.trace_id:
        details["Trace"] = message.trace_id
    return {name: value[:_VALUE] for name, value in details.items()}


def _links(notification: Notification) -> list[dict[str, str]]:
    return [{"href": href, "text": text} for text, href in notification.message.links]
