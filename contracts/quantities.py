"""Every quantity that a lamppost measures: one row each. A new sensor is a new row here, not a migration.

Schemas, payload fields, wide views, feeds, flags and the data dictionary are rendered from this table.
"""

from dataclasses import dataclass
from enum import StrEnum


class Aggregation(StrEnum):
    """How readings of a quantity become one value of a window."""

    MEAN = "mean"
    CIRCULAR = "circular"  # direction of the mean unit vector of what is not calm, (0, 360]; 0: all is calm
    ENERGY = "energy mean"  # of levels in dB: 10 lg of the mean of 10^(value/10)
    SUM = "sum"
    COUNTER = "counter difference"  # growth of a counter that may reset to zero
    MAXIMUM = "maximum"


class Flag:
    """QARTOD quality flags (IOOS, Manual for Real-Time Quality Control)."""

    GOOD = 1
    NOT_EVALUATED = 2
    SUSPECT = 3
    FAIL = 4
    MISSING = 9


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One observed property of one stream.

    `low`..`high` is the plausible range, ends included: a value outside keeps its row and gets flag 4.
    `is_open` says whether the exact value leaves as open data.
    """

    name: str
    stream: str
    title: str
    unit: str
    low: float
    high: float
    resolution: float
    aggregation: Aggregation
    description: str
    is_open: bool = True


_M, _C, _S, _K, _X = Aggregation.MEAN, Aggregation.CIRCULAR, Aggregation.SUM, Aggregation.COUNTER, Aggregation.MAXIMUM
_E = Aggregation.ENERGY


def _row(
    name: str,
    stream: str,
    title: str,
    unit: str,
    span: tuple[float, float],
    resolution: float,
    aggregation: Aggregation,
    description: str,
    is_open: bool = True,
) -> Quantity:
    return Quantity(
        name=name,
        stream=stream,
        title=title,
        unit=unit,
        low=span[0],
        high=span[1],
        resolution=resolution,
        aggregation=aggregation,
        description=description,
        is_open=is_open,
    )


# Ranges: WMO/TD-1236 (Zahumensky 2004) narrowed to what a street in Hong Kong can show; traffic: the Transport
# Department's "Traffic speed, volume and road occupancy (raw)" as published.
_ROWS = (
    _row("temperature_c", "weather", "Air temperature", "degC", (-5, 45), 0.1, _M, "Air temperature at sensor height."),
    _row("humidity_pct", "weather", "Relative humidity", "%", (1, 100), 0.1, _M, "Relative humidity of the air."),
    _row("wind_speed_ms", "weather", "Wind speed", "m/s", (0, 75), 0.1, _M, "Mean wind speed over the past minute."),
    _row(
        "wind_direction_deg",
        "weather",
        "Wind direction",
        "deg",
        (0, 360),
        1,
        _C,
        "Direction that the wind comes from, mean of the past minute; 0 when calm, 360 = north. A window's value is "
        "that of the mean unit vector of what is not calm: 0 when all is, null when the directions cancel out.",
    ),
    _row(
        "wind_gust_ms",
        "weather",
        "Wind gust",
        "m/s",
        (0, 100),
        0.1,
        _X,
        "Greatest 3-second running mean of the wind speed in the past minute (WMO-No. 8).",
    ),
    _row(
        "rain_mm",
        "weather",
        "Rainfall",
        "mm",
        (0, 10_000),
        0.2,
        _K,
        "Tipping-bucket counter since the sensor's start, which begins again from 0 at its end, 10,000 mm; a window's "
        "value is the counter's growth.",
    ),
    _row("uv_index", "weather", "UV index", "1", (0, 20), 0.1, _M, "Global solar UV index: 40 m2/W of erythemal UV."),
    _row("pressure_hpa", "weather", "Air pressure", "hPa", (900, 1080), 0.1, _M, "Air pressure at sensor height."),
    _row("no2_ug_m3", "air", "Nitrogen dioxide", "ug/m3", (0, 1000), 0.1, _M, "Concentration of NO2."),
    _row("o3_ug_m3", "air", "Ozone", "ug/m3", (0, 1000), 0.1, _M, "Concentration of O3."),
    _row("so2_ug_m3", "air", "Sulphur dioxide", "ug/m3", (0, 1000), 0.1, _M, "Concentration of SO2."),
    _row("co_ug_m3", "air", "Carbon monoxide", "ug/m3", (0, 50_000), 1, _M, "Concentration of CO."),
    _row("pm2_5_ug_m3", "air", "Fine particles", "ug/m3", (0, 1000), 0.1, _M, "Concentration of PM2.5."),
    _row("pm10_ug_m3", "air", "Respirable particles", "ug/m3", (0, 2000), 0.1, _M, "Concentration of PM10."),
    _row(
        "noise_dba",
        "air",
        "Noise level",
        "dB(A)",
        (25, 130),
        0.1,
        _E,
        "A-weighted equivalent level of the past minute; a window's value is the energy mean of the minutes' levels "
        "(ISO 1996-1). Not open: a short level can show a single vehicle.",
        is_open=False,
    ),
    _row(
        "crossings_in_count",
        "pedestrian",
        "Pedestrians in",
        "1",
        (0, 600),
        1,
        _S,
        "Crossings of the counting line inwards in the half-minute; one crossing adds 1 to exactly one of in and out.",
        is_open=False,
    ),
    _row(
        "crossings_out_count",
        "pedestrian",
        "Pedestrians out",
        "1",
        (0, 600),
        1,
        _S,
        "Crossings of the counting line outwards in the half-minute.",
        is_open=False,
    ),
    _row(
        "vehicle_count",
        "traffic",
        "Vehicles",
        "1",
        (0, 75),
        1,
        _S,
        "Vehicles that passed one lane in the half-minute; every passage counts once.",
        is_open=False,
    ),
    _row(
        "mean_speed_kmh",
        "traffic",
        "Mean speed",
        "km/h",
        (1, 130),
        1,
        _M,
        "Arithmetic mean of the vehicles' spot speeds on one lane.",
        is_open=False,
    ),
    _row(
        "occupancy_pct",
        "traffic",
        "Occupancy",
        "%",
        (0, 100),
        1,
        _M,
        "Share of the half-minute in which the detection zone was covered.",
        is_open=False,
    ),
)

QUANTITIES: dict[str, Quantity] = {row.name: row for row in _ROWS}


def of_stream(stream: str) -> tuple[Quantity, ...]:
    """The quantities of one stream, in the table's order."""
    return tuple(row for row in _ROWS if row.stream == stream)
