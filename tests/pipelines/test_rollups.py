"""Readings to minutes and windows, beside oracles of the readings."""

import math
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from contracts.schemas import (
    FLOW_MINUTES,
    LANE_FLOWS,
    MINUTES,
    OBSERVATIONS,
    QUARANTINE,
    TABLES,
)
from pipelines.kernels.frames import empty
from pipelines.kernels.minutes import RELEASE_CLAMP_COUNT, flow_minutes, minutes
from pipelines.kernels.rollups import flow_windows, windows
from pipelines.kernels.unite import unite
from tests.pipelines.raw_log import START, Landed, messages
from tests.pipelines.test_kernels import decoded, lane, one, traffic, weather


def test_minutes_and_windows_equal_an_oracle_of_the_readings() -> None:
    frames = decoded(messages(11, minutes=12))
    rows = unite(empty(OBSERVATIONS), frames["observations"], OBSERVATIONS)
    merged = windows(minutes(rows, frames["footfall"]), 300)
    start = pl.col("event_time").dt.truncate("5m").alias("window_start")
    mean = (
        rows.filter((pl.col("quantity") == "temperature_c") & (pl.col("flag") == 1))
        .group_by("post_id", start)
        .agg(pl.col("value").mean())
        .sort("window_start", "post_id")
    )
    got = merged.filter(pl.col("quantity") == "temperature_c").sort("window_start", "post_id")
    assert_frame_equal(got.select("post_id", "window_start", "value"), mean)
    walked = frames["footfall"].group_by("post_id", start).agg(pl.col("crossings_in_count").sum().cast(pl.Float64))
    got = merged.filter(pl.col("quantity") == "crossings_in_count")
    assert_frame_equal(
        got.select("post_id", "window_start", crossings_in_count="value").sort("post_id", "window_start"),
        walked.sort("post_id", "window_start"),
    )


def directions(*degrees: float) -> pl.DataFrame:
    rows = [
        Landed("lamplight/v1/KT1001/weather", weather(START + timedelta(seconds=k), wind_direction_deg=value), START)
        for k, value in enumerate(degrees)
    ]
    return windows(minutes(decoded(rows)["observations"], empty(TABLES["footfall"])), 300)


@pytest.mark.parametrize(
    ("degrees", "mean"),
    [
        ((350.0, 10.0), 360.0),  # across north, which is 360
        ((360.0, 360.0), 360.0),
        ((350.0, 0.0, 0.0), 350.0),  # calm air has no direction
        ((0.0, 0.0), 0.0),  # all is calm
        ((90.0, 270.0), None),  # they cancel out
        ((0.0, 80.0, 100.0), 90.0),
    ],
)
def test_mean_directions(degrees: tuple[float, ...], mean: float | None) -> None:
    found = directions(*degrees).row(0, named=True)
    if mean is None:
        assert found["value"] is None
    elif mean == 0:
        assert found["value"] == 0
    else:
        assert math.cos(math.radians(found["value"] - mean)) == pytest.approx(1)
        assert 0 < found["value"] <= 360
    assert found["value_count"] == len(degrees)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=2, max_size=30),
    st.sampled_from([60, 300, 900]),
)
@settings(max_examples=40, deadline=None)
def test_counter_growth_adds_up_whatever_the_window(steps: list[tuple[int, bool]], period_s: int) -> None:
    """Σ of the windows' growth = tips counted from the first value on, resets included."""
    level, total, rows = 10, 0, []
    for index, (tips, is_reset) in enumerate(steps):
        if index:
            level = tips if is_reset and tips < level else level + tips
            total += tips
        payload = weather(START + timedelta(minutes=index), rain_mm=level * 0.5)
        rows.append(Landed("lamplight/v1/KT1001/weather", payload, START + timedelta(minutes=index)))
    merged = windows(minutes(decoded(rows)["observations"], empty(TABLES["footfall"])), period_s)
    assert math.isclose(merged["value"].sum(), total * 0.5, abs_tol=1e-9)


def test_an_hour_is_the_merge_of_its_parts() -> None:
    frames = decoded(messages(13, minutes=20))
    small = minutes(frames["observations"], frames["footfall"])
    fives = windows(small, 300)
    parts = fives.select(name for name in MINUTES.schema.names if name in fives.columns)
    whole, merged = windows(small, 900), windows(parts, 900)
    exact = ["window_start", "post_id", "quantity", "value_count", "flagged_count", "value_min", "value_max"]
    assert_frame_equal(whole.select(exact), merged.select(exact))
    assert_frame_equal(whole.select("value_sum", "sin_sum"), merged.select("value_sum", "sin_sum"))
    flows = flow_minutes(frames["lane_flows"])
    assert flow_windows(flows, 900)["vehicle_count"].sum() == frames["lane_flows"]["vehicle_count"].sum()


def test_flow_equals_an_oracle_of_the_lanes() -> None:
    lanes = decoded(messages(17, minutes=15))["lane_flows"]
    got = flow_windows(flow_minutes(lanes), 900).sort("post_id", "direction")
    oracle = (
        lanes.filter(pl.col("vehicle_count") > 0)
        .group_by("post_id", "direction")
        .agg(
            flow_veh_h=pl.col("vehicle_count").sum() * 4.0,
            mean_speed_kmh=(pl.col("mean_speed_kmh") * pl.col("vehicle_count")).sum() / pl.col("vehicle_count").sum(),
            space_mean_speed_kmh=pl.col("vehicle_count").sum() / pl.col("inverse_speed_sum_h_km").sum(),
        )
        .sort("post_id", "direction")
    )
    assert_frame_equal(got.select(oracle.columns), oracle)
    assert got["completeness"].to_list() == [1.0] * got.height


def test_a_release_count_looks_at_no_count_or_speed() -> None:
    """One more passage changes it by one, also where quality flags take the summary out of the analysts' figures."""
    cases: list[dict[str, Any]] = [{}, {"mean_speed_kmh": 0.0}, {"mean_speed_kmh": 250.0}, {"occupancy_pct": 100.0}]
    for fields in cases:
        counts = [
            flow_minutes(one(traffic(lane(count=count, **fields)), "traffic")["lane_flows"])["release_count"].item()
            for count in (4, 5)
        ]
        assert counts == [4, 5]
    doubled = flow_minutes(one(traffic(lane(), lane()), "traffic")["lane_flows"])
    assert doubled["release_count"].item() == 3
    wild = flow_minutes(one(traffic(lane(count=10**6)), "traffic")["lane_flows"])
    assert wild["release_count"].item() == RELEASE_CLAMP_COUNT


def test_no_rows_give_no_rows() -> None:
    assert minutes(empty(OBSERVATIONS), empty(TABLES["footfall"])).is_empty()
    assert windows(empty(MINUTES), 300).is_empty()
    assert flow_windows(empty(FLOW_MINUTES), 900).is_empty()
    assert flow_minutes(empty(LANE_FLOWS)).is_empty()
    assert unite(empty(QUARANTINE), empty(QUARANTINE), QUARANTINE).is_empty()


@pytest.mark.parametrize(
    ("levels", "growth"),
    [
        ([10.0, 10.2, 4010.0, 10.4, 10.6], 0.6),  # a spike is not rain, and the way back is no restart
        ([10.0, 10.2, 4010.0, 4010.2, 4010.4], 0.4),  # a jump that stays adds nothing, its rain does
        ([10.0, 10.2, 0.4, 0.6], 0.8),  # a restart counts from zero
        ([10.0, 49.0], 39.0),  # a cloudburst is rain
        ([9999.4, 9999.8, 0.2, 0.6], 1.2),  # the counter begins again at its end
        ([9970.0, 0.2, 0.4], 30.4),  # and may have counted much of a minute before it did
        ([9910.0, 0.2, 0.4], 0.4),  # too far from its end: a restart
        ([9930.0, 15.0, 15.2], 15.2),  # more than can have fallen since: a restart
    ],
)
def test_counters_take_no_impossible_jump_for_rain(levels: list[float], growth: float) -> None:
    rows = [
        Landed(
            "lamplight/v1/KT1001/weather",
            weather(START + timedelta(minutes=minute), rain_mm=level),
            START + timedelta(minutes=minute),
        )
        for minute, level in enumerate(levels)
    ]
    merged = windows(minutes(decoded(rows)["observations"], empty(TABLES["footfall"])), 900)
    assert merged["value"].item() == pytest.approx(growth)


def test_speeds_stand_for_the_passages_that_had_one() -> None:
    """The harmonic mean is never above the arithmetic one; 4 of 5 passages had a speed."""
    seen = [30.0, 40.0, 50.0, 60.0]
    summary = lane(
        count=5,
        speed_count=4,
        mean_speed_kmh=sum(seen) / 4,
        inverse_speed_sum_h_km=sum(1 / speed for speed in seen),
    )
    window = flow_windows(flow_minutes(one(traffic(summary), "traffic")["lane_flows"]), 900).row(0, named=True)
    assert window["mean_speed_kmh"] == pytest.approx(45.0)
    assert window["space_mean_speed_kmh"] == pytest.approx(4 / sum(1 / speed for speed in seen))
    assert window["vehicle_count"] == 5
