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
    """Counters' rows of MINUTES that have a value, with `growth`: from the last minute that had one to each one's end.

    A minute that jumps up by more than can fall is left out, so that the way back is no restart; a jump that stays adds
    nothing.
    """
    rows = minutes.filter(pl.col("value_count") > 0).sort("post_id", "quantity", "window_start")
    is_jump = (pl.col("growth") > pl.col("limit")).fill_null(value=False)
    again = _steps(_steps(rows).filter(~is_jump))
    return again.with_columns(growth=pl.when(is_jump).then(0.0).otherwise("growth"))


def _steps(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds `growth` and the most that it can be, `limit`, to counters' minutes in order of their series and time."""
    is_same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in ("post_id", "quantity"))
    since = pl.when(is_same).then(pl.col("window_start") - pl.col("window_start").shift(1))
    is_near = since.dt.total_seconds() <= COUNTER_GAP_S
    limit = (pl.when(is_near).then(since.dt.total_minutes()).otherwise(0) + 1) * GREATEST_GROWTH_PER_MINUTE
    across = pl.when(is_near).then(grown(pl.col("last_value").shift(1), pl.col("first_value"), limit)).fill_null(0.0)
    return rows.with_columns(growth=pl.col("increase") + across, limit=limit)
