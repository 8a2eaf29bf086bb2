"""Hong Kong's clock, calendar and sun."""

import numpy as np

from sensors_sim.hashing import Floats, Ints

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
_OFFSET_US = 8 * HOUR_US  # Hong Kong time has been UTC+8 without summer time since 1979


def day(time_us: Ints) -> Ints:
    """Days since 1970 of the Hong Kong date."""
    return (time_us + _OFFSET_US) // DAY_US


def day_start_us(days: Ints) -> Ints:
    """Midnight of Hong Kong, microseconds UTC."""
    return days * DAY_US - _OFFSET_US


def hour(time_us: Ints) -> Floats:
    """Hour of the Hong Kong day, 0 to 24."""
    hours: Floats = (time_us + _OFFSET_US) % DAY_US / HOUR_US
    return hours


def is_weekend(time_us: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Saturday or Sunday; 1970-01-01 was a Thursday."""
    return np.asarray((day(time_us) + 3) % 7 >= 5, dtype=np.bool_)


def season(time_us: Ints) -> Floats:
    """Part of the solar year since 1 January, 0 to 1."""
    part: Floats = (time_us / DAY_US) % 365.2425 / 365.2425
    return part


def sun_sine(latitude: Floats, longitude: Floats, time_us: Ints) -> Floats:
    """Sine of the sun's height (below the horizon negative), within about 0.01.

    Declination and equation of time after Spencer 1971, "Fourier series representation of the position of the sun".
    """
    g = 2 * np.pi * season(time_us)
    declination = (
        0.006918
        - 0.399912 * np.cos(g)
        + 0.070257 * np.sin(g)
        - 0.006758 * np.cos(2 * g)
        + 0.000907 * np.sin(2 * g)
        - 0.002697 * np.cos(3 * g)
        + 0.00148 * np.sin(3 * g)
    )
    equation_min = 229.18 * (
        0.000075 + 0.001868 * np.cos(g) - 0.032077 * np.sin(g) - 0.014615 * np.cos(2 * g) - 0.040849 * np.sin(2 * g)
    )
    solar_hour = (time_us % DAY_US) / HOUR_US + longitude / 15.0 + equation_min / 60.0
    angle = np.radians(15.0 * (solar_hour - 12.0))
    phi = np.radians(latitude)
    sine: Floats = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(angle)
    return sine
