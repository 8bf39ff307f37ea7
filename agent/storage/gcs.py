"""Backups in a Google Cloud Storage bucket, through the official client.

An object appears when its upload is complete, so there are no partial ones. ``ifGenerationMatch=0`` makes a put fail
when the key is taken, and makes it safe to send again; the CRC32C that the service computed is compared with ours in
both directions. ``STORAGE_EMULATOR_HOST`` is honoured by the client itself.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import google_crc32c
import requests
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage.client import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from agent.faults import (
    Misconfigured,
    MisconfiguredReason,
    Permanent,
    PermanentReason,
    RunbookdError,
    Transient,
    TransientReason,
)
from agent.storage.contract import StoredObject, Usage, checked_key

_DOWNLOAD_BYTES = 8 << 20
_SPOOL_BYTES = 16 << 20
# For its traces, off or on, the client (3.17) looks the bucket up in a thread of its own, for up to two minutes and in
# the session of the calls under way. Storage Object Admin isn't allowed to, and nobody here reads the answer.
_NO_LOOKUP = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"


class GcsStorage:
    """A bucket, or a folder of one, that keeps the promise of :class:`agent.storage.Storage`.

    Args:
        name: the storage's name in configuration and metrics.
        bucket: the bucket's name; it has to exist.
        prefix: folder within the bucket, without slashes at its ends; empty for the whole bucket.
        project: project that pays, or ``None`` for the credentials' own.
        endpoint: e.g. ``http://127.0.0.1:4443`` for another server than Google's, without credentials; ``None`` for
            ``STORAGE_EMULATOR_HOST`` or Google.
        capacity_bytes: how much may be stored, or ``None``; a bucket has no ceiling of its own.
        storage_class: e.g. ``ARCHIVE``; ``None`` for the bucket's default.
        retry_seconds: how long a call is retried on 408, 429, 5xx and broken connections before it raises.
    """

    def __init__(
        self,
        *,
        name: str,
        bucket: str,
        prefix: str = "",
        project: str | None = None,
        endpoint: str | None = None,
        capacity_bytes: int | None = None,
        storage_class: str | None = None,
        retry_seconds: float = 60.0,
    ) -> None:
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""
        self._capacity_bytes = capacity_bytes
        self._storage_class = storage_class
        self._retry = DEFAULT_RETRY.with_timeout(retry_seconds)
        os.environ.setdefault(_NO_LOOKUP, "true")
        with _translated(bucket, ""):
            if endpoint:
                self._client = Client(
                    project=project or "none",
                    credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                    client_options=ClientOptions(api_endpoint=endpoint),
                )
            else:
                self._client = Client(project=project)
        self._bucket = self._client.bucket(bucket)

    @property
    def name(self) -> str:
        return self._name

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        blob = self._blob(key)
        # Spooled because a retry has to send the same bytes again; segments fit in memory.
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
            crc = _Crc()
            for chunk in chunks:
                spool.write(chunk)
                crc.update(chunk)
            size = spool.tell()
            checksum = crc.base64()
            with _translated(self._bucket.name, key):
                try:
                    self._upload(blob, spool, size, if_generation_match=0)
                except exceptions.PreconditionFailed:
                    # Either somebody else's object, or ours: an attempt that arrived and whose answer was lost.
                    blob = self._existing(key)
                    if blob.size != size or blob.crc32c != checksum:
                        raise Permanent(
                            PermanentReason.CONFLICT,
                            f"gs://{self._bucket.name}/{blob.name} exists already, with other bytes",
                        ) from None
                return self._describe(self._checked(blob, checksum))

    def replace(self, key: str, data: bytes) -> StoredObject:
        crc = _Crc()
        crc.update(data)
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool, _translated(self._bucket.name, key):
            spool.write(data)
            blob = self._blob(key)
            self._upload(blob, spool, len(data))
            return self._describe(self._checked(blob, crc.base64()))

    def get(self, key: str) -> Iterator[bytes]:
        with _translated(self._bucket.name, key):
            blob = self._existing(key)  # pins the generation for every request below
            crc = _Crc()
            for start in range(0, blob.size or 0, _DOWNLOAD_BYTES):
                chunk = blob.download_as_bytes(
                    start=start,
                    end=min(start + _DOWNLOAD_BYTES, blob.size) - 1,
                    checksum=None,  # it is for whole objects; the sum over all chunks is checked below
                    retry=self._retry,
                )
                crc.update(chunk)
                yield chunk
            self._checked(blob, crc.base64())

    def exists(self, key: str) -> bool:
        with _translated(self._bucket.name, key):
            return bool(self._blob(key).exists(retry=self._retry))

    def list(self, prefix: str = "") -> list[StoredObject]:
        with _translated(self._bucket.name, ""):
            blobs = self._client.list_blobs(self._bucket, prefix=self._prefix + prefix, retry=self._retry)
            return sorted((self._describe(blob) for blob in blobs), key=lambda stored: stored.key)

    def delete(self, key: str) -> None:
        with _translated(self._bucket.name, key):
            try:
                self._blob(key).delete(retry=self._retry)
            except exceptions.NotFound:
                return

    def usage(self) -> Usage:
        stored = sum(stored.size_bytes for stored in self.list())
        return Usage(used_bytes=stored, capacity_bytes=self._capacity_bytes, stored_bytes=stored)

    def sweep(self) -> int:
        return 0  # an interrupted upload leaves nothing behind; the service expires its session

    def _blob(self, key: str) -> Any:
        blob = self._bucket.blob(self._prefix + checked_key(key), chunk_size=None)
        if self._storage_class:
            blob.storage_class = self._storage_class
        return blob

    def _existing(self, key: str) -> Any:
        blob = self._bucket.get_blob(self._prefix + checked_key(key), retry=self._retry)
        if blob is None:
            raise Permanent(PermanentReason.NOT_FOUND, f"gs://{self._bucket.name}/{self._prefix}{key} does not exist")
        return blob

    def _upload(self, blob: Any, spool: IO[bytes], size: int, **conditions: int) -> None:
        blob.upload_from_file(
            spool,
            rewind=True,
            size=size,
            content_type="application/octet-stream",
            checksum="crc32c",
            retry=self._retry,
            **conditions,
        )

    def _checked(self, blob: Any, checksum: str) -> Any:
        if blob.crc32c != checksum:
            raise Permanent(
                PermanentReason.CORRUPT,
                f"gs://{self._bucket.name}/{blob.name} has checksum {blob.crc32c}, its bytes have {checksum}",
            )
        return blob

    def _describe(self, blob: Any) -> StoredObject:
        return StoredObject(
            key=blob.name.removeprefix(self._prefix),
            size_bytes=int(blob.size or 0),
            stored_at=blob.updated or blob.time_created,
        )


class _Crc:
    """A running CRC32C, in the form in which the service states its own."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, chunk: bytes) -> None:
        self._value = google_crc32c.extend(self._value, chunk)

    def base64(self) -> str:
        return base64.b64encode(self._value.to_bytes(4, "big")).decode()


@contextmanager
def _translated(bucket: str, key: str) -> Iterator[None]:
    """Turn the client's exceptions into ours."""
    try:
        yield
    except (
        exceptions.GoogleAPIError,
        auth_exceptions.GoogleAuthError,
        requests.RequestException,
        DataCorruption,
        InvalidResponse,
        OSError,
    ) as error:
        raise _fault(error, bucket, key) from error


def _fault(error: Exception, bucket: str, key: str) -> RunbookdError:
    place = f"gs://{bucket}/{key}" if key else f"gs://{bucket}"
    if isinstance(error, exceptions.RetryError) and isinstance(error.cause, Exception):
        error = error.cause  # what the last attempt met
    if isinstance(error, InvalidResponse):
        error = exceptions.from_http_response(error.response)  # type: ignore[no-untyped-call]
    match error:
        case exceptions.NotFound():
            return Misconfigured(
                MisconfiguredReason.ADDRESS,
                f"the bucket {bucket} does not exist",
                hint=f"make it (`gcloud storage buckets create gs://{bucket}`), or correct its name in the settings",
            )
        case exceptions.Unauthorized() | exceptions.Forbidden() | auth_exceptions.DefaultCredentialsError():
            return Misconfigured(
                MisconfiguredReason.CREDENTIALS,
                f"not allowed to use {place} ({error})",
                hint="set GOOGLE_APPLICATION_CREDENTIALS to a service account with the role Storage Object Admin",
            )
        case DataCorruption():
            return Permanent(PermanentReason.CORRUPT, f"{place} arrived damaged ({error})")
        case exceptions.TooManyRequests():
            return Transient(TransientReason.RATE_LIMITED, f"{place}: too many requests")
        case exceptions.ClientError() if error.code not in {408, None}:
            return Permanent(PermanentReason.INVALID, f"{place}: {error.message}")
        case exceptions.GatewayTimeout() | requests.Timeout():
            return Transient(TransientReason.DEADLINE_EXCEEDED, f"{place} did not answer in time")
        case _:
            return Transient(TransientReason.UNAVAILABLE, f"{place} can't be reached ({error})")
