"""A month of the pilot as a lake: landed day by day, taken up by `backfill`, and its raw log removed, so that the disk
holds a day of it at most.

Values walk and swing with the hour; moments of samples are drawn to the millisecond, receipts to the microsecond. Every
tenth post falls silent after a third of the days. A lake that is there is used again, and one that is not complete is
completed: what a day says is a function of the seed and the day.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from bench.load import SEGMENT_ROWS, Landed, land, lanes
from contracts import payloads
from contracts.layout import Layout, Positions, sealed_segments
from contracts.quality import LIMITS
from contracts.quantities import QUANTITIES
from contracts.registry import Lamppost, load_registry, save_registry
from contracts.retention import EVER, RULES
from contracts.schemas import TABLES
from contracts.times import MINUTE_US, US, from_us, to_us
from contracts.topics import device_topic
from pipelines import durability, housekeeping, lake, pins
from sensors_sim.fleet import build

DAY_MINUTES = 1440
BOOT = "00000000000000c1"  # not the live feed's
HALVES = ("one", "two")  # ingest instances, each with half of the posts
ENVIRON = {rule.variable: EVER for rule in RULES}  # nothing of the month is to go while it is measured


def month(root: Path, days: float, posts: int, seed: int = 1) -> dict[str, int]:
    """The lake of the month, made or completed; its facts: start_us, minutes, posts, silent_us.

    Raises ValueError when the root holds another one, RuntimeError when a backfill fails.
    """
    layout, told = Layout(root), root / "month.json"
    minutes = round(days * DAY_MINUTES)
    if told.exists():
        facts: dict[str, int] = json.loads(told.read_text())
        if (facts["minutes"], facts["posts"], facts["seed"]) != (minutes, posts, seed):
            raise ValueError(f"{root} holds {facts['minutes']} minutes of {facts['posts']} posts: give another --root")
    else:
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        start_us = to_us(midnight - timedelta(days=math.ceil(days)))
        facts = {"start_us": start_us, "minutes": minutes, "posts": posts, "seed": seed, "done": 0, "settled": 0}
        facts["silent_us"] = start_us + minutes // 3 * MINUTE_US
        facts |= dict.fromkeys(HALVES, 0)  # next offset of each
        save_registry(layout.registry, build(posts, seed, detectors=False))
        told.write_text(json.dumps(facts))
    with ProcessPoolExecutor(len(HALVES), get_context("spawn")) as pool:
        while facts["done"] < minutes:
            began = time.monotonic()
            span = min(DAY_MINUTES, minutes - facts["done"])
            work = [pool.submit(_land, root, half, facts, span) for half in range(len(HALVES))]
            ends = [landed.result() for landed in work]
            middle = time.monotonic()
            _take_up(layout)
            facts |= dict(zip(HALVES, ends, strict=True)) | {"done": facts["done"] + span}
            told.write_text(json.dumps(facts))
            spent = f"landed in {middle - began:.0f} s, taken up in {time.monotonic() - middle:.0f} s"
            print(f"{facts['done']} of {minutes} minutes: {spent}, {disk_bytes(layout.lake):,} bytes", file=sys.stderr)
    if not facts["settled"]:
        settle(root)
        facts["settled"] = 1
        told.write_text(json.dumps(facts))
    return facts


def _take_up(layout: Layout) -> None:
    verb = [sys.executable, "-m", "pipelines", "backfill", "--data", str(layout.root)]
    if subprocess.run(verb, env={**os.environ, **ENVIRON}, check=False).returncode:
        raise RuntimeError("the backfill failed")
    offsets = Positions.load(layout.positions).offsets
    for instance in HALVES:
        for segment in sealed_segments(layout.raw, instance):
            if segment.last < offsets.get(instance, 0):
                segment.path(layout.raw).unlink()


def settle(root: Path) -> None:
    """Leave of a lake what is left of it days later: compacted, what was replaced vacuumed, no pin of the time when it
    was made, and claimed so."""
    lake.forget()
    positions = Positions.load(Layout(root).positions)
    largest = sorted(TABLES, key=lambda name: -lake.count_rows(root, name))
    with ProcessPoolExecutor(len(HALVES), get_context("spawn")) as pool:
        deque(pool.map(partial(_compact, root), largest), maxlen=0)
    durability.claim(root, positions, positions.offsets, positions.covered_us)
    for moment in pins.moments(root):
        pins.remove(root, moment)
    for name in TABLES:
        handle = lake.open_table(root, name)
        handle.create_checkpoint()
        handle.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
        handle.cleanup_metadata()


def _compact(root: Path, name: str) -> None:
    began = time.monotonic()
    spans = housekeeping.compact(root, TABLES[name], time.time_ns() // 1000 + 7 * DAY_MINUTES * MINUTE_US)
    print(f"{name}: {spans} spans compacted in {time.monotonic() - began:.0f} s", file=sys.stderr)


def disk_bytes(folder: Path) -> int:
    """Bytes that a folder takes on its disk, as `du` counts them."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def _land(root: Path, half: int, facts: dict[str, int], minutes: int) -> int:
    """Land so many minutes of half of the posts from where they stand; the next offset."""
    layout, instance = Layout(root), HALVES[half]
    posts = load_registry(layout.registry).file.lampposts
    first, held = facts[instance], list[Landed]()
    for segment in sealed_segments(layout.raw, instance, first):
        segment.path(layout.raw).unlink()  # of an attempt that was killed
    mine = [(post, number % 10 == 9) for number, post in enumerate(posts)][half :: len(HALVES)]
    for row in _messages(mine, facts, minutes, f"{facts['seed']} {half} {facts['done']}"):
        held.append(row)
        if len(held) == SEGMENT_ROWS:
            land(layout, held, first, instance)
            first, held = first + len(held), []
    if held:
        land(layout, held, first, instance)
    return first + len(held)


def _messages(posts: list[tuple[Lamppost, bool]], facts: dict[str, int], minutes: int, seed: str) -> Iterator[Landed]:
    """Messages of the posts (and whether each falls silent) in order of receipt, minute by minute."""
    random, walk = Random(seed), _Walk(len(posts), seed)
    for minute in range(facts["done"], facts["done"] + minutes):
        begin_us = facts["start_us"] + minute * MINUTE_US
        values = walk.step(minute)
        rows: list[Landed] = []
        for number, (post, is_silenced) in enumerate(posts):
            if is_silenced and begin_us >= facts["silent_us"]:
                continue
            made = (*_halves(post, minute, begin_us, random), *_moments(post, minute, begin_us, values, number, random))
            for stream, sent_us, message in made:
                received_us = sent_us + 50_000 + int(random.random() * 2 * US)
                rows.append((device_topic(post.post_id, stream), payloads.encode(message), received_us))
        yield from sorted(rows, key=lambda row: row[2])


Made = tuple[str, int, Any]  # stream, when it is sent (microseconds), message


def _head(seq: int, time_us: int) -> dict[str, Any]:
    return {"schema_version": 1, "boot_id": BOOT, "seq": seq, "first_seq": seq, "time": from_us(time_us)}


def _halves(post: Lamppost, minute: int, begin_us: int, random: Random) -> Iterator[Made]:
    for half in (0, 1):
        at_us, seq = begin_us + half * MINUTE_US // 2, 2 * minute + half
        if "traffic" in post.streams:
            yield "traffic", at_us + MINUTE_US // 2, payloads.Traffic(**_head(seq, at_us), lanes=lanes(post, random))
        if "pedestrian" in post.streams:
            walked: dict[str, Any] = {
                "crossings_in_count": random.randrange(20),
                "crossings_out_count": random.randrange(20),
            }
            yield "pedestrian", at_us + MINUTE_US // 2, payloads.Pedestrian(**_head(seq, at_us), **walked)


def _moments(
    post: Lamppost, minute: int, begin_us: int, values: dict[str, list[float]], number: int, random: Random
) -> Iterator[Made]:
    for stream, kind in (("weather", payloads.Weather), ("air", payloads.Air)):
        if stream in post.streams:
            at_us = begin_us + 1000 * random.randrange(60_000)
            said: dict[str, Any] = {name: values[name][number] for name in post.quantities(stream)}
            yield stream, at_us, kind(**_head(minute, at_us), **said)
    at_us = begin_us + 1000 * random.randrange(60_000)
    yield "status", at_us, payloads.Heartbeat(**_head(minute, at_us), firmware="1.0")


class _Walk:
    """Scalar values of posts, minute by minute: a level by the hour, a walk of each post and the sensor's noise, at
    the sensor's resolution."""

    def __init__(self, posts: int, seed: str):
        self._random = np.random.default_rng(list(seed.encode()))
        self._rows = [row for row in QUANTITIES.values() if row.stream in ("weather", "air")]
        self._levels = {row.name: self._random.normal(size=posts) for row in self._rows}
        self._tips = np.zeros(posts)

    def step(self, minute: int) -> dict[str, list[float]]:
        """Values of a minute by quantity, a number for each post."""
        swing = math.sin(2 * math.pi * minute / DAY_MINUTES)
        values: dict[str, list[float]] = {}
        for row in self._rows:
            size = len(self._levels[row.name])
            noise = max(LIMITS[row.name].noise if row.name in LIMITS else 0.0, row.resolution)
            level = 0.99 * self._levels[row.name] + 0.1 * self._random.normal(size=size)
            self._levels[row.name] = level
            middle = row.low + (row.high - row.low) * (0.4 + 0.1 * swing)
            exact = middle + noise * (10 * level + 0.5 * self._random.normal(size=size))
            steps = np.round(np.clip(exact, row.low, row.high) / row.resolution)
            values[row.name] = np.round(steps * row.resolution, 2).tolist()
        # the counter of the rain begins anew each day; a gust is above the mean, and so are coarser particles
        self._tips += (self._random.random(len(self._tips)) < 0.02) * QUANTITIES["rain_mm"].resolution
        values["rain_mm"] = np.round(self._tips, 1).tolist()
        values["wind_gust_ms"] = [round(1.5 * speed, 1) for speed in values["wind_speed_ms"]]
        values["pm10_ug_m3"] = [round(fine + 10, 1) for fine in values["pm2_5_ug_m3"]]
        return values
