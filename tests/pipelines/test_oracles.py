"""Each kernel beside its oracle: a few lines of SQL over the readings, or of plain Python."""

import math

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from contracts.schemas import FLAGS, OBSERVATIONS
from pipelines.kernels.context import bounds, is_outside
from pipelines.kernels.frames import conform
from pipelines.kernels.minutes import flow_minutes, minutes
from pipelines.kernels.rollups import flow_windows, windows
from pipelines.kernels.unite import unite
from tests.warehouse import generated_day as day

CELL = ["post_id", "quantity", "window_start"]
# of readings with their limits: what a minute uses
USED = """
    SELECT *, radians(used) AS angle
    FROM (SELECT o.*, date_trunc('minute', event_time) AS window_start, CASE WHEN (o.flag IN (1, 2)
        OR o.flag = 3 AND EXISTS (FROM flags AS f WHERE f.post_id = o.post_id AND f.quantity = o.quantity AND f.flag = 1
            AND f.window_start = date_trunc('minute', event_time) AND value BETWEEN accepted_low AND accepted_high)
    ) AND NOT EXISTS (
        FROM flags AS f WHERE f.post_id = o.post_id AND f.quantity = o.quantity AND f.flag > 1
        AND f.window_start = date_trunc('minute', event_time) AND (accepted_low IS NULL
        OR (o.quantity = 'wind_direction_deg' AND cos(radians(value - (accepted_low + accepted_high) / 2))
            < cos(radians((accepted_high - accepted_low) / 2)))
        OR (o.quantity <> 'wind_direction_deg' AND value NOT BETWEEN accepted_low AND accepted_high))
    ) THEN value END AS used
    FROM observations AS o WHERE NOT is_conflicting)
"""


def ask(query: str, **frames: pl.DataFrame) -> pl.DataFrame:
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, frame in frames.items():
            connection.register(name, frame.to_arrow())
        answer: pl.DataFrame = connection.sql(query).pl()
    return answer


def assert_equal(found: pl.DataFrame, wanted: pl.DataFrame, key: list[str]) -> None:
    assert wanted.height > 0
    found = found.select(wanted.columns).cast(dict(wanted.schema))  # type: ignore[arg-type]
    assert_frame_equal(found.sort(key), wanted.sort(key), check_exact=False, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_minutes_are_their_readings(seed: int) -> None:
    values, walked = day.observations(seed), day.footfall(seed)
    found = day.flags(seed, values)
    state = minutes(values, walked, found)
    wanted = ask(
        "SELECT post_id, quantity, window_start, count(used) AS value_count, count(*) - count(used) AS flagged_count, "
        "min(used) AS value_min, max(used) AS value_max, arg_min(used, event_time) AS first_value, "
        "arg_max(used, event_time) AS last_value, max(event_time) AS last_event_time, "
        "nullif(max(event_time) FILTER (used IS NOT NULL), max(event_time)) AS last_used_time, "
        "count(value) FILTER (flag < 4) AS plain_count, max(value) FILTER (flag < 4) AS plain_max, "
        "CASE WHEN quantity <> 'wind_direction_deg' THEN sum(used) END AS value_sum, "
        "CASE WHEN quantity <> 'wind_direction_deg' THEN sum(used * used) END AS value_sum_squares, "
        "CASE WHEN quantity = 'noise_dba' THEN sum(10 ** (used / 10)) END AS energy_sum "
        f"FROM ({USED}) GROUP BY post_id, quantity, window_start",
        observations=values,
        flags=found,
    )
    of_sensors = state.filter(~pl.col("quantity").str.starts_with("crossings"))
    assert_equal(of_sensors, wanted, CELL)
    crossings = ask(
        "SELECT post_id, quantity, date_trunc('minute', event_time) AS window_start, count(*) FILTER (flag = 1) AS "
        "value_count, count(*) FILTER (flag <> 1) AS flagged_count, sum(value) FILTER (flag = 1) AS value_sum FROM "
        "(UNPIVOT footfall ON crossings_in_count, crossings_out_count INTO NAME quantity VALUE value) "
        "WHERE NOT is_conflicting GROUP BY ALL",
        footfall=walked,
    )
    assert_equal(state.filter(pl.col("quantity").str.starts_with("crossings")), crossings, CELL)


@pytest.mark.parametrize("seed", range(3))
def test_a_direction_minutes_state_is_its_messages_vectors(seed: int) -> None:
    values = day.observations(seed)
    found = day.flags(seed, values)
    wanted = ask(
        f"WITH used AS ({USED}) SELECT d.post_id, d.window_start, sum(sin(angle)) FILTER (used <> 0) AS sin_sum, "
        "sum(cos(angle)) FILTER (used <> 0) AS cos_sum, count(*) FILTER (used <> 0) AS unit_count, "
        "coalesce(sum(speed * sin(angle)) FILTER (used <> 0), 0) AS sin_speed_sum_ms, "
        "coalesce(sum(speed * cos(angle)) FILTER (used <> 0), 0) AS cos_speed_sum_ms, "
        "count(speed) AS vector_count FROM used AS d LEFT JOIN (SELECT post_id, event_time, used AS speed FROM used "
        "WHERE quantity = 'wind_speed_ms') USING (post_id, event_time) "
        "WHERE quantity = 'wind_direction_deg' AND used IS NOT NULL GROUP BY ALL",
        observations=values,
        flags=found,
    ).with_columns(pl.col("sin_sum", "cos_sum").fill_null(0.0))
    state = minutes(values, day.footfall(seed), found)
    state = state.filter((pl.col("quantity") == "wind_direction_deg") & (pl.col("value_count") > 0))
    assert_equal(state, wanted, ["post_id", "window_start"])


@pytest.mark.parametrize("period_s", [60, 300, 900, 3600])
def test_windows_are_their_minutes(period_s: int) -> None:
    values = day.observations(4)
    state = minutes(values, day.footfall(4), day.flags(4, values))
    wanted = ask(
        f"SELECT post_id, quantity, time_bucket(to_seconds({period_s}), window_start) AS window_start, "
        "sum(value_count) AS value_count, sum(flagged_count) AS flagged_count, sum(value_sum) AS value_sum, "
        "sum(value_sum_squares) AS value_sum_squares, sum(energy_sum) AS energy_sum, sum(sin_sum) AS sin_sum, "
        "sum(vector_count) AS vector_count, min(value_min) AS value_min, max(value_max) AS value_max, "
        "arg_min(first_value, window_start) AS first_value, arg_max(last_value, window_start) AS last_value, "
        "max(last_event_time) AS last_event_time, "
        "nullif(max(coalesce(last_used_time, CASE WHEN value_count > 0 THEN last_event_time END)), "
        "max(last_event_time)) AS last_used_time FROM minutes GROUP BY ALL",
        minutes=state,
    )
    assert_equal(windows(state, period_s), wanted, CELL)


@pytest.mark.parametrize("seed", range(3))
def test_flow_minutes_and_windows_are_their_lanes(seed: int) -> None:
    lanes = day.lanes(seed)
    for period_s, found in ((60, flow_minutes(lanes)), (900, flow_windows(flow_minutes(lanes), 900))):
        wanted = ask(
            f"SELECT post_id, direction, time_bucket(to_seconds({period_s}), event_time) AS window_start, "
            "count(DISTINCT event_time) AS half_minutes, count(*) FILTER (flag = 1) AS lane_summaries, "
            "count(*) FILTER (flag <> 1) AS flagged_count, "
            "coalesce(sum(vehicle_count) FILTER (flag = 1), 0) AS vehicle_count, "
            "sum(taxi_count) FILTER (flag = 1) AS taxi_count, "
            "coalesce(sum(mean_speed_kmh * l.vehicle_count) FILTER (flag = 1), 0) AS speed_sum_kmh, "
            "coalesce(sum(inverse_speed_sum_h_km) FILTER (flag = 1 AND l.vehicle_count > 0), 0) "
            "AS inverse_speed_sum_h_km, "
            "coalesce(sum(occupancy_pct) FILTER (flag = 1), 0) AS occupancy_sum_pct, "
            "count(occupancy_pct) FILTER (flag = 1) AS occupancy_count, sum(l.vehicle_count) AS release_count, "
            "max(event_time) AS last_event_time "
            "FROM lanes AS l WHERE NOT is_conflicting GROUP BY post_id, direction, window_start",
            lanes=lanes,
        )
        assert_equal(found, wanted, ["post_id", "direction", "window_start"])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 9), st.booleans()), max_size=20))
@settings(max_examples=30, deadline=None)
def test_uniting_keeps_the_least_receipt_and_reads_the_least_digest(copies: list[tuple[int, int, int, bool]]) -> None:
    names = {"seq": pl.Int64, "digest": pl.Int64, "received": pl.Int64, "is_old": pl.Boolean}
    frame = pl.DataFrame(copies, schema=names, orient="row")
    fixed = {"post_id": "KT1001", "stream": "air", "boot_id": "a", "first_seq": 0, "event_time": 0, "quantity": "x"}
    frame = frame.with_columns(
        *[pl.lit(value).alias(name) for name, value in fixed.items()],
        received_time=pl.col("received"),
        flag=pl.lit(1),
    )
    old, new = (conform(frame.filter(pl.col("is_old") == is_old), OBSERVATIONS) for is_old in (True, False))
    found = unite(old, new, OBSERVATIONS).select(
        "seq", "digest", "is_conflicting", received=pl.col("received_time").dt.epoch("us")
    )
    wanted = (
        frame.group_by("seq", "digest")
        .agg(pl.col("received").min())
        .select("seq", "digest", (pl.col("digest") > pl.col("digest").min().over("seq")).alias("later"), "received")
    )
    assert sorted(found.rows()) == sorted(wanted.rows())


LIMIT = st.tuples(st.sampled_from([None, -5.0, 0.0, 4.0]), st.sampled_from([1.0, 6.0, 20.0]))


@given(st.lists(LIMIT, min_size=1, max_size=4), st.sampled_from([-6.0, -5.0, 0.0, 3.0, 5.0, 25.0]))
@settings(max_examples=40, deadline=None)
def test_bounds_accept_what_every_test_accepts(limits: list[tuple[float | None, float]], value: float) -> None:
    rows = [
        {"accepted_low": low, "accepted_high": None if low is None else low + width, "test": str(at)}
        for at, (low, width) in enumerate(limits)
    ]
    cell = {"post_id": "KT1001", "quantity": "temperature_c", "window_start": 0, "flag": 3}
    merged = bounds(conform(pl.DataFrame([{**cell, **row} for row in rows], infer_schema_length=None), FLAGS))
    accepted = all(low is not None and low <= value <= low + width for low, width in limits)
    outside = merged.with_columns(value=pl.lit(value)).select(is_outside(pl.lit(value=False))).item()
    assert outside == (not accepted)


@given(st.floats(-90, 450), st.floats(1, 170), st.integers(0, 360))
@settings(max_examples=60, deadline=None)
def test_limits_of_directions_are_an_arc(centre: float, half: float, value: int) -> None:
    row = pl.DataFrame({"accepted_low": centre - half, "accepted_high": centre + half, "value": float(value)})
    off = math.degrees(math.acos(max(-1, min(1, math.cos(math.radians(value - centre))))))
    if abs(off - half) > 1e-3:
        assert row.select(is_outside(pl.lit(value=True))).item() == (off > half)
