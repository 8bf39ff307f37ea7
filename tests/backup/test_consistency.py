"""One instant, whatever happens on the way: broken streams, other people's writes, too little time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from agent.backup import Backups, BackupType
from agent.backup.create import TIME_LIMIT_SECONDS
from agent.clock import ManualClock, SystemClock
from agent.faults import Permanent, PermanentReason
from agent.firestore import Carrier, DatabaseAddress, Firestore, NameRange, RetryPolicy, canonical
from agent.sandbox import ProxyProcess, start_proxy
from agent.sandbox.injection import Direction, Fault, FaultKind
from agent.storage import DirectoryStorage
from agent.telemetry import Telemetry
from tests.backup.conftest import Running, contents, write
from tests.backup.writing import Pinning, somebody_writes

Make = Callable[..., Backups]
Connect = Callable[[str, str], Firestore]
PATHS = [f"{collection}/d{number:04}" for collection in ("aa", "mm", "zz") for number in range(400)]


@pytest.fixture
def proxy(backend: Running) -> Iterator[ProxyProcess]:
    """Between the backup and the database."""
    with start_proxy(backend.host) as process:
        yield process


def a_round(number: int) -> dict[str, dict[str, int] | None]:
    """All documents are changed, a few of them deleted and made anew."""
    gone = PATHS[number % 7 :: 50]
    return {path: {"round": number} for path in PATHS if path not in gone} | dict.fromkeys(gone)


@pytest.mark.parametrize("carrier", Carrier)
def test_streams_that_break_go_on_at_the_same_instant(
    backend: Running,
    proxy: ProxyProcess,
    project: str,
    connect: Connect,
    local: DirectoryStorage,
    backups_of: Make,
    telemetry: Telemetry,
    carrier: Carrier,
) -> None:
    """With reads that break half-way, as in production after a minute, and a busy writer: one instant."""
    direct = connect(backend.host, project)
    write(direct, {path: {"round": 0} for path in PATHS})
    address = DatabaseAddress(project=project, host=proxy.host)
    patience = RetryPolicy(first=0.01, ceiling=0.1, budget=60.0)
    with Pinning(address, telemetry=telemetry, origin="backup", retry=patience, carrier=carrier) as broken:
        backups = backups_of(broken, local)
        # In the middle of a stream, whose documents so far were delivered; and calls that fail from the start.
        proxy.inject(Fault(kind=FaultKind.ERRORS, marker=b"/documents/", share=0.003, seed=3))
        proxy.inject(Fault(kind=FaultKind.ERRORS, marker=b"", every=3, direction=Direction.REQUEST))
        with somebody_writes(direct, a_round, beside=broken, on=backend):
            made = [backups.create(kind) for kind in (BackupType.FULL, BackupType.INCREMENTAL, BackupType.FULL)]
        assert proxy.stats().failed > 2
        proxy.clear()
    assert [manifest.type for manifest in made] == [BackupType.FULL, BackupType.INCREMENTAL, BackupType.FULL]
    for number, manifest in enumerate(made):
        target = connect(backend.host, f"{project}-{number}")
        assert backups_of(direct, local).restore(manifest.id, to=target).complete
        then = {
            direct.address.relative(document.name): canonical(document.fields)
            for document in direct.documents(NameRange(), manifest.read_time)
        }
        assert contents(target) == then


class Moving(ManualClock):
    """A clock set to the present, that time has to be added to."""

    def __init__(self) -> None:
        super().__init__(SystemClock().now())


@pytest.mark.parametrize("kind", [BackupType.FULL, BackupType.SNAPSHOT, BackupType.CRITICAL, BackupType.INCREMENTAL])
@pytest.mark.parametrize("late", [False, True])
def test_it_is_over_before_fifty_five_minutes_or_not_at_all(
    firestore: Firestore, local: DirectoryStorage, backups_of: Make, kind: BackupType, late: bool
) -> None:
    """A backup of any type that runs out of time is given up with nothing left of it; a minute sooner it is made."""
    clock = Moving()
    backups = backups_of(firestore, local, clock=clock, parallel=1, critical=["aa", "zz"])
    write(firestore, {path: {"n": 1} for path in PATHS})
    if kind is BackupType.INCREMENTAL:
        backups.create(BackupType.FULL)
        write(firestore, {path: {"n": 2} for path in PATHS})
    before = [item.id for item in backups.list()]
    assert TIME_LIMIT_SECONDS < 55 * 60
    step = TIME_LIMIT_SECONDS if late else TIME_LIMIT_SECONDS - 60
    passed: list[float] = []

    def time_passes(_: object) -> None:
        if not passed:
            passed.append(step)
            clock.advance(step)

    if not late:
        assert backups.verify(backups.create(kind, progress=time_passes).id).ok
        return
    with pytest.raises(Permanent) as raised:
        backups.create(kind, progress=time_passes)
    assert raised.value.reason is PermanentReason.READ_TIME_EXPIRED
    assert clock.monotonic() < 55 * 60
    assert [item.id for item in backups.list()] == before
    assert {stored.key.partition("/")[0] for stored in local.list()} == set(before)
    assert not [stored.key for stored in local.list() if "lease" in stored.key]


def test_ranges_are_balanced(firestore: Firestore, local: DirectoryStorage, backups_of: Make) -> None:
    """A collection that holds nearly everything is read in parts of about one size, at once."""
    write(firestore, {f"large/d{number:05}": {"text": "x" * 100} for number in range(4000)})
    write(firestore, {f"small{which}/d{number}": {"n": number} for which in range(3) for number in range(5)})
    manifest = backups_of(firestore, local, parallel=4).create(BackupType.FULL)
    sizes: Counter[str] = Counter()
    for segment in manifest.segments:
        sizes[segment.file.split("-")[1]] += segment.raw_bytes
    large = [size for size in sizes.values() if size > manifest.raw_bytes / 100]
    assert len(large) >= 8
    assert max(large) < 2 * min(large)
