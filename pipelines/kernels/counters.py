"""Growth of counters: by difference, across restarts from zero, rollovers at the counter's end and impossible jumps.

A fall is a rollover when what was left to the counter's end, which is the greatest plausible value of its quantity,
and the new value are together no more than can have been counted since; else it is a restart, and what was counted is
the new value. (A restart so near the end is taken for a rollover: a counter that is never set back must roll over
there, one that is restarts anywhere.)
"""

import polars as pl

from contracts.quantities import QUANTITIES, Aggregation

COUNTERS = [name for name, row in QUANTITIES.items() if row.aggregation is Aggregation.COUNTER]
# A counter's growth is counted from the last value of at most this long before; after a longer silence the rain of
# the gap belongs to no window that could name it.
COUNTER_GAP_S = 600
# What is a jump is judged by the value before it, so the minutes that a window's growth starts from need theirs too.
COUNTER_CONTEXT_S = 2 * COUNTER_GAP_S
# WMO/TD-1236 (Zahumensky 2004): at most 40 mm of rain in a minute. A counter that jumps by more has not counted.
GREATEST_GROWTH_PER_MINUTE = 40.0

_ENDS = {name: QUANTITIES[name].high for name in COUNTERS}


def grown(before: pl.Expr, now: pl.Expr, greatest: pl.Expr | float = GREATEST_GROWTH_PER_MINUTE) -> pl.Expr:
    """Growth of the counter in the column `quantity` from one value to the next, of which it can be `greatest`."""
    step = now - before
    rolled = pl.col("quantity").replace_strict(_ENDS, default=None, return_dtype=pl.Float64) - before + now
    return pl.when(step >= 0).then(step).when(rolled <= greatest).then(rolled).when(step < 0).then(now)


def growth(minutes: pl.DataFrame) -> pl.DataFrame:
    """Counters' rows of MINUTES, in order of time, with `growth`: from the last minute that had a value to each one's
    end.

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
    gap = pl.when(is_near).then((pl.col("window_start") - seen).dt.total_minutes()).otherwise(0) + 1
    limit = gap * GREATEST_GROWTH_PER_MINUTE
    across = pl.when(is_near).then(grown(before, pl.col("first_value"), limit)).fill_null(0.0)
    return rows.with_columns(growth=pl.when(used).then(pl.col("increase") + across), limit=limit)
