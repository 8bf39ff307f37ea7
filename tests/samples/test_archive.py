"""Samples over a restart: what comes back, what must not, and files that are not whole."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.clock import ManualClock
from agent.promql import Engine, Vector, compile_expression
from agent.samples import Limits, Sample, SampleArchive, SampleKeeper, SeriesStore, describe, labels_of


def fill(store: SeriesStore, *, start: int = 0, count: int = 100, base: float = 0.0, source: str = "app") -> None:
    for second in range(start, start + count):
        samples = [Sample(labels_of("x_total", {"job": "a"}), base + second - start)]
        if second % 2:
            samples.append(Sample(labels_of("y", {}), float("nan")))
        store.ingest(source, second, samples)


def value(store: SeriesStore, text: str, at: float) -> dict[str, float]:
    found = Engine(store).instant(compile_expression(text), at)
    assert isinstance(found, Vector)
    return {describe(each.labels): each.value for each in found.elements}


@pytest.fixture
def archive(tmp_path: Path) -> SampleArchive:
    return SampleArchive(tmp_path / "samples")


def only(archive: SampleArchive) -> Path:
    """The one file there is."""
    (path,) = archive.folder.glob("*.samples")
    return path


def restarted(archive: SampleArchive, *, now: float = 100, limits: Limits | None = None) -> SeriesStore:
    store = SeriesStore(limits)
    SampleArchive(archive.folder).load(store, now=now)
    return store


def test_a_restart_sees_the_window_that_it_saw_before(archive: SampleArchive) -> None:
    """Rates, counts and NaN are what they were; a cell without a sample stays one."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100)
    again = restarted(archive)
    for text in ("rate(x_total[1m])", "count_over_time(y[50s])", "sum_over_time(y[1m])"):
        assert repr(value(again, text, 99.5)) == repr(value(store, text, 99.5))


def test_a_counter_that_starts_anew_is_a_reset(archive: SampleArchive) -> None:
    """The increase over the restart is what was counted before plus what was counted since."""
    store = SeriesStore()
    fill(store, base=1_000)
    archive.save(store, now=100)
    again = restarted(archive)
    fill(again, start=105, count=10)
    assert value(again, "resets(x_total[2m])", 114) == {'{job="a"}': 1.0}
    assert value(again, "increase(x_total[2m])", 114)['{job="a"}'] == pytest.approx(99 + 9, rel=0.1)


def test_what_was_read_last_is_not_what_is_so_now(archive: SampleArchive) -> None:
    """Until its source is read again a restored series has no present value, and another source may deliver it."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100)
    again = restarted(archive)
    assert value(again, "x_total", 101) == {}
    fill(again, start=102, count=1, source="another")
    assert value(again, "x_total", 102) == {'x_total{job="a"}': 0.0}


def test_old_samples_and_those_of_the_future_stay_out(archive: SampleArchive) -> None:
    """Retention holds over a restart, and a clock that was put back does not shut out new readings."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100)
    assert value(restarted(archive, now=120, limits=Limits(retention=30)), "count_over_time(x_total[5m])", 120) == {
        '{job="a"}': 9.0
    }
    back = restarted(archive, now=50)
    fill(back, start=52, count=5)
    assert value(back, "x_total", 56) == {'x_total{job="a"}': 4.0}
    assert value(restarted(archive, now=90_000), "count_over_time(x_total[1d])", 90_000) == {}


def test_the_files_are_bounded_in_age_and_size(tmp_path: Path) -> None:
    """What is past retention goes, and the oldest where all together are too large; what is being filled stays."""
    store = SeriesStore()
    fill(store, count=4_000)
    for limits, left in (
        ({}, ["0", "600000", "1200000", "1800000", "2400000", "3000000", "3600000"]),
        ({"retention": 1_000.0}, ["3000000", "3600000"]),
        ({"max_bytes": 30_000}, ["3000000", "3600000"]),
        ({"max_bytes": 10}, ["3600000"]),
    ):
        archive = SampleArchive(tmp_path / f"{limits}", **limits)
        archive.save(store, now=4_000)
        assert sorted((path.stem for path in archive.folder.iterdir()), key=int) == left


def test_a_save_writes_what_is_new(tmp_path: Path) -> None:
    """Files of past spans stay as they are; the last one grows; together they hold everything, once."""
    archive = SampleArchive(tmp_path / "samples")
    store = SeriesStore()
    fill(store, count=590)
    archive.save(store, now=590)
    fill(store, start=590, count=30, base=590)
    archive.save(store, now=620)
    first = archive.folder / "0.samples"
    written = first.stat().st_mtime_ns
    fill(store, start=620, count=30, base=620)
    archive.save(store, now=650)
    assert first.stat().st_mtime_ns == written
    again = restarted(archive, now=650)
    for text in ("count_over_time(x_total[11m])", "increase(x_total[11m])", "count_over_time(y[11m])"):
        assert repr(value(again, text, 649.5)) == repr(value(store, text, 649.5))
    second = SampleArchive(archive.folder)
    second.load(fresh := SeriesStore(), now=650)
    fill(fresh, start=651, count=10, base=651)
    second.save(fresh, now=661)
    assert first.stat().st_mtime_ns == written
    assert value(restarted(archive, now=661), "count_over_time(x_total[12m])", 660.5) == {'{job="a"}': 660.0}


def test_a_kill_while_a_file_is_written_costs_what_is_new(archive: SampleArchive) -> None:
    """What stands beside the file, half written, is not read, and the next save takes its place."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100)
    (archive.folder / "0.new").write_bytes(only(archive).read_bytes()[:100])
    again = restarted(archive)
    assert value(again, "count_over_time(x_total[5m])", 99) == {'{job="a"}': 100.0}
    fill(again, start=200, count=5)
    SampleArchive(archive.folder).save(again, now=205)
    assert [path.name for path in archive.folder.iterdir()] == ["0.samples"]


def test_files_of_a_future_that_was_taken_back_go(archive: SampleArchive) -> None:
    """A clock that was an hour ahead leaves nothing that would come up an hour later."""
    store = SeriesStore()
    fill(store, start=3_600)
    archive.save(store, now=3_700)
    back = restarted(archive, now=100)
    fill(back, start=100, count=5)
    SampleArchive(archive.folder).save(back, now=105)
    assert only(archive).name == "0.samples"


def test_series_that_came_and_went_are_where_they_were(archive: SampleArchive) -> None:
    """A series is written where it has samples, ends where a later file lacks it, and moves on to another source."""
    store = SeriesStore()
    moving = labels_of("m", {})
    for second in range(0, 1_800, 10):
        samples = [Sample(labels_of("churn", {"id": str(second // 300)}), second)]
        store.ingest("app", second, [*samples, Sample(moving, 1)] if second < 600 else samples)
        if second >= 700:
            store.ingest("other", second, [Sample(moving, 2)])
    archive.save(store, now=1_800)
    again = restarted(archive, now=1_800)
    for at in (295.0, 599.0, 650.0, 1_789.0):
        for text in ("churn", "m", "count(count_over_time(churn[10m]))", "sum_over_time(m[5m])"):
            assert value(again, text, at) == value(store, text, at)


@pytest.mark.parametrize("damage", ["torn", "foreign", "flipped", "empty"])
def test_a_damaged_file_is_set_aside(archive: SampleArchive, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """The daemon starts with an empty store, says so, and leaves the file for whoever wants to look."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100)
    path = only(archive)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "torn": whole[:middle],
            "foreign": b"not a zip of arrays",
            "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
            "empty": b"",
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert restarted(archive).statistics().series == 0
    assert "can't be read" in caplog.text
    assert not path.exists()
    assert path.with_suffix(".damaged").exists()


def test_a_save_that_fails_leaves_the_last_one(archive: SampleArchive, caplog: pytest.LogCaptureFixture) -> None:
    """A full or read-only disk costs a warning."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100)
    before = only(archive).read_bytes()
    (archive.folder / "0.new").mkdir()
    keeper = SampleKeeper(archive, store, clock=ManualClock(datetime.fromtimestamp(100, UTC)))
    with caplog.at_level(logging.WARNING):
        keeper.save()
    assert "could not be saved" in caplog.text
    assert only(archive).read_bytes() == before


def test_a_clean_stop_saves(archive: SampleArchive) -> None:
    """What was filed since the last interval is there after the restart."""
    clock = ManualClock(datetime.fromtimestamp(100, UTC))
    store = SeriesStore()
    keeper = SampleKeeper(archive, store, clock=clock)
    keeper.start()
    fill(store)
    keeper.stop()
    again = SeriesStore()
    second = SampleKeeper(archive, again, clock=clock)
    second.start()
    second.stop()
    assert value(again, "count_over_time(x_total[5m])", 99) == {'{job="a"}': 100.0}
