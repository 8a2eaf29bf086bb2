"""Weather at a post: what the city shares, what the street changes, and the sensor's own small noise."""

import numpy as np

from sensors_sim import showers, sky
from sensors_sim.city import City
from sensors_sim.hashing import Floats, Ints, normal, smooth, uniform


def _own(city: City, posts: Ints, name: str) -> Floats:
    """A fixed number of the post, -1 to 1."""
    return 2 * uniform(city.salted(posts, name), 0) - 1


def _jitter(city: City, posts: Ints, time_us: Ints, name: str) -> Floats:
    return normal(city.salted(posts, name), time_us)


def temperature_c(city: City, posts: Ints, time_us: Ints) -> Floats:
    """Hong Kong's year (16 to 29 degC, monthly normals of the Observatory), a day's swing, showers that cool."""
    year = 23.5 - 6.2 * np.cos(2 * np.pi * (sky.season(time_us) - 0.06))
    swing = 2.4 * np.cos(2 * np.pi * (sky.hour(time_us) - 14.5) / 24)
    weather = 1.6 * smooth(city.key("air mass"), time_us, 6 * 3600.0)
    street = 0.7 * _own(city, posts, "warm") + 0.25 * smooth(city.salted(posts, "eddy"), time_us, 600.0)
    cooled = 2.5 * np.minimum(1.0, showers.intensity_mm_h(city, posts, time_us) / 15.0)
    return year + swing + weather + street - cooled + 0.05 * _jitter(city, posts, time_us, "temperature")


def humidity_pct(city: City, posts: Ints, time_us: Ints) -> Floats:
    """From the temperature and a slowly changing dew point (Magnus formula, WMO-No. 8 annex 4.B); wet in showers."""
    temperature = temperature_c(city, posts, time_us)
    dew_point = (
        18.0
        - 7.5 * np.cos(2 * np.pi * (sky.season(time_us) - 0.06))
        + 2.0 * smooth(city.key("dew"), time_us, 8 * 3600.0)
    )
    wet = np.minimum(1.0, showers.intensity_mm_h(city, posts, time_us) / 10.0)
    dry = 100 * np.exp(17.62 * dew_point / (243.12 + dew_point) - 17.62 * temperature / (243.12 + temperature))
    moist: Floats = np.clip(dry + wet * (97 - dry) + 0.3 * _jitter(city, posts, time_us, "humidity"), 15.0, 100.0)
    return moist


def wind_speed_ms(city: City, posts: Ints, time_us: Ints) -> Floats:
    """The city's wind, stronger by day, halved or more between buildings."""
    city_wind = (
        3.4
        + 1.3 * smooth(city.key("wind"), time_us, 3 * 3600.0)
        + 0.8 * np.sin(2 * np.pi * (sky.hour(time_us) - 9) / 24)
    )
    street = 0.65 + 0.3 * _own(city, posts, "shelter")
    gusty = 1 + 0.25 * smooth(city.salted(posts, "turbulence"), time_us, 120.0)
    shower = 1 + 0.6 * np.minimum(1.0, showers.intensity_mm_h(city, posts, time_us) / 20.0)
    return np.maximum(0.0, city_wind * street * gusty * shower)


def wind_direction_deg(city: City, posts: Ints, time_us: Ints) -> Floats:
    """Easterly on the whole, steered by the street; 0 when calm (below 0.05 m/s), else 1 to 360."""
    turning = 85 + 35 * smooth(city.key("direction"), time_us, 5 * 3600.0)
    street = 25 * _own(city, posts, "street") + 12 * smooth(city.salted(posts, "veer"), time_us, 180.0)
    degrees = np.rint(turning + street) % 360
    calm = wind_speed_ms(city, posts, time_us) < 0.05
    return np.where(calm, 0.0, np.where(degrees == 0, 360.0, degrees))


def wind_gust_ms(city: City, posts: Ints, time_us: Ints) -> Floats:
    """The minute's greatest 3-second wind: never below the mean, by a gust factor of 1.3 to 2."""
    factor = 1.3 + 0.7 * uniform(city.salted(posts, "gust"), time_us)
    return wind_speed_ms(city, posts, time_us) * factor


def rain_mm(city: City, posts: Ints, time_us: Ints) -> Floats:
    """The tipping bucket's counter; the sensor starts it anew at Hong Kong midnight."""
    return np.floor(showers.fallen_mm(city, posts, time_us) / 0.2) * 0.2


def uv_index(city: City, posts: Ints, time_us: Ints) -> Floats:
    """12.5 times the sine of the sun's height to the power 2.42 (Madronich 2007, at 300 DU), less under clouds."""
    sun = np.maximum(0.0, sky.sun_sine(city.latitude[posts], city.longitude[posts], time_us))
    clouds = 0.78 + 0.18 * np.tanh(smooth(city.key("clouds"), time_us, 3600.0))
    shade = 0.9 + 0.1 * _own(city, posts, "shade")
    rain = 1 - 0.7 * np.minimum(1.0, showers.intensity_mm_h(city, posts, time_us) / 10.0)
    return 12.5 * sun**2.42 * clouds * shade * rain


def pressure_hpa(city: City, posts: Ints, time_us: Ints) -> Floats:
    """Winter high, summer low, the half-day tide of 1.3 hPa, passing systems."""
    year = 1013.0 + 7.0 * np.cos(2 * np.pi * (sky.season(time_us) - 0.03))
    tide = 1.3 * np.cos(4 * np.pi * (sky.hour(time_us) - 10) / 24)
    return (
        year
        + tide
        + 3.0 * smooth(city.key("systems"), time_us, 18 * 3600.0)
        + 0.4 * _own(city, posts, "level")
        + 0.03 * _jitter(city, posts, time_us, "pressure")
    )
