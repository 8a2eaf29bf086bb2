"""Six hours of readings of two posts, around midnight in Hong Kong on the day that the AQHI's tables changed: gaps,
flags, conflicting copies, calm air, wind from the north, counters that restart and roll over; and their lake."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import polars as pl

from contracts.layout import Layout
from contracts.quality import AT_LEAST
from contracts.quantities import QUANTITIES, of_stream
from contracts.registry import RegistryFile, save_registry
from contracts.schemas import (
    FLAGS,
    FLOW_MINUTES,
    FLOW_WINDOWS,
    FOOTFALL,
    HOURS,
    LANE_FLOWS,
    MINUTES,
    OBSERVATIONS,
    TABLES,
    WINDOWS,
)
from pipelines.kernels import minutes as kernel
from pipelines.kernels import rollups
from pipelines.kernels.frames import conform
from pipelines.kernels.unite import readings
from tests.feed_samples import lamppost, post_id
from tests.warehouse.lake_samples import config_of, store, write
from warehouse.catalogue import publish

START = datetime(2025, 3, 21, 12, tzinfo=UTC)
MINUTES_LONG = 360
POSTS = (post_id(1), post_id(3))
PAIRED = {name for pair in AT_LEAST for name in (pair.greater, pair.lesser)}
SPANS = {
    name: (max(row.low, 0.0), min(row.high, 60.0))
    for name, row in QUANTITIES.items()
    if row.stream in {"weather", "air"}
}


def _weather(random: Random, rain: float) -> dict[str, float]:
    is_calm = random.random() < 0.2
    speed = 0.0 if is_calm else round(random.uniform(0.1, 9), 1)
    return {
        "wind_speed_ms": speed,
        "wind_direction_deg": 0.0 if is_calm else float(random.choice((*range(340, 361), *range(1, 21)))),
        "wind_gust_ms": speed * 1.5,
        "rain_mm": rain,
        "pressure_hpa": round(random.uniform(1009, 1011), 1),
        "uv_index": round(random.uniform(0, 12), 1),
    }


def _rain(random: Random, level: float, restart_share: float) -> float:
    grown = level + random.choice((0.0, 0.0, 0.2, 0.4, 2.0))
    if grown >= QUANTITIES["rain_mm"].high:
        return round(grown - QUANTITIES["rain_mm"].high, 1)
    return 0.2 if random.random() < restart_share else round(grown, 1)


def observations(seed: int) -> pl.DataFrame:
    """Rows of OBSERVATIONS, conflicting copies included."""
    random, rows = Random(seed), []
    for post, level, restart_share in zip(POSTS, (9_950.0, 10.0), (0, 0.01), strict=True):
        rain = level
        for minute in range(MINUTES_LONG):
            rain = _rain(random, rain, restart_share)
            if random.random() < 0.05 or (post == POSTS[1] and 100 < minute < 150):
                continue
            time = START + timedelta(seconds=60 * minute + random.randrange(60))
            for stream in ("weather", "air"):
                digest = random.getrandbits(60)
                values = {row.name: round(random.uniform(*SPANS[row.name]), 1) for row in of_stream(stream)}
                values |= _weather(random, rain) if stream == "weather" else {}
                for quantity, value in values.items():
                    flag = random.choices((1, 2, 3, 4, 9), (84, 10, 2, 2, 2))[0]
                    row: dict[str, Any] = {"post_id": post, "stream": stream, "event_time": time, "quantity": quantity}
                    row |= {"digest": digest, "flag": flag, "value": None if flag == 9 else value}
                    row["is_conflicting"] = False
                    rows.append(row)
                    if random.random() < 0.01:
                        rows.append(row | {"digest": digest + 1, "value": 1e9, "is_conflicting": True})
    return _readings(rows, OBSERVATIONS)


def _readings(rows: list[dict[str, Any]], table: Any) -> pl.DataFrame:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    named = {"boot_id": pl.lit("a"), "seq": pl.int_range(pl.len()), "first_seq": pl.lit(0)}
    frame = frame.with_columns(**named, received_time=pl.col("event_time"))
    return conform(frame, table)


def footfall(seed: int) -> pl.DataFrame:
    """Rows of FOOTFALL."""
    random = Random(f"footfall {seed}")
    return _readings(
        [
            {
                "post_id": post,
                "event_time": START + timedelta(seconds=30 * half),
                "period_s": 30,
                "crossings_in_count": random.randint(0, 9),
                "crossings_out_count": random.randint(0, 9),
                "digest": random.getrandbits(60),
                "flag": random.choices((1, 4), (9, 1))[0],
                "is_conflicting": random.random() < 0.02,
            }
            for post in POSTS
            for half in range(2 * MINUTES_LONG)
            if random.random() < 0.9
        ],
        FOOTFALL,
    )


def lanes(seed: int) -> pl.DataFrame:
    """Rows of LANE_FLOWS, two lanes and two directions; the second post tells neither classes nor 1/v."""
    random, rows = Random(f"lanes {seed}"), []
    for post in POSTS:
        for half in range(2 * MINUTES_LONG):
            if random.random() < 0.1 or (half > 600 and post == POSTS[1]):
                continue
            digest, is_conflicting = random.getrandbits(60), random.random() < 0.02
            for index in range(4):
                count = random.choice((0, 1, 2, 9))
                speed = random.uniform(5, 90)
                row: dict[str, Any] = {"post_id": post, "event_time": START + timedelta(seconds=30 * half)}
                row |= {"period_s": 30, "lane_index": index, "lane": f"Lane {index % 2}", "direction": "EW"[index // 2]}
                row |= {"vehicle_count": count, "mean_speed_kmh": speed if count else 50.0, "digest": digest}
                row |= {"occupancy_pct": random.choice((None, random.uniform(0, 60))), "is_valid": True}
                row |= {"flag": random.choices((1, 3, 4, 9), (92, 3, 3, 2))[0], "is_conflicting": is_conflicting}
                if post == POSTS[0]:
                    row |= {"inverse_speed_sum_h_km": count / speed * 1.1, "taxi_count": count // 2}
                rows.append(row)
    return _readings(rows, LANE_FLOWS)


def flags(seed: int, values: pl.DataFrame) -> pl.DataFrame:
    """Rows of FLAGS: limits within which some minutes' values are accepted or suspects are cleared, or none."""
    random = Random(f"flags {seed}")
    cells = readings(values).select("post_id", "quantity", window_start=pl.col("event_time").dt.truncate("1m")).unique()
    rows = []
    for row in cells.sort(cells.columns).iter_rows(named=True):
        if random.random() < 0.03 and row["quantity"] != "rain_mm":
            low = random.uniform(-10, 30)
            limits = random.choice(({"accepted_low": low, "accepted_high": low + 40}, {"flag": 3}))
            rows.append({"test": "spike", "flag": random.choice((3, 4)), **row, **limits})
        elif random.random() < 0.5 and row["quantity"] in PAIRED:
            low = random.uniform(-10, 30)
            limits = {"accepted_low": low, "accepted_high": low + 40}
            rows.append({"test": "consistency", "flag": 1, **row, **limits})
    return conform(pl.DataFrame(rows, infer_schema_length=None), FLAGS)


def build(root: Path, seed: int) -> pl.DataFrame:
    """A published lake of the readings and of what the kernels make of them; its minutes."""
    values, walked, driven = observations(seed), footfall(seed), lanes(seed)
    found = flags(seed, values)
    minutes = kernel.minutes(values, walked, found)
    frames = {
        OBSERVATIONS.name: values,
        FOOTFALL.name: walked,
        LANE_FLOWS.name: driven,
        FLAGS.name: found,
        MINUTES.name: minutes,
        WINDOWS.name: rollups.windows(minutes, 300),
        FLOW_MINUTES.name: kernel.flow_minutes(driven),
        FLOW_WINDOWS.name: rollups.flow_windows(kernel.flow_minutes(driven), 900),
    }
    fill(root, frames)
    return minutes


def fill(root: Path, frames: dict[str, pl.DataFrame]) -> None:
    """Write tables, windows with their hours, and publish their catalogue, with a road of 50 km/h at the first post and
    of 80 at the second."""
    if WINDOWS.name in frames:
        frames = frames | {HOURS.name: rollups.hours(frames[WINDOWS.name])}
    slow, fast = lamppost(1, valid_from=datetime(2019, 6, 27, tzinfo=UTC)), lamppost(3)
    fast = msgspec.structs.replace(
        fast,
        valid_from=slow.valid_from,
        directions=tuple(msgspec.structs.replace(way, speed_limit_kmh=80) for way in fast.directions),
    )
    save_registry(Layout(root).registry, RegistryFile(version=1, lampposts=(slow, fast)))
    tables = {name: frame.to_arrow().cast(TABLES[name].schema) for name, frame in frames.items()}
    store(root, {name: write(root, TABLES[name], rows) for name, rows in tables.items()})
    publish(config_of(root))


def windows_of(
    values: dict[str, float], start: datetime, hours: int = 1, share: float = 1.0, post: str = POSTS[0]
) -> pl.DataFrame:
    """Rows of WINDOWS, five minutes each, as steady values make them, with so much of what is expected."""
    rows = [
        {
            "post_id": post,
            "quantity": quantity,
            "window_start": start + timedelta(minutes=5 * part),
            "period_s": 300,
            "value": value,
            "value_count": (count := 5 if part % 12 < share * 12 else 0),
            "flagged_count": 0,
            "expected_count": 5,
            "completeness": count / 5,
            "value_sum": value * count,
            "increase": value,
            "revision": 0,
            "last_event_time": start + timedelta(minutes=5 * part),
        }
        for quantity, value in values.items()
        for part in range(12 * hours)
    ]
    return conform(pl.DataFrame(rows), WINDOWS)
