"""Every macro says what two lines of Python say, at the edges too, under any name of the catalogue."""

import math
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import polars as pl
import pytest
from pyproj import Geod

from contracts.aqhi import BANDS, EDITIONS
from contracts.layout import Layout
from contracts.registry import load_registry, save_registry
from contracts.scales import SCALES, STRATEGIC_LIMIT_KMH
from contracts.times import from_us, to_us
from sensors_sim.fleet import build
from tests.warehouse import generated_day as day
from tests.warehouse.lake_samples import ask, config_of
from warehouse.catalogue import publish
from warehouse.macros import parse_macro, sql_macros
from warehouse.query import open_catalogue

HOUR_US = 3_600_000_000
WEEK_US = 7 * 24 * HOUR_US


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    save_registry(Layout(root).registry, build(60, 1, detectors=True))
    publish(config_of(root))
    return root


def ask_of(root: Path, question: str, rows: list[tuple[Any, ...]], zone: str = "UTC") -> list[Any]:
    """The one column of a question about each of the rows, `a`, `b`, ... in order."""
    frame = pl.DataFrame(rows, schema=list("abcdef")[: len(rows[0])], orient="row", infer_schema_length=None)
    with open_catalogue(Layout(root).catalogue) as connection:
        connection.execute(f"SET TimeZone = '{zone}'")
        connection.register("asked", frame.with_row_index("place"))
        return [row[0] for row in connection.execute(f"SELECT {question} FROM asked ORDER BY place").fetchall()]


def moments(seed: int, count: int) -> list[datetime]:
    """Random ones, and those around midnight in Hong Kong and in UTC."""
    random = Random(seed)
    some = [from_us(random.randrange(to_us(datetime(2019, 1, 1, tzinfo=UTC)), 2**51)) for _ in range(count)]
    edges = [datetime(2026, 11, 22, hour, tzinfo=UTC) for hour in (0, 16)]
    return some + [edge + timedelta(microseconds=step) for edge in edges for step in (-1, 0, 1)]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_hk_time_is_the_clock_in_hong_kong(city: Path, zone: str) -> None:
    asked = moments(1, 200)
    wanted = [moment.astimezone(ZoneInfo("Asia/Hong_Kong")).replace(tzinfo=None) for moment in asked]
    assert ask_of(city, "hk_time(a)", [(moment,) for moment in asked], zone) == wanted
    assert ask(city, "SELECT hk_time(NULL) AS t")["t"].to_list() == [None]


def window_start(moment: datetime, minutes: int) -> datetime:
    """Whole lengths since a midnight of UTC, days since one of Hong Kong, weeks since a Monday there."""
    monday_us = to_us(datetime(2000, 1, 3, tzinfo=UTC)) - (8 * HOUR_US if minutes % 1440 == 0 else 0)
    length_us = minutes * 60_000_000
    return from_us(monday_us + (to_us(moment) - monday_us) // length_us * length_us)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_at_window_is_the_start_of_the_window_that_holds_the_moment(city: Path, zone: str) -> None:
    asked = [(moment, minutes) for moment in moments(2, 50) for minutes in (1, 5, 15, 60, 240, 1440, 10080)]
    found = ask_of(city, "epoch_us(at_window(a, b))", asked, zone)
    assert [from_us(start) for start in found] == [window_start(*one) for one in asked]
    nothing = ask(city, "SELECT at_window(NULL, 5) AS a, at_window(now(), NULL) AS b")
    assert nothing.row(0) == (None, None)
    with pytest.raises(duckdb.Error, match="zero"):
        ask(city, "SELECT at_window(now(), 0)")


def test_at_window_begins_the_windows_of_the_views(tmp_path: Path) -> None:
    day.fill(tmp_path, {"windows": day.windows_of({"temperature_c": 20.0}, day.START)})
    views = "SELECT window_start, period_s // 60 AS minutes FROM value_windows"
    assert ask(tmp_path, f"SELECT count(*) AS n FROM ({views})")["n"].item() == 12 + 4 + 1
    assert (
        ask(tmp_path, f"FROM ({views}) WHERE at_window(window_start + to_seconds(59), minutes) <> window_start").rows()
        == []
    )


def index(means: tuple[float | None, ...], end: datetime) -> str | None:
    """The band by the formula; `means` in the order of the macro's parameters."""
    names = ("no2_ug_m3", "o3_ug_m3", "so2_ug_m3", "pm10_ug_m3", "pm2_5_ug_m3")
    for edition in EDITIONS:
        if edition.valid_from < end and (edition.valid_to is None or end <= edition.valid_to) and None not in means:
            risks = [
                100 * (math.exp(edition.betas[name] * mean) - 1)
                for name, mean in zip(names, means, strict=True)
                if mean is not None
            ]
            return BANDS[bisect_left(edition.upper_pct, sum(risks[:3]) + max(risks[3:]))]
    return None


def test_aqhi_is_the_formula_of_the_edition_that_holds(city: Path) -> None:
    random = Random(3)
    ends = [edition.valid_from + timedelta(microseconds=step) for edition in EDITIONS for step in (0, 1)]
    ends += [datetime(2024, 7, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)]
    asked: list[tuple[Any, ...]] = [
        (*(None if random.random() < 0.02 else random.uniform(0, 250) * random.random() for _ in range(5)), end)
        for end in ends
        for _ in range(200)
    ]
    asked += [(*[0.0] * 5, ends[-1]), (*[1e5] * 5, ends[-1]), (*[1.0] * 5, None)]
    wanted = [None if one[5] is None else index(one[:5], one[5]) for one in asked]
    assert ask_of(city, "aqhi(a, b, c, d, e, f)", asked) == wanted
    assert {*BANDS, None} == set(wanted)


def test_speed_band_is_the_step_of_the_roads_scale(city: Path) -> None:
    limits = (None, 0, 50, STRATEGIC_LIMIT_KMH - 1, STRATEGIC_LIMIT_KMH, 110)
    speeds = (None, -0.1, 0.0, 14.9, 15.0, 24.9, 25.0, 29.9, 30.0, 49.9, 50.0, 200.0)
    asked = [(speed, limit) for speed in speeds for limit in limits]
    wanted = []
    for speed, limit in asked:
        steps = SCALES["strategic roads" if (limit or 0) >= STRATEGIC_LIMIT_KMH else "urban roads"].steps
        place = bisect_right([step.low for step in steps], -1 if speed is None else speed) - 1
        wanted.append(steps[place].name if limit and place >= 0 else None)
    assert ask_of(city, "speed_band(a, b)", asked) == wanted
    assert {None, "congested", "slow", "smooth"} == set(wanted)


def test_the_views_say_the_same_as_the_macros(tmp_path: Path) -> None:
    day.build(tmp_path, 1)
    means = "no2_ug_m3, o3_ug_m3, so2_ug_m3, pm10_ug_m3, pm2_5_ug_m3"
    air = ask(tmp_path, f"SELECT aqhi AS one, aqhi({means}, window_end) AS other FROM aqhi")
    speed = "coalesce(space_mean_speed_kmh, mean_speed_kmh)"
    roads = ask(tmp_path, f"SELECT level_of_service AS one, speed_band({speed}, speed_limit_kmh) AS other FROM traffic")
    for frame, least in ((air, 2), (roads, 3)):
        assert frame["one"].equals(frame["other"].alias("one"))
        assert frame["one"].n_unique() >= least


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_nearest_lampposts_are_the_nearest_of_all(city: Path, count: int) -> None:
    lat, lon = 22.2955, 114.1722
    posts = [post for post in load_registry(Layout(city).registry).file.lampposts if post.kind == "lamppost"]
    places = {post.post_id: (post.longitude, post.latitude) for post in posts}
    sphere, ellipsoid = Geod(a=6371008.8, f=0), Geod(ellps="WGS84")
    metres = {post_id: sphere.inv(lon, lat, *place)[2] for post_id, place in places.items()}
    found = ask(city, f"SELECT post_id, distance_m FROM nearest_lampposts({lat}, {lon}, {count})").rows()
    assert [post_id for post_id, _ in found] == sorted(metres, key=metres.__getitem__)[:count]
    for post_id, distance_m in found:
        assert distance_m == pytest.approx(metres[post_id], abs=1e-3)
        assert distance_m == pytest.approx(ellipsoid.inv(lon, lat, *places[post_id])[2], rel=0.005)


@pytest.mark.parametrize("call", ["NULL, 114, 3", "22, NULL, 3", "22, 114, NULL", "22, 114, -1"])
def test_without_a_place_or_a_number_no_lamppost_is_near(city: Path, call: str) -> None:
    assert ask(city, f"FROM nearest_lampposts({call})").rows() == []


def test_macros_work_under_another_name_of_the_catalogue(city: Path) -> None:
    path = Layout(city).catalogue
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH '{path}' AS other (READ_ONLY)")
        # around an aggregate, as in a view of the analyst's own
        connection.execute(
            "CREATE VIEW own AS SELECT other.aqhi(avg(x), 0, 0, 0, 0, now()) AS a FROM range(9) AS r (x)"
        )
        found = connection.execute("SELECT a, other.speed_band(20, 70), other.at_window(now(), 5) <= now() FROM own")
        assert found.fetchall() == [("1", "congested", True)]
        connection.execute("USE other")
        assert len(connection.execute("FROM nearest_lampposts(22.3, 114.17, 3)").fetchall()) == 3
        assert connection.execute("SELECT count(*) > 0 FROM lampposts_at(now())").fetchone() == (True,)


def test_what_is_said_of_a_macro_names_its_parameters(city: Path) -> None:
    found = dict(ask(city, "SELECT function_name, comment FROM duckdb_functions() WHERE NOT internal").iter_rows())
    assert len(sql_macros()) >= 7
    for macro in sql_macros():
        assert all(f"{name}: " in found[macro.name] for name in macro.parameters)


@pytest.mark.parametrize(
    "text",
    [
        "-- Meaning\nSELECT 1",
        "-- Parameter a: b\n-- Gives: c\na",
        "-- Meaning\n-- Parameter a: b\na",
        "-- Meaning\n-- Parameter a: b\n-- Grain: c\nSELECT a",
        "-- Meaning\n-- Parameter a: b\n-- Gives: c\n-- Grain: c\n-- Key: c\nSELECT a",
    ],
)
def test_a_macro_that_is_not_described_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Parameter"):
        parse_macro("bare", text)
