"""Lakes of some weeks that hold no more than a question needs: rows of windows as steady hours make them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from contracts.layout import Layout
from contracts.quantities import QUANTITIES
from contracts.registry import Direction, Lamppost, Names, RegistryFile, save_registry
from contracts.schemas import FLOW_WINDOWS, HOURS, TABLES, WINDOWS
from contracts.streams import STREAMS
from contracts.times import HONG_KONG
from pipelines.kernels.frames import conform
from tests.feed_samples import lamppost
from tests.warehouse.lake_samples import config_of, store, write
from warehouse.catalogue import publish

MONDAY = datetime(2026, 10, 5, tzinfo=HONG_KONG)  # midnight in Hong Kong
SINCE = datetime(2020, 1, 1, tzinfo=UTC)


def post(number: int, area: str, road: str = "Canton Road", limit_kmh: int = 50) -> Lamppost:
    """An entry with one direction E."""
    names = Names(en=road, tc=road, sc=road)
    way = Direction(direction_id="E", bearing_deg=90, road=names, lanes=("Slow Lane",), speed_limit_kmh=limit_kmh)
    return lamppost(number, post_id=f"ZZ{1000 + number}", area=area, name=names, directions=(way,), valid_from=SINCE)


def flow(post_id: str, start: datetime, speed_kmh: float | None, vehicles: int = 100, half_minutes: int = 30) -> Any:
    """A row of FLOW_WINDOWS: so many vehicles, all of this speed; none with a speed when it is None."""
    known = 0 if speed_kmh is None else vehicles
    inverse = known / speed_kmh if speed_kmh else 0.0
    return {
        "window_start": start,
        "period_s": 900,
        "post_id": post_id,
        "direction": "E",
        "mean_speed_kmh": speed_kmh,
        "space_mean_speed_kmh": speed_kmh,
        "half_minutes": half_minutes,
        "vehicle_count": vehicles,
        "speed_count": known,
        "speed_sum_kmh": known * (speed_kmh or 0.0),
        "inverse_speed_sum_h_km": inverse,
        "inverse_speed_count": known,
    }


def values(
    post_id: str, quantity: str, start: datetime, each: Iterable[float | None], period_s: int = 3600, share: float = 1.0
) -> list[dict[str, Any]]:
    """Rows of HOURS, or of WINDOWS with 300 s, from `start` on: a steady value for each period, None for a gap; `share`
    of its messages."""
    rows = []
    cadence_s = STREAMS[QUANTITIES[quantity].stream].cadence_s or 1
    for number, value in enumerate(each):
        count = round(share * period_s / cadence_s)
        if value is None or not count:
            continue
        rows.append(
            {
                "window_start": start + timedelta(seconds=period_s * number),
                "period_s": period_s,
                "post_id": post_id,
                "quantity": quantity,
                "value": value,
                "value_count": count,
                "value_sum": value * count,
                "value_max": value,
                "energy_sum": 10 ** (value / 10) * count if quantity == "noise_dba" else None,
                "increase": value,
            }
        )
    return rows


def lay(root: Path, posts: Iterable[Lamppost], flows: list[Any], rows: list[dict[str, Any]]) -> None:
    """Write and publish a lake with this registry, these rows of FLOW_WINDOWS, and of HOURS or WINDOWS by their
    period."""
    save_registry(Layout(root).registry, RegistryFile(version=1, lampposts=tuple(posts)))
    versions = {}
    tables = [(FLOW_WINDOWS, flows)]
    tables += [
        (table, [row for row in rows if row["period_s"] == length]) for table, length in ((HOURS, 3600), (WINDOWS, 300))
    ]
    for table, found in tables:
        if found:
            frame = pl.DataFrame(found, infer_schema_length=None)
            zero = {name: pl.lit(0) for name, kind in conform(frame, table).schema.items() if kind.is_integer()}
            frame = frame.with_columns(**{name: zero[name] for name in zero if name not in frame.columns})
            frame = frame.with_columns(
                pl.lit(0.0).alias(name)
                for name in ("completeness", "occupancy_sum_pct", "inverse_speed_sum_h_km", "speed_sum_kmh")
                if name in table.schema.names and name not in frame.columns
            ).with_columns(pl.col("window_start").dt.convert_time_zone("UTC"))
            frame = conform(frame.with_columns(last_event_time=pl.col("window_start")), table)
            versions[table.name] = write(root, TABLES[table.name], frame.to_arrow().cast(table.schema))
    store(root, versions)
    publish(config_of(root))
