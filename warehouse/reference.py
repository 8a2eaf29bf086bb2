"""Reference tables that the catalogue holds as real data: the registry's entries, what befell ingest, and what only
the contracts say: quantities, scales, the air quality index. What describes the city is in warehouse/city.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.aqhi import BANDS, EDITIONS, health_risk
from contracts.events import events_path, read_events
from contracts.fields import TIMESTAMP, field
from contracts.layout import instances
from contracts.places import TOURIST_PLACES
from contracts.quantities import QUANTITIES
from contracts.registry import Registry
from contracts.scales import SCALES
from contracts.streams import STREAMS
from contracts.times import from_us, to_us
from warehouse.boundaries import Boundary
from warehouse.city import CITY, CITY_DESCRIPTIONS, calendar_rows, district_rows, registry_rows
from warehouse.products import PRODUCT_ROWS, product_rows
from warehouse.removed import REMOVED

QUANTITY_ROWS = pa.schema(
    [
        field("quantity", pa.string(), "", "Name, unit included."),
        field("stream", pa.string(), "", "Stream that carries it."),
        field("title", pa.string(), "", "Title."),
        field("unit", pa.string(), "", "Unit, UCUM-like."),
        field("plausible_low", pa.float64(), "as quantity", "Least plausible value."),
        field("plausible_high", pa.float64(), "as quantity", "Greatest plausible value."),
        field("resolution", pa.float64(), "as quantity", "Step of the sensor."),
        field("aggregation", pa.string(), "", "How readings become one value of a window."),
        field("cadence_s", pa.int32(), "s", "Seconds between messages of one post; null for events.", True),
        field("is_open", pa.bool_(), "", "Whether its exact value leaves as open data."),
        field("description", pa.string(), "", "What it is."),
    ]
)
SCALE_ROWS = pa.schema(
    [
        field("scale", pa.string(), "", "uv, rainstorm, rain intensity, urban roads or strategic roads."),
        field("step", pa.string(), "", "Name of the numbers from low to high."),
        field("colour", pa.string(), "", "Colour that it is shown in."),
        field("low", pa.float64(), "see unit", "Where the step begins."),
        field("high", pa.float64(), "see unit", "Where the next one does; null for the last.", True),
        field("is_low_included", pa.bool_(), "", "Whether low belongs to the step (and high to the next)."),
        field("unit", pa.string(), "", "Unit of low and high."),
        field("source", pa.string(), "", "Who says so."),
    ]
)
TOURIST_PLACE_ROWS = pa.schema(
    [
        field("place", pa.string(), "", "Name that a tourist spot's area or English name holds."),
        field("attractions", pa.string(), "", "What visitors come for."),
    ]
)
_EDITION = [
    field("valid_from", TIMESTAMP, "UTC", "For windows that end after this moment."),
    field("valid_to", TIMESTAMP, "UTC", "And not after this one; null: it holds still.", True),
]
AQHI_COEFFICIENTS = pa.schema(
    [
        *_EDITION,
        field("quantity", pa.string(), "", "Pollutant."),
        field("beta", pa.float64(), "m3/ug", "Added risk is (exp(beta * concentration) - 1) * 100 %."),
    ]
)
AQHI_BANDS = pa.schema(
    [
        *_EDITION,
        field("aqhi", pa.string(), "", "Index, 1 to 10 and 10+."),
        field("above_pct", pa.float64(), "%", "The added risk is above this; null for the first band.", True),
        field("up_to_pct", pa.float64(), "%", "And at most this; null for the last band.", True),
        field("health_risk", pa.string(), "", "low, moderate, high, very high or serious."),
    ]
)
SNAPSHOT = pa.schema(
    [
        field("table_name", pa.string(), "", "Table of the lake."),
        field("version", pa.int64(), "1", "Delta version that this catalogue reads; null: no such table yet.", True),
        field("file_count", pa.int64(), "1", "Parquet files of that version."),
        field("first_time", TIMESTAMP, "UTC", "Least of the times by which the table is ordered; null: no rows.", True),
        field("last_time", TIMESTAMP, "UTC", "Greatest of these times.", True),
        field("covered_time", TIMESTAMP, "UTC", "Every segment sealed before this moment is contained."),
        field("published_time", TIMESTAMP, "UTC", "When this catalogue was built."),
    ]
)
STATE = pa.schema(
    [
        field("data_through", TIMESTAMP, "UTC", "What landed until then is in every row; null: nothing has yet.", True),
    ]
)
LATEST = pa.schema(
    [
        field("post_id", pa.string(), "", "Lamppost."),
        field("stream", pa.string(), "", "Stream that carries the quantity."),
        field("quantity", pa.string(), "", "Name in the table of quantities, unit included."),
        field("value", pa.float64(), "as quantity", "Newest value used (flags 1 and 2); null: none was.", True),
        field("unit", pa.string(), "", "Unit of the value."),
        field("event_time", TIMESTAMP, "UTC", "Event time of the value; null: none was used.", True),
        field("newest_time", TIMESTAMP, "UTC", "Event time of the newest value that landed, used or not."),
    ]
)
INGEST_EVENTS = pa.schema(
    [
        field("instance", pa.string(), "", "Ingest instance."),
        field("event_time", TIMESTAMP, "UTC", "When it happened."),
        field(
            "kind",
            pa.string(),
            "",
            "session_lost: the broker kept nothing of what it held for the instance; disk_failed, disk_back: commits "
            "were refused, and went on; retired: the session was drained and given up; limited: the broker allows "
            "less than was asked for.",
        ),
        field("detail", pa.string(), "", "What was found."),
    ]
)
REFERENCE = {
    **CITY,
    "quantities": QUANTITY_ROWS,
    "scales": SCALE_ROWS,
    "tourist_places": TOURIST_PLACE_ROWS,
    "aqhi_coefficients": AQHI_COEFFICIENTS,
    "aqhi_bands": AQHI_BANDS,
    "products": PRODUCT_ROWS,
    "snapshot": SNAPSHOT,
    "state": STATE,
    "ingest_events": INGEST_EVENTS,
    "latest": LATEST,
    "removed": REMOVED,
}
_SCHEMAS = {
    **dict.fromkeys((*CITY, "tourist_places"), "city"),
    "ingest_events": "quality",
    "latest": "readings",
    "removed": "quality",
    "products": "open",
}
DESCRIPTIONS = {
    **CITY_DESCRIPTIONS,
    "quantities": "Every quantity that a lamppost measures. Grain: one quantity. Key: quantity.",
    "scales": "Names of numbers: UV categories, rainstorm signals, classes of rain, colours of traffic. "
    "Grain: one step of a scale. Key: scale, step.",
    "tourist_places": "Places of the pilot areas that visitors come to: our choice. Grain: one place. Key: place.",
    "aqhi_coefficients": "Betas of the Air Quality Health Index and since when. Grain: one pollutant of an edition. "
    "Key: valid_from, quantity.",
    "aqhi_bands": "Bands of the Air Quality Health Index and since when. Grain: one band of an edition. "
    "Key: valid_from, aqhi.",
    "products": "Open data products: what leaves the house. Grain: one product. Key: product.",
    "snapshot": "What this catalogue was built from. Grain: one table of the lake. Key: table_name.",
    "state": "How far this catalogue's lake has come. Grain: one row. Key: none.",
    "latest": "The latest value of every post and quantity of weather, air and pedestrians, however long ago it was "
    "measured. Grain: one post and quantity. Key: post_id, quantity.",
    "removed": "What retention has removed. Grain: one stream of a table. Key: table_name, stream.",
    "ingest_events": "What befell the ingest instances: a reason for what the ledger misses. Grain: one event. "
    "Key: instance, event_time, kind.",
}


def full_name(name: str) -> str:
    """A reference table's name with its schema: main holds what every schema uses."""
    return f"{_SCHEMAS.get(name, 'main')}.{name}"


@dataclass(frozen=True, kw_only=True)
class ReferenceTable:
    """A table that the catalogue holds as data; `name` is one of REFERENCE."""

    name: str
    rows: pa.Table


def standing(last_year: int, boundaries: tuple[Boundary, ...] = ()) -> dict[str, pa.Table]:
    """Rows of the tables that stay as they are from one publishing to the next: what the contracts say, the calendar
    until the end of `last_year`, the districts."""
    return {
        "districts": district_rows(boundaries),
        "calendar": calendar_rows(last_year),
    } | {
        name: pa.Table.from_pylist(rows, REFERENCE[name])
        for name, rows in (
            ("quantities", _quantities()),
            ("scales", _scales()),
            ("tourist_places", [place._asdict() for place in TOURIST_PLACES]),
            ("aqhi_coefficients", _aqhi_coefficients()),
            ("aqhi_bands", _aqhi_bands()),
            ("products", product_rows()),
        )
    }


def _quantities() -> list[dict[str, Any]]:
    return [
        {
            "quantity": row.name,
            "stream": row.stream,
            "title": row.title,
            "unit": row.unit,
            "plausible_low": row.low,
            "plausible_high": row.high,
            "resolution": row.resolution,
            "aggregation": row.aggregation.value,
            "cadence_s": STREAMS[row.stream].cadence_s,
            "is_open": row.is_open,
            "description": row.description,
        }
        for row in QUANTITIES.values()
    ]


def _scales() -> list[dict[str, Any]]:
    return [
        {
            "scale": scale.name,
            "step": step.name,
            "colour": step.colour,
            "low": step.low,
            "high": following.low if following else None,
            "is_low_included": scale.is_low_included,
            "unit": scale.unit,
            "source": scale.source,
        }
        for scale in SCALES.values()
        for step, following in zip(scale.steps, (*scale.steps[1:], None), strict=True)
    ]


def _aqhi_coefficients() -> list[dict[str, Any]]:
    return [
        {"valid_from": edition.valid_from, "valid_to": edition.valid_to, "quantity": quantity, "beta": beta}
        for edition in EDITIONS
        for quantity, beta in edition.betas.items()
    ]


def _aqhi_bands() -> list[dict[str, Any]]:
    return [
        {
            "valid_from": edition.valid_from,
            "valid_to": edition.valid_to,
            "aqhi": band,
            "above_pct": above,
            "up_to_pct": up_to,
            "health_risk": health_risk(band),
        }
        for edition in EDITIONS
        for band, above, up_to in zip(BANDS, (None, *edition.upper_pct), (*edition.upper_pct, None), strict=True)
    ]


def registry_tables(registry: Registry | None) -> list[ReferenceTable]:
    """The registry's entries with their directions and sensors; without a registry: no rows."""
    return [ReferenceTable(name=name, rows=rows) for name, rows in registry_rows(registry).items()]


def state(covered_us: int) -> ReferenceTable:
    """One row; `covered_us` of the positions, 0 while nothing is covered."""
    through = from_us(covered_us) if covered_us else None
    return ReferenceTable(name="state", rows=pa.Table.from_pylist([{"data_through": through}], STATE))


def ingest_events(raw: Path, until_us: int | None = None) -> ReferenceTable:
    """The events of every ingest instance below `raw` (before a moment), oldest first."""
    rows: list[dict[str, Any]] = [
        {"instance": instance, "event_time": event.time, "kind": event.kind, "detail": event.detail}
        for instance in instances(raw)
        for event in read_events(events_path(raw, instance))
        if until_us is None or to_us(event.time) < until_us
    ]
    rows.sort(key=lambda row: row["event_time"])
    return ReferenceTable(name="ingest_events", rows=pa.Table.from_pylist(rows, INGEST_EVENTS))
