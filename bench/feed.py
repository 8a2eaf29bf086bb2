"""Live messages of a city, landed as ingest lands them: commits fsynced every 50 ms, segments sealed within 0.25 s.

A process of its own, so that it takes the pipelines no time: `python -m bench.feed ROOT --rate 2000 --seconds 60`. It
writes each commit to ROOT/durable.ndjson: when it was fsynced (microseconds since 1970), live, late or burst, the next
offset, and the heartbeats in it as [post, seq].

5 % of the messages come again and 5 % come late, both by up to a minute. `--burst-at` makes a tenth of the posts send
what they stored in the hours before, at `--burst-rate`, among the live messages.
"""

import argparse
import heapq
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from contracts import payloads
from contracts.layout import Layout
from contracts.quality import LIMITS
from contracts.quantities import QUANTITIES
from contracts.registry import Lamppost, load_registry
from contracts.times import MINUTE_US, from_us
from contracts.topics import device_topic
from ingest.arrival import Arrival
from ingest.landing import Landing

COMMIT_S = 0.05
SHARE_AGAIN = SHARE_LATE = 0.05
LATE_S = 60.0
BOOT = "00000000000000b1"
BURST_BOOT = "00000000000000b2"
HALF_US = MINUTE_US // 2
# messages of one post and minute, as the pilot sends them
SLOTS = {"traffic": 2, "pedestrian": 2, "weather": 1, "air": 1, "status": 1}


class Devices:
    """What the posts say: quiet weather, some traffic. Numbers count up per post and stream."""

    def __init__(self, posts: tuple[Lamppost, ...], seed: int):
        self.random = Random(seed)
        self.slots = [
            (post, stream)
            for post in posts
            for stream, count in SLOTS.items()
            for _ in range(count)
            if stream == "status" or stream in post.streams
        ]
        self.random.shuffle(self.slots)
        self._seqs: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._at = 0

    def next(self, now_us: int) -> tuple[str, bytes]:
        """Topic and payload of the next message."""
        post, stream = self.slots[self._at % len(self.slots)]
        self._at += 1
        return self.message(post, stream, now_us)

    def message(self, post: Lamppost, stream: str, now_us: int, boot: str = BOOT) -> tuple[str, bytes]:
        """Topic and payload of a message made now; periods are those that have just ended."""
        is_period = stream in ("traffic", "pedestrian")
        seq = self._seqs[post.post_id, stream]
        self._seqs[post.post_id, stream] += 1
        head: dict[str, Any] = {
            "schema_version": 1,
            "boot_id": boot,
            "seq": seq,
            "first_seq": seq,
            "time": from_us((now_us // HALF_US - 1) * HALF_US if is_period else now_us),
        }
        content = payloads.encode(self._payload(post, stream, head))
        return device_topic(post.post_id, stream), content

    def _payload(self, post: Lamppost, stream: str, head: dict[str, Any]) -> payloads.Payload:
        if stream == "traffic":
            return payloads.Traffic(**head, lanes=self._lanes(post))
        if stream == "pedestrian":
            walked = self.random.randrange(20)
            return payloads.Pedestrian(**head, crossings_in_count=walked, crossings_out_count=walked // 2)
        if stream == "status":
            return payloads.Heartbeat(**head, firmware="1.0")
        kind = payloads.Weather if stream == "weather" else payloads.Air
        values: dict[str, Any] = {name: self._value(name) for name in post.quantities(stream)}
        return kind(**head, **values)

    def _value(self, name: str) -> float:
        row = QUANTITIES[name]
        middle = (row.low + row.high) / 2
        noise = LIMITS[name].noise if name in LIMITS else 0.0
        return round(middle + noise * (self.random.random() - 0.5), 2)

    def _lanes(self, post: Lamppost) -> list[payloads.Lane]:
        count = self.random.randrange(12)
        return [
            payloads.Lane(
                lane=name,
                direction=direction.direction_id,
                vehicle_count=count,
                mean_speed_kmh=40.0,
                speed_sd_kmh=4.0,
                inverse_speed_sum_h_km=count / 40,
                occupancy_pct=float(count),
                release_speed_sum=count,
            )
            for direction in post.directions
            for name in direction.lanes
        ]


def stored(devices: Devices, posts: list[Lamppost], now_us: int, hours: float) -> Iterator[tuple[str, bytes]]:
    """What posts without a link kept: minute by minute, each post's oldest first, all posts side by side."""
    begin = now_us // MINUTE_US - int(hours * 60)
    for minute in range(begin, now_us // MINUTE_US):
        for post in posts:
            for stream, count in SLOTS.items():
                if stream == "status" or stream in post.streams:
                    for half in range(count):
                        made_us = minute * MINUTE_US + (half + 1) * HALF_US if count == 2 else minute * MINUTE_US
                        yield devices.message(post, stream, made_us, boot=BURST_BOOT)


def feed(root: Path, options: argparse.Namespace) -> None:
    """Land messages for so many seconds."""
    layout = Layout(root)
    posts = load_registry(layout.registry).file.lampposts
    devices, random = Devices(posts, options.seed), Random(options.seed + 1)
    held: list[tuple[float, int, str, bytes]] = []
    count = 0
    burst: Iterator[tuple[str, bytes]] | None = None
    began = time.monotonic()
    with Landing(layout, "a") as landing, (root / "durable.ndjson").open("a", buffering=1) as told:

        def land(rows: list[tuple[str, bytes]], kind: str) -> None:
            if not rows:
                return
            now_us = time.time_ns() // 1000
            landing.append([Arrival(topic, payload, now_us) for topic, payload in rows])
            durable_us = time.time_ns() // 1000
            beats = [_beat(topic, payload) for topic, payload in rows if topic.endswith("/status")]
            told.write(json.dumps([durable_us, kind, landing.next_offset, beats]) + "\n")

        while (passed := time.monotonic() - began) < options.seconds:
            rows = []
            for _ in range(int(passed * options.rate) - count):
                topic, payload = devices.next(time.time_ns() // 1000)
                count += 1
                draw = random.random()
                if draw < SHARE_LATE + SHARE_AGAIN:
                    heapq.heappush(held, (passed + random.random() * LATE_S, count, topic, payload))
                if draw >= SHARE_LATE:
                    rows.append((topic, payload))
            late = []
            while held and held[0][0] <= passed:
                _, _, topic, payload = heapq.heappop(held)
                late.append((topic, payload))
            land(rows, "live")
            land(late, "late")
            if options.burst_at is not None and burst is None and passed >= options.burst_at:
                chosen = list(posts)[:: max(1, round(1 / options.burst_share))]
                burst = stored(devices, chosen, time.time_ns() // 1000, options.burst_hours)
            if burst is not None:
                some = [row for _, row in zip(range(int(options.burst_rate * COMMIT_S)), burst, strict=False)]
                land(some, "burst")
            landing.seal_if_due()
            time.sleep(max(0.0, began + (int((time.monotonic() - began) / COMMIT_S) + 1) * COMMIT_S - time.monotonic()))


def _beat(topic: str, payload: bytes) -> tuple[str, int]:
    found = payloads.head(payload)
    assert found is not None
    return topic.split("/")[-2], found[1]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m bench.feed", description=__doc__)
    top.add_argument("root", type=Path)
    top.add_argument("--rate", type=float, default=2000, help="messages a second")
    top.add_argument("--seconds", type=float, default=60)
    top.add_argument("--seed", type=int, default=1)
    top.add_argument("--burst-at", type=float, help="seconds after the start")
    top.add_argument("--burst-share", type=float, default=0.1, help="share of the posts that flush")
    top.add_argument("--burst-hours", type=float, default=6.0)
    top.add_argument("--burst-rate", type=float, default=10_000, help="messages a second")
    return top


if __name__ == "__main__":
    arguments = parser().parse_args(sys.argv[1:])
    feed(arguments.root, arguments)
