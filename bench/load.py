"""The pilot's mix of messages as a raw log on disk: what a pipeline benchmark reads."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from contracts import payloads
from contracts.layout import Layout, Segment
from contracts.registry import Lamppost, RegistryFile, save_registry
from contracts.segments import RAW_SCHEMA, batch_metadata
from contracts.times import to_us
from contracts.topics import device_topic

START = datetime(2026, 11, 2, 0, 0, tzinfo=UTC)
BOOT = "00000000000000b1"
SEGMENT_ROWS = 20_000
Landed = tuple[str, bytes, int]


def make_log(root: Path, registry: RegistryFile, minutes: int, seed: int) -> tuple[Layout, list[Segment]]:
    """A data root with the registry and so many minutes of every stream of its posts, in sealed segments."""
    layout = Layout(root)
    save_registry(layout.registry, registry)
    segments: list[Segment] = []
    held: list[Landed] = []
    first = 0
    for row in _messages(registry.lampposts, minutes, Random(seed)):
        held.append(row)
        if len(held) == SEGMENT_ROWS:
            segments.append(land(layout, held, first))
            first, held = first + len(held), []
    if held:
        segments.append(land(layout, held, first))
    return layout, segments


def _messages(posts: tuple[Lamppost, ...], minutes: int, random: Random) -> Iterator[Landed]:
    for minute in range(minutes):
        time = START + timedelta(minutes=minute)
        for post in posts:
            for half in (0, 1):
                at = time + timedelta(seconds=30 * half)
                seq = 2 * minute + half
                if "traffic" in post.streams:
                    yield _row(post, "traffic", payloads.Traffic(**_head(seq, at), lanes=lanes(post, random)))
                if "pedestrian" in post.streams:
                    count = random.randrange(20)
                    walked = payloads.Pedestrian(
                        **_head(seq, at), crossings_in_count=count, crossings_out_count=count // 2
                    )
                    yield _row(post, "pedestrian", walked)
            at = time + timedelta(seconds=random.randrange(60))
            head = _head(minute, at)
            for stream, kind in (("weather", payloads.Weather), ("air", payloads.Air)):
                if stream in post.streams:
                    values: dict[str, Any] = {
                        name: round(random.uniform(26, 99), 1) for name in post.quantities(stream)
                    }
                    yield _row(post, stream, kind(**head, **values))
            yield _row(post, "status", payloads.Heartbeat(**head, firmware="1.0"))


def _head(seq: int, time: datetime) -> dict[str, Any]:
    return {"schema_version": 1, "boot_id": BOOT, "seq": seq, "first_seq": seq, "time": time}


def lanes(post: Lamppost, random: Random) -> list[payloads.Lane]:
    """What a post's lanes say of a half-minute."""
    said = []
    for direction in post.directions:
        for name in direction.lanes:
            count = random.randrange(12)
            speed = random.uniform(20, 60)
            said.append(
                payloads.Lane(
                    lane=name,
                    direction=direction.direction_id,
                    vehicle_count=count,
                    mean_speed_kmh=round(speed, 1),
                    speed_sd_kmh=4.0,
                    inverse_speed_sum_h_km=round(count / speed, 4),
                    occupancy_pct=float(count),
                    release_speed_sum=count,
                )
            )
    return said


def _row(post: Lamppost, stream: str, message: payloads.Message) -> Landed:
    received = to_us(message.time) + 31_000_000
    return device_topic(post.post_id, stream), payloads.encode(message), received  # type: ignore[arg-type]


def land(layout: Layout, rows: list[Landed], first: int, instance: str = "bench") -> Segment:
    """(topic, payload, received microseconds) as one sealed segment that starts at offset `first`."""
    segment = Segment(instance, first, first + len(rows) - 1)
    path = segment.path(layout.raw)
    path.parent.mkdir(parents=True, exist_ok=True)
    batch = pa.record_batch(
        [
            pa.array(range(first, first + len(rows)), pa.int64()),
            pa.array([row[0] for row in rows], pa.string()),
            pa.array([row[1] for row in rows], pa.binary()),
            pa.array([row[2] for row in rows], pa.int64()).cast(pa.timestamp("us", "UTC")),
            pa.array([False] * len(rows), pa.bool_()),
        ],
        schema=RAW_SCHEMA,
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, RAW_SCHEMA) as writer:
        writer.write_batch(batch, custom_metadata=batch_metadata(batch))
    return segment
