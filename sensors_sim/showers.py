"""Showers: round cells that rain on several neighbouring posts for some minutes.

Each half hour of a day may start up to two; a cell's rain falls off as a Gaussian of the distance and rises and
ends as a squared sine in time, so what has fallen since midnight has a closed form.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from sensors_sim import sky
from sensors_sim.city import City
from sensors_sim.hashing import Floats, Ints, salt, uniform

_SLOT_US = sky.HOUR_US // 2
_CELLS = 2
_WEST_M, _SOUTH_M, _WIDTH_M, _HEIGHT_M = 831_500.0, 814_000.0, 11_500.0, 8_000.0  # the pilot areas and around
_REACH = 3.0  # radii beyond which a cell is dry


class Shower(NamedTuple):
    """One cell: start and length, centre and radius, greatest intensity in its middle."""

    start_us: int
    length_us: int
    easting_m: float
    northing_m: float
    radius_m: float
    peak_mm_h: float


@lru_cache(maxsize=64)
def of_day(seed: int, day: int) -> tuple[Shower, ...]:
    """The showers that start on one Hong Kong day, in order; all end before midnight."""
    start_us = int(sky.day_start_us(np.array([day], dtype=np.int64))[0])
    summer = 0.5 - 0.5 * np.cos(2 * np.pi * (day % 365.2425) / 365.2425)
    drawn = uniform(salt(seed, "showers", day), np.arange(48 * _CELLS * 7)).reshape(-1, 7)
    found = []
    for number, (chance, when, length, east, north, size, strength) in enumerate(drawn):
        length_us = round((8 + 22 * length) * 60e6)
        begin_us = start_us + number // _CELLS * _SLOT_US + round(when * _SLOT_US)
        if chance < 0.03 + 0.09 * summer and begin_us + length_us < start_us + sky.DAY_US:
            found.append(
                Shower(
                    start_us=begin_us,
                    length_us=length_us,
                    easting_m=float(_WEST_M + east * _WIDTH_M),
                    northing_m=float(_SOUTH_M + north * _HEIGHT_M),
                    radius_m=float(500 + 900 * size),
                    peak_mm_h=float(6 + 64 * strength**3),
                )
            )
    return tuple(sorted(found))


def intensity_mm_h(city: City, posts: Ints, time_us: Ints) -> Floats:
    """Rain at the posts at these moments, mm/h."""
    rain = np.zeros(len(posts))
    for shower, place, share in _overhead(city, posts, time_us, False):
        rain += shower.peak_mm_h * place * np.sin(np.pi * share) ** 2
    return rain


def fallen_mm(city: City, posts: Ints, time_us: Ints) -> Floats:
    """Rain at the posts since Hong Kong midnight, mm: the integral of the intensity."""
    rain = np.zeros(len(posts))
    for shower, place, share in _overhead(city, posts, time_us, True):
        hours = shower.length_us / sky.HOUR_US
        rain += shower.peak_mm_h * place * hours * (share / 2 - np.sin(2 * np.pi * share) / (4 * np.pi))
    return rain


def _overhead(city: City, posts: Ints, time_us: Ints, past: bool) -> Iterator[tuple[Shower, Floats, Floats]]:
    """Each shower with its strength at the posts (0 on other days) and the part of it that is over, 0 to 1."""
    if not len(posts):
        return
    first_us, last_us = int(time_us.min()), int(time_us.max())
    days = sky.day(time_us)
    for day in np.unique(days):
        for shower in of_day(city.seed, int(day)):
            over = not past and shower.start_us + shower.length_us <= first_us
            if shower.start_us >= last_us or over:
                continue
            squared = (city.easting_m[posts] - shower.easting_m) ** 2 + (
                city.northing_m[posts] - shower.northing_m
            ) ** 2
            near = (days == day) & (squared < (_REACH * shower.radius_m) ** 2)
            place = np.where(near, np.exp(-squared / (2 * shower.radius_m**2)), 0.0)
            yield shower, place, np.clip((time_us - shower.start_us) / shower.length_us, 0.0, 1.0)
