"""All databases that Firestore allows: the longest names, the largest documents, odd ids, next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.backup import Backups, BackupType
from agent.firestore import DatabaseAddress, Firestore, MustNotExist, PlannedWrite, WriteState, encode_fields
from agent.storage import DirectoryStorage
from tests.backup.conftest import Running, contents, write

Connect = Callable[[str, str], Firestore]
Make = Callable[..., Backups]

MEBIBYTE = 1_048_576
"""Largest document: https://cloud.google.com/firestore/quotas, with names and values counted as its storage size."""


def at_the_limits(address: DatabaseAddress) -> dict[str, dict[str, Any]]:
    """Documents at each limit of ids, names, depth and size."""
    longest_id = "é" * 750  # 1,500 bytes
    deepest = "/".join(f"c{level}/d{level}" for level in range(100))  # a document a hundred levels down
    nested: dict[str, Any] = {"bottom": True}
    for _ in range(18):
        nested = {"m": nested}
    documents: dict[str, dict[str, Any]] = {
        f"ids/{longest_id}": {"n": 1},
        f"{longest_id}/in-a-long-collection": {"n": 2},
        deepest: {"n": 3},
        "/".join(["x" * 700, "y" * 700] * 4): {"n": 4},  # a name of nearly 6 KiB
        "depth/of-twenty": nested,
        "empty/document": {},
        "empty/of-all-but-what-is-beneath/below/it": {},
        "only/a-missing-parent/and-its/child": {"n": 5},
        "fields/many": {f"field{number:05}": number for number in range(5_000)},
        "fields/odd": {"a.b": 1, "`": 2, "𝄞": 3, "x" * 1_500: 4, "__a": 5, " ": 6},
    }
    documents |= {f"ids/{name}": {"n": name} for name in ODD_IDS}
    documents |= {f"{name}/d": {"n": name} for name in ODD_IDS if not name.startswith("__")}
    size = MEBIBYTE - len(f"large/full{address.project}") - 200
    documents |= {f"large/full{number}": {"v": bytes([number]) * size} for number in range(5)}
    return documents


ODD_IDS = (
    *("__id1__", "__id7__", "__id-7__", "__id70__", "__id9223372036854775807__", "__id-9223372036854775808__"),
    *(
        "0",
        "00",
        "-1",
        "a b",
        " ",
        "\t",
        "\n",
        "a\\b",
        '"',
        "'",
        "%2F",
        "a%00b",
        "*",
        "?",
        "#",
        "$",
        "[0]",
        "..a",
        "...",
    ),
    *("é", "e\u0301", "日本語", "𝄞", "\uffff", "\ue000", "\U0010ffff", "\u200b", "\u202eabc", "~"),
)


def test_whatever_firestore_allows_comes_back(
    backend: Running, project: str, connect: Connect, local: DirectoryStorage, backups_of: Make
) -> None:
    """The longest ids and names, the deepest document, 1 MiB documents: full, increment and restore keep them."""
    source, target = connect(backend.host, project), connect(backend.host, project + "-copy")
    documents = at_the_limits(source.address)
    write(source, documents)
    backups = backups_of(source, local)
    full = backups.create(BackupType.FULL)
    assert full.documents == len(documents) == len(contents(source))
    again = sorted(documents)[::2]
    write(source, {path: None if number % 3 == 0 else {"changed": path} for number, path in enumerate(again)})
    increment = backups.create(BackupType.INCREMENTAL)
    assert increment.parent == full.id
    assert increment.documents + sum(segment.documents for segment in increment.deletes) == len(again)
    assert backups.verify(increment.id).problems == ()

    assert backups.restore(increment.id, to=target).complete
    assert contents(target) == contents(source)
    assert backups.restore(full.id, to=target, delete_extra=True).complete
    back = contents(target)
    assert back.keys() == documents.keys()
    write(source, {path: documents[path] for path in again})
    assert back == contents(source)


def test_a_document_of_a_mebibyte_is_what_fits(backend: Running, project: str, connect: Connect) -> None:
    """What the test above calls a full document is within a few hundred bytes of what the server refuses."""
    firestore = connect(backend.host, project)
    sizes = {"fits": MEBIBYTE - 300, "does-not": MEBIBYTE + 100}
    writes = [
        PlannedWrite(
            name=firestore.address.name(f"large/{name}"),
            fields=encode_fields({"v": b"x" * size}),
            precondition=MustNotExist(),
        )
        for name, size in sizes.items()
    ]
    states = [outcome.state for outcome in firestore.write(writes, origin="test")]
    assert sorted(states) == sorted([WriteState.APPLIED, WriteState.REJECTED])


def test_a_collection_that_was_emptied(
    backend: Running, project: str, connect: Connect, local: DirectoryStorage, backups_of: Make
) -> None:
    """A collection without documents is no collection: emptied, it is gone from the increment; so may all be."""
    firestore = connect(backend.host, project)
    backups = backups_of(firestore, local)
    write(firestore, {"kept/d": {}, "emptied/d": {}, "emptied/e/below/d": {}})
    full = backups.create(BackupType.FULL)
    assert {name: tally.documents for name, tally in full.collections.items()} == {"kept": 1, "emptied": 1, "below": 1}
    write(firestore, {"emptied/d": None, "emptied/e/below/d": None})
    some = backups.create(BackupType.INCREMENTAL)
    write(firestore, {"kept/d": None})
    nothing = backups.create(BackupType.INCREMENTAL)
    assert (some.total_documents, nothing.total_documents) == (1, 0)
    for manifest, left in ((full, 3), (some, 1), (nothing, 0)):
        assert backups.verify(manifest.id).ok
        assert backups.restore(manifest.id, delete_extra=True).complete
        assert len(contents(firestore)) == left


def test_a_hundred_and_more_root_collections(
    backend: Running, project: str, connect: Connect, local: DirectoryStorage, backups_of: Make
) -> None:
    """More collections than anybody plans for, each with a document, and one beneath a missing parent."""
    firestore = connect(backend.host, project)
    backups = backups_of(firestore, local)
    documents = {f"c{number:03}/d": {"n": number} for number in range(130)} | {"c050/missing/below/d": {"n": -1}}
    write(firestore, documents)
    manifest = backups.create(BackupType.FULL)
    assert manifest.documents == 131
    assert len(manifest.collections) == 131
    assert backups.verify(manifest.id).ok
