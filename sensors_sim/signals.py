"""Every scalar signal by its quantity's name, at the sensor's resolution: the truth at any moment, without running
anything."""

from collections.abc import Callable

import numpy as np

from contracts.quantities import QUANTITIES
from sensors_sim import air, weather
from sensors_sim.city import City
from sensors_sim.hashing import Floats, Ints

Signal = Callable[[City, Ints, Ints], Floats]

SIGNALS: dict[str, Signal] = {
    signal.__name__: signal
    for signal in (
        weather.temperature_c,
        weather.humidity_pct,
        weather.wind_speed_ms,
        weather.wind_direction_deg,
        weather.wind_gust_ms,
        weather.rain_mm,
        weather.uv_index,
        weather.pressure_hpa,
        air.no2_ug_m3,
        air.o3_ug_m3,
        air.so2_ug_m3,
        air.co_ug_m3,
        air.pm2_5_ug_m3,
        air.pm10_ug_m3,
        air.noise_dba,
    )
}


def value(city: City, quantity: str, posts: Ints, time_us: Ints) -> Floats:
    """What a faultless sensor of the quantity shows at these posts and moments (microseconds, UTC), rounded to the
    quantity's resolution and kept in its plausible range. Raises KeyError for a quantity without a signal."""
    row = QUANTITIES[quantity]
    raw = SIGNALS[quantity](city, posts, time_us)
    decimals = 0 if row.resolution >= 1 else 1
    return np.asarray(np.round(np.clip(raw, row.low, row.high), decimals), dtype=np.float64)
