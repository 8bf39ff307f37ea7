"""Is the application well again? Asked after traffic is restored, at the health address that the page names."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from agent.faults import Transient, TransientReason

_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class HealthReport:
    """A healthy answer."""

    url: str
    status: int
    seconds: float


def check_health_url(url: str) -> HealthReport:
    """GET ``url``; any 2xx is healthy.

    Raises:
        Transient: no answer, or another status.
    """
    try:
        response = httpx.get(url, timeout=_TIMEOUT_S, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Transient(
            TransientReason.UNAVAILABLE, f"{url} does not answer ({error})", hint="is the application up?"
        ) from error
    if not response.is_success:
        raise Transient(
            TransientReason.UNAVAILABLE,
            f"{url} answered {response.status_code}",
            hint="look at the application's own log",
        )
    return HealthReport(url=url, status=response.status_code, seconds=response.elapsed.total_seconds())
