"""Flags from a minute's context: the hour of plain minutes before it, of the post itself and of its neighbours.

Plain minutes are the state before these tests, so a late minute changes the flags of the next hour, once, and no
further. Step and persistence limits are WMO/TD-1236's (Zahumensky 2004). The spike test compares a value with the
median of the five minutes before, on the scale of the hour's own one-minute changes, robustly estimated (1.4826 times
the median absolute change is the standard deviation of a normal one). What the neighbours do at the same minute widens
the limits, so that a squall or a front is no spike.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from contracts.quality import CONTEXT_MINUTES, FEWEST_NEIGHBOURS, LIMITS, ContextTest, Limits
from contracts.quantities import QUANTITIES, Aggregation, Flag
from contracts.schemas import FLAGS
from contracts.times import MINUTE_US
from pipelines.kernels.frames import conform, empty

PLAIN = ("post_id", "quantity", "window_start", "plain_count", "plain_last", "plain_min", "plain_max")
SPIKE_SCALES = 3.0
FEWEST_CHANGES = 10
EXPECTED_FROM = 5
PRESENT_SHARE = 0.8
_NORMAL_80 = 1.2816  # the 80 % quantile of the absolute value of a standard normal variable

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


def flags(plain: pl.DataFrame, wanted: Iterable[int], areas: Mapping[str, str]) -> pl.DataFrame:
    """Rows of FLAGS of the wanted minutes (minutes since 1970).

    `plain` holds the columns PLAIN of MINUTES, of the wanted minutes and of CONTEXT_MINUTES before each; `areas` the
    area of each post. Posts of no area have no neighbours.
    """
    found = [empty(FLAGS)]
    rows = plain.filter(pl.col("plain_count") > 0).with_columns(
        minute=pl.col("window_start").dt.epoch("us") // MINUTE_US
    )
    for first, last in _spans(wanted):
        span = rows.filter(pl.col("minute").is_between(first - CONTEXT_MINUTES, last))
        for (name,), part in span.group_by("quantity"):
            limits = LIMITS.get(str(name))
            if limits is not None:
                found.append(_of_quantity(part, limits, first, last, areas))
    chosen = set(wanted)
    every = pl.concat(found)
    return every.filter((pl.col("window_start").dt.epoch("us") // MINUTE_US).is_in(list(chosen)))


def _spans(minutes: Iterable[int]) -> list[tuple[int, int]]:
    """Minutes as spans (first, last) whose contexts do not overlap much: gaps within the context are bridged."""
    spans: list[tuple[int, int]] = []
    for minute in sorted(set(minutes)):
        if spans and minute - spans[-1][1] <= CONTEXT_MINUTES:
            spans[-1] = spans[-1][0], minute
        else:
            spans.append((minute, minute))
    return spans


def _of_quantity(rows: pl.DataFrame, limits: Limits, first: int, last: int, areas: Mapping[str, str]) -> pl.DataFrame:
    posts = sorted(rows["post_id"].unique().to_list())
    at = np.searchsorted(posts, rows["post_id"].to_list())
    begin = first - CONTEXT_MINUTES
    columns = rows["minute"].to_numpy() - begin
    values, least, greatest = (np.full((len(posts), last - begin + 1), np.nan) for _ in range(3))
    for matrix, name in ((values, "plain_last"), (least, "plain_min"), (greatest, "plain_max")):
        matrix[at, columns] = rows[name].to_numpy()
    still = _still(values, least, greatest, limits)
    is_circular = QUANTITIES[limits.quantity].aggregation is Aggregation.CIRCULAR
    if is_circular:
        # calm air has no direction, and several directions of a minute have no least and no greatest
        values = np.where(values == 0, np.nan, values)
        least = greatest = values
    groups = [
        np.flatnonzero([areas.get(post) == area for post in posts])
        for area in sorted({areas[post] for post in posts if post in areas})
    ]
    expected, before, after, width = _reach(values, limits, groups, is_circular)
    parts = []
    for test, flag, reach in (
        (ContextTest.SPIKE, Flag.SUSPECT, width),
        (ContextTest.STEP, Flag.FAIL, None if limits.step_fail is None else np.maximum(limits.step_fail, width)),
    ):
        if reach is not None:
            is_out = (_less(least[:, CONTEXT_MINUTES:], expected, is_circular) < before - reach) | (
                _less(greatest[:, CONTEXT_MINUTES:], expected, is_circular) > after + reach
            )
            bounds = expected + before - reach, expected + after + reach
            parts.append(_rows(is_out, bounds, first, posts, limits.quantity, test, flag))
    none = np.full_like(expected, np.nan)
    parts.append(_rows(still, (none, none), first, posts, limits.quantity, ContextTest.PERSISTENCE, Flag.SUSPECT))
    return pl.concat(parts)


def _reach(
    values: Matrix, limits: Limits, groups: list[NDArray[np.intp]], is_circular: bool
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Per post and wanted minute: what is expected, how far below and above it the other things lie that a good value
    may follow (the two values before, their line, the neighbours' common shift), and the width around them. NaN where
    the context is too thin to say."""
    count = values.shape[1] - CONTEXT_MINUTES
    context = np.lib.stride_tricks.sliding_window_view(values, CONTEXT_MINUTES + 1, axis=1)  # [..., -1] is the minute
    assert context.shape[1] == count
    newest, before = context[..., -2], context[..., -3]
    recent = context[..., -1 - EXPECTED_FROM : -1]
    # directions as differences from the newest of the five, so that north is no jump
    anchor = _last_present(recent) if is_circular else np.zeros_like(newest)
    centred = _less(recent, anchor[..., None], is_circular)
    expected = anchor + _median(centred, least=2)
    changes = np.abs(_less(context[..., 1:-1], context[..., :-2], is_circular))
    scale = np.maximum(limits.noise, 1.4826 * _median(changes, least=FEWEST_CHANGES))
    now = context[..., -1]
    errors = _less(now, expected, is_circular)
    moves = np.abs(_less(now, newest, is_circular)) / scale
    shift, widening = np.zeros_like(expected), np.ones_like(expected)
    for group in groups:
        for post in group:
            others = group[group != post]
            shift[post] = np.nan_to_num(_median(errors[others].T, least=FEWEST_NEIGHBOURS))
            wide = _quantile(moves[others].T, 0.8, least=FEWEST_NEIGHBOURS) / _NORMAL_80
            widening[post] = np.maximum(1.0, np.nan_to_num(wide))
    followed = [np.zeros_like(expected), shift]
    for other in (newest, before, newest + _less(newest, before, is_circular)):
        followed.append(np.nan_to_num(_less(other, expected, is_circular)))
    together = np.stack(followed)
    return expected, together.min(axis=0), together.max(axis=0), SPIKE_SCALES * scale * widening


def _less(value: Matrix, other: Matrix, is_circular: bool) -> Matrix:
    """value - other; of directions the smaller way round."""
    difference = value - other
    return (difference + 180) % 360 - 180 if is_circular else difference


def _last_present(values: Matrix) -> Matrix:
    """Along the last axis, the last that is not NaN; NaN when none is."""
    newest = values[..., -1].copy()
    for at in range(values.shape[-1] - 2, -1, -1):
        newest = np.where(np.isnan(newest), values[..., at], newest)
    return newest


def _median(values: Matrix, least: int) -> Matrix:
    """Median along the last axis without the NaNs; NaN where fewer than `least` are left."""
    return _quantile(values, 0.5, least)


def _quantile(values: Matrix, share: float, least: int) -> Matrix:
    """Linear quantile along the last axis without the NaNs; NaN where fewer than `least` are left."""
    ordered = np.sort(values, axis=-1)  # NaNs come last
    count = ordered.shape[-1] - np.isnan(ordered).sum(axis=-1)
    if ordered.shape[-1] == 0:
        return np.full(count.shape, np.nan)
    place = share * np.maximum(count - 1, 0)
    low = np.floor(place).astype(np.intp)
    high = np.ceil(place).astype(np.intp)
    below = np.take_along_axis(ordered, low[..., None], axis=-1)[..., 0]
    above = np.take_along_axis(ordered, high[..., None], axis=-1)[..., 0]
    return np.where(count >= least, below + (above - below) * (place - low), np.nan)


def _still(values: Matrix, least: Matrix, greatest: Matrix, limits: Limits) -> Mask:
    """Per post and wanted minute: the hour that ends with it has not varied by more than `still`."""
    hour = CONTEXT_MINUTES

    def hours(matrix: Matrix) -> Matrix:
        return np.lib.stride_tricks.sliding_window_view(matrix, hour, axis=1)[:, 1:]

    now = values[:, CONTEXT_MINUTES:]
    if limits.still is None:
        return np.zeros(now.shape, bool)
    present = hour - np.isnan(hours(values)).sum(axis=-1)
    spread = np.nan_to_num(hours(greatest), nan=-np.inf).max(axis=-1) - np.nan_to_num(hours(least), nan=np.inf).min(
        axis=-1
    )
    is_still = (present >= PRESENT_SHARE * hour) & (spread <= limits.still) & ~np.isnan(now)
    if limits.still_above is not None:
        is_still &= ~(now >= limits.still_above)
    if limits.still_below is not None:
        is_still &= ~(now <= limits.still_below)
    kept: Mask = is_still
    return kept


def _rows(
    is_out: Mask,
    bounds: tuple[Matrix, Matrix],
    first: int,
    posts: list[str],
    quantity: str,
    test: ContextTest,
    flag: int,
) -> pl.DataFrame:
    at, column = np.nonzero(is_out)
    low, high = (
        pl.Series(bound[at, column], dtype=pl.Float64, nan_to_null=True).alias(name)
        for bound, name in zip(bounds, ("accepted_low", "accepted_high"), strict=True)
    )
    frame = pl.DataFrame(
        {
            "window_start": (first + column) * MINUTE_US,
            "post_id": [posts[row] for row in at],
            "accepted_low": low,
            "accepted_high": high,
        },
        schema_overrides={"window_start": pl.Int64, "post_id": pl.String},
    ).with_columns(quantity=pl.lit(quantity), test=pl.lit(test.value), flag=pl.lit(flag))
    return conform(frame, FLAGS)


def bounds(found: pl.DataFrame) -> pl.DataFrame:
    """FLAGS to one row per post, quantity and minute: `accepted_low` and `accepted_high` that all its tests accept;
    both null where none is accepted."""
    is_none = pl.col("accepted_low").is_null().any()
    return found.group_by("post_id", "quantity", "window_start").agg(
        accepted_low=pl.when(~is_none).then(pl.col("accepted_low").max()),
        accepted_high=pl.when(~is_none).then(pl.col("accepted_high").min()),
    )


def is_outside(is_circular: pl.Expr) -> pl.Expr:
    """Whether `value` lies outside `accepted_low`..`accepted_high`; true where these are null. Limits of directions
    are an arc: they may go below 0 and over 360."""
    value, low, high = pl.col("value"), pl.col("accepted_low"), pl.col("accepted_high")
    off = (value - (low + high) / 2 + 180) % 360 - 180
    outside = pl.when(is_circular).then(off.abs() > (high - low) / 2).otherwise((value < low) | (value > high))
    return outside.fill_null(value=True)
