"""Minutes to windows, and windows to hours, by merging their state: there is no second way to compute a longer window.

Formulas: direction of the mean unit vector of what is not calm, Campbell OutputOpt 0/1; energy mean of levels,
ISO 1996-1: 10 lg (mean of 10^(L/10)); space-mean speed n / sum(1/v) and flow n * 3600 / T, Highway Capacity Manual;
counters by difference (kernels/counters.py).
"""

import polars as pl

from contracts.fields import STATE
from contracts.quantities import QUANTITIES, Aggregation
from contracts.schemas import FLOW_WINDOWS, HOUR_S, HOURS, WINDOWS, Table
from contracts.streams import HALF_MINUTE_S, STREAMS
from pipelines.kernels.counters import COUNTERS, growth
from pipelines.kernels.frames import conform
from pipelines.kernels.minutes import CLASS_COLUMNS, WIND_STATE, where_older

# Unit vectors whose mean is shorter than this cancel out: what is left is rounding and has no direction.
LEAST_RESULTANT = 1e-9

# columns of windows that hours are made of
MERGED = [*WINDOWS.key, "revision", *(field.name for field in STATE)]

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
    counted = growth(rows.filter(pl.col("quantity").is_in(COUNTERS)))
    return _merged(rows.with_columns(revision=pl.lit(0)), counted, period_s, WINDOWS)


def hours(windows: pl.DataFrame) -> pl.DataFrame:
    """Rows of HOURS from rows of WINDOWS. A counter's growth is that of its windows, so an hour needs no context."""
    rows = windows.sort("window_start")
    counted = rows.filter(pl.col("quantity").is_in(COUNTERS)).with_columns(growth="increase")
    return _merged(rows, counted, HOUR_S, HOURS)


def _merged(rows: pl.DataFrame, counted: pl.DataFrame, period_s: int, table: Table) -> pl.DataFrame:
    """Rows of a table of windows from rows of shorter ones in order of time, and counters' rows with their `growth`."""
    if rows.is_empty():
        return conform(rows.select(table.key), table)
    group = ["post_id", "quantity", pl.col("window_start").dt.truncate(f"{period_s}s")]
    used_time = pl.coalesce("last_used_time", pl.when(pl.col("value_count") > 0).then("last_event_time"))
    # values of a part without any are null, and merging leaves nulls out
    merged = (
        rows.group_by(group, maintain_order=True)
        .agg(
            pl.col("value_count").sum(),
            pl.col("flagged_count").sum(),
            *[_sum_or_null(name) for name in ("value_sum", "value_sum_squares", "energy_sum", *WIND_STATE)],
            pl.col("value_min").min(),
            pl.col("value_max").max(),
            pl.col("first_value").first(ignore_nulls=True),
            pl.col("last_value").last(ignore_nulls=True),
            pl.col("last_event_time").max(),
            used_time.max().alias("last_used_time"),
            pl.col("revision").sum(),
        )
        .join(
            counted.group_by(group).agg(_sum_or_null("growth")), on=["post_id", "quantity", "window_start"], how="left"
        )
        .join(_RULES, on="quantity", how="left")
    )
    count = pl.col("value_count")
    expected = period_s // pl.col("cadence_s")
    method = pl.col("aggregation")
    value = (
        pl.when(count == 0)
        .then(None)
        .when(method == Aggregation.MEAN.value)
        .then(pl.col("value_sum") / count)
        .when(method == Aggregation.CIRCULAR.value)
        .then(_direction())
        .when(method == Aggregation.ENERGY.value)
        .then(10 * (pl.col("energy_sum") / count).log10())
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
            value=value,
            increase=pl.col("growth"),
            expected_count=expected,
            completeness=(count / expected).clip(0, 1),
            last_used_time=where_older(pl.col("last_used_time")),
        ),
        table,
    )


def _direction() -> pl.Expr:
    """Direction of the mean unit vector, degrees in (0, 360], north is 360; 0 when all is calm, null when the
    directions cancel out."""
    sine, cosine, count = pl.col("sin_sum"), pl.col("cos_sum"), pl.col("unit_count")
    degrees = pl.arctan2(sine, cosine).degrees()
    has_direction = (sine * sine + cosine * cosine).sqrt() > LEAST_RESULTANT * count
    return (
        pl.when(count == 0)
        .then(0.0)
        .when(has_direction)
        .then(pl.when(degrees <= 0).then(degrees + 360).otherwise(degrees))
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
