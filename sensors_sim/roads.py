"""Road traffic: how dense, how fast, and the single passages that a lane summary is made of.

Density follows the clock (rush towards Central in the morning, away from it in the evening, later and flatter at
weekends); speed falls with density as in Greenshields 1935, "A study of traffic capacity", v = v_free (1 - k/k_jam);
flow is density times speed. Rain slows by up to a fifth.
"""

from dataclasses import dataclass

import numpy as np

from contracts.payloads import VEHICLE_CLASSES
from contracts.streams import HALF_MINUTE_S
from sensors_sim import showers, sky
from sensors_sim.city import City
from sensors_sim.hashing import Floats, Ints, mix, normal, smooth, uniform

_JAM_PER_KM = 120.0
_ZONE_M = 2.0  # length of the detection zone, added to each vehicle's in the occupancy
# Shares by day of motorcycle, private car, taxi, light goods, heavy goods, bus, other: Annual Traffic Census order
# of magnitude for urban trunk roads. At night taxis and goods vehicles take over.
_DAY_SHARES = np.array([0.05, 0.45, 0.17, 0.15, 0.07, 0.10, 0.01])
_NIGHT_SHARES = np.array([0.03, 0.33, 0.36, 0.12, 0.09, 0.06, 0.01])
_LENGTH_M = np.array([2.2, 4.5, 4.7, 5.5, 9.5, 11.5, 6.0])
_NO_SPEED = 0.015  # passages that are counted without a speed
_CLASSES = len(VEHICLE_CLASSES)


def density_share(city: City, posts: Ints, inbound: Floats, time_us: Ints) -> Floats:
    """Density as a part of the jam density, 0.002 to 0.75. `inbound`: +1 towards Central, -1 away, 0 both."""
    hours = sky.hour(time_us)
    weekend = sky.is_weekend(time_us)
    morning = np.where(weekend, 0.08, 0.34) * _bump(hours, 8.4, 1.1) * (1 + 0.35 * inbound)
    evening = np.where(weekend, 0.20, 0.32) * _bump(hours, 18.4, 1.5) * (1 - 0.35 * inbound)
    daytime = 0.16 * _bump(hours, 13.5, 4.5) + 0.06 * _bump(hours, 21.5, 2.0)
    # from side streets to arteries: at the peak 880 vehicles an hour and lane on average, at 21:30 about 300 (the
    # recorded Saturday evening of the strategic roads: 500)
    local = 0.65 * (0.25 + uniform(city.salted(posts, "road"), 0))
    swing = 1 + 0.22 * smooth(city.salted(posts, "density"), time_us, 420.0)
    share: Floats = np.clip((0.012 + morning + evening + daytime) * local * swing, 0.002, 0.75)
    return share


def mean_speed_kmh(city: City, posts: Ints, limit_kmh: Floats, share: Floats, time_us: Ints) -> Floats:
    """Speed of the stream at a density, km/h."""
    wet = np.minimum(1.0, showers.intensity_mm_h(city, posts, time_us) / 12.0)
    speed: Floats = 1.06 * limit_kmh * (1 - share) * (1 - 0.2 * wet)
    return speed


def flow_veh_h(limit_kmh: Floats, share: Floats) -> Floats:
    """Vehicles per hour and lane at a density, dry road."""
    flow: Floats = share * _JAM_PER_KM * 1.06 * limit_kmh * (1 - share)
    return flow


@dataclass(frozen=True, eq=False)
class LaneSummaries:
    """One row per message and lane, in the order of the messages and of each post's lanes.

    Speeds in km/h; NaN where no passage had a speed. `sd_kmh` is the population's (divided by n).
    """

    message: Ints
    vehicles: Ints
    classes: Ints  # rows x 7
    speeds: Ints  # passages with a speed
    mean_kmh: Floats
    sd_kmh: Floats
    inverse_h_km: Floats
    occupancy_pct: Floats
    release_sum: Ints


@dataclass(frozen=True, eq=False)
class Passages:
    """Single passages of some lanes and half-minutes; they never leave the simulator. `row` counts the lanes asked
    for; `speed_kmh` is NaN where the detector took none."""

    row: Ints
    kind: Ints
    speed_kmh: Floats


def passages(city: City, lanes: Ints, posts: Ints, start_us: Ints) -> Passages:
    """What passed each lane in the half-minute that starts then."""
    middle_us = start_us + HALF_MINUTE_S * 500_000
    share = density_share(city, posts, city.inbound[lanes], middle_us)
    speed = mean_speed_kmh(city, posts, city.lane_limit_kmh[lanes], share, middle_us)
    keys = mix(city.lane_keys[lanes], start_us)
    counts = _poisson(uniform(keys, 0), share * _JAM_PER_KM * speed * HALF_MINUTE_S / 3600.0)
    row = np.repeat(np.arange(len(lanes)), counts)
    number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    key = keys[row]
    night = 1 - _bump(sky.hour(middle_us), 13.5, 5.0)[row]
    bounds = np.cumsum(_DAY_SHARES) + night[:, None] * np.cumsum(_NIGHT_SHARES - _DAY_SHARES)
    kind = (uniform(key, number * 4 + 1)[:, None] >= bounds[:, :-1]).sum(axis=1)
    spread = 1 + 0.11 * normal(key, number * 4 + 2)
    taken = np.round(np.maximum(3.0, speed[row] * spread), 1)
    missed = uniform(key, number * 4 + 3) < _NO_SPEED
    return Passages(row=row, kind=kind, speed_kmh=np.where(missed, np.nan, taken))


def lane_summaries(city: City, posts: Ints, start_us: Ints) -> LaneSummaries:
    """Summaries of all lanes of each (post, half-minute start), microseconds UTC and aligned.

    `release_sum` is the sum of clamp(round(v), lo, hi) - centre over the passages with a speed, an integer.
    """
    counts = city.lane_count[posts]
    message = np.repeat(np.arange(len(posts)), counts)
    number = np.arange(len(message)) - np.repeat(np.cumsum(counts) - counts, counts)
    lanes = city.lane_first[posts][message] + number
    passed = passages(city, lanes, posts[message], start_us[message])
    rows = len(lanes)
    has_speed = ~np.isnan(passed.speed_kmh)
    row, v = passed.row[has_speed], passed.speed_kmh[has_speed]
    n = np.bincount(row, minlength=rows)
    some = np.maximum(n, 1)
    mean = np.bincount(row, v, rows) / some
    variance = np.bincount(row, (v - mean[row]) ** 2, rows) / some
    clamped = np.clip(np.rint(v), city.release_lo[lanes][row], city.release_hi[lanes][row]).astype(np.int64)
    release = np.bincount(row, clamped - city.release_centre[lanes][row], rows).astype(np.int64)
    # A vehicle without a speed covers the zone as long as one at the lane's mean.
    typical = np.where(n > 0, mean, 40.0)[passed.row]
    seconds = 3.6 * (_LENGTH_M[passed.kind] + _ZONE_M) / np.where(has_speed, passed.speed_kmh, typical)
    return LaneSummaries(
        message=message,
        vehicles=np.bincount(passed.row, minlength=rows),
        classes=np.bincount(passed.row * _CLASSES + passed.kind, minlength=rows * _CLASSES).reshape(rows, _CLASSES),
        speeds=n,
        mean_kmh=np.where(n > 0, np.round(mean, 2), np.nan),
        sd_kmh=np.where(n > 0, np.round(np.sqrt(variance), 2), np.nan),
        inverse_h_km=np.round(np.bincount(row, 1 / v, rows), 6),
        occupancy_pct=np.asarray(
            np.round(np.minimum(100.0, np.bincount(passed.row, seconds, rows) / HALF_MINUTE_S * 100), 1),
            dtype=np.float64,
        ),
        release_sum=release,
    )


def _bump(hours: Floats, peak: float, width: float) -> Floats:
    """A smooth daily peak of height one, around midnight too."""
    away = (hours - peak + 12.0) % 24.0 - 12.0
    bump: Floats = np.exp(-0.5 * (away / width) ** 2)
    return bump


def _poisson(drawn: Floats, mean: Floats) -> Ints:
    """Poisson count by inversion of a uniform, up to 75 (the plausible range of a lane)."""
    counts = np.zeros(len(drawn), dtype=np.int64)
    part = np.exp(-mean)
    below = part.copy()
    for k in range(1, 76):
        above = drawn >= below
        if not above.any():
            break
        counts += above
        part = part * mean / k
        below += part
    return counts
