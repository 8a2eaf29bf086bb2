"""Storms stay: what showers and squalls of the simulated city do to good values is not taken for a fault."""

import numpy as np
import pytest

from contracts.quality import LIMITS
from contracts.quantities import QUANTITIES, Aggregation
from pipelines.kernels.context import _accepted, _is_out
from pipelines.kernels.expectation import Mask, Posts
from sensors_sim import showers, sky
from sensors_sim.city import city_of
from sensors_sim.fleet import build
from sensors_sim.signals import value

MINUTES = 300


def stormy_day(seed: int) -> int:
    """The start of five wet hours."""
    days = range(20_600, 20_680)
    fallen = {day: sum(one.peak_mm_h * one.length_us for one in showers.of_day(seed, day)) for day in days}
    day = max(fallen, key=lambda day: fallen[day])
    hardest = max(showers.of_day(seed, day), key=lambda one: one.peak_mm_h * one.radius_m)
    return hardest.start_us - 150 * 60_000_000 - hardest.start_us % sky.HOUR_US % 60_000_000


@pytest.mark.parametrize("quantity", ["temperature_c", "humidity_pct", "wind_speed_ms", "wind_gust_ms", "uv_index"])
def test_a_storms_extremes_survive(quantity: str) -> None:
    posts = build(120, 1, False).lampposts
    city, start_us = city_of(posts, 4), stormy_day(4)
    times = start_us + 60_000_000 * np.arange(MINUTES)
    shape = len(posts), MINUTES
    every = np.repeat(np.arange(len(posts)), MINUTES), np.tile(times, len(posts))
    values = value(city, quantity, *every).reshape(shape)
    rain = showers.intensity_mm_h(city, *every).reshape(shape)[:, 60:]
    areas = np.array([post.area for post in posts])
    groups = [np.flatnonzero(areas == area) for area in np.unique(areas)]
    row = QUANTITIES[quantity]

    def flagged(neighbours: list[Posts]) -> Mask:
        is_circular = row.aggregation is Aggregation.CIRCULAR
        limits = _accepted(values, LIMITS[quantity], row.resolution, is_circular, neighbours)
        is_out = np.zeros((len(posts), MINUTES - 60), bool)
        for low, high in limits.values():
            is_out |= _is_out(values, values, low, high, is_circular)
        return is_out

    wet = rain > 5
    assert wet.sum() > 200
    found = flagged(groups)
    assert found[wet].mean() <= 0.01
    # the extremes themselves: the ten greatest and the ten least values that fell in the rain
    now = np.where(wet, values[:, 60:], np.nan)
    order = np.argsort(now[wet])
    # (a gust is one post's own: the neighbours cannot speak for every one of them)
    assert found[wet][np.r_[order[:10], order[-10:]]].sum() <= 1
    # without neighbours more of the storm would be flagged, or nothing is flagged at all
    alone = flagged([])
    assert alone[wet].sum() >= found[wet].sum()
    if quantity in ("temperature_c", "humidity_pct", "uv_index"):
        assert alone[wet].sum() > 2 * found[wet].sum()
