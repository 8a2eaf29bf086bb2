"""Limits of the quality tests that need no registry: one row per quantity, each with its source or reason.

Source: WMO/TD-1236 (Zahumensky 2004), table of 1-minute values; where it says nothing, the resolution of the sensors
and the natural noise of a street. `docs/quality.md` says what the tests find.
"""

from dataclasses import dataclass
from enum import StrEnum

# the context of a minute: this many before it, before flagging, and nothing else
CONTEXT_MINUTES = 60
FEWEST_NEIGHBOURS = 3


class ContextTest(StrEnum):
    """Tests of a minute's values against their context."""

    STEP = "step"
    SPIKE = "spike"
    PERSISTENCE = "persistence"
    CONSISTENCY = "consistency"


@dataclass(frozen=True, kw_only=True)
class AtLeast:
    """Internal consistency: of one message, `greater` is at least `lesser` less the `tolerance`, in their unit."""

    greater: str
    lesser: str
    tolerance: float


# WMO/TD-1236, internal consistency: gust >= mean; wind speed 0 and direction 0 (calm) only together. Fine particles are
# part of the respirable ones; two optical counts of the same air differ by some ug/m3.
AT_LEAST = (
    AtLeast(greater="wind_gust_ms", lesser="wind_speed_ms", tolerance=0.1),
    AtLeast(greater="pm10_ug_m3", lesser="pm2_5_ug_m3", tolerance=5),
)
ZERO_TOGETHER = (("wind_speed_ms", "wind_direction_deg"),)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a quantity's values may do from one minute to the next, in the quantity's unit.

    `noise`: the least natural scatter of one-minute changes; `spike_scales`: how many scatters (the hour's own, at
    least `noise`) a value may lie off what the minutes before lead to expect; `has_trend`: changes go on, so a slope is
    expected to go on too (what jitters has none). `step_fail`: further off is flag 4, None for no such test.
    `still`: over CONTEXT_MINUTES the values must vary by more, None for no such test; `still_above`, `still_below`:
    values that may stand still (calm air, saturated air, a dark sky), unless the median neighbour varied by more than
    `still_neighbours`.
    """

    quantity: str
    noise: float
    spike_scales: float = 3.0
    has_trend: bool = True
    step_fail: float | None = None
    still: float | None = None
    still_above: float | None = None
    still_below: float | None = None
    still_neighbours: float | None = None


# Steps: WMO's "error" column. Persistence: WMO asks for 0.1 degC, 1 %, 0.1 hPa, 0.5 m/s and 10 degrees within the hour;
# `still` is stricter towards us, not the sensor: only a value that does not move at all at its own resolution is
# called stuck, because sheltered posts go below WMO's open-field limits. Scales of spikes: measured (docs/quality.md).
LIMITS: dict[str, Limits] = {
    row.quantity: row
    for row in (
        Limits(quantity="temperature_c", noise=0.1, step_fail=3, still=0),
        # WMO: persistence only below 95 %; with `still` 0 only a saturated sensor stands still there, at 100 %
        Limits(quantity="humidity_pct", noise=0.5, spike_scales=3.2, step_fail=15, still=0, still_above=100),
        # turbulence has no slope and long tails
        Limits(
            quantity="wind_speed_ms",
            noise=0.2,
            spike_scales=4.0,
            has_trend=False,
            step_fail=20,
            still=0,
            still_below=0.1,
        ),
        Limits(quantity="wind_direction_deg", noise=5, spike_scales=3.5, has_trend=False, still=0, still_below=0),
        Limits(
            quantity="wind_gust_ms",
            noise=0.4,
            spike_scales=3.7,
            has_trend=False,
            step_fail=30,
            still=0,
            still_below=0.1,
        ),
        Limits(quantity="uv_index", noise=0.1, still=0, still_below=0.1, still_neighbours=0.05),
        Limits(quantity="pressure_hpa", noise=0.1, step_fail=2, still=0),
        Limits(quantity="no2_ug_m3", noise=1, spike_scales=3.3, still=0),
        # below its detection limit a sensor stands still
        Limits(quantity="o3_ug_m3", noise=1, spike_scales=2.8, still=0, still_below=2, still_neighbours=4),
        Limits(quantity="so2_ug_m3", noise=0.2, still=0),
        Limits(quantity="co_ug_m3", noise=10, spike_scales=3.2, still=0),
        Limits(quantity="pm2_5_ug_m3", noise=0.5, still=0),
        Limits(quantity="pm10_ug_m3", noise=1, still=0),
        Limits(quantity="noise_dba", noise=0.5, spike_scales=3.3, has_trend=False, still=0),
    )
}
