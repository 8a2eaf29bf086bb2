"""Completeness and health of sensors, beside what plain loops make of the same hours."""

from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import polars as pl
import pytest

from contracts.layout import Layout, Positions
from contracts.registry import Lamppost, RegistryFile, save_registry
from contracts.schemas import FLOW_WINDOWS, TABLES
from contracts.times import to_us
from pipelines.kernels.frames import conform
from tests.feed_samples import lamppost, post_id
from tests.warehouse.lake_samples import START, ask, config_of, write
from warehouse.catalogue import publish

HOUR = timedelta(hours=1)
THROUGH = START + 30 * HOUR + timedelta(minutes=17, seconds=20)
CADENCE_S = {"temperature_c": 60, "rain_mm": 60, "vehicle_count": 30}


def fill(root: Path, posts: list[Lamppost], **rows: list[dict[str, Any]]) -> None:
    save_registry(Layout(root).registry, RegistryFile(version=1, lampposts=tuple(posts)))
    versions = {}
    for name, found in rows.items():
        frame = conform(pl.DataFrame(found, infer_schema_length=None), TABLES[name])
        versions[name] = write(root, TABLES[name], frame.to_arrow().cast(TABLES[name].schema))
    Positions(offsets={}, versions=versions, covered_us=to_us(THROUGH)).store(Layout(root).positions)
    publish(config_of(root))


def hour_of(post: str, quantity: str, start: datetime, used: int, flagged: int = 0, **more: Any) -> dict[str, Any]:
    row = {"post_id": post, "quantity": quantity, "window_start": start, "period_s": 3600, "value_count": used}
    row |= {"flagged_count": flagged, "expected_count": 60, "completeness": 0.0, "revision": 0}
    return row | {"last_value": 20.0, "last_event_time": start + timedelta(minutes=59)} | more


def quarter_of(post: str, direction: str, start: datetime, halves: int, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {field.name: 0 for field in FLOW_WINDOWS.schema if not field.nullable}
    row |= {"post_id": post, "direction": direction, "window_start": start, "half_minutes": halves}
    return row | {"lane_summaries": 2 * halves, "last_event_time": start + timedelta(minutes=14)} | more


@pytest.fixture(scope="module")
def posts() -> list[Lamppost]:
    """One that always was, one that is put up at a quarter past, one that is taken down and one that is put back as
    another entry, one that nobody ever heard."""
    moved = [
        lamppost(5, valid_to=START + 3 * HOUR + timedelta(minutes=20, seconds=30)),
        lamppost(5, valid_from=START + 3 * HOUR + timedelta(minutes=40)),
    ]
    new = lamppost(3, valid_from=START + 2 * HOUR + timedelta(minutes=15))
    return [lamppost(1), new, *moved, lamppost(7, valid_to=START + 4 * HOUR), lamppost(9)]


@pytest.fixture(scope="module")
def counted(posts: list[Lamppost], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Any, tuple[int, int]]]:
    """A lake of chance counts, and (landed, used) of each post, quantity and hour."""
    root, random = tmp_path_factory.mktemp("data"), Random(1)
    hours, quarters, landed = [], [], {}
    for post in (post_id(number) for number in (1, 3, 5, 7)):
        for start in (START + n * HOUR for n in range(31)):
            if random.random() < 0.2:
                continue
            for quantity in ("temperature_c", "rain_mm"):
                used, flagged = random.randint(0, 62), random.randint(0, 5)
                hours.append(hour_of(post, quantity, start, used, flagged))
                landed[post, quantity, start] = used + flagged, used
            halves = 0
            for quarter in (start + n * HOUR / 4 for n in range(4)):
                each = [random.randint(0, 30) for _ in "EW"]
                quarters += [quarter_of(post, way, quarter, n) for way, n in zip("EW", each, strict=True)]
                halves += max(each)
            landed[post, "vehicle_count", start] = halves, halves
    fill(root, posts, hours=hours, flow_windows=quarters)
    return root, landed


def promised(posts: list[Lamppost], post: str, start: datetime, cadence_s: int) -> int:
    due = 0
    for entry in (entry for entry in posts if entry.post_id == post):
        begin, end = max(start, entry.valid_from), min(start + HOUR, entry.valid_to or THROUGH, THROUGH)
        due += max(0, int((end - begin).total_seconds() // cadence_s))
    return due


def oracle(posts: list[Lamppost], landed: dict[Any, tuple[int, int]]) -> list[tuple[Any, ...]]:
    rows = []
    for post in sorted({entry.post_id for entry in posts}):
        for quantity, cadence_s in CADENCE_S.items():
            for start in (START + n * HOUR for n in range(31)):
                if due := promised(posts, post, start, cadence_s):
                    came, used = landed.get((post, quantity, start), (0, 0))
                    rows.append((post, quantity, start, due, came, used, min(used / due, 1.0)))
    return sorted(rows)


def test_completeness_is_of_what_the_registry_promises(
    posts: list[Lamppost], counted: tuple[Path, dict[Any, tuple[int, int]]]
) -> None:
    root, landed = counted
    columns = "post_id, quantity, window_start, expected_count, landed_count, used_count, completeness"
    wanted = oracle(posts, landed)
    for zone in ("UTC", "Asia/Kolkata"):
        found = ask(root, f"SELECT {columns} FROM completeness ORDER BY ALL", zone)
        assert found.with_columns(pl.col("window_start").dt.convert_time_zone("UTC")).rows() == wanted
    assert any(row[4] == 0 for row in wanted)
    since = START + 20 * HOUR
    found = ask(root, f"SELECT {columns} FROM completeness_since(TIMESTAMPTZ '{since}') ORDER BY ALL")
    assert found.rows() == [row for row in wanted if row[2] >= since]
    told = ask(root, "SELECT DISTINCT window_start, window_start_hk FROM completeness ORDER BY 1")
    assert told.rows()[0] == (START, START.replace(tzinfo=None) + 8 * HOUR)


def test_the_citys_completeness_is_that_of_its_posts(counted: tuple[Path, dict[Any, tuple[int, int]]]) -> None:
    root, _ = counted
    each = ask(root, "SELECT * FROM completeness")
    wanted = (
        each.with_columns(counts=pl.min_horizontal("used_count", "expected_count"))
        .group_by("quantity", "window_start")
        .agg(
            post_count=pl.len().cast(pl.Int64),
            heard_count=(pl.col("landed_count") > 0).sum().cast(pl.Int64),
            expected_count=pl.col("expected_count").sum(),
            completeness=pl.col("counts").sum() / pl.col("expected_count").sum(),
        )
        .sort("quantity", "window_start")
    )
    found = ask(root, "SELECT * FROM city_completeness ORDER BY quantity, window_start")
    assert found.select(wanted.columns).equals(wanted)
    assert found.height == 3 * 31


def calibrated(number: int, day: date | None) -> Lamppost:
    post = lamppost(number)
    sensors = tuple(msgspec.structs.replace(sensor, calibrated_on=day) for sensor in post.sensors)
    return msgspec.structs.replace(post, sensors=sensors)


LAST = THROUGH.replace(minute=0, second=0)
TODAY = date(2026, 11, 22)  # of THROUGH in Hong Kong
# by post: day of calibration, used and flagged an hour, hours ago of the last used value, minutes stuck, verdict
SENSORS = {
    1: (TODAY, 60, 0, 0, 0, "ok"),
    3: (TODAY - timedelta(days=365), 60, 6, 0, 29, "ok"),
    5: (TODAY - timedelta(days=366), 60, 0, 0, 0, "uncalibrated"),
    7: (None, 60, 0, 0, 0, "uncalibrated"),
    9: (None, 54, 6, 0, 0, "suspect"),
    11: (TODAY, 60, 0, 0, 30, "suspect"),
    13: (TODAY, 60, 0, 2, 40, "silent"),
    15: (TODAY, 60, 0, 600, 0, "silent"),  # for 25 days
    17: (TODAY, 0, 60, None, 0, "silent"),  # what comes is never used
}


def test_the_verdict_on_a_sensor_follows_its_rule(tmp_path: Path) -> None:
    hours, quarters, flags = [], [], []
    for number, (_, used, flagged, ago, stuck, _) in SENSORS.items():
        post = post_id(number)
        newest = LAST - HOUR * (ago or 0)
        for start in (newest - n * HOUR for n in range(30)):
            # a value of an hour is the last one used, though a later one came that was not
            more = {"last_value": float(start.hour), "last_used_time": start + timedelta(minutes=10)}
            if not used:
                more = {"last_value": None}
            hours.append(hour_of(post, "temperature_c", start, used, flagged, **more))
        quarters.append(quarter_of(post, "E", newest, 30, flagged_count=flagged))
        cell = {"post_id": post, "quantity": "temperature_c", "flag": 3}
        flags += [{**cell, "window_start": THROUGH - timedelta(minutes=n), "test": "persistence"} for n in range(stuck)]
        # long ago, and other tests
        flags += [{**cell, "window_start": START, "test": "persistence"}]
        flags += [{**cell, "window_start": LAST, "test": test} for test in ("spike", "step")]
    posts = [calibrated(number, SENSORS[number][0]) for number in SENSORS]
    fill(tmp_path, posts, hours=hours, flow_windows=quarters, flags=flags)
    found = ask(tmp_path, "SELECT * FROM sensor_health WHERE quantity = 'temperature_c'")
    assert found.height == len(SENSORS)
    for row in found.iter_rows(named=True):
        day, used, flagged, ago, stuck, verdict = SENSORS[int(row["post_id"][2:]) - 1000]
        assert row["verdict"] == verdict, row
        assert row["days_since_calibration"] == (None if day is None else (TODAY - day).days)
        assert row["stuck_minutes"] == stuck
        assert (row["spike_minutes"], row["step_minutes"]) == (1, 1)
        last = None if ago is None else LAST - ago * HOUR
        assert row["last_used_time"] == (None if last is None else last + timedelta(minutes=10))
        assert row["last_value"] == (None if last is None else last.hour)
        assert row["age_s"] == (None if last is None else (THROUGH - row["last_used_time"]).total_seconds())
        count = 24 if ago is None else max(0, 24 - ago)
        assert (row["used_count"], row["flagged_count"]) == (count * used, count * flagged)
        assert row["flagged_share"] == (flagged / (used + flagged) if count else None)
        assert row["completeness"] == min(1, count * used / (23 * 60 + 17))
    # who measures no rain and was never asked for it is silent there; traffic has a verdict of its own
    verdicts = ask(tmp_path, "SELECT quantity, verdict, count(*) FROM sensor_health GROUP BY ALL ORDER BY ALL").rows()
    assert ("rain_mm", "silent", len(SENSORS)) in verdicts
    heard = ask(tmp_path, "SELECT * FROM sensor_health WHERE quantity = 'vehicle_count' AND post_id = 'KT1009'")
    assert heard["flagged_share"].item() == 6 / 66
    assert heard["completeness"].item() == 30 / (23 * 120 + 34)


def test_a_lake_that_covers_nothing_has_no_completeness(tmp_path: Path) -> None:
    rows = [hour_of(post_id(1), "temperature_c", START, 60)]
    fill(tmp_path, [lamppost(1)], hours=rows)
    assert ask(tmp_path, "FROM completeness").height > 0
    Positions(offsets={}, versions={"hours": 1}, covered_us=0).store(Layout(tmp_path).positions)
    publish(config_of(tmp_path))
    for name in ("completeness", "city_completeness", "sensor_health"):
        assert ask(tmp_path, f"FROM {name}").height == 0
