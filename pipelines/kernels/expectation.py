"""What the minutes before lead to expect of a minute's value, and what the neighbours say about it.

Matrices are posts x minutes, NaN where there is no value; the first CONTEXT_MINUTES columns are context only, and a
result has a column for each of the others. No result depends on which other minutes are computed beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from contracts.quality import CONTEXT_MINUTES, FEWEST_NEIGHBOURS, Limits

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
Posts = NDArray[np.intp]

EXPECTED_FROM = 5
FEWEST_CHANGES = 10
# the scatter of the changes is read at two quantiles of their sizes: robust against some spikes within the hour, and
# steadier than the median alone; each is divided by what it is for a normal variable of scatter 1
_SHARES = (0.7, 0.92)
_NORMAL = tuple(NormalDist().inv_cdf((1 + share) / 2) for share in _SHARES)
# where a tenth of the neighbours are half way to their limits, the weather is moving: limits widen with them
_NEIGHBOURS_SHARE = 0.9
_NEIGHBOURS_REACH = 2.0


@dataclass(frozen=True, eq=False)
class Expectation:
    """Values from `newest + low - width` to `newest + high + width` are expected; NaN where the context is too thin to
    say. `width` is in proportion to the hour's own scatter."""

    newest: Matrix
    low: Matrix
    high: Matrix
    width: Matrix


def less(value: Matrix, other: Matrix, is_circular: bool) -> Matrix:
    """value - other; of directions the smaller way round."""
    difference = value - other
    return (difference + 180) % 360 - 180 if is_circular else difference


def expectation(values: Matrix, limits: Limits, resolution: float, is_circular: bool) -> Expectation:
    """From the last values of the minutes.

    A value may be where the newest one is, or where the middle of the newest three is (which a single spike does not
    move), each carried on along the slope of the last four changes where the quantity has a trend.
    """
    changes = np.full_like(values, np.nan)
    changes[:, 1:] = less(values[:, 1:], values[:, :-1], is_circular)
    newest, second, third = _nearest([_back(values, minutes) for minutes in range(1, EXPECTED_FROM + 1)])
    one, other = less(second, newest, is_circular), less(third, newest, is_circular)
    middle = np.maximum(np.minimum(one, other), np.minimum(np.maximum(one, other), 0))
    low, high = np.minimum(middle, 0), np.maximum(middle, 0)
    if limits.has_trend:
        slope = _slope([_back(changes, minutes) for minutes in range(1, 5)])
        carried = slope, middle + 2 * slope
        low, high = np.minimum(low, np.minimum(*carried)), np.maximum(high, np.maximum(*carried))
    scale = np.maximum(limits.noise, _scatter(np.abs(changes)))
    return Expectation(newest, low, high, limits.spike_scales * scale + resolution / 2)


def _back(matrix: Matrix, minutes: int) -> Matrix:
    """So many minutes before each."""
    return matrix[:, CONTEXT_MINUTES - minutes : matrix.shape[1] - minutes]


def _nearest(recent: Sequence[Matrix]) -> Matrix:
    """The newest three that are present, newest first; NaN where there are fewer."""
    found = np.stack(recent[:3])
    with_holes = np.isnan(found).any(axis=0)
    if with_holes.any():
        rows = np.stack([matrix[with_holes] for matrix in recent])
        order = np.argsort(np.isnan(rows), axis=0, kind="stable")[:3]
        found[:, with_holes] = np.take_along_axis(rows, order, axis=0)
    return found


def _slope(changes: Sequence[Matrix]) -> Matrix:
    """The median of four changes; 0 where one is missing."""
    a, b, c, d = changes
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return np.nan_to_num((low + high) / 2)


def _scatter(sizes: Matrix) -> Matrix:
    """The standard deviation of the changes of the hour before, from quantiles of their sizes; NaN for too few."""
    length = CONTEXT_MINUTES - 1
    # sorting is nearly all of the kernel's cost, and single precision halves it
    single = np.where(np.isnan(sizes[:, 1:]), np.inf, sizes[:, 1:]).astype(np.float32)
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(single, length, axis=1)[:, :-1], axis=-1)
    known = np.cumsum(np.pad(np.isfinite(single), ((0, 0), (1, 0))), axis=1)
    count = (known[:, length:] - known[:, :-length])[:, :-1]
    found = np.zeros(count.shape)
    for share, normal in zip(_SHARES, _NORMAL, strict=True):
        found += _quantile(ordered, count, share) / normal / len(_SHARES)
    return np.where(count >= FEWEST_CHANGES, found, np.nan)


def _quantile(ordered: NDArray[np.float32], count: NDArray[np.intp], share: float) -> Matrix:
    """Linear quantile along the last axis of the first `count` ordered values, at least one."""
    place = share * np.maximum(count - 1, 0)
    low = np.floor(place).astype(np.intp)
    below, above = (
        np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0].astype(np.float64)
        for at in (low, np.ceil(place).astype(np.intp))
    )
    with np.errstate(invalid="ignore"):
        return below + (above - below) * (place - low)


def widening(off: Matrix, of: Mask, groups: Sequence[Posts]) -> Matrix:
    """By how much to multiply widths where `of` asks, at least 1; `off` is how many widths each value lies off what is
    expected of it, on one side."""
    found = np.ones_like(off)
    moved = _NEIGHBOURS_REACH * of_others(off, _NEIGHBOURS_SHARE, of, groups)
    return np.fmax(found, moved, where=of, out=found)


def of_others(values: Matrix, share: float, of: Mask, groups: Sequence[Posts]) -> Matrix:
    """The linear quantile of the other posts' values of the same group and minute, where `of` asks; NaN elsewhere and
    where fewer than FEWEST_NEIGHBOURS have one."""
    found = np.full_like(values, np.nan)
    for group in groups:
        at, minute = np.nonzero(of[group])
        if not len(at):
            continue
        minutes, row = np.unique(minute, return_inverse=True)
        ordered = np.sort(values[np.ix_(group, minutes)].T, axis=1)  # NaNs come last
        own = values[group[at], minute]
        count = (~np.isnan(ordered)).sum(axis=1)[row] - ~np.isnan(own)
        place = share * np.maximum(count - 1, 0)
        low = np.floor(place).astype(np.intp)
        below, above = (_without(ordered, row, own, index) for index in (low, np.ceil(place).astype(np.intp)))
        found[group[at], minute] = np.where(count >= FEWEST_NEIGHBOURS, below + (above - below) * (place - low), np.nan)
    return found


def _without(ordered: Matrix, row: Posts, own: NDArray[np.float64], index: Posts) -> NDArray[np.float64]:
    """Ordered values by index, counted as if each row's own value were taken out."""
    there = ordered[row, index]
    after = ordered[row, np.minimum(index + 1, ordered.shape[1] - 1)]
    return np.where((there < own) | np.isnan(own), there, after)


def spread_but_one(least: Matrix, greatest: Matrix, length: int) -> Matrix:
    """Of each `length` columns in a row, greatest less least value without the one column that is furthest off; NaN
    where fewer than two have values."""
    (high, higher), (low, lower) = _two_greatest(greatest, length), _two_greatest(-least, length)
    # -low is the least value, -lower the next
    return np.fmin(higher + low, high + lower)


def _two_greatest(matrix: Matrix, length: int) -> tuple[Matrix, Matrix]:
    """The greatest and the second greatest value of each `length` columns in a row; NaN where there is none."""
    wide = matrix.shape[1] - length + 1
    first = second = np.full((matrix.shape[0], wide), np.nan)
    best, next_best, size, at = matrix, np.full_like(matrix, np.nan), 1, 0
    while size <= length:
        if length & size:  # blocks of these sizes, side by side, make up the length
            first, second = _merged(first, second, best[:, at : at + wide], next_best[:, at : at + wide])
            at += size
        best, next_best = _merged(best[:, :-size], next_best[:, :-size], best[:, size:], next_best[:, size:])
        size *= 2
    return first, second


def _merged(first: Matrix, second: Matrix, other: Matrix, other_second: Matrix) -> tuple[Matrix, Matrix]:
    rest = np.where(np.isnan(first) | np.isnan(other), np.nan, np.minimum(first, other))
    return np.fmax(first, other), np.fmax(rest, np.fmax(second, other_second))
