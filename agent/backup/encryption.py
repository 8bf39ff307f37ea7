"""Encryption at rest: AES-256-GCM, each file of a backup under a key of its own.

A file's key is derived (HKDF-SHA256) from the configured key and 32 random bytes at the file's start, and encrypts
that one file, so a nonce can't meet the same key twice. The authenticated name binds a file to its place. ``create``
seals, the catalogue and ``verify`` open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent.faults import Misconfigured, MisconfiguredReason, Permanent, PermanentReason

KEY_BYTES = 32
_SALT_BYTES = 32
_NONCE = bytes(12)  # constant, because every file has its own key
_INFO = b"runbookd backup file"


class Keyring:
    """The keys that are configured: the first one encrypts new backups, all of them open old ones.

    Args:
        keys: of :data:`KEY_BYTES` bytes each; none, and nothing is encrypted.
    """

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._keys = {key_id_of(key): key for key in keys}
        self.current = next(iter(self._keys), "")
        """Id of the key for new backups; empty if they are not encrypted."""

    def seal(self, name: str, data: bytes) -> bytes:
        """``data``, encrypted with the current key as the content of the file ``name``."""
        salt = os.urandom(_SALT_BYTES)
        return salt + _cipher(self._keys[self.current], salt).encrypt(_NONCE, data, name.encode())

    def open(self, key_id: str, name: str, data: bytes) -> bytes:
        """The content of the file ``name``; ``data`` itself if ``key_id`` is empty.

        Raises:
            Misconfigured: ``SETTINGS``: the key is not configured; names it.
            Permanent: ``CORRUPT``, naming the file.
        """
        if not key_id:
            return data
        self.require(key_id, name.partition("/")[0])
        salt, sealed = data[:_SALT_BYTES], data[_SALT_BYTES:]
        try:
            return _cipher(self._keys[key_id], salt).decrypt(_NONCE, sealed, name.encode())
        except InvalidTag as error:
            raise Permanent(PermanentReason.CORRUPT, f"{name} can't be decrypted with key {key_id}") from error

    def require(self, key_id: str, backup: str) -> None:
        """See that a backup can be opened.

        Raises:
            Misconfigured: ``SETTINGS``: its key is not configured.
        """
        if key_id and key_id not in self._keys:
            have = f"configured: {', '.join(self._keys)}" if self._keys else "no key is configured"
            raise Misconfigured(
                MisconfiguredReason.SETTINGS,
                f"{backup} is encrypted with key {key_id}, which is missing ({have})",
                hint="add that key to storage.encryption_key_file, or to RUNBOOKD_STORAGE__ENCRYPTION_KEY",
            )


def key_id_of(key: bytes) -> str:
    """What names a key without telling it: 16 hex digits."""
    return hashlib.sha256(b"runbookd backup key id" + key).hexdigest()[:16]


def read_keys(text: str, where: str) -> Keyring:
    """Keys from a file or a variable: each 32 bytes in base64, apart by white space; the current one first.

    Raises:
        Misconfigured: ``SETTINGS``; says where and which, never what is in it.
    """
    keys = []
    for number, word in enumerate(text.split(), start=1):
        try:
            key = base64.b64decode(word, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise Misconfigured(
                MisconfiguredReason.SETTINGS,
                f"key {number} in {where} is not {KEY_BYTES} bytes in base64",
                hint="make one with `head -c 32 /dev/urandom | base64`",
            )
        keys.append(key)
    if not keys:
        raise Misconfigured(MisconfiguredReason.SETTINGS, f"there is no key in {where}")
    return Keyring(keys)


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=_INFO).derive(key))
