"""What an HTTP status means for a notice that should have been delivered; shared by the vendors' pages."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    RunbookdError,
    Transient,
    TransientReason,
)

_QUOTED = 300


def refusal(vendor: str, status: int, retry_after: str | None, body: str, now: datetime) -> RunbookdError:
    """The error that ``status`` (300 and above) stands for.

    Args:
        retry_after: the Retry-After header: seconds or an HTTP date.
        body: the vendor's answer, quoted in the message.
    """
    said = f"{vendor} answered {status}" + (f": {body[:_QUOTED].strip()}" if body.strip() else "")
    wait = _seconds(retry_after, now)
    if status == 429:
        return Transient(TransientReason.RATE_LIMITED, said, retry_after=wait)
    if status in (408, 425) or status >= 500:
        return Transient(TransientReason.UNAVAILABLE, said, retry_after=wait)
    if status in (401, 403, 404, 410):
        return Misconfigured(
            MisconfiguredReason.CREDENTIALS, said, hint=f"check the key or address under notifications for {vendor}"
        )
    return Permanent(PermanentReason.INVALID, said)


def is_loopback(url: str) -> bool:
    """Whether ``url`` stays on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seconds(header: str | None, now: datetime) -> float | None:
    if not header:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max((at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds(), 0.0)
