"""Air quality and noise beside a road: NO2, CO, particles and noise follow the traffic, ozone goes the other way."""

import numpy as np

from sensors_sim import roads, showers, sky
from sensors_sim.city import City
from sensors_sim.hashing import Floats, Ints, normal, smooth


def _share(city: City, posts: Ints, time_us: Ints) -> Floats:
    return roads.density_share(city, posts, np.zeros(len(posts)), time_us)


def _regional(city: City, posts: Ints, time_us: Ints, name: str) -> Floats:
    """Noise that is partly the whole city's and partly the post's, about standard normal."""
    mixed: Floats = 0.8 * smooth(city.key(name), time_us, 5400.0) + 0.6 * smooth(
        city.salted(posts, name), time_us, 900.0
    )
    return mixed


def _washed(city: City, posts: Ints, time_us: Ints) -> Floats:
    washed: Floats = 1 - 0.35 * np.minimum(1.0, showers.intensity_mm_h(city, posts, time_us) / 20.0)
    return washed


def no2_ug_m3(city: City, posts: Ints, time_us: Ints) -> Floats:
    """14 by night to about 110 in a rush hour: the range of the Department's roadside stations."""
    level = 14 + 170 * _share(city, posts, time_us)
    return level * np.exp(0.18 * _regional(city, posts, time_us, "no2"))


def o3_ug_m3(city: City, posts: Ints, time_us: Ints) -> Floats:
    """Made by the sun and used up by the NO of the traffic (titration)."""
    sun = np.maximum(0.0, sky.sun_sine(city.latitude[posts], city.longitude[posts], time_us))
    level = 42 + 70 * sun + 14 * _regional(city, posts, time_us, "o3") - 0.5 * no2_ug_m3(city, posts, time_us)
    return np.maximum(2.0, level)


def so2_ug_m3(city: City, posts: Ints, time_us: Ints) -> Floats:
    """Low, from ships and background."""
    return 5.0 * np.exp(0.3 * _regional(city, posts, time_us, "so2"))


def co_ug_m3(city: City, posts: Ints, time_us: Ints) -> Floats:
    """Background and exhaust."""
    level = 380 + 1500 * _share(city, posts, time_us)
    return level * np.exp(0.12 * _regional(city, posts, time_us, "co"))


def pm2_5_ug_m3(city: City, posts: Ints, time_us: Ints) -> Floats:
    """Regional background, exhaust, less in rain."""
    level = (15 + 28 * _share(city, posts, time_us)) * np.exp(0.3 * _regional(city, posts, time_us, "pm"))
    return level * _washed(city, posts, time_us)


def pm10_ug_m3(city: City, posts: Ints, time_us: Ints) -> Floats:
    """PM2.5 and the road's dust; never below PM2.5."""
    dust = (7 + 40 * _share(city, posts, time_us)) * np.exp(0.2 * _regional(city, posts, time_us, "dust"))
    return pm2_5_ug_m3(city, posts, time_us) + dust * _washed(city, posts, time_us)


def noise_dba(city: City, posts: Ints, time_us: Ints) -> Floats:
    """Ten times the logarithm of the flow, as in CRTN 1988 (Calculation of Road Traffic Noise), with rain's hiss."""
    flow = 2 * roads.flow_veh_h(city.limit_kmh[posts], _share(city, posts, time_us))
    rain = np.minimum(4.0, 0.15 * showers.intensity_mm_h(city, posts, time_us))
    return 42 + 10 * np.log10(flow + 20) + rain + 1.2 * normal(city.salted(posts, "noise"), time_us)
