"""Ready questions about roads, against plain Python over the same quarter hours."""

from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any

import msgspec
import pytest

from contracts.calendar import days
from contracts.scales import SCALES
from contracts.times import HONG_KONG
from tests.warehouse.lake_samples import ask
from tests.warehouse.weeks import MONDAY, flow, lay, post, values

POSTS = (
    post(1, "Tsim Sha Tsui"),
    post(2, "Tsim Sha Tsui"),
    post(3, "Tsim Sha Tsui", road="Kai Fuk Road", limit_kmh=70),
    post(4, "Kwun Tong"),
)
QUARTER = timedelta(minutes=15)
WEEK = timedelta(days=7)
# hours around midnight in Hong Kong, so that a day of UTC would put them together wrongly
HOURS = [MONDAY + timedelta(hours=hour) for hour in (0, 8, 23)] + [MONDAY + timedelta(days=6, hours=8)]
SLOW = MONDAY + WEEK + timedelta(hours=8)
HOLIDAYS = {one.day for one in days(MONDAY.year) if one.is_public_holiday}
assert (MONDAY + 2 * WEEK).date() in HOLIDAYS  # a Monday that is compared with Sundays


def kind_of_day(moment: datetime) -> int:
    return 7 if moment.date() in HOLIDAYS else moment.isoweekday()


def harmonic(rows: list[dict[str, Any]]) -> float | None:
    """n / sum(1/v) of all vehicles with a speed; the rows of this test have no other kind."""
    count = sum(row["speed_count"] for row in rows)
    return count / sum(row["inverse_speed_sum_h_km"] for row in rows) if count else None


def roads_flows(seed: int) -> list[dict[str, Any]]:
    """Five weeks of the hours; in the second week the Monday morning on Canton Road is slow."""
    random, rows = Random(seed), []
    for week in range(5):
        for hour in HOURS:
            for one in POSTS:
                for quarter in range(4):
                    if random.random() < 0.1:
                        continue
                    start = hour + week * WEEK + quarter * QUARTER
                    speed: float | None = random.uniform(45, 55)
                    if start - SLOW < timedelta(hours=1) and start >= SLOW and one.name.en == "Canton Road":
                        speed = 10.0
                    speed = None if random.random() < 0.03 else speed
                    heard = random.choice((30, 30, 30, 0 if week == 4 else 30, 12))
                    rows.append(flow(one.post_id, start, speed, random.randint(1, 200), heard))
    return rows


@pytest.mark.parametrize("seed", [1, 2])
def test_travel_conditions_are_those_of_the_other_weeks(tmp_path: Path, seed: int) -> None:
    flows = roads_flows(seed)
    lay(tmp_path, POSTS, flows, [])
    roads = {one.post_id: one.name.en for one in POSTS}
    hours: dict[tuple[str, datetime], list[dict[str, Any]]] = defaultdict(list)
    for row in flows:
        hours[roads[row["post_id"]], row["window_start"].replace(minute=0)].append(row)
    sound: dict[tuple[str, int, int], dict[datetime, float]] = defaultdict(dict)
    for (road, start), rows in hours.items():
        heard = sum(row["half_minutes"] for row in rows) / (120 * len({row["post_id"] for row in rows}))
        if heard >= 0.5 and (speed := harmonic(rows)) is not None:
            sound[road, kind_of_day(start), start.hour][start] = speed
    found = ask(tmp_path, "FROM travel_conditions")
    assert found.height == len(hours)
    for row in found.iter_rows(named=True):
        start = row["window_start"].astimezone(HONG_KONG)
        rows = hours[row["road_en"], start]
        others = [v for at, v in sound[row["road_en"], kind_of_day(start), start.hour].items() if at != start]
        speed, norm = harmonic(rows), median(others) if others else None
        assert (row["day"], row["hour_hk"], row["weekday"]) == (start.date(), start.hour, start.isoweekday())
        assert row["speed_kmh"] == (None if speed is None else pytest.approx(speed))
        assert row["norm_speed_kmh"] == (None if norm is None else pytest.approx(norm))
        assert row["norm_weeks"] == len(others)
        assert row["vehicle_count"] == sum(one["vehicle_count"] for one in rows)
        if speed is not None and norm is not None:
            assert row["difference_kmh"] == pytest.approx(speed - norm)
            assert row["ratio"] == pytest.approx(speed / norm)
        if speed is not None:
            scale = SCALES["strategic roads" if row["road_en"] == "Kai Fuk Road" else "urban roads"]
            assert row["level_of_service"] == [step.name for step in scale.steps if speed >= step.low][-1]


def test_a_slow_hour_shows_and_is_not_the_norm_of_the_others(tmp_path: Path) -> None:
    lay(tmp_path, POSTS, roads_flows(3), [])
    found = ask(tmp_path, "FROM travel_conditions WHERE ratio < 0.8 AND norm_weeks >= 3")
    assert found.select("road_en", "window_start", "level_of_service").rows() == [("Canton Road", SLOW, "congested")]
    others = ask(tmp_path, "FROM travel_conditions WHERE road_en = 'Canton Road' AND weekday = 1 AND hour_hk = 8")
    assert sorted(others["norm_speed_kmh"].to_list())[0] > 35


def test_one_week_alone_has_no_norm(tmp_path: Path) -> None:
    lay(tmp_path, POSTS, [flow(POSTS[0].post_id, SLOW, 42.0)], [])
    row = ask(tmp_path, "FROM travel_conditions").row(0, named=True)
    assert row["speed_kmh"] == pytest.approx(42)
    assert (row["norm_weeks"], row["norm_speed_kmh"], row["ratio"]) == (0, None, None)


def test_a_post_that_moved_counts_for_the_road_where_it_stood(tmp_path: Path) -> None:
    moved = SLOW + timedelta(hours=1)
    one = msgspec.structs.replace(POSTS[0], valid_to=moved)
    other = msgspec.structs.replace(POSTS[2], post_id=POSTS[0].post_id, valid_from=moved)
    lay(tmp_path, (one, other), [flow(one.post_id, SLOW, 40.0), flow(one.post_id, moved, 45.0)], [])
    found = ask(tmp_path, "SELECT road_en, speed_kmh FROM travel_conditions ORDER BY window_start")
    assert found["road_en"].to_list() == ["Canton Road", "Kai Fuk Road"]


def rain_class(mm_h: float) -> str:
    return [step.name for step in SCALES["rain intensity"].steps if mm_h >= step.low][-1]


def test_rain_is_set_against_dry_quarter_hours_of_the_same_hour(tmp_path: Path) -> None:
    random = Random(7)
    flows, rows, cells = [], [], []
    for one in POSTS[1:]:
        for day in (*range(5), 5, 6):
            for hour in (0, 8, 18):
                for quarter in range(4):
                    start = MONDAY + timedelta(days=day, hours=hour) + quarter * QUARTER
                    each = random.choice(((0, 0, 0), (0, 0, 0), (0, 0.2, 0), (0.4, 0.4, 0.8), (4, 1, 2), (9, 9, 9)))
                    share = random.choice((1.0, 1.0, 0.6))
                    heard = random.choice((30, 30, 10))
                    speed = random.uniform(20, 60) - sum(each)
                    flows.append(flow(one.post_id, start, speed, half_minutes=heard))
                    rows += values(one.post_id, "rain_mm", start, each, period_s=300, share=share)
                    if share == 1 and heard == 30:
                        cells.append((one, start.hour, start.isoweekday() > 5, rain_class(4 * sum(each)), speed, start))
    lay(tmp_path, POSTS, flows, rows)
    dry: dict[Any, list[float]] = defaultdict(list)
    for one, hour, is_weekend, name, speed, _ in cells:
        if name == "dry":
            dry[one.post_id, hour, is_weekend].append(speed)
    wanted: dict[Any, list[tuple[float, float | None]]] = defaultdict(list)
    for one, hour, is_weekend, name, speed, _ in cells:
        base = dry.get((one.post_id, hour, is_weekend))
        for road in (one.name.en, "all roads"):
            wanted[one.area, road, name].append((speed, median(base) if base else None))
    found = ask(tmp_path, "FROM rain_and_speed")
    assert len({name for _, _, name in wanted}) == 5
    assert found.filter(area="Tsim Sha Tsui", rain_class="dry")["post_count"].to_list().count(2) == 1  # all roads
    assert {row[:3] for row in found.select("area", "road_en", "rain_class").rows()} == wanted.keys()
    for row in found.iter_rows(named=True):
        pairs = wanted[row["area"], row["road_en"], row["rain_class"]]
        speeds = [speed for speed, _ in pairs]
        compared = [(speed, base) for speed, base in pairs if base is not None]
        assert row["quarter_hours"] == len(pairs)
        assert row["compared_count"] == len(compared)
        assert row["mean_speed_kmh"] == pytest.approx(fmean(speeds))
        assert row["median_speed_kmh"] == pytest.approx(median(speeds))
        if compared:
            assert row["difference_kmh"] == pytest.approx(fmean(speed - base for speed, base in compared))
            assert row["difference_pct"] == pytest.approx(fmean(100 * (speed / base - 1) for speed, base in compared))
    since = MONDAY + timedelta(days=3, hours=8)
    later = ask(tmp_path, f"FROM rain_and_speed_since('{since}'::TIMESTAMPTZ) WHERE road_en = 'all roads'")
    assert later["quarter_hours"].sum() == sum(start >= since for *_, start in cells)


def test_roads_of_an_empty_lake(tmp_path: Path) -> None:
    lay(tmp_path, POSTS, [], [])
    assert ask(tmp_path, "FROM travel_conditions").is_empty()
    assert ask(tmp_path, "FROM rain_and_speed").is_empty()
