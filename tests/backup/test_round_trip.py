"""What goes in comes out: byte for byte, whatever the documents are like."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from functools import cache

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.backup import Backups, BackupType, Compression
from agent.firestore import Firestore, GeoPoint, NameRange, Vector, canonical, take_fingerprint
from agent.storage import DirectoryStorage
from agent.telemetry import Telemetry
from tests.backup.conftest import Running, contents, of_everything, write
from tests.backup.writing import Pinning, somebody_writes

Connect = Callable[[str, str], Firestore]
Make = Callable[..., Backups]


def test_every_document_comes_back_byte_for_byte(
    backend: Running, project: str, connect: Connect, local: DirectoryStorage, backups_of: Make
) -> None:
    """A backup of every type of value and every odd name, restored into an empty database, equals the original."""
    source, target = connect(backend.host, project), connect(backend.host, project + "-copy")
    documents = of_everything(source.address)
    write(source, documents)
    backups = backups_of(source, local)

    manifest = backups.create(BackupType.FULL)
    assert backups.verify(manifest.id).problems == ()
    report = backups.restore(manifest.id, to=target)

    assert manifest.documents == len(documents)
    assert manifest.collections["cards"].documents == 9
    assert manifest.collections["below"].documents == 5
    assert (report.created, report.applied, report.failed) == (len(documents), len(documents), 0)
    assert contents(target) == contents(source)
    assert backups.show(manifest.id).fingerprint == take_fingerprint(source).digest


def test_without_compression(
    firestore: Firestore, project: str, sandbox: Running, connect: Connect, backups: Backups
) -> None:
    """A backup without compression verifies and restores like any other."""
    write(firestore, of_everything(firestore.address))
    manifest = backups.create(BackupType.FULL, compression=Compression.NONE)
    target = connect(sandbox.host, project + "-copy")
    assert all(segment.file.endswith(".pb") for segment in manifest.files)
    assert backups.verify(manifest.id).ok
    assert backups.restore(manifest.id, to=target).complete
    assert contents(target) == contents(firestore)


def test_an_empty_database(backups: Backups) -> None:
    """Nothing is something that can be backed up, verified and restored."""
    manifest = backups.create(BackupType.FULL)
    assert manifest.documents == 0
    assert backups.verify(manifest.id).ok
    assert backups.restore(manifest.id).changes == 0


def test_a_backup_is_of_one_instant(
    backend: Running,
    project: str,
    connect: Connect,
    local: DirectoryStorage,
    backups_of: Make,
    telemetry: Telemetry,
) -> None:
    """While somebody writes all the time, a backup holds exactly what the database held at its read_time."""
    firestore = connect(backend.host, project)
    paths = [f"{collection}/d{number}" for collection in ("aa", "mm", "zz") for number in range(40)]

    def a_round(number: int) -> dict[str, dict[str, int]]:
        return {path: {"round": number} for path in paths}

    write(firestore, a_round(0))
    with (
        Pinning(firestore.address, telemetry=telemetry, origin="backup") as pinned,
        somebody_writes(firestore, a_round, beside=pinned, on=backend),
    ):
        backups = backups_of(pinned, local)
        made = [backups.create(BackupType.FULL) for _ in range(3)]
    backups = backups_of(firestore, local)
    for number, manifest in enumerate(made):
        target = connect(backend.host, f"{project}-{number}")
        assert backups.restore(manifest.id, to=target).created == len(paths)
        then = {
            firestore.address.relative(document.name): canonical(document.fields)
            for document in firestore.documents(NameRange(), manifest.read_time)
        }
        assert contents(target) == then


_KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda key: not (key.startswith("__") and key.endswith("__"))
)
_NESTED = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(GeoPoint, st.floats(-90, 90), st.floats(-180, 180)),
    # An array directly in an array is what Firestore does not take.
    lambda inner: (
        st.dictionaries(_KEYS, inner, max_size=3)
        | st.lists(inner.filter(lambda value: not isinstance(value, list)), max_size=3)
    ),
    max_leaves=8,
)
_VECTORS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4).map(
    lambda numbers: Vector(tuple(numbers))
)
_VALUES = _NESTED | _VECTORS | st.dictionaries(_KEYS, _VECTORS, max_size=2)  # nor a vector anywhere beneath an array
_IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."} and not name.startswith("__")
)


@cache
def _made(count: int) -> dict[str, dict[str, object]]:
    """``count`` examples, by path; always the same ones for the same strategies."""
    found: dict[str, dict[str, object]] = {}

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        path=st.tuples(_IDS, _IDS).map("/".join),
        fields=st.dictionaries(_KEYS, _VALUES, max_size=5),
    )
    def collect(path: str, fields: dict[str, object]) -> None:
        found[f"{path}{len(found)}"] = fields

    collect()
    return found


# The clients' threads may draw random numbers meanwhile, which Hypothesis takes for the strategies' doing.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=(pytest.mark.slow, pytest.mark.timeout(1800)))])
def test_any_documents(
    backend: Running, project: str, connect: Connect, local: DirectoryStorage, backups_of: Make, count: int
) -> None:
    """Generated documents with generated ids, types and depths come back byte for byte."""
    source, target = connect(backend.host, project), connect(backend.host, project + "-copy")
    documents = _made(count)
    write(source, documents)
    backups = backups_of(source, local)
    backup = backups.create(BackupType.FULL).id
    assert backups.verify(backup).problems == ()
    assert backups.restore(backup, to=target).complete
    restored = contents(target)
    assert len(restored) == len(documents) == count
    assert restored == contents(source)
