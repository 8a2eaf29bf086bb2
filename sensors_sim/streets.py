"""People: crossings of a counting line, and illegal dumping at night."""

import numpy as np

from sensors_sim import showers, sky
from sensors_sim.city import City
from sensors_sim.hashing import Floats, Ints, mix, normal, uniform

KINDS = ("household", "construction", "bulky", "other")


def crossings(city: City, posts: Ints, start_us: Ints) -> tuple[Ints, Ints]:
    """(in, out) crossings in the half-minute that starts then: office hours and lunch on weekdays, afternoons and
    evenings at tourist spots and weekends, fewer in rain. Inwards prevails in the morning, outwards in the evening."""
    middle_us = start_us + 15_000_000
    hours = sky.hour(middle_us)
    weekend = sky.is_weekend(middle_us)
    tourists = city.tourists[posts]
    work = np.where(weekend, 0.25, 1.0) * (
        9 * _peak(hours, 8.7, 0.9) + 8 * _peak(hours, 12.9, 0.8) + 9 * _peak(hours, 18.4, 1.0)
    )
    leisure = np.where(weekend, 1.5, 1.0) * tourists * (5 * _peak(hours, 15.5, 2.8) + 6 * _peak(hours, 20.2, 2.0))
    local = 0.5 + 1.2 * uniform(city.salted(posts, "pavement"), 0) ** 2
    rain = 1 - 0.5 * np.minimum(1.0, showers.intensity_mm_h(city, posts, middle_us) / 8.0)
    mean = (0.3 + work + leisure) * local * rain
    inwards = 0.5 + 0.18 * np.tanh((13.0 - hours) / 4)
    keys = mix(city.salted(posts, "steps"), start_us)
    return _count(mean * inwards, keys, 0), _count(mean * (1 - inwards), keys, 8)


def dumping(city: City, posts: Ints, hour_number: Ints) -> tuple[Ints, Ints, Ints, Floats]:
    """Events of each post in its hour (hours since 1970): (index into posts, time_us, kind, confidence).

    At most one per post and hour: about one post-hour of 150 between 22:00 and 05:00, one of 5,000 by day.
    """
    keys = mix(city.salted(posts, "dumping"), hour_number)
    time_us = hour_number * sky.HOUR_US + (uniform(keys, 1) * sky.HOUR_US).astype(np.int64)
    at_night = (sky.hour(time_us) >= 22) | (sky.hour(time_us) < 5)
    found = np.flatnonzero(uniform(keys, 0) < np.where(at_night, 1 / 150, 1 / 5000))
    kind = (uniform(keys[found], 2)[:, None] >= np.array([0.5, 0.7, 0.9])).sum(axis=1)
    return found, time_us[found], kind, np.round(0.55 + 0.44 * uniform(keys[found], 3), 2)


def _peak(hours: Floats, at: float, width: float) -> Floats:
    away = (hours - at + 12.0) % 24.0 - 12.0
    peak: Floats = np.exp(-0.5 * (away / width) ** 2)
    return peak


def _count(mean: Floats, keys: "np.ndarray[tuple[int], np.dtype[np.uint64]]", number: int) -> Ints:
    """A count around a mean: Poisson in the normal approximation of its square root (Anscombe 1948)."""
    root = 2 * np.sqrt(mean + 0.375) + normal(keys, number)
    return np.maximum(0, np.rint((np.maximum(root, 0.0) / 2) ** 2 - 0.375)).astype(np.int64)
