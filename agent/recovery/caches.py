"""Clearing the application's cache, so that it doesn't serve documents of the migration that was undone."""

from __future__ import annotations

import redis

from agent.faults import Misconfigured, MisconfiguredReason, Transient, TransientReason

_TIMEOUT_S = 5.0
_SCAN_COUNT = 1000


def clear_caches(url: str | None, prefix: str | None = None) -> str:
    """Clear the Redis database at ``url``; says what it did.

    Args:
        prefix: clear only keys that start with it; ``None`` clears all databases of the server, as the page's
            FLUSHALL does.

    Raises:
        Misconfigured: the address is no Redis URL, or the credentials are refused.
        Transient: the server doesn't answer.
    """
    if url is None:
        return "no cache is configured"
    try:
        with redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S) as client:
            if prefix is None:
                client.flushall(asynchronous=True)
                return "all cache keys cleared"
            count = 0
            batch: list[bytes] = []
            for key in client.scan_iter(match=f"{prefix}*", count=_SCAN_COUNT):
                batch.append(key)
                if len(batch) >= _SCAN_COUNT:
                    count += int(client.unlink(*batch))
                    batch.clear()
            if batch:
                count += int(client.unlink(*batch))
            return f"{count:,} cache keys under {prefix} cleared"
    except (redis.AuthenticationError, ValueError) as error:
        raise Misconfigured(
            MisconfiguredReason.CREDENTIALS,
            f"the cache at {url} can't be used ({error})",
            hint="check recovery.redis_url",
        ) from error
    except redis.RedisError as error:
        raise Transient(
            TransientReason.UNAVAILABLE, f"the cache at {url} does not answer ({error})", hint="is Redis running?"
        ) from error
