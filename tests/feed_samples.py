"""Made-up rows of the open products and a small registry: what the tests of feeds, API and warehouse share."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from contracts.products import PRODUCTS, Product
from contracts.registry import Direction, Lamppost, Names, Registry, RegistryFile, Sensor
from pipelines.release.feeds import FeedMeta, archive_window, write_discovery, write_lampposts, write_latest

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
ROADS = [
    Names(en="Canton Road", tc="廣東道", sc="广东道"),
    Names(en="Hoi Yuen Road", tc="開源道", sc="开源道"),
    Names(en='Queen\'s Road, "Central"', tc="皇后大道中", sc="皇后大道中"),
]


def post_id(number: int) -> str:
    return f"{('TS', 'KT', 'CA', 'CW')[number % 4]}{1000 + number}"


def lamppost(number: int, **changes: Any) -> Lamppost:
    road = ROADS[number % 3]
    facts: dict[str, Any] = {
        "post_id": post_id(number),
        "kind": "lamppost",
        "area": ("Tsim Sha Tsui", "Kwun Tong", "Central", "Causeway Bay")[number % 4],
        "district": ("Yau Tsim Mong", "Kwun Tong", "Central and Western", "Wan Chai")[number % 4],
        "name": road,
        "latitude": 22.28 + number / 7000,
        "longitude": 114.17 + number / 7000,
        "easting_m": 835_000.0 + number,
        "northing_m": 817_000.5 + number,
        "sensors": (
            Sensor(
                stream="weather",
                model="W1",
                height_m=4.0,
                calibrated_on=None,
                quantities=("temperature_c", "rain_mm"),
            ),
            Sensor(stream="traffic", model="L1", height_m=6.0, calibrated_on=None, quantities=("vehicle_count",)),
        ),
        "directions": (
            Direction(
                direction_id="E", bearing_deg=90, road=road, lanes=("Fast Lane", "Slow Lane"), speed_limit_kmh=50
            ),
            Direction(direction_id="W", bearing_deg=270, road=road, lanes=("Lane 1",), speed_limit_kmh=50),
        )
        if number % 2
        else (),
        "sends_classes": True,
        "release_clamp": None,
        "gateway_id": None,
        "valid_from": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Lamppost(**(facts | changes))


def registry(count: int = 5) -> Registry:
    detector = lamppost(900, post_id="AID01101", kind="detector")
    gone = lamppost(901, valid_to=datetime(2026, 2, 1, tzinfo=UTC))
    return Registry(RegistryFile(version=3, lampposts=(*map(lamppost, range(count)), detector, gone)))


def _value(field: pa.Field, dice: random.Random) -> object:
    if field.nullable and dice.random() < 0.1:
        return None
    if field.name == "completeness":
        return dice.randint(0, 10) / 10
    if pa.types.is_floating(field.type):
        return dice.choice([dice.uniform(0, 100), dice.uniform(0, 1e-7), float(dice.randint(0, 30)), 1 / 3])
    if pa.types.is_integer(field.type):
        return dice.randint(57, 900)
    return dice.random() < 0.2


def rows(product: Product, start: datetime = START, count: int = 5, seed: int = 1) -> pl.DataFrame:
    """A frame of the product: one window of `count` posts, with extreme but possible values."""
    dice = random.Random(seed)
    made: list[dict[str, object]] = []
    for number in range(count):
        post = lamppost(number)
        for direction, bearing in (("E", 90), ("W", 270)) if "direction" in product.key else (("", 0),):
            row = {field.name: _value(field, dice) for field in product.schema}
            row |= {"post_id": post.post_id, "latitude": post.latitude, "longitude": post.longitude}
            row |= {"window_start": start, "window_end": start + timedelta(seconds=product.period_s)}
            if "direction" in product.key:
                row |= {"direction": direction, "bearing_deg": bearing, "ci95": 27.734, "released_at": start}
                row["is_suppressed"] = row["vehicle_count"] is None
            else:
                row["data_through"] = start + timedelta(seconds=dice.randint(0, 299), microseconds=dice.choice([0, 7]))
            made.append(row)
    frame = pl.from_arrow(pa.Table.from_pylist(made, product.schema))
    assert isinstance(frame, pl.DataFrame)
    return frame


def meta(product: Product, now: datetime | None = None, **changes: Any) -> FeedMeta:
    moment = now or datetime.now(UTC)
    facts: dict[str, Any] = {
        "generated_at": moment,
        "data_through": START + timedelta(seconds=299),
        "closed_through": START,
        "period_s": product.period_s,
        "notes": ("simulated",),
    }
    return FeedMeta(**(facts | changes))


def fill(open_folder: Path, count: int = 5, seed: int = 1) -> None:
    """A whole open folder: every product's latest feed and one archived window, lampposts, discovery."""
    for product in PRODUCTS.values():
        frame = rows(product, count=count, seed=seed)
        write_latest(open_folder, product, frame, meta(product))
        archive_window(open_folder, product, START, frame, meta(product))
    write_lampposts(open_folder, registry(count), datetime.now(UTC))
    write_discovery(open_folder, datetime.now(UTC))
