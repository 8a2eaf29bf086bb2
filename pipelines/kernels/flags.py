"""QARTOD flags from one message alone: sentinel, plausible range, internal consistency, the recorded traffic feeds'
known dirt.

A value is never removed: it keeps its row and says what is wrong with it.
"""

from collections.abc import Mapping

import polars as pl

from contracts.payloads import SENTINEL
from contracts.quality import AT_LEAST, ZERO_TOGETHER
from contracts.quantities import QUANTITIES, Flag, Quantity


def contradictions(values: Mapping[str, pl.Series]) -> dict[str, pl.Series]:
    """Of one stream's messages, by quantity: whether another value of the message contradicts the value. Which of the
    two is wrong, a message alone cannot tell. Values that other tests refuse contradict nothing."""
    found: dict[str, pl.Series] = {}

    def note(one: str, other: str, is_against: pl.Series) -> None:
        for name in (one, other):
            is_against = is_against & values[name].is_between(QUANTITIES[name].low, QUANTITIES[name].high)
        is_against = is_against.fill_null(value=False)
        for name in (one, other):
            found[name] = found[name] | is_against if name in found else is_against

    for row in AT_LEAST:
        if row.greater in values and row.lesser in values:
            note(row.greater, row.lesser, values[row.greater] < values[row.lesser] - row.tolerance)
    for one, other in ZERO_TOGETHER:
        if one in values and other in values:
            note(one, other, (values[one] == 0) != (values[other] == 0))
    return found


def flag_values(quantity: Quantity, is_contradicted: pl.Expr) -> pl.Expr:
    """`flag` of a quantity's column `value`: 9 for a sentinel, 4 outside the plausible range, 3 where another value of
    the message contradicts it."""
    value = pl.col("value")
    flag = (
        pl.when(value == SENTINEL)
        .then(pl.lit(Flag.MISSING))
        .when(~value.is_between(quantity.low, quantity.high))
        .then(pl.lit(Flag.FAIL))
        .when(is_contradicted)
        .then(pl.lit(Flag.SUSPECT))
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
