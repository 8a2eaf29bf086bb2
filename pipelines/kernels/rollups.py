"""Minutes to windows by merging their state: there is no second way to compute a longer window.

Formulas: direction of the mean unit vector, Campbell OutputOpt 0/1; space-mean speed n / sum(1/v) and flow
n * 3600 / T, Highway Capacity Manual; counters by difference, where a fall means a restart from zero.
"""

import polars as pl

from contracts.quantities import QUANTITIES, Aggregation
from contracts.schemas import FLOW_WINDOWS, WINDOWS
from contracts.streams import HALF_MINUTE_S, STREAMS
from pipelines.kernels.frames import conform
from pipelines.kernels.minutes import CLASS_COLUMNS, COUNTERS, WIND_STATE

# A counter's growth is counted from the last value of at most this long before; after a longer silence the rain of
# the gap belongs to no window that could name it.
COUNTER_GAP_S = 600
# What is a jump is judged by the value before it, so the minutes that a window's growth starts from need theirs too.
COUNTER_CONTEXT_S = 2 * COUNTER_GAP_S
# WMO/TD-1236 (Zahumensky 2004): at most 40 mm of rain in a minute. A counter that jumps by more has not counted.
GREATEST_GROWTH_PER_MINUTE = 40.0

_RULES = pl.DataFrame(
    {
        "quantity": list(QUANTITIES),
        "aggregation": [row.aggregation.value for row in QUANTITIES.values()],
        "cadence_s": [STREAMS[row.stream].cadence_s for row in QUANTITIES.values()],
    }
)


def windows(minutes: pl.DataFrame, period_s: int) -> pl.DataFrame:
    """Rows of WINDOWS from rows of MINUTES.

    A counter needs COUNTER_CONTEXT_S of minutes before the first window wanted: give them too, and drop the windows
    that lie in that context.
    """
    rows = minutes.sort("window_start")
    if rows.is_empty():
        return conform(rows.select(WINDOWS.key), WINDOWS)
    growth = _growth(rows.filter(pl.col("quantity").is_in(COUNTERS)))
    group = ["post_id", "quantity", pl.col("window_start").dt.truncate(f"{period_s}s")]
    # values of a minute without any are null, and merging leaves nulls out
    merged = (
        rows.group_by(group, maintain_order=True)
        .agg(
            pl.col("value_count").sum(),
            pl.col("flagged_count").sum(),
            *[_sum_or_null(name) for name in ("value_sum", "value_sum_squares", *WIND_STATE)],
            pl.col("value_min").min(),
            pl.col("value_max").max(),
            pl.col("first_value").drop_nulls().first(),
            pl.col("last_value").drop_nulls().last(),
            pl.col("last_event_time").max(),
        )
        .join(
            growth.group_by(group).agg(_sum_or_null("growth")), on=["post_id", "quantity", "window_start"], how="left"
        )
        .join(_RULES, on="quantity", how="left")
    )
    count = pl.col("value_count")
    expected = period_s // pl.col("cadence_s")
    # twice: a tiny negative angle modulo 360 rounds to 360 itself, which is not in [0, 360)
    direction = pl.arctan2(pl.col("sin_sum"), pl.col("cos_sum")).degrees() % 360 % 360
    method = pl.col("aggregation")
    value = (
        pl.when(count == 0)
        .then(None)
        .when(method == Aggregation.MEAN.value)
        .then(pl.col("value_sum") / count)
        .when(method == Aggregation.CIRCULAR.value)
        .then(direction)
        .when(method == Aggregation.SUM.value)
        .then(pl.col("value_sum"))
        .when(method == Aggregation.MAXIMUM.value)
        .then(pl.col("value_max"))
        .when(method == Aggregation.COUNTER.value)
        .then(pl.col("growth"))
    )
    return conform(
        merged.with_columns(
            period_s=pl.lit(period_s),
            revision=pl.lit(0),
            value=value,
            increase=pl.col("growth"),
            expected_count=expected,
            completeness=(count / expected).clip(0, 1),
        ),
        WINDOWS,
    )


def _growth(minutes: pl.DataFrame) -> pl.DataFrame:
    """Counters' minutes, in order of time, with `growth`: from the last minute that had a value to each one's end.

    A minute that jumps up by more than can fall is taken as without a value, so that the way back is no restart; a
    jump that stays adds nothing.
    """
    steps = _steps(minutes)
    is_jump = (pl.col("growth") > pl.col("limit")).fill_null(value=False)
    state = ["first_value", "last_value", "increase"]
    calm = steps.with_columns(
        pl.when(~is_jump).then(pl.col(*state)), value_count=pl.when(~is_jump).then("value_count").otherwise(0)
    ).drop("growth", "limit")
    again = _steps(calm)
    return again.with_columns(growth=pl.when(pl.col("growth") > pl.col("limit")).then(0.0).otherwise("growth"))


def _steps(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds `growth` and the most that it can be, `limit`, to counters' minutes."""
    group = ["post_id", "quantity"]
    used = pl.col("value_count") > 0
    before = pl.when(used).then(pl.col("last_value")).forward_fill().shift(1).over(group)
    seen = pl.when(used).then(pl.col("window_start")).forward_fill().shift(1).over(group)
    is_near = (pl.col("window_start") - seen).dt.total_seconds() <= COUNTER_GAP_S
    step = pl.col("first_value") - before
    across = pl.when(is_near).then(pl.when(step < 0).then(pl.col("first_value")).otherwise(step)).fill_null(0.0)
    gap = pl.when(is_near).then((pl.col("window_start") - seen).dt.total_minutes()).otherwise(0) + 1
    return rows.with_columns(
        growth=pl.when(used).then(pl.col("increase") + across), limit=gap * GREATEST_GROWTH_PER_MINUTE
    )


def flow_windows(flow_minutes: pl.DataFrame, period_s: int) -> pl.DataFrame:
    """Rows of FLOW_WINDOWS from rows of FLOW_MINUTES."""
    start = pl.col("window_start").dt.truncate(f"{period_s}s")
    sums = [
        "half_minutes",
        "lane_summaries",
        "flagged_count",
        "vehicle_count",
        "speed_count",
        "speed_sum_kmh",
        "inverse_speed_sum_h_km",
        "inverse_speed_count",
        "occupancy_sum_pct",
        "occupancy_count",
        "release_count",
        "release_speed_sum",
    ]
    merged = (
        flow_minutes.sort("window_start")
        .group_by(["post_id", "direction", start], maintain_order=True)
        .agg(
            *[pl.col(name).sum() for name in sums],
            *[_sum_or_null(name) for name in CLASS_COLUMNS],
            pl.col("last_event_time").max(),
        )
    )
    expected = period_s // HALF_MINUTE_S
    return conform(
        merged.with_columns(
            period_s=pl.lit(period_s),
            revision=pl.lit(0),
            flow_veh_h=_ratio(pl.col("vehicle_count") * 3600.0, pl.col("half_minutes") * HALF_MINUTE_S),
            mean_speed_kmh=_ratio(pl.col("speed_sum_kmh"), pl.col("speed_count")),
            space_mean_speed_kmh=_ratio(pl.col("inverse_speed_count"), pl.col("inverse_speed_sum_h_km")),
            occupancy_pct=_ratio(pl.col("occupancy_sum_pct"), pl.col("occupancy_count")),
            expected_count=pl.lit(expected),
            completeness=(pl.col("half_minutes") / expected).clip(0, 1),
        ),
        FLOW_WINDOWS,
    )


def _ratio(numerator: pl.Expr, denominator: pl.Expr) -> pl.Expr:
    return pl.when(denominator > 0).then(numerator / denominator)


def _sum_or_null(name: str) -> pl.Expr:
    return pl.when(pl.col(name).is_not_null().any()).then(pl.col(name).sum())
