"""Hour = merge of minutes = computed from the readings, for every aggregate; each with an oracle of its own."""

import cmath
import math
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from contracts import aqhi
from contracts.quantities import QUANTITIES, of_stream
from contracts.scales import SCALES, STRATEGIC_LIMIT_KMH
from contracts.schemas import FLOW_MINUTES, WINDOWS
from contracts.times import HONG_KONG
from pipelines.kernels import rollups
from pipelines.kernels.frames import conform
from tests.warehouse import generated_day as day
from tests.warehouse.lake_samples import ask

PERIODS = (300, 900, 3600)
GOOD = "SELECT * FROM observations WHERE flag IN (1, 2) AND value IS NOT NULL"
CELL = "post_id, time_bucket(to_seconds({period_s}), event_time) AS window_start"


@pytest.fixture(scope="module", params=[1, 2])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    root = tmp_path_factory.mktemp("data")
    return root, day.build(root, request.param)


def assert_equal(found: pl.DataFrame, wanted: pl.DataFrame, *key: str) -> None:
    """The same rows and, up to the rounding of sums, the same numbers in the columns of `wanted`."""
    assert wanted.height > 0
    found = found.select(wanted.columns).cast(dict(wanted.schema))  # type: ignore[arg-type]
    assert_frame_equal(found.sort(key), wanted.sort(key), check_exact=False, rel_tol=1e-7, abs_tol=1e-5)


@pytest.mark.parametrize("period_s", PERIODS)
def test_every_period_is_the_kernels_merge_of_the_minutes(built: tuple[Path, pl.DataFrame], period_s: int) -> None:
    root, minutes = built
    found = ask(root, f"SELECT * FROM value_windows WHERE period_s = {period_s}")
    wanted = rollups.windows(minutes, period_s)
    assert_equal(found, wanted.select(set(found.columns) & set(wanted.columns)), "post_id", "quantity", "window_start")


@pytest.mark.parametrize("period_s", PERIODS)
def test_values_are_those_of_the_readings(built: tuple[Path, pl.DataFrame], period_s: int) -> None:
    wanted = ask(
        built[0],
        f"SELECT {CELL.format(period_s=period_s)}, quantity, count(*) AS value_count, avg(value) AS value_mean, "
        "stddev_samp(value) AS value_sd, min(value) AS value_min, max(value) AS value_max, "
        "CASE WHEN quantity = 'wind_gust_ms' THEN max(value) "
        "WHEN quantity = 'noise_dba' THEN 10 * log10(avg(10 ** (value / 10))) ELSE avg(value) END AS value "
        f"FROM ({GOOD}) WHERE quantity NOT IN ('wind_direction_deg', 'rain_mm') "
        "GROUP BY post_id, window_start, quantity",
    )
    found = ask(
        built[0],
        f"SELECT * FROM value_windows WHERE period_s = {period_s} AND value_count > 0 AND stream <> 'pedestrian' "
        "AND quantity NOT IN ('wind_direction_deg', 'rain_mm')",
    )
    assert_equal(found, wanted, "post_id", "quantity", "window_start")


def test_what_is_flagged_is_counted_and_completeness_is_of_what_the_cadence_promises(
    built: tuple[Path, pl.DataFrame],
) -> None:
    wanted = ask(
        built[0],
        f"SELECT {CELL.format(period_s=3600)}, quantity, count(*) FILTER (flag IN (1, 2)) AS value_count, "
        "count(*) FILTER (flag NOT IN (1, 2)) AS flagged_count, 60 AS expected_count, "
        "least(value_count / 60, 1) AS completeness, max(event_time) AS last_event_time FROM observations GROUP BY ALL",
    )
    assert wanted["flagged_count"].sum() > 500
    assert ask(built[0], "SELECT count(*) AS n FROM flags")["n"].item() > 100
    assert_equal(
        ask(built[0], "SELECT * FROM hourly WHERE stream <> 'pedestrian'"),
        wanted,
        "post_id",
        "quantity",
        "window_start",
    )


def towards(vector: complex) -> float:
    """Direction of a sum of unit vectors (cos + i sin), in (0, 360]."""
    degrees = math.degrees(cmath.phase(vector))
    return degrees if degrees > 0 else degrees + 360


def wind_oracle(messages: list[dict[str, Any]]) -> dict[str, float | int | None]:
    """From the speeds and directions of a window's messages, None where not used."""
    speeds = [row["wind_speed_ms"] for row in messages if row["wind_speed_ms"] is not None]
    seen = [row["wind_direction_deg"] for row in messages if row["wind_direction_deg"] is not None]
    units = [cmath.rect(1, math.radians(direction)) for direction in seen if direction]
    vectors = [
        cmath.rect(row["wind_speed_ms"] if row["wind_direction_deg"] else 0, math.radians(row["wind_direction_deg"]))
        for row in messages
        if row["wind_direction_deg"] is not None and row["wind_speed_ms"] is not None
    ]
    gusts = [row["wind_gust_ms"] for row in messages if row["wind_gust_ms"] is not None]
    mean = sum(units) / len(units) if units else None
    vector = sum(vectors) / len(vectors) if vectors else None
    scatter = None if mean is None else math.sqrt(max(0, 1 - abs(mean) ** 2))
    return {
        "mean_speed_ms": sum(speeds) / len(speeds) if speeds else None,
        "direction_deg": towards(mean) if mean is not None else (0 if seen else None),
        "direction_sd_deg": None if scatter is None else math.degrees(math.asin(scatter) * (1 + 0.1547 * scatter**3)),
        "vector_speed_ms": None if vector is None else abs(vector),
        "resultant_direction_deg": None if vector is None else (towards(vector) if vector else 0),
        "gust_ms": max(gusts, default=None),
        "value_count": len(vectors),
        "speed_count": len(speeds),
        "calm_count": len(seen) - len(units),
    }


@pytest.mark.parametrize("period_s", PERIODS)
def test_wind_is_that_of_its_messages(built: tuple[Path, pl.DataFrame], period_s: int) -> None:
    names = "'wind_speed_ms', 'wind_direction_deg', 'wind_gust_ms'"
    messages = ask(
        built[0],
        f"SELECT {CELL.format(period_s=period_s)}, wind_speed_ms, wind_direction_deg, wind_gust_ms FROM (PIVOT (SELECT "
        "post_id, event_time, quantity, CASE WHEN flag IN (1, 2) THEN value END AS value FROM observations WHERE "
        f"quantity IN ({names})) ON quantity IN ({names}) USING any_value(value))",
    )
    wanted = {key: wind_oracle(rows.to_dicts()) for key, rows in messages.group_by("post_id", "window_start")}
    found = ask(built[0], f"SELECT * FROM wind WHERE period_s = {period_s}")
    assert found.height == len(wanted)
    assert found["calm_count"].sum() > 50
    for row in found.iter_rows(named=True):
        for name, value in wanted[row["post_id"], row["window_start"]].items():
            if value and "direction_deg" in name:
                assert 0 < row[name] <= 360
                assert math.cos(math.radians(row[name] - value)) == pytest.approx(1)
            else:
                # 2/sqrt(3) - 1 is 0.1547
                assert row[name] == (None if value is None else pytest.approx(value, rel=1e-4, abs=1e-5)), name
        assert row["completeness"] == min(row["value_count"] * 60 / period_s, 1)


def rain_oracle(values: list[tuple[datetime, float]]) -> list[tuple[datetime, float]]:
    """(time, growth) of a counter's values, in order of time."""
    end, grown = QUANTITIES["rain_mm"].high, []
    for (before, low), (now, high) in pairwise(values):
        minutes = now.replace(second=0) - before.replace(second=0)
        rolled = end - low + high
        limit = 40 * (minutes / timedelta(minutes=1) + 1)
        step = high - low if high >= low else (rolled if rolled <= limit else high)
        grown.append((now, step if minutes <= timedelta(minutes=10) else 0.0))
    return [(values[0][0], 0.0), *grown]


@pytest.mark.parametrize("period_s", PERIODS)
def test_rain_is_the_growth_of_the_counter(built: tuple[Path, pl.DataFrame], period_s: int) -> None:
    good = ask(
        built[0], f"SELECT post_id, event_time, value FROM ({GOOD}) WHERE quantity = 'rain_mm' ORDER BY event_time"
    )
    period, rolled = timedelta(seconds=period_s), 0
    found = ask(built[0], f"SELECT * FROM rain WHERE period_s = {period_s} ORDER BY post_id, window_start")
    for (post,), rows in good.group_by("post_id"):
        rolled += any(low > 9990 and high < 10 for low, high in pairwise(rows["value"].to_list()))
        grown = rain_oracle(rows.select("event_time", "value").rows())
        for row in found.filter(pl.col("post_id") == post).iter_rows(named=True):
            start, end = row["window_start"], row["window_start"] + period
            midnight = start.astimezone(HONG_KONG).replace(hour=0, minute=0)
            for name, since in (
                ("rain_mm", start),
                ("past_hour_mm", end - timedelta(hours=1)),
                ("since_midnight_mm", midnight),
            ):
                wanted = sum(step for time, step in grown if since <= time < end)
                if row["value_count"] or name != "rain_mm":
                    assert (row[name] or 0) == pytest.approx(wanted, abs=1e-6), name
    assert found["rain_mm"].sum() > 50
    assert rolled == 1
    assert set(found["rainstorm"]) <= {None, "amber", "red", "black"}


def test_air_has_a_mean_where_three_quarters_of_its_values_were_used(built: tuple[Path, pl.DataFrame]) -> None:
    for period_s in PERIODS:
        found = ask(built[0], f"SELECT * FROM air WHERE period_s = {period_s}")
        windows = ask(built[0], f"SELECT * FROM value_windows WHERE period_s = {period_s} AND stream = 'air'")
        wanted = windows.with_columns(value=pl.when(pl.col("completeness") >= aqhi.DATA_CAPTURE).then("value"))
        assert_equal(found, wanted.select(set(found.columns) - {"reason"}), "post_id", "quantity", "window_start")
        assert 0 < found["value"].null_count() < found.height
        assert (found["value"].is_null() == found["reason"].is_not_null()).all()


def index_oracle(means: dict[str, float], window_end: datetime) -> tuple[str, float]:
    """(band, added risk in per cent) by the formula in words."""
    (edition,) = (
        row
        for row in aqhi.EDITIONS
        if row.valid_from < window_end and (row.valid_to is None or window_end <= row.valid_to)
    )
    risks = {name: 100 * (math.exp(beta * means[name]) - 1) for name, beta in edition.betas.items()}
    particles = max(risks.pop(name) for name in aqhi.PARTICLES)
    total = sum(risks.values()) + particles
    return aqhi.BANDS[bisect_left(edition.upper_pct, total)], total


def test_the_index_is_that_of_the_readings_of_three_hours(built: tuple[Path, pl.DataFrame]) -> None:
    names = [row.name for row in of_stream("air") if row.name in aqhi.EDITIONS[0].betas]
    good = ask(built[0], f"SELECT * FROM ({GOOD}) WHERE stream = 'air'").filter(pl.col("quantity").is_in(names))
    seen = set()
    for row in ask(built[0], "SELECT * FROM aqhi").iter_rows(named=True):
        part = good.filter(
            pl.col("post_id") == row["post_id"],
            pl.col("event_time").is_between(row["window_start"], row["window_end"], closed="left"),
        )
        found = {name: values for (name,), values in part.group_by("quantity")}
        assert row["value_count"] == part.height
        means: dict[str, Any] = {
            name: values["value"].mean() for name, values in found.items() if values.height >= 180 * aqhi.DATA_CAPTURE
        }
        assert {name: row[name] for name in names if row[name] is not None} == pytest.approx(means)
        lacking = sorted(set(names) - means.keys())
        if lacking:
            assert (row["aqhi"], row["health_risk"], row["added_risk_pct"]) == (None, None, None)
            assert row["reason"] == f"{', '.join(lacking)}: below 75 % data capture"
            continue
        band, risk = index_oracle(means, row["window_end"])
        assert row["added_risk_pct"] == pytest.approx(risk)
        assert (row["aqhi"], row["health_risk"], row["reason"]) == (band, aqhi.health_risk(band), None)
        seen.add(row["valid_from"])
    assert len(seen) == 2


@pytest.mark.parametrize("period_s", PERIODS)
def test_traffic_is_that_of_the_lanes(built: tuple[Path, pl.DataFrame], period_s: int) -> None:
    wanted = ask(
        built[0],
        f"SELECT {CELL.format(period_s=period_s)}, direction, "
        "sum(vehicle_count) FILTER (flag IN (1, 2)) AS vehicle_count, "
        "sum(taxi_count) FILTER (flag IN (1, 2)) AS taxi_count, count(DISTINCT event_time) AS half_minutes, "
        "coalesce(sum(l.vehicle_count) FILTER (flag IN (1, 2)), 0) * 120 / count(DISTINCT event_time) AS flow_veh_h, "
        "sum(mean_speed_kmh * l.vehicle_count) FILTER (flag IN (1, 2)) / "
        "nullif(sum(l.vehicle_count) FILTER (flag IN (1, 2)), 0) AS mean_speed_kmh, "
        "sum(l.vehicle_count) FILTER (flag IN (1, 2) AND inverse_speed_sum_h_km IS NOT NULL) / "
        "nullif(sum(inverse_speed_sum_h_km) FILTER (flag IN (1, 2)), 0) AS space_mean_speed_kmh, "
        "avg(occupancy_pct) FILTER (flag IN (1, 2)) AS occupancy_pct, "
        f"count(DISTINCT event_time) * 30 / {period_s} AS completeness "
        "FROM lane_flows AS l GROUP BY post_id, window_start, direction",
    ).with_columns(pl.col("vehicle_count").fill_null(0))
    found = ask(built[0], f"SELECT * FROM traffic WHERE period_s = {period_s}")
    assert_equal(found, wanted, "post_id", "direction", "window_start")
    assert found["space_mean_speed_kmh"].null_count() >= found.filter(pl.col("post_id") == day.POSTS[1]).height
    for row in found.iter_rows(named=True):
        scale = SCALES["strategic roads" if row["speed_limit_kmh"] >= STRATEGIC_LIMIT_KMH else "urban roads"]
        speed = row["space_mean_speed_kmh"] or row["mean_speed_kmh"]
        if speed is None:
            assert row["level_of_service"] is None
        else:
            step = scale.steps[bisect_right([step.low for step in scale.steps], speed) - 1]
            assert (row["level_of_service"], row["colour"]) == (step.name, step.colour)
    assert set(found["speed_limit_kmh"]) == {50, 80}
    flows = conform(ask(built[0], "SELECT * FROM flow_minutes"), FLOW_MINUTES)
    merged = rollups.flow_windows(flows, period_s)
    assert_equal(found, merged.select(set(found.columns) & set(merged.columns)), "post_id", "direction", "window_start")


@pytest.mark.parametrize("period_s", PERIODS)
def test_pedestrians_are_those_of_the_crossings(built: tuple[Path, pl.DataFrame], period_s: int) -> None:
    wanted = ask(
        built[0],
        f"SELECT {CELL.format(period_s=period_s)}, sum(crossings_in_count) FILTER (flag = 1) AS crossings_in_count, "
        "sum(crossings_out_count) FILTER (flag = 1) AS crossings_out_count, count(*) FILTER (flag = 1) AS value_count, "
        f"count(*) FILTER (flag <> 1) AS flagged_count, {period_s // 30} AS expected_count, "
        f"value_count * 30 / {period_s} AS completeness, "
        "120 * sum(crossings_in_count + crossings_out_count) FILTER (flag = 1) / nullif(value_count, 0) AS flow_per_h "
        "FROM footfall GROUP BY ALL",
    )
    assert_equal(
        ask(built[0], f"SELECT * FROM pedestrians WHERE period_s = {period_s}"), wanted, "post_id", "window_start"
    )


@pytest.mark.parametrize(
    "view", ["value_windows", "hourly", "daily", "wind", "rain", "uv", "air", "aqhi", "traffic", "pedestrians"]
)
def test_from_a_moment_on_a_view_says_the_same(built: tuple[Path, pl.DataFrame], view: str) -> None:
    since = day.START + timedelta(hours=4, minutes=20)
    end = "window_end > TIMESTAMPTZ" if view == "aqhi" else "window_start >= TIMESTAMPTZ"
    whole = ask(built[0], f"SELECT * FROM {view} WHERE {end} '{since.replace(minute=0)}'")
    assert 0 < whole.height < ask(built[0], f"SELECT * FROM {view}").height
    key = [name for name in ("post_id", "quantity", "direction", "period_s", "window_start") if name in whole.columns]
    assert_equal(ask(built[0], f"SELECT * FROM {view}_since(TIMESTAMPTZ '{since}')"), whole, *key)


def test_a_session_in_another_zone_sees_the_same_windows(built: tuple[Path, pl.DataFrame]) -> None:
    query = "SELECT post_id, period_s, epoch_us(window_start) AS start, since_midnight_mm FROM rain ORDER BY ALL"
    assert ask(built[0], query, zone="Asia/Kolkata").equals(ask(built[0], query))


DUST = {"no2_ug_m3": 0.0, "o3_ug_m3": 0.0, "so2_ug_m3": 0.0, "pm10_ug_m3": 65.8}
POLLUTANTS = {"no2_ug_m3": 115.0, "so2_ug_m3": 15.0, "o3_ug_m3": 4.0, "pm10_ug_m3": 65.0, "pm2_5_ug_m3": 40.0}


@pytest.mark.parametrize(
    ("changes", "start", "aqhi", "risk_pct", "health_risk"),
    [
        # worked examples of both tables
        ({}, datetime(2025, 3, 20, tzinfo=UTC), "5", 7.531, "moderate"),
        ({}, datetime(2025, 3, 24, tzinfo=UTC), "5", 7.522, "moderate"),
        # the last window of the old tables ends at midnight in Hong Kong, the next one has the new
        ({"o3_ug_m3": 300.0}, datetime(2025, 3, 21, 13, tzinfo=UTC), "10+", 23.916, "serious"),
        ({"o3_ug_m3": 300.0}, datetime(2025, 3, 21, 14, tzinfo=UTC), "10+", 23.119, "serious"),
        # between the two tables' bounds of band 1
        (DUST, datetime(2025, 3, 20, tzinfo=UTC), "1", 1.874, "low"),
        (DUST, datetime(2025, 3, 24, tzinfo=UTC), "2", 1.874, "low"),
        # the greater of the two particles counts
        ({"pm2_5_ug_m3": 200.0}, datetime(2025, 3, 24, tzinfo=UTC), "6", 10.127, "moderate"),
    ],
)
def test_the_index_of_steady_air(
    tmp_path: Path, changes: dict[str, float], start: datetime, aqhi: str, risk_pct: float, health_risk: str
) -> None:
    day.fill(tmp_path, {WINDOWS.name: day.windows_of(POLLUTANTS | changes, start, hours=3)})
    end = start + timedelta(hours=3)
    row = ask(tmp_path, f"SELECT * FROM aqhi WHERE window_end = TIMESTAMPTZ '{end}'").row(0, named=True)
    assert row["added_risk_pct"] == pytest.approx(risk_pct, abs=2e-3)
    assert (row["aqhi"], row["health_risk"]) == (aqhi, health_risk)


def test_names_at_the_edges_of_their_steps(tmp_path: Path) -> None:
    start = datetime(2025, 3, 24, tzinfo=UTC)
    values = {"uv_index": 2.49, "rain_mm": 2.5}
    parts = [
        day.windows_of(values, start),
        day.windows_of({"uv_index": 2.5, "rain_mm": 2.51}, start, post=day.POSTS[1]),
    ]
    flows = [
        {"post_id": post, "direction": "E", "window_start": start + timedelta(minutes=minute), "speed_sum_kmh": speed}
        for post, speeds in zip(day.POSTS, ((14.9, 15.0, 29.9, 30.0), (24.9, 25.0, 49.9, 50.0)), strict=True)
        for minute, speed in zip((0, 5, 10, 15), speeds, strict=True)
    ]
    counts = dict.fromkeys(("half_minutes", "vehicle_count", "speed_count"), 1)
    zero = dict.fromkeys(
        name for name in FLOW_MINUTES.schema.names if name.endswith(("_count", "_sum", "_pct", "_h_km"))
    )
    frame = pl.DataFrame([{**dict.fromkeys(zero, 0), **row, **counts, "lane_summaries": 1} for row in flows])
    flow_minutes = conform(frame.with_columns(last_event_time=pl.col("window_start")), FLOW_MINUTES)
    day.fill(tmp_path, {WINDOWS.name: pl.concat(parts), FLOW_MINUTES.name: flow_minutes})
    assert ask(tmp_path, "SELECT category FROM uv WHERE period_s = 3600 ORDER BY post_id DESC")[
        "category"
    ].to_list() == [
        "low",
        "moderate",
    ]
    storms = ask(tmp_path, "SELECT past_hour_mm, rainstorm FROM rain WHERE period_s = 3600 ORDER BY post_id DESC")
    assert storms["past_hour_mm"].to_list() == pytest.approx([30, 30.12])
    assert storms["rainstorm"].to_list() == [None, "amber"]
    levels = ask(tmp_path, "SELECT * FROM traffic WHERE period_s = 300 ORDER BY post_id DESC, window_start")
    assert levels["level_of_service"].to_list() == ["congested", "slow", "slow", "smooth"] * 2
    assert levels["colour"].to_list() == ["red", "yellow", "yellow", "green", "red", "amber", "amber", "green"]


@pytest.mark.parametrize(("share", "is_said"), [(0.75, True), (0.66, False)])
def test_three_quarters_are_enough(tmp_path: Path, share: float, is_said: bool) -> None:
    start = datetime(2025, 3, 24, tzinfo=UTC)
    day.fill(tmp_path, {WINDOWS.name: day.windows_of(POLLUTANTS, start, hours=3, share=share)})
    air = ask(tmp_path, "SELECT * FROM air WHERE period_s = 3600")
    assert air["value"].is_not_null().to_list() == [is_said] * 15
    index = ask(tmp_path, f"SELECT * FROM aqhi WHERE window_end = TIMESTAMPTZ '{start + timedelta(hours=3)}'")
    assert (index["aqhi"].item() is not None) == is_said


@pytest.mark.parametrize("name", POLLUTANTS)
def test_a_missing_pollutant_makes_no_index(tmp_path: Path, name: str) -> None:
    start = datetime(2025, 3, 24, tzinfo=UTC)
    rest = {quantity: value for quantity, value in POLLUTANTS.items() if quantity != name}
    day.fill(tmp_path, {WINDOWS.name: day.windows_of(rest, start, hours=3)})
    row = ask(tmp_path, f"SELECT * FROM aqhi WHERE window_end = TIMESTAMPTZ '{start + timedelta(hours=3)}'")
    assert row.select("aqhi", "added_risk_pct", "reason").rows() == [(None, None, f"{name}: below 75 % data capture")]
