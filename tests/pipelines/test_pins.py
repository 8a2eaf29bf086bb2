"""Pins are earlier lakes, whole or absent, that no vacuum hurts; they go when their time is over."""

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.layout import Layout, Positions
from contracts.schemas import TABLES
from contracts.times import to_us
from pipelines import durability, housekeeping, lake, pins, tidy
from pipelines.pins import Keep
from pipelines.stages import Setup
from tests.pipelines.days import MIDNIGHT, days, moved, setup_of, take_up, tidied
from tests.pipelines.test_retention import SHORT

NOW = MIDNIGHT + timedelta(hours=10)
FOR_EVER = tidy.Rules(days=dict.fromkeys(SHORT), grace_s=1)
HOURS = st.integers(0, 24 * 9).map(lambda hour: MIDNIGHT + timedelta(minutes=37 * hour))


@given(st.sets(HOURS), HOURS, st.integers(0, 5), st.integers(0, 4))
def test_the_first_pin_of_each_of_the_last_hours_and_days_stays(
    moments: set[datetime], now: datetime, hours: int, count: int
) -> None:
    moments = {moment for moment in moments if moment <= now}

    def is_first(moment: datetime, form: str) -> bool:
        return all(other >= moment for other in moments if f"{other:{form}}" == f"{moment:{form}}")

    last_hours = {f"{now - timedelta(hours=back):%Y%m%d%H}" for back in range(hours)}
    last_days = {f"{now - timedelta(days=back):%Y%m%d}" for back in range(count)}
    want = {
        moment
        for moment in moments
        if (f"{moment:%Y%m%d%H}" in last_hours and is_first(moment, "%Y%m%d%H"))
        or (f"{moment:%Y%m%d}" in last_days and is_first(moment, "%Y%m%d"))
    }
    assert pins.kept(sorted(moments), Keep(hours, count), now) == want


def claimed(setup: Setup, covered: datetime) -> Positions:
    before = Positions.load(setup.layout.positions)
    return durability.claim(setup.root, before, before.offsets, to_us(covered))


def read(folder: Path, name: str) -> pl.DataFrame:
    """A pinned table; without a file it is empty."""
    paths = sorted((folder / name).glob("*.parquet"))
    assert len(paths) == len(list((folder / name).iterdir()))
    return pl.read_parquet(paths).sort(TABLES[name].identity) if paths else pl.DataFrame()


def lake_of(setup: Setup) -> dict[str, pl.DataFrame]:
    found = {}
    for name, table in TABLES.items():
        rows: pl.DataFrame = pl.scan_delta(lake.open_table(setup.root, name)).collect()
        found[name] = rows.sort(table.identity) if rows.height else pl.DataFrame()
    return found


def test_a_pin_is_the_lake_of_its_moment_whatever_happens_to_it_since(tmp_path: Path) -> None:
    setup = setup_of(tmp_path)
    landed = days(2)
    take_up(setup, landed[0])
    positions, want = claimed(setup, NOW), lake_of(setup)
    assert [line.split()[2] for line in tidied(tmp_path, FOR_EVER, NOW) if line.startswith("pin")] == [
        "20261121T100000Z:"
    ]
    # the lake goes on, is compacted, and what was replaced is removed
    take_up(setup, [*landed[1], *(moved(row, timedelta(seconds=-9)) for row in landed[0])], 5000)
    housekeeping.compact_all(tmp_path, to_us(NOW + timedelta(days=30)))
    for name in TABLES:
        handle = lake.open_table(tmp_path, name)
        handle.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
    assert lake_of(setup)["observations"].height > want["observations"].height
    folder = setup.layout.pins / "20261121T100000Z"
    assert Positions.load(folder / "positions.json") == positions
    assert {one.name for one in folder.iterdir()} == {"positions.json", *positions.versions}
    for name, rows in want.items():
        assert read(folder, name).equals(rows), name


def test_pins_come_hourly_and_go(tmp_path: Path) -> None:
    setup = setup_of(tmp_path)
    take_up(setup, days(1)[0])
    keep = Keep(2, 2)
    for minutes in range(0, 60 * 28, 20):
        claimed(setup, NOW + timedelta(minutes=minutes))
        tidied(tmp_path, tidy.Rules(days=dict.fromkeys(SHORT), pins=keep), NOW + timedelta(minutes=minutes))
    assert [f"{moment:%d %H:%M}" for moment in pins.moments(tmp_path)] == [
        "21 10:00",
        "22 00:00",
        "22 12:00",
        "22 13:00",
    ]
    rules = tidy.Rules(days=dict.fromkeys(SHORT), pins=Keep(0, 0))
    tidied(tmp_path, rules, NOW + timedelta(days=9))
    assert list(setup.layout.pins.iterdir()) == []


@pytest.mark.parametrize("survives", [0, 5, len(TABLES)])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_a_pin_is_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: int, error: BaseException
) -> None:
    """Killed, or refused by the disk, after so many folders are durable."""
    setup = setup_of(tmp_path)
    take_up(setup, days(1)[0])
    positions, want = claimed(setup, NOW), lake_of(setup)
    fsyncs = 0

    def dying(folder: Path) -> None:
        nonlocal fsyncs
        if fsyncs == survives:
            raise error
        fsyncs += 1

    with monkeypatch.context() as patch:
        patch.setattr(pins, "fsync_folder", dying)
        with pytest.raises(type(error)):
            pins.write(tmp_path, positions)
    # the last one is that of the name itself
    assert len(pins.moments(tmp_path)) == (survives == len(TABLES))
    assert any(setup.layout.pins.iterdir()) == (isinstance(error, KeyboardInterrupt) or survives == len(TABLES))
    tidied(tmp_path, FOR_EVER, NOW)
    assert [one.name for one in setup.layout.pins.iterdir()] == ["20261121T100000Z"]
    for name, rows in want.items():
        assert read(setup.layout.pins / "20261121T100000Z", name).equals(rows), name


def test_where_files_cannot_be_linked_there_are_no_pins_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = setup_of(tmp_path)
    take_up(setup, days(1)[0])
    claimed(setup, NOW)

    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "hardlink_to", refused)
    with pytest.raises(pins.LinkError, match=r"takes no hard links.*LAMPLIGHT_PINS=0"):
        tidied(tmp_path, FOR_EVER, NOW)
    assert list(setup.layout.pins.iterdir()) == []


def test_what_retention_removes_leaves_the_pins_too(tmp_path: Path) -> None:
    setup = setup_of(tmp_path)
    for number, landed in enumerate(days(4)):
        take_up(setup, [moved(row, timedelta(hours=6)) for row in landed], number * 1000)
    claimed(setup, NOW)
    tidied(tmp_path, FOR_EVER, NOW)
    told = tidied(tmp_path, tidy.Rules(days=SHORT), NOW)
    assert any("also from 1 pins" in line for line in told)
    folder = setup.layout.pins / "20261121T100000Z"
    assert read(folder, "lane_flows").equals(lake_of(setup)["lane_flows"])
    assert read(folder, "lane_flows")["event_time"].min() >= datetime(2026, 11, 20, tzinfo=UTC)  # type: ignore[operator]
    # what lies in a file with rows that stay goes with the pin
    assert read(folder, "minutes").height > lake_of(setup)["minutes"].height
    assert Layout(tmp_path).removed.exists()
