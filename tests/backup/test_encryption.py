"""Encryption at rest: unreadable without the key, whole with it, and no byte of it can change unnoticed."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backup import Backups, BackupType, Keyring, read_keys
from agent.backup.encryption import key_id_of
from agent.faults import Misconfigured, Permanent, PermanentReason
from agent.firestore import Firestore
from agent.storage import DirectoryStorage
from tests.backup.conftest import Running, contents, of_everything, write

Connect = Callable[[str, str], Firestore]
Make = Callable[..., Backups]
OLD, NEW = bytes(range(32)), bytes(range(100, 132))


def test_round_trip_and_rotation(
    firestore: Firestore, project: str, sandbox: Running, connect: Connect, local: DirectoryStorage, backups_of: Make
) -> None:
    """A chain whose members have different keys restores with both, and tells which one is missing."""
    write(firestore, of_everything(firestore.address) | {"users/secret": {"word": "xylophone" * 9}})
    full = backups_of(firestore, local, keys=Keyring([OLD])).create(BackupType.FULL)
    write(firestore, {"users/u1": {"n": "changed"}, "users/secret": None})
    both = backups_of(firestore, local, keys=Keyring([NEW, OLD]))
    increment = both.create(BackupType.INCREMENTAL)
    assert (full.key_id, increment.key_id) == (key_id_of(OLD), key_id_of(NEW))
    assert both.verify(increment.id).problems == ()
    target = connect(sandbox.host, project + "-copy")
    assert both.restore(increment.id, to=target).complete
    assert contents(target) == contents(firestore)
    for keys in (None, Keyring([NEW])):
        with pytest.raises(Misconfigured, match=key_id_of(OLD)):
            backups_of(firestore, local, keys=keys).restore(increment.id, to=target)


def test_nothing_of_a_document_is_readable(firestore: Firestore, local: DirectoryStorage, backups_of: Make) -> None:
    """No file but the manifest holds a word of the documents, compressed or not."""
    write(firestore, {"users/u1": {"word": "xylophone"}})
    backup = backups_of(firestore, local, keys=Keyring([OLD])).create(BackupType.FULL)
    for segment in backup.files:
        data = (local.path / backup.id / segment.file).read_bytes()
        assert segment.file.endswith(".enc")
        assert b"xylophone" not in data
        assert b"users" not in data


def test_no_salt_occurs_twice(firestore: Firestore, local: DirectoryStorage, backups_of: Make) -> None:
    """Every file has a key of its own, so that no nonce is used twice with one."""
    write(firestore, of_everything(firestore.address))
    backups = backups_of(firestore, local, keys=Keyring([OLD]))
    made = [backups.create(BackupType.FULL) for _ in range(2)]
    salts = [(local.path / one.id / segment.file).read_bytes()[:32] for one in made for segment in one.files]
    assert len(set(salts)) == len(salts) > 2


@given(data=st.binary(max_size=40), position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(data: bytes, position: int, bit: int) -> None:
    """Whichever bit of a sealed file changes, it does not open; nor does it under another file's name."""
    keys = Keyring([OLD])
    sealed = bytearray(keys.seal("backup/a", data))
    assert keys.open(keys.current, "backup/a", bytes(sealed)) == data
    with pytest.raises(Permanent):
        keys.open(keys.current, "backup/b", bytes(sealed))
    sealed[position % len(sealed)] ^= 1 << bit
    with pytest.raises(Permanent) as raised:
        keys.open(keys.current, "backup/a", bytes(sealed))
    assert raised.value.reason is PermanentReason.CORRUPT
    assert "backup/a" in raised.value.message


def test_damage_of_a_file_is_found_without_the_database(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make
) -> None:
    """Verify names the damaged file of an encrypted backup, and restore refuses it."""
    write(firestore, {"users/u1": {"n": 1}})
    backups = backups_of(firestore, local, keys=Keyring([OLD]))
    backup = backups.create(BackupType.FULL)
    path = local.path / backup.id / backup.segments[0].file
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    assert backup.segments[0].file in backups.verify(backup.id).problems[0]
    with pytest.raises(Permanent, match=backup.segments[0].file):
        backups.restore(backup.id)


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(bytes(31)).decode(), "!" * 44])
def test_what_is_no_key_is_told_by_its_place(text: str) -> None:
    """A key that can't be one is refused without being shown."""
    with pytest.raises(Misconfigured, match="the-file") as raised:
        read_keys(text, "the-file")
    assert not text or text not in raised.value.message


def test_keys_of_a_text() -> None:
    """The first key is the one for new backups."""
    text = f"{base64.b64encode(NEW).decode()}\n{base64.b64encode(OLD).decode()}\n"
    assert read_keys(text, "x").current == key_id_of(NEW)
