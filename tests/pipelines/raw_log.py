"""Small raw logs for tests: messages of a three-post city, landed in segments in any way that a test wants."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pyarrow as pa

from contracts import payloads
from contracts.layout import Layout, Segment
from contracts.registry import Direction, Lamppost, Names, Registry, RegistryFile, ReleaseClamp, Sensor, save_registry
from contracts.segments import RAW_SCHEMA, batch_metadata
from contracts.times import to_us
from contracts.topics import device_topic

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
BOOT = "00000000000000a1"
ROAD = Names("Hoi Bun Road", "海濱道", "海滨道")
POSTS = ("KT1001", "KT1002", "TS1001")


@dataclass(frozen=True)
class Landed:
    """One message as ingest keeps it."""

    topic: str
    payload: bytes
    received: datetime


def registry_file(posts: Iterable[str] = POSTS) -> RegistryFile:
    """Posts with every sensor, two directions of two lanes each."""
    sensors = tuple(
        Sensor(stream=stream, model="test", height_m=4.0, calibrated_on=None, quantities=quantities)
        for stream, quantities in (
            ("weather", ("temperature_c", "wind_direction_deg", "rain_mm")),
            ("air", ("no2_ug_m3", "noise_dba")),
            ("traffic", ()),
            ("pedestrian", ()),
            ("dumping", ()),
        )
    )
    directions = tuple(
        Direction(
            direction_id=name, bearing_deg=bearing, road=ROAD, lanes=("Fast Lane", "Slow Lane"), speed_limit_kmh=50
        )
        for name, bearing in (("N", 0), ("S", 180))
    )
    return RegistryFile(
        version=1,
        lampposts=tuple(
            Lamppost(
                post_id=post,
                kind="lamppost",
                area=post[:2],
                district="Kwun Tong",
                name=ROAD,
                latitude=22.31,
                longitude=114.22,
                easting_m=841000.0,
                northing_m=819000.0,
                sensors=sensors,
                directions=directions,
                sends_classes=True,
                release_clamp=ReleaseClamp(lo_kmh=5, hi_kmh=65, centre_kmh=35),
                gateway_id="GW0001",
                valid_from=datetime(2019, 6, 27, tzinfo=UTC),
            )
            for post in posts
        ),
    )


def registry() -> Registry:
    return Registry(registry_file())


def make_root(root: Path, posts: Iterable[str] = POSTS) -> Layout:
    """An empty data root with its registry."""
    layout = Layout(root)
    save_registry(layout.registry, registry_file(posts))
    return layout


def messages(seed: int, minutes: int = 8, posts: Sequence[str] = POSTS) -> list[Landed]:
    """A few minutes of every stream of every post, in order, each received a second after it was made."""
    random = Random(seed)
    landed = []
    for post in posts:
        seqs = dict.fromkeys(("weather", "air", "traffic", "pedestrian", "dumping", "status"), 0)
        rain = 0.0
        for half in range(minutes * 2):
            time = START + timedelta(seconds=30 * half)
            rain = round(rain + random.choice((0.0, 0.0, 0.2)), 1)
            for stream, message in _half_minute(random, time, half, rain):
                head = {"schema_version": 1, "boot_id": BOOT, "seq": seqs[stream], "first_seq": 0, "time": time}
                seqs[stream] += 1
                payload = payloads.encode(message(**head))
                landed.append(Landed(device_topic(post, stream), payload, time + timedelta(seconds=31)))
    return landed


def _half_minute(random: Random, time: datetime, half: int, rain: float):  # type: ignore[no-untyped-def]
    lanes = [
        payloads.Lane(
            lane=lane,
            direction=direction,
            vehicle_count=(count := random.randint(0, 9)),
            class_counts=payloads.ClassCounts(
                motorcycle=0, private_car=count, taxi=0, light_goods=0, heavy_goods=0, bus=0, other=0
            ),
            mean_speed_kmh=float(random.randint(20, 60)) if count else 50.0,
            inverse_speed_sum_h_km=count / 40,
            occupancy_pct=float(random.randint(0, 30)),
            release_speed_sum=count * 5,
        )
        for direction in ("N", "S")
        for lane in ("Fast Lane", "Slow Lane")
    ]
    yield "traffic", lambda **head: payloads.Traffic(**head, lanes=lanes)
    yield (
        "pedestrian",
        lambda **head: payloads.Pedestrian(
            **head, crossings_in_count=random.randint(0, 5), crossings_out_count=random.randint(0, 5)
        ),
    )
    if half % 2 == 0:
        yield (
            "weather",
            lambda **head: payloads.Weather(
                **head,
                temperature_c=round(random.uniform(18, 25), 1),
                wind_direction_deg=float(random.randint(1, 360)),
                # now and then the counter spikes, which the growth of later windows must not take for a restart
                rain_mm=rain + random.choice((0, 0, 0, 0, 0, 4000)),
                humidity_pct=random.choice(("////", -999.0, 60.0, 500.0)),
            ),
        )
        yield "air", lambda **head: payloads.Air(**head, no2_ug_m3=round(random.uniform(5, 90), 1), noise_dba=65.0)
        yield "status", lambda **head: payloads.Heartbeat(**head, firmware="1.0", clock_offset_s=0.0)
    if random.random() < 0.1:
        yield "dumping", lambda **head: payloads.Dumping(**head, kind="bulky", confidence=0.7)


def land(layout: Layout, landed: Sequence[Landed], instance: str = "a", first: int = 0) -> Segment:
    """Write messages as one sealed segment that starts at offset `first`."""
    segment = Segment(instance, first, first + len(landed) - 1)
    path = segment.path(layout.raw)
    path.parent.mkdir(parents=True, exist_ok=True)
    batch = raw_batch(landed, first)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, RAW_SCHEMA) as writer:
        writer.write_batch(batch, custom_metadata=batch_metadata(batch))
    return segment


def raw_batch(landed: Sequence[Landed], first: int = 0) -> pa.RecordBatch:
    """Messages as one batch of RAW_SCHEMA."""
    return pa.record_batch(
        [
            pa.array(range(first, first + len(landed)), pa.int64()),
            pa.array([row.topic for row in landed], pa.string()),
            pa.array([row.payload for row in landed], pa.binary()),
            pa.array([to_us(row.received) for row in landed], pa.int64()).cast(pa.timestamp("us", "UTC")),
            pa.array([False] * len(landed), pa.bool_()),
        ],
        schema=RAW_SCHEMA,
    )
