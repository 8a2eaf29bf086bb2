"""QARTOD flags from one message alone: sentinel, plausible range, the recorded traffic feeds' known dirt.

A value is never removed: it keeps its row and says what is wrong with it.
"""

import polars as pl

from contracts.payloads import SENTINEL
from contracts.quantities import QUANTITIES, Flag, Quantity


def flag_values(quantity: Quantity) -> pl.Expr:
    """`flag` of a quantity's column `value`: 9 for a sentinel, 4 outside the plausible range."""
    value = pl.col("value")
    flag = (
        pl.when(value == SENTINEL)
        .then(pl.lit(Flag.MISSING))
        .when(~value.is_between(quantity.low, quantity.high))
        .then(pl.lit(Flag.FAIL))
        .otherwise(pl.lit(Flag.GOOD))
    )
    return flag.cast(pl.Int8).alias("flag")


def without_sentinel() -> pl.Expr:
    """`value` with null in place of the sentinel: no value was measured."""
    return pl.when(pl.col("value") != SENTINEL).then(pl.col("value")).alias("value")


def flag_lanes(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds `flag` to lane summaries, whose `is_repeated` says that the message named the same lane before.

    9 detector offline; 4 impossible speed or occupancy with vehicles, or a count over the range; 3 repeated, or
    standing still for ever. With no vehicle the speed is the speed limit, a placeholder, and is not judged.
    """
    count, speed, occupancy = pl.col("vehicle_count"), pl.col("mean_speed_kmh"), pl.col("occupancy_pct")
    counts, speeds, shares = QUANTITIES["vehicle_count"], QUANTITIES["mean_speed_kmh"], QUANTITIES["occupancy_pct"]
    bad_speed = (count > 0) & ((speed < speeds.low) | (speed > speeds.high)).fill_null(value=False)
    # -1 comes with no vehicles only and means "nothing to measure" there (recorded feeds)
    bad_share = ((occupancy < shares.low) & (count > 0)) | (occupancy > shares.high)
    stuck = (occupancy == 100) & (count == 0) & (speed == 0)
    return frame.with_columns(
        flag=pl.when(~pl.col("is_valid"))
        .then(pl.lit(Flag.MISSING))
        .when(bad_speed | bad_share.fill_null(value=False) | (count > counts.high))
        .then(pl.lit(Flag.FAIL))
        .when(stuck.fill_null(value=False) | pl.col("is_repeated"))
        .then(pl.lit(Flag.SUSPECT))
        .otherwise(pl.lit(Flag.GOOD))
    )


def flag_footfall(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds `flag` to crossings: 4 when a count is over the plausible range."""
    high = QUANTITIES["crossings_in_count"].high
    over = (pl.col("crossings_in_count") > high) | (pl.col("crossings_out_count") > high)
    return frame.with_columns(flag=pl.when(over).then(pl.lit(Flag.FAIL)).otherwise(pl.lit(Flag.GOOD)))
