"""How long what is stored is kept: one row per kind of data, with the reason. A new kind is a new row here.

`LAMPLIGHT_RETENTION_{NAME}_DAYS` changes a row; `ever` keeps all. Age is that of the event time inside the files; where
a row has none of its own (quarantine, raw), of the receipt.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.schemas import TABLES, Table
from contracts.streams import STREAMS

RAW_DAYS = 7.0  # of the raw log, by receipt; ingest's own, and never before every consumer has passed it
EVER = "ever"
ALL = ""  # stands for every row of a table of which a row need not have a stream

_MOVEMENT = ("traffic", "pedestrian", "dumping")
_WEATHER = ("weather", "air")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Rows of `tables` that come from `streams` are kept for `days`; None: for ever."""

    name: str
    tables: tuple[str, ...]
    streams: tuple[str, ...]
    days: float | None
    reason: str

    @property
    def variable(self) -> str:
        return f"LAMPLIGHT_RETENTION_{self.name.upper()}_DAYS"


RULES = (
    Rule(
        name="movement_readings",
        tables=("lane_flows", "footfall", "dumping_events", "duplicates", "flags"),
        streams=_MOVEMENT,
        days=30,
        reason="Half-minutes of one lane or line are the finest that is known of people; a month is enough to judge "
        "them again after a fix.",
    ),
    Rule(
        name="movement_minutes",
        tables=("minutes", "flow_minutes"),
        streams=_MOVEMENT,
        days=90,
        reason="A season of minutes shows how a junction works.",
    ),
    Rule(
        name="movement_windows",
        tables=("windows", "flow_windows", "hours"),
        streams=_MOVEMENT,
        days=400,
        reason="A year and a month, so that each week has last year's beside it.",
    ),
    Rule(
        name="weather_readings",
        tables=("observations", "duplicates", "flags"),
        streams=_WEATHER,
        days=90,
        reason="Nobody is in them. A season is enough to see a sensor drift and to judge its values again.",
    ),
    Rule(
        name="weather_minutes",
        tables=("minutes",),
        streams=_WEATHER,
        days=None,
        reason="The record of the city's air and weather, from which every longer window can be made.",
    ),
    Rule(
        name="weather_windows",
        tables=("windows", "hours"),
        streams=_WEATHER,
        days=None,
        reason="The climate record.",
    ),
    Rule(
        name="status",
        tables=("device_status", "duplicates"),
        streams=("status",),
        days=90,
        reason="As long as the readings of weather, whose losses they explain.",
    ),
    Rule(
        name="quarantine",
        tables=("quarantine",),
        streams=(ALL,),
        days=30,
        reason="The bytes may hold movement, so no longer than readings of it; a month to mend what refused them.",
    ),
    Rule(
        name="announcements",
        tables=("announcements",),
        streams=(ALL,),
        days=None,
        reason="Few rows, and the record of what was said to be final. The newest of each stream stays in any case.",
    ),
)


def streams_of(table: Table) -> tuple[str, ...]:
    """Streams whose messages the rows of a table come from; (ALL,) where a row need not tell."""
    if table.stream is not None:
        return (table.stream,)
    if table.name in ("quarantine", "announcements"):
        return (ALL,)
    if table.name == "observations":
        return _WEATHER
    if "quantity" in table.schema.names:
        return (*_WEATHER, "pedestrian")
    return tuple(STREAMS) if table.name == "duplicates" else ("traffic",)


def rule(table: str, stream: str) -> Rule:
    """The rule of a table's rows of a stream. Raises LookupError when there is none."""
    for row in RULES:
        if table in row.tables and stream in row.streams:
            return row
    raise LookupError(f"no rule of retention for {stream} in {table}")


def defaults() -> dict[str, float | None]:
    """Days by rule."""
    return {row.name: row.days for row in RULES}


def readings_days(days: Mapping[str, float | None]) -> dict[str, float | None]:
    """How old an event time may be when its message lands, by stream: what is older would be removed at once."""
    return {
        stream: days[rule(table.name, stream).name]
        for table in TABLES.values()
        if table.is_reading
        for stream in streams_of(table)
    }
