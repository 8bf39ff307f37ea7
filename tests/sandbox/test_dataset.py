"""The sample database: the page's counts, the same bytes every time, every type of value."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest

from agent.faults import Misconfigured, MisconfiguredReason
from agent.firestore.protos import Document, Value
from agent.sandbox import seed
from agent.sandbox.dataset import COUNTS, documents, total
from agent.sandbox.encoding import GeoPoint, Moment, Reference, Vector, field
from agent.telemetry.progress import Progress

ROOT = "projects/p/databases/(default)"


def test_the_counts_of_the_page() -> None:
    """At scale 1 the five collections hold the 306,725 documents of the runbook."""
    assert total(1) == sum(COUNTS.values()) == 306_725


def test_small_scales_have_everything() -> None:
    """Already a thousandth has every value type, extremes, subcollections and missing parents, and no marker."""
    planned = list(documents(ROOT, 0.001))
    counts = Counter(document.collection for document in planned)
    assert {name: counts[name] for name in COUNTS} == {name: round(count * 0.001) for name, count in COUNTS.items()}
    assert len({document.path for document in planned}) == len(planned)
    assert not any(b"schemaVersion" in document.fields for document in planned)
    kinds: set[str] = set()
    extremes: set[str] = set()
    for document in planned:
        for value in Document.FromString(document.fields).fields.values():
            _look(value, kinds, extremes)
    assert kinds == {Value.DESCRIPTOR.oneofs_by_name["value_type"].fields[i].name for i in range(11)} | {"vector"}
    assert extremes >= {"nan", "inf", "-inf", "-0.0", str(2**63 - 1), str(-(2**63))}
    paths = {document.path for document in planned}
    nested = [path for path in paths if path.count("/") == 3]
    assert {path.rsplit("/", 2)[0] in paths for path in nested} == {True, False}


def _look(value: Value, kinds: set[str], extremes: set[str]) -> None:
    kind = value.WhichOneof("value_type")
    kinds.add(kind)
    if kind in ("integer_value", "double_value"):
        extremes.add(str(getattr(value, kind)))
    if kind == "map_value":
        if "__type__" in value.map_value.fields:
            kinds.add("vector")
        for inner in value.map_value.fields.values():
            _look(inner, kinds, extremes)
    for inner in value.array_value.values:
        _look(inner, kinds, extremes)


def test_the_same_scale_gives_the_same_bytes() -> None:
    """Nothing depends on the process: not its hash seed, not its clock, not its own randomness."""
    digest = hashlib.sha256()
    for document in documents(ROOT, 0.002):
        digest.update(document.path.encode() + document.fields)
    assert digest.hexdigest() == EXPECTED


EXPECTED = "cbb12bfb482035dee5e21669994d4adfe91c698ce5428e7e49f8124ce1836f29"


def test_documents_have_the_page_s_size() -> None:
    """Name and fields make 1,014 bytes on average, 311 MB at scale 1."""
    sizes = [
        len("projects/moshimoshi-prod/databases/(default)/documents/") + len(document.path) + len(document.fields)
        for document in documents(ROOT, 0.05)
        if document.collection in COUNTS
    ]
    assert sum(sizes) / len(sizes) == pytest.approx(1_014, rel=0.01)


@pytest.mark.parametrize(
    "content",
    [
        None, True, 0, -1, 2**63 - 1, 1.5, float("nan"), -0.0, "é", b"\0", Moment(5, 7), Reference("a/b"),
        GeoPoint(1.5, -2), Vector((1.0,)), [], [1, "a"], {}, {"a": {"b": [None]}},
    ],
)  # fmt: skip
def test_prepared_bytes_are_what_a_message_would_be(content: object) -> None:
    """A value encoded by hand is the serialisation of the message it parses to."""
    encoded = field("name", content)
    document = Document.FromString(encoded)
    assert list(document.fields) == ["name"]
    assert document.SerializeToString(deterministic=True) == encoded


def test_seeding(backend: Any, project: str) -> None:
    """Both servers take the database; the report says what is there, and progress ends complete."""
    seen: list[Progress] = []
    report = seed(backend.host, project, 0.001, seen.append)
    assert report.documents == total(0.001)
    assert report.collections == {name: round(count * 0.001) for name, count in COUNTS.items()}
    assert (seen[-1].done, seen[-1].total) == (report.documents, report.documents)


def test_seeding_nothing_says_where(free_address: str) -> None:
    """An address where nothing listens is the caller's to correct."""
    with pytest.raises(Misconfigured, match=free_address) as refusal:
        seed(free_address, "p", 0.001)
    assert refusal.value.reason is MisconfiguredReason.ADDRESS


@pytest.fixture
def free_address() -> str:
    return "127.0.0.1:1"
