"""Small lakes for tests of the catalogue, written as the pipeline writes."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from contracts.layout import Layout, Positions
from contracts.quantities import QUANTITIES
from contracts.schemas import TABLES, Table
from contracts.times import to_us
from pipelines.sparse import whole
from tests.feed_samples import post_id
from warehouse.config import Config
from warehouse.query import open_catalogue

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def config_of(root: Path) -> Config:
    return Config.build({}, root)


def _value(field: pa.Field, dice: random.Random) -> object:
    if field.nullable and dice.random() < 0.2:
        return None
    if field.name == "payload":
        return dice.choice([b"\xff\xfe", b"{}", b"{", "中".encode()])
    named: dict[str, list[object]] = {
        "post_id": [post_id(number) for number in range(3)],
        "topic": ["lamplight/v1/KT1001/weather", "x"],
        "digest": [1, 2, 3],
        "flag": [1, 4],
        "period_s": [60, 300],
        "quantity": list(QUANTITIES),
    }
    if field.name in named:
        return dice.choice(named[field.name])
    if pa.types.is_timestamp(field.type):
        return START + timedelta(seconds=dice.randint(0, 7200), microseconds=dice.randint(0, 999_999))
    if pa.types.is_floating(field.type):
        return dice.uniform(-1e3, 1e3)
    if pa.types.is_boolean(field.type):
        return dice.random() < 0.3
    if pa.types.is_integer(field.type):
        return dice.randint(0, 100)
    return dice.choice(["a", "it's", "b\nc", ""])


def some_rows(table: Table, count: int, seed: int) -> pa.Table:
    dice = random.Random(f"{table.name} {seed}")
    rows = [{field.name: _value(field, dice) for field in table.schema} for _ in range(count)]
    return pa.Table.from_pylist(rows, table.schema)


def some_minutes(seed: int) -> pa.Table:
    """Minutes as the pipeline makes them: gaps, a counter that restarts, quantities of every method."""
    dice = random.Random(seed)
    table, rows = TABLES["minutes"], []
    for post in (post_id(1), post_id(2)):
        for name in ("temperature_c", "wind_direction_deg", "wind_gust_ms", "rain_mm", "crossings_in_count"):
            counter = 10.0
            for minute in range(180):
                if dice.random() < 0.1 or (post == post_id(1) and 40 < minute < 60):
                    continue
                count = dice.choice([0, 1, 1, 2])
                counter = 0.2 if dice.random() < 0.03 else counter + dice.choice([0.0, 0.2, 0.4])
                value = counter if name == "rain_mm" else dice.uniform(0, 360)
                row: dict[str, Any] = {field.name: None for field in table.schema}
                row |= {"post_id": post, "quantity": name, "window_start": START + timedelta(minutes=minute)}
                row |= {"value_count": count, "flagged_count": dice.randint(0, 2), "plain_count": count}
                row["last_event_time"] = row["window_start"] + timedelta(seconds=dice.randint(0, 59))
                if count:
                    row |= {"value_min": value, "value_max": value + 1, "first_value": value, "last_value": value + 0.2}
                    if name == "wind_direction_deg":
                        row |= {"sin_sum": dice.uniform(-1, 1), "cos_sum": dice.uniform(-1, 1)}
                    else:
                        row |= {"value_sum": value * count, "value_sum_squares": value * value * count}
                    if name == "rain_mm":
                        row["increase"], counter = 0.2, value + 0.2
                rows.append(row)
    return pa.Table.from_pylist(rows, table.schema)


def write(root: Path, table: Table, rows: pa.Table) -> int:
    """Append rows to a table of the lake as the pipeline writes; its new version."""
    path = str(Layout(root).table(table.name))
    Path(path).mkdir(parents=True, exist_ok=True)
    DeltaTable.create(path, schema=table.schema, mode="ignore")
    write_deltalake(path, rows, mode="append")
    return DeltaTable(path).version()


def store(root: Path, versions: dict[str, int]) -> None:
    Positions(offsets={"one": 7}, versions=versions, covered_us=to_us(START)).store(Layout(root).positions)


def fill_lake(root: Path, seed: int = 1, count: int = 60) -> dict[str, int]:
    """Two appends to each table, so that a version has more than one file."""
    versions = {}
    for table in TABLES.values():
        write(root, table, some_rows(table, count, seed))
        versions[table.name] = write(root, table, some_rows(table, count, seed + 100))
    return versions


def ask(root: Path, query: str, zone: str = "UTC") -> pl.DataFrame:
    with open_catalogue(Layout(root).catalogue) as connection:
        connection.execute(f"SET TimeZone = '{zone}'")
        frame: pl.DataFrame = connection.sql(query).pl()
    return frame


def oracle(root: Path, name: str, version: int) -> pl.DataFrame:
    """A table's rows, whole, from its files alone."""
    return whole(pl.scan_delta(str(Layout(root).table(name)), version=version).collect(), TABLES[name])


def same(found: pl.DataFrame, wanted: pl.DataFrame) -> bool:
    """Equal as sets of rows with multiplicity, column order of `wanted`."""
    found = found.select(wanted.columns).cast(dict(wanted.schema))  # type: ignore[arg-type]
    return found.sort(wanted.columns).equals(wanted.sort(wanted.columns))
