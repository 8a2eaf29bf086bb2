"""Limits of the tests that look at a value's context: step, spike and persistence per quantity.

Source: WMO/TD-1236 (Zahumensky 2004), table of 1-minute values; where it says nothing, the resolution of the sensors
and the natural noise of a street.
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


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a quantity's values may do from one minute to the next, in the quantity's unit.

    `step_fail`: a greater change is flag 4, None for no such test; `noise`: the least natural scatter, below which
    nothing is a spike; `still`: over CONTEXT_MINUTES the values must vary by more, None for no such test;
    `still_above`, `still_below`: values that may stand still (calm air, saturated air, a dark sky).
    """

    quantity: str
    noise: float
    step_fail: float | None = None
    still: float | None = None
    still_above: float | None = None
    still_below: float | None = None


LIMITS: dict[str, Limits] = {
    row.quantity: row
    for row in (
        Limits(quantity="temperature_c", noise=0.1, step_fail=3, still=0),
        Limits(quantity="humidity_pct", noise=0.5, step_fail=15, still=0, still_above=95),
        Limits(quantity="wind_speed_ms", noise=0.2, step_fail=20, still=0, still_below=0.1),
        Limits(quantity="wind_direction_deg", noise=5, still=0, still_below=0),
        Limits(quantity="wind_gust_ms", noise=0.4, step_fail=30, still=0, still_below=0.1),
        Limits(quantity="uv_index", noise=0.1, still=0, still_below=0.1),
        Limits(quantity="pressure_hpa", noise=0.1, step_fail=2, still=0),
        Limits(quantity="no2_ug_m3", noise=1, still=0),
        Limits(quantity="o3_ug_m3", noise=1, still=0, still_below=2),
        Limits(quantity="so2_ug_m3", noise=0.2, still=0),
        Limits(quantity="co_ug_m3", noise=10, still=0),
        Limits(quantity="pm2_5_ug_m3", noise=0.5, still=0),
        Limits(quantity="pm10_ug_m3", noise=1, still=0),
        Limits(quantity="noise_dba", noise=0.5, still=0),
    )
}
