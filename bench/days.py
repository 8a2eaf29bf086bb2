"""`tick.day30/day1`: two lakes, one with days of stored data and many live commits, tick in turn on the same messages.

The stored days are made by the real stages, hour by hour, so that every table has a file for each hour, as compaction
leaves it; posts are few, because files and log entries are what grows.
"""

import logging
import sys
import time
from pathlib import Path
from random import Random
from statistics import median

from bench.feed import SHARE_LATE, Devices, stored
from bench.figures import figure
from contracts.layout import Layout, Positions
from contracts.registry import RegistryFile, save_registry
from contracts.schemas import TABLES
from contracts.times import MINUTE_US
from ingest.arrival import Arrival
from ingest.landing import Landing
from pipelines import durability, files, graph, lake, live
from pipelines.config import Config, from_environment, parser
from pipelines.log import chunks, new_segments
from pipelines.metrics import Metrics
from sensors_sim.fleet import build

HOUR_US = 60 * MINUTE_US
POSTS = 40
TICK_MESSAGES = 80
MEASURED_TICKS = 60


class City:
    """A lake with its raw log and its live loop, driven tick by tick."""

    def __init__(self, root: Path, registry: RegistryFile):
        self.layout = Layout(root)
        save_registry(self.layout.registry, registry)
        self.landing = Landing(self.layout, "a")
        arguments = parser().parse_args(["run", "--data", str(root)])
        self.config: Config = from_environment({}, arguments)
        self.live: live.Live | None = None

    def land(self, rows: list[tuple[str, bytes]], received_us: int) -> None:
        self.landing.append([Arrival(topic, payload, received_us) for topic, payload in rows])
        self.landing.seal()

    def store(self, devices: Devices, now_us: int, hours: int) -> None:
        """Stored hours until now, a run of the graph and a file of each table for each."""
        posts = [post for post, stream in devices.slots if stream == "status"]
        offsets: dict[str, int] = {}
        for hour in range(hours, 0, -1):
            end_us = now_us // HOUR_US * HOUR_US - (hour - 1) * HOUR_US
            self.land(list(stored(devices, posts, end_us, 1.0)), end_us)
            segments, _ = new_segments(self.layout.raw, offsets)
            graph.run(self.config.setup, chunks(segments))
            offsets = {"a": self.landing.next_offset}
            if hour % 24 == 1:  # else the live loop would begin with the stored days
                durability.claim(self.layout.root, Positions.load(self.layout.positions), offsets, end_us)

    def tick(self) -> float:
        """Seconds of a tick, chores left out; they run when they are due."""
        self.live = self.live or live.Live(self.config, Metrics(self.layout.raw))
        began = time.perf_counter()
        self.live.tick()
        spent = time.perf_counter() - began
        self.live.chores()
        return spent

    @property
    def commits(self) -> int:
        return sum(lake.versions(self.layout.root).values())

    @property
    def files(self) -> int:
        root = self.layout.root
        return sum(len(files.listed(lake.newest_version(root, name), table)) for name, table in TABLES.items())


def measure(folder: Path, days: int, commits: int) -> None:
    """Print the figure."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    registry = build(POSTS, 1, detectors=False)
    random, devices = Random(2), Devices(registry.lampposts, 1)
    held: list[tuple[str, bytes]] = []
    young, old = City(folder / "young", registry), City(folder / "old", registry)
    now_us = time.time_ns() // 1000
    for city, hours in ((young, 1), (old, 24 * days)):
        city.store(Devices(registry.lampposts, 3), now_us, hours)
        print(f"{hours} h stored: {city.commits} commits, {city.files} files", file=sys.stderr)

    def more() -> list[tuple[str, bytes]]:
        """Messages of the moment; one in twenty comes later, one in a hundred much later."""
        now_us = time.time_ns() // 1000
        rows = []
        for row in (devices.next(now_us) for _ in range(TICK_MESSAGES)):
            if random.random() < SHARE_LATE:
                held.append(row)
            else:
                rows.append(row)
        while len(held) > TICK_MESSAGES:
            rows.append(held.pop(random.randrange(len(held))))
        return rows

    def turn(cities: tuple[City, ...]) -> list[float]:
        rows = more()
        for city in cities:
            city.land(rows, time.time_ns() // 1000)
        return [city.tick() for city in cities]

    begun = old.commits
    first = 0
    while (done := old.commits - begun) < commits:
        turn((old,))
        first += 1
        if first % 100 == 0:
            print(f"{done} live commits in {first} ticks, {old.files} files", file=sys.stderr)
    ticks: dict[City, list[float]] = {young: [], old: []}
    for number in range(MEASURED_TICKS):
        cities = (young, old) if number % 2 else (old, young)
        for city, spent in zip(cities, turn(cities), strict=True):
            ticks[city].append(spent)
    skip = 5  # the young lake's first ticks read what they then keep
    day1, day30 = (median(ticks[city][skip:]) for city in (young, old))
    figure(
        f"tick.day{days}/day1",
        value=day30,
        unit="s",
        against=day1,
        stored_files=old.files,
        commits=old.commits,
        log_entries=_entries(old.layout),
    )


def _entries(layout: Layout) -> int:
    return sum(1 for name in TABLES for _ in (layout.table(name) / "_delta_log").glob("*.json"))
