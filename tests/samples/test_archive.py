"""Samples over a restart: what comes back, what must not, and files that are not whole."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.clock import ManualClock
from agent.promql import Engine, Vector, compile_expression
from agent.samples import Limits, Sample, SampleArchive, SampleKeeper, SeriesStore, describe, labels_of

HOUR = 3_600_000


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
    return SampleArchive(tmp_path / "samples.npz")


def restarted(archive: SampleArchive, *, now: float = 100, limits: Limits | None = None) -> SeriesStore:
    store = SeriesStore(limits)
    archive.load(store, now=now)
    return store


def test_a_restart_sees_the_window_that_it_saw_before(archive: SampleArchive) -> None:
    """Rates, counts and NaN are what they were; a cell without a sample stays one."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100, lasting=HOUR)
    again = restarted(archive)
    for text in ("rate(x_total[1m])", "count_over_time(y[50s])", "sum_over_time(y[1m])"):
        assert repr(value(again, text, 99.5)) == repr(value(store, text, 99.5))


def test_a_counter_that_starts_anew_is_a_reset(archive: SampleArchive) -> None:
    """The increase over the restart is what was counted before plus what was counted since."""
    store = SeriesStore()
    fill(store, base=1_000)
    archive.save(store, now=100, lasting=HOUR)
    again = restarted(archive)
    fill(again, start=105, count=10)
    assert value(again, "resets(x_total[2m])", 114) == {'{job="a"}': 1.0}
    assert value(again, "increase(x_total[2m])", 114)['{job="a"}'] == pytest.approx(99 + 9, rel=0.1)


def test_what_was_read_last_is_not_what_is_so_now(archive: SampleArchive) -> None:
    """Until its source is read again a restored series has no present value, and another source may deliver it."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100, lasting=HOUR)
    again = restarted(archive)
    assert value(again, "x_total", 101) == {}
    fill(again, start=102, count=1, source="another")
    assert value(again, "x_total", 102) == {'x_total{job="a"}': 0.0}


def test_old_samples_and_those_of_the_future_stay_out(archive: SampleArchive) -> None:
    """Retention holds over a restart, and a clock that was put back does not shut out new readings."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100, lasting=HOUR)
    assert value(restarted(archive, now=120, limits=Limits(retention=30)), "count_over_time(x_total[5m])", 120) == {
        '{job="a"}': 9.0
    }
    back = restarted(archive, now=50)
    fill(back, start=52, count=5)
    assert value(back, "x_total", 56) == {'x_total{job="a"}': 4.0}
    assert value(restarted(archive, now=90_000), "count_over_time(x_total[1d])", 90_000) == {}


def test_the_file_is_bounded(tmp_path: Path) -> None:
    """Where there is more than has room, the newest samples are kept."""
    archive = SampleArchive(tmp_path / "samples.npz", max_bytes=600)
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100, lasting=HOUR)
    found = value(restarted(archive), "count_over_time(x_total[5m])", 99)['{job="a"}']
    assert 0 < found < 60


@pytest.mark.parametrize("damage", ["torn", "foreign", "flipped", "empty"])
def test_a_damaged_file_is_set_aside(archive: SampleArchive, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """The daemon starts with an empty store, says so, and leaves the file for whoever wants to look."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100, lasting=HOUR)
    whole = archive.path.read_bytes()
    middle = len(whole) // 2
    archive.path.write_bytes(
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
    assert not archive.path.exists()
    assert archive.path.with_suffix(".damaged").exists()


def test_a_save_that_fails_leaves_the_last_one(archive: SampleArchive, caplog: pytest.LogCaptureFixture) -> None:
    """A full or read-only disk costs a warning."""
    store = SeriesStore()
    fill(store)
    archive.save(store, now=100, lasting=HOUR)
    before = archive.path.read_bytes()
    archive.path.with_suffix(".new").mkdir()
    keeper = SampleKeeper(archive, store, clock=ManualClock(datetime.fromtimestamp(100, UTC)))
    with caplog.at_level(logging.WARNING):
        keeper.save()
    assert "could not be saved" in caplog.text
    assert archive.path.read_bytes() == before


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
