"""Scales by which a number gets a name: UV categories, rainstorm signals, classes of rain, colours of traffic.

Reference for analysts; the bands of the air quality index have a module of their own (contracts/aqhi.py).
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Step:
    """From `low` on (or above it, as the scale says) a number has this name, until the next step's low."""

    low: float
    name: str
    colour: str


@dataclass(frozen=True, kw_only=True)
class Scale:
    """`steps` from low to high; below the first a number has no name. `is_low_included`: low belongs to its step."""

    name: str
    unit: str
    is_low_included: bool
    steps: tuple[Step, ...]
    source: str


# Roads from this speed limit on are judged as the strategic ones are: the old speed map's "major route".
STRATEGIC_LIMIT_KMH = 70


def _roads(name: str, slow_kmh: float, smooth_kmh: float, colour: str, source: str) -> Scale:
    return Scale(
        name=name,
        unit="km/h",
        is_low_included=True,
        steps=(
            Step(low=0, name="congested", colour="red"),
            Step(low=slow_kmh, name="slow", colour=colour),
            Step(low=smooth_kmh, name="smooth", colour="green"),
        ),
        source=source,
    )


SCALES = {
    row.name: row
    for row in (
        Scale(
            name="uv",
            unit="1",
            is_low_included=True,
            steps=(
                Step(low=0, name="low", colour="green"),
                Step(low=3, name="moderate", colour="yellow"),
                Step(low=6, name="high", colour="orange"),
                Step(low=8, name="very high", colour="red"),
                Step(low=11, name="extreme", colour="violet"),
            ),
            source="WHO, Global Solar UV Index (2002): of the index rounded to a whole number",
        ),
        Scale(
            name="rainstorm",
            unit="mm",
            is_low_included=False,
            steps=(
                Step(low=30, name="amber", colour="amber"),
                Step(low=50, name="red", colour="red"),
                Step(low=70, name="black", colour="black"),
            ),
            source="Hong Kong Observatory, Rainstorm Warning System: rain of an hour, there over wide areas",
        ),
        Scale(
            name="rain intensity",
            unit="mm/h",
            is_low_included=True,
            steps=(
                Step(low=0, name="dry", colour="white"),
                Step(low=0.1, name="light", colour="light blue"),
                Step(low=2.5, name="moderate", colour="blue"),
                Step(low=10, name="heavy", colour="dark blue"),
                Step(low=50, name="violent", colour="violet"),
            ),
            source="WMO-No. 8, volume I: of three minutes there; below 0.1 mm/h: trace. The colours are ours",
        ),
        _roads("urban roads", 15, 30, "yellow", "Transport Department, traffic speed map (press release 2008-04-25)"),
        _roads("strategic roads", 25, 50, "amber", "Transport Department, Speed Map Panels"),
    )
}
