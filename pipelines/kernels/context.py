"""Flags from a minute's context: the hour of plain minutes before it, of the post itself and of its neighbours.

Plain minutes are the state before these tests, so a late minute changes the flags of the next hour, once, and no
further. Step and persistence limits are WMO/TD-1236's (Zahumensky 2004). The spike test is QARTOD's, with the past
only: how far a value lies off what the minutes before lead to expect, on the scale of the hour's own one-minute
changes. What the neighbours do at the same minute widens the limits, so that a squall or a front is no spike.

Where two values of a message contradict each other and the hour refuses only one of them, it clears the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from contracts.quality import AT_LEAST, CONTEXT_MINUTES, LIMITS, AtLeast, ContextTest, Limits
from contracts.quantities import QUANTITIES, Aggregation, Flag
from contracts.schemas import FLAGS
from contracts.times import MINUTE_US
from pipelines.kernels.expectation import Mask, Matrix, Posts, expectation, less, of_others, spread_but_one, widening
from pipelines.kernels.frames import conform, empty

PLAIN = ("post_id", "quantity", "window_start", "plain_count", "plain_last", "plain_min", "plain_max")
PRESENT_SHARE = 0.8
_AT_ONCE = 64  # minutes; what is sorted for so many stays small


def flags(plain: pl.DataFrame, wanted: Iterable[int], areas: Mapping[str, str]) -> pl.DataFrame:
    """Rows of FLAGS of the wanted minutes (minutes since 1970).

    `plain` holds the columns PLAIN of MINUTES, of the wanted minutes and of CONTEXT_MINUTES before each; `areas` the
    area of each post. Posts of no area have no neighbours.
    """
    chosen = set(wanted)
    found = [empty(FLAGS)]
    rows = plain.filter((pl.col("plain_count") > 0) & pl.col("quantity").is_in(list(LIMITS))).select(
        "post_id",
        "quantity",
        "plain_last",
        "plain_min",
        "plain_max",
        minute=pl.col("window_start").dt.epoch("us") // MINUTE_US,
    )
    posts = rows["post_id"].unique().sort()
    rows = rows.with_columns(at=pl.col("post_id").replace_strict(posts, pl.int_range(len(posts), eager=True)))
    named = [areas.get(post) for post in posts]
    for first, last in _spans(chosen):
        span = rows.filter(pl.col("minute").is_between(first - CONTEXT_MINUTES, last))
        judged = {
            str(name): _of_quantity(part, LIMITS[str(name)], first, last, posts.to_list(), named)
            for (name,), part in span.group_by("quantity")
        }
        found += [rows for one in judged.values() for rows in one.rows]
        for pair in AT_LEAST:
            if pair.greater in judged and pair.lesser in judged:
                found += _cleared(pair, judged[pair.greater], judged[pair.lesser], first, posts.to_list())
    every = pl.concat(found)
    return every.filter((pl.col("window_start").dt.epoch("us") // MINUTE_US).is_in(list(chosen)))


def _spans(minutes: Iterable[int]) -> list[tuple[int, int]]:
    """Minutes as spans (first, last) of at most _AT_ONCE; short gaps are bridged."""
    spans: list[tuple[int, int]] = []
    for minute in sorted(minutes):
        if spans and minute - spans[-1][0] < _AT_ONCE:
            spans[-1] = spans[-1][0], minute
        else:
            spans.append((minute, minute))
    return spans


@dataclass(frozen=True, eq=False)
class _Judged:
    """Wanted minutes of a quantity as the hour judged them: matrices of the posts (by number) `at` x minutes, and rows
    of FLAGS. `low` and `high` are the narrowest limits, NaN where the context is too thin to say."""

    at: NDArray[np.intp]
    least: Matrix
    greatest: Matrix
    low: Matrix
    high: Matrix
    is_refused: Mask
    rows: list[pl.DataFrame]


def _of_quantity(
    rows: pl.DataFrame, limits: Limits, first: int, last: int, ids: Sequence[str], areas: Sequence[str | None]
) -> _Judged:
    known, at = np.unique(rows["at"].to_numpy(), return_inverse=True)
    begin = first - CONTEXT_MINUTES
    columns = rows["minute"].to_numpy() - begin
    values, least, greatest = (np.full((len(known), last - begin + 1), np.nan) for _ in range(3))
    for matrix, name in ((values, "plain_last"), (least, "plain_min"), (greatest, "plain_max")):
        matrix[at, columns] = rows[name].to_numpy()
    named = np.array([areas[number] or "" for number in known])
    groups = [np.flatnonzero(named == area) for area in np.unique(named) if area]
    posts = [ids[number] for number in known]
    is_refused = _still(values, least, greatest, limits, groups)
    none = np.full(is_refused.shape, np.nan)
    persistence = ContextTest.PERSISTENCE, Flag.SUSPECT
    parts = [_rows(is_refused, none, none, first, posts, limits.quantity, *persistence)]
    quantity = QUANTITIES[limits.quantity]
    is_circular = quantity.aggregation is Aggregation.CIRCULAR
    if is_circular:
        # calm air has no direction, and several directions of a minute have no least and no greatest
        values = np.where(values == 0, np.nan, values)
        least = greatest = values
    accepted = _accepted(values, limits, quantity.resolution, is_circular, groups)
    for (test, flag), (low, high) in accepted.items():
        is_out = _is_out(least, greatest, low, high, is_circular)
        parts.append(_rows(is_out, low, high, first, posts, limits.quantity, test, flag))
        is_refused = is_refused | is_out
    low, high = accepted[ContextTest.SPIKE, Flag.SUSPECT]
    now = least[:, CONTEXT_MINUTES:], greatest[:, CONTEXT_MINUTES:]
    return _Judged(known, *now, low, high, is_refused, parts)


def _cleared(pair: AtLeast, greater: _Judged, lesser: _Judged, first: int, ids: Sequence[str]) -> list[pl.DataFrame]:
    """Rows of FLAGS for minutes in which the pair contradict each other and the hour refuses one and accepts the other:
    so it was the one that was wrong."""
    both, in_greater, in_lesser = np.intersect1d(greater.at, lesser.at, assume_unique=True, return_indices=True)
    is_against = greater.least[in_greater] < lesser.greatest[in_lesser] - pair.tolerance
    posts, consistency = [ids[number] for number in both], (ContextTest.CONSISTENCY, Flag.GOOD)
    parts = []
    for name, one, of, other, by in (
        (pair.greater, greater, in_greater, lesser, in_lesser),
        (pair.lesser, lesser, in_lesser, greater, in_greater),
    ):
        low, high = one.low[of], one.high[of]
        is_accepted = (low <= one.least[of]) & (one.greatest[of] <= high) & ~one.is_refused[of]
        is_cleared = is_against & is_accepted & other.is_refused[by]
        parts.append(_rows(is_cleared, low, high, first, posts, name, *consistency))
    return parts


def contradicted(plain: pl.DataFrame) -> pl.DataFrame:
    """Keys (post_id, quantity, window_start) of those minutes in `plain` (as for `flags`) that the hour may have
    cleared of a contradiction, or may clear: a message of theirs may hold the pair."""
    cell = ["post_id", "window_start"]
    found = []
    for pair in AT_LEAST:
        greater, lesser = (
            plain.filter((pl.col("quantity") == name) & (pl.col("plain_count") > 0)).select(*cell, column)
            for name, column in ((pair.greater, "plain_min"), (pair.lesser, "plain_max"))
        )
        is_against = pl.col("plain_min") < pl.col("plain_max") - pair.tolerance
        cells = greater.join(lesser, on=cell).filter(is_against)
        found += [
            cells.select("post_id", pl.lit(name).alias("quantity"), "window_start")
            for name in (pair.greater, pair.lesser)
        ]
    return pl.concat(found)


def _accepted(
    values: Matrix, limits: Limits, resolution: float, is_circular: bool, groups: Sequence[Posts]
) -> dict[tuple[ContextTest, int], tuple[Matrix, Matrix]]:
    """Per test and its flag the least and greatest value that it accepts, of posts and wanted minutes."""
    expected = expectation(values, limits, resolution, is_circular)
    off = less(values[:, CONTEXT_MINUTES:], expected.newest, is_circular)
    below, above = (expected.low - off) / expected.width, (off - expected.high) / expected.width
    # only what would be flagged needs to know how its neighbours do
    low = expected.newest + expected.low - expected.width * widening(below, below > 1, groups)
    high = expected.newest + expected.high + expected.width * widening(above, above > 1, groups)
    found = {(ContextTest.SPIKE, Flag.SUSPECT): (low, high)}
    if limits.step_fail is not None:
        found[ContextTest.STEP, Flag.FAIL] = (
            np.minimum(low, expected.newest + expected.low - limits.step_fail),
            np.maximum(high, expected.newest + expected.high + limits.step_fail),
        )
    return found


def _is_out(least: Matrix, greatest: Matrix, low: Matrix, high: Matrix, is_circular: bool) -> Mask:
    """As `is_outside` judges the values themselves."""
    least, greatest = least[:, CONTEXT_MINUTES:], greatest[:, CONTEXT_MINUTES:]
    if is_circular:
        off: Matrix = np.abs((least - (low + high) / 2 + 180) % 360 - 180)
        return off > (high - low) / 2
    return (least < low) | (greatest > high)


def _still(values: Matrix, least: Matrix, greatest: Matrix, limits: Limits, groups: Sequence[Posts]) -> Mask:
    """Per post and wanted minute: the hour that ends with it has not varied by more than `still`, but for one minute (a
    stuck sensor may have a spike)."""
    now = values[:, CONTEXT_MINUTES:]
    if limits.still is None:
        return np.zeros(now.shape, bool)
    spread = spread_but_one(least, greatest, CONTEXT_MINUTES)[:, 1:]
    known = np.cumsum(~np.isnan(values), axis=1)
    present = known[:, CONTEXT_MINUTES:] - known[:, :-CONTEXT_MINUTES]
    is_still = (present >= PRESENT_SHARE * CONTEXT_MINUTES) & (spread <= limits.still) & ~np.isnan(now)
    may = np.zeros(now.shape, bool)
    if limits.still_above is not None:
        may |= now >= limits.still_above
    if limits.still_below is not None:
        may |= now <= limits.still_below
    if limits.still_neighbours is not None:
        may &= ~(of_others(spread, 0.5, is_still & may, groups) > limits.still_neighbours)
    stuck: Mask = is_still & ~may
    return stuck


def _rows(
    is_out: Mask,
    low: Matrix,
    high: Matrix,
    first: int,
    posts: Sequence[str],
    quantity: str,
    test: ContextTest,
    flag: int,
) -> pl.DataFrame:
    at, column = np.nonzero(is_out)
    if not len(at):
        return empty(FLAGS)
    bounds = {"accepted_low": low, "accepted_high": high}
    frame = pl.DataFrame(
        {
            "window_start": (first + column) * MINUTE_US,
            "post_id": [posts[row] for row in at.tolist()],
            **{name: pl.Series(bound[at, column], nan_to_null=True) for name, bound in bounds.items()},
        }
    ).with_columns(quantity=pl.lit(quantity), test=pl.lit(test.value), flag=pl.lit(flag))
    return conform(frame, FLAGS)


def bounds(found: pl.DataFrame) -> pl.DataFrame:
    """FLAGS to one row per post, quantity and minute that a test speaks against: `accepted_low` and `accepted_high`
    that all its tests accept; both null where none is accepted."""
    is_none = pl.col("accepted_low").is_null().any()
    return (
        found.filter(pl.col("flag") > Flag.GOOD)
        .group_by("post_id", "quantity", "window_start")
        .agg(
            accepted_low=pl.when(~is_none).then(pl.col("accepted_low").max()),
            accepted_high=pl.when(~is_none).then(pl.col("accepted_high").min()),
        )
    )


def clearings(found: pl.DataFrame) -> pl.DataFrame:
    """FLAGS to those minutes that are cleared: `cleared_low` and `cleared_high`, between which a suspect value is
    good."""
    return found.filter(pl.col("flag") == Flag.GOOD).select(
        "post_id", "quantity", "window_start", cleared_low="accepted_low", cleared_high="accepted_high"
    )


def is_outside(is_circular: pl.Expr) -> pl.Expr:
    """Whether `value` lies outside `accepted_low`..`accepted_high`; true where these are null. Limits of directions
    are an arc: they may go below 0 and over 360."""
    value, low, high = pl.col("value"), pl.col("accepted_low"), pl.col("accepted_high")
    off = (value - (low + high) / 2 + 180) % 360 - 180
    outside = pl.when(is_circular).then(off.abs() > (high - low) / 2).otherwise((value < low) | (value > high))
    return outside.fill_null(value=True)
