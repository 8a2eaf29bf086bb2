"""Readings to minutes: mergeable state of each post, quantity (or direction) and minute."""

import polars as pl

from contracts.payloads import VEHICLE_CLASSES
from contracts.quantities import QUANTITIES, Aggregation, Flag, of_stream
from contracts.schemas import FLAGS, FLOW_MINUTES, MINUTES
from pipelines.kernels.context import bounds, clearings, is_outside
from pipelines.kernels.counters import COUNTERS, grown
from pipelines.kernels.frames import conform, empty
from pipelines.kernels.unite import readings

CIRCULAR = [name for name, row in QUANTITIES.items() if row.aggregation is Aggregation.CIRCULAR]
LEVELS = [name for name, row in QUANTITIES.items() if row.aggregation is Aggregation.ENERGY]
# merged by adding; of wind directions only
WIND_STATE = ["sin_sum", "cos_sum", "unit_count", "sin_speed_sum_ms", "cos_speed_sum_ms", "vector_count"]
WIND_SPEED = "wind_speed_ms"
CROSSINGS = [row.name for row in of_stream("pedestrian")]
# columns of observations that minutes are made of
OBSERVED = ("post_id", "quantity", "value", "event_time", "digest", "flag", "is_conflicting")
CLASS_COLUMNS = [f"{name}_count" for name in VEHICLE_CLASSES]

# A summary never stands for more vehicles than this in a release: 61 in a lane and half-minute is the most that the
# Transport Department's feeds ever showed. A clamp, not a rule: one passage changes the sum by at most 1.
RELEASE_CLAMP_COUNT = 75

_MINUTE = pl.col("event_time").dt.truncate("1m").alias("window_start")


def minutes(observations: pl.DataFrame, footfall: pl.DataFrame, flags: pl.DataFrame | None = None) -> pl.DataFrame:
    """Rows of MINUTES from united readings; one row per post, quantity and minute that any reading landed in.

    `flags` are rows of FLAGS: what the context of these minutes speaks against is counted and not used, and suspects
    that it clears are used.
    """
    columns = ["post_id", "quantity", "value", "event_time", "digest", "flag"]
    walked = (
        readings(footfall)
        .unpivot(CROSSINGS, index=["post_id", "event_time", "digest", "flag"], variable_name="quantity")
        .with_columns(pl.col("value").cast(pl.Float64))
        .select(columns)
    )
    rows = pl.concat([readings(observations).select(columns), walked])
    return conform(_state(rows, empty(FLAGS) if flags is None else flags), MINUTES)


def _state(rows: pl.DataFrame, flags: pl.DataFrame) -> pl.DataFrame:
    # sums of floats depend on their order, so the order is fixed: by time, then by the message's digest
    group = ["post_id", "quantity", "window_start"]
    quantity = pl.col("quantity")
    is_circular, is_counter, is_level = (quantity.is_in(kind) for kind in (CIRCULAR, COUNTERS, LEVELS))
    # which of two values that contradict each other is wrong, the hour before may tell: suspects are context too
    used, plain = ([1, 2], [1, 2, 3])
    rows = rows.with_columns(_MINUTE)
    is_used = pl.col("flag").is_in(used)
    if not (cleared := clearings(flags)).is_empty():
        rows = rows.join(cleared, on=group, how="left", maintain_order="left")
        is_within = pl.col("value").is_between("cleared_low", "cleared_high").fill_null(value=False)
        is_used = is_used | ((pl.col("flag") == Flag.SUSPECT) & is_within)
    rows = rows.select(
        "post_id",
        "quantity",
        "event_time",
        "digest",
        "window_start",
        value=pl.when(is_used).then(pl.col("value")),
        unflagged=pl.when(pl.col("flag").is_in(plain)).then(pl.col("value")),
    ).sort("event_time", "digest")
    if not (limits := bounds(flags)).is_empty():
        limits = limits.with_columns(is_limited=pl.lit(value=True))
        rows = rows.join(limits, on=group, how="left", maintain_order="left")
        is_out = pl.col("is_limited").fill_null(value=False) & is_outside(is_circular)
        rows = rows.with_columns(value=pl.when(~is_out).then(pl.col("value")))
    value = pl.col("value")
    none = pl.lit(None, dtype=pl.Float64)
    # each kind of quantity has the state that it needs, and null for the rest
    nothing = {"plain": none, "sine": none, "cosine": none, "step": none, "speed": none, "energy": none}
    scalar = rows.filter(~is_circular & ~is_counter & ~is_level).with_columns(**(nothing | {"plain": value}))
    energy = value.map_batches(_energy, return_dtype=pl.Float64)
    levels = rows.filter(is_level).with_columns(**(nothing | {"plain": value, "energy": energy}))
    step = grown(value.forward_fill().shift(1).over(group), value).fill_null(0.0)
    counters = rows.filter(is_counter).with_columns(
        **(nothing | {"plain": value, "step": pl.when(value.is_not_null()).then(step)})
    )
    directions = _with_wind(rows.filter(is_circular), rows).select(scalar.columns)
    return (
        pl.concat([scalar, levels, directions, counters])
        .with_columns(
            squares=pl.col("plain") * pl.col("plain"), used_time=pl.when(value.is_not_null()).then("event_time")
        )
        .group_by(group, maintain_order=True)
        .agg(
            value_count=value.count(),
            flagged_count=value.null_count(),
            value_sum=pl.col("plain").sum(),
            value_sum_squares=pl.col("squares").sum(),
            energy_sum=pl.col("energy").sum(),
            sin_sum=pl.col("sine").sum(),
            cos_sum=pl.col("cosine").sum(),
            unit_count=pl.col("sine").count(),
            sin_speed_sum_ms=(pl.col("sine") * pl.col("speed")).sum(),
            cos_speed_sum_ms=(pl.col("cosine") * pl.col("speed")).sum(),
            vector_count=pl.col("speed").count(),
            value_min=value.min(),
            value_max=value.max(),
            first_value=value.first(ignore_nulls=True),
            last_value=value.last(ignore_nulls=True),
            increase=pl.col("step").sum(),
            last_event_time=pl.col("event_time").last(),
            last_used_time=pl.col("used_time").max(),
            plain_count=pl.col("unflagged").count(),
            plain_last=pl.col("unflagged").last(ignore_nulls=True),
            plain_min=pl.col("unflagged").min(),
            plain_max=pl.col("unflagged").max(),
        )
        .with_columns(
            _where(~is_circular, "value_sum", "value_sum_squares"),
            _where(is_level, "energy_sum"),
            _where(is_circular, *WIND_STATE),
            _where(is_counter, "increase"),
            last_used_time=where_older(pl.col("last_used_time")),
        )
    )


def _with_wind(directions: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Directions with their sines and cosines, null when calm, and the wind speed of the same message, where both are
    used. Calm air has no direction, so its vector is 0 whatever its speed."""
    message = ["post_id", "event_time", "digest"]
    speeds = rows.filter(pl.col("quantity") == WIND_SPEED).select(*message, speed="value").unique(message)
    radians, none = pl.col("value").radians(), pl.lit(None, dtype=pl.Float64)
    return directions.join(speeds, on=message, how="left", maintain_order="left").with_columns(
        plain=none,
        sine=pl.when(pl.col("value") != 0).then(radians.sin()),
        cosine=pl.when(pl.col("value") != 0).then(radians.cos()),
        step=none,
        energy=none,
        speed=pl.when(pl.col("value").is_not_null()).then(pl.col("speed")),
    )


def _energy(levels: pl.Series) -> pl.Series:
    """10^(level/10), the same wherever a level stands: Polars' own power of one value differs in its last digits from
    that of two (2.1, a third of all levels)."""
    found = levels.unique().drop_nulls().to_list()
    return levels.replace_strict(
        found, [10.0 ** (level / 10) for level in found], default=None, return_dtype=pl.Float64
    )


def where_older(used_time: pl.Expr) -> pl.Expr:
    """The event time of the last value used, where `last_event_time` does not say it: mostly they are the same."""
    return pl.when(used_time < pl.col("last_event_time")).then(used_time)


def _where(is_kind: pl.Expr, *names: str) -> pl.Expr:
    """A sum over nothing is 0, but the state that a quantity does not have is null."""
    return pl.when(is_kind & (pl.col("value_count") > 0)).then(pl.col(*names))


def flow_minutes(lane_flows: pl.DataFrame) -> pl.DataFrame:
    """Rows of FLOW_MINUTES from united lane summaries, over the lanes of each post and direction.

    The analysts' figures use the summaries that no flag speaks against. The release figures use every valid summary:
    no rule there may look at counts or speeds, so that one passage changes them by a known bound.
    """
    rows = readings(lane_flows).sort("event_time", "digest", "lane_index")
    # a message's digest names it within its post, because its boot, number and time are in its bytes
    rows = rows.with_columns(is_first=pl.struct("post_id", "digest", "direction", "lane").is_first_distinct())
    good = pl.col("flag").is_in([1, 2])
    count = pl.col("vehicle_count").cast(pl.Int64)
    speed, inverse = pl.col("mean_speed_kmh"), pl.col("inverse_speed_sum_h_km")
    # a passage may be counted without a speed: the speeds stand for so many
    speeds = pl.coalesce("speed_count", "vehicle_count").cast(pl.Int64)
    with_speed = good & (speeds > 0) & speed.is_not_null()
    with_inverse = good & (speeds > 0) & inverse.is_not_null()
    with_share = good & (pl.col("occupancy_pct") >= 0).fill_null(value=False)
    released = pl.col("is_valid") & pl.col("is_first")
    # the placeholder speed of an empty lane has weight 0 by its count
    return conform(
        rows.group_by(["post_id", "direction", _MINUTE], maintain_order=True).agg(
            half_minutes=pl.col("event_time").n_unique(),
            lane_summaries=good.sum(),
            flagged_count=(~good).sum(),
            vehicle_count=count.filter(good).sum(),
            **{name: _sum_or_null(pl.col(name).filter(good)) for name in CLASS_COLUMNS},
            speed_count=speeds.filter(with_speed).sum(),
            speed_sum_kmh=(speed * speeds).filter(with_speed).sum(),
            inverse_speed_sum_h_km=inverse.filter(with_inverse).sum(),
            inverse_speed_count=speeds.filter(with_inverse).sum(),
            occupancy_sum_pct=pl.col("occupancy_pct").filter(with_share).sum(),
            occupancy_count=with_share.sum(),
            release_count=count.clip(0, RELEASE_CLAMP_COUNT).filter(released).sum(),
            release_speed_sum=pl.col("release_speed_sum").filter(released).sum(),
            last_event_time=pl.col("event_time").max(),
        ),
        FLOW_MINUTES,
    )


def _sum_or_null(values: pl.Expr) -> pl.Expr:
    return pl.when(values.is_not_null().any()).then(values.cast(pl.Int64).sum())
