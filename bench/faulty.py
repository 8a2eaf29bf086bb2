"""The simulated devices' messages with faults, landed without a broker, and the truth about what was injected."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np

from bench.load import SEGMENT_ROWS, Landed, land
from contracts.layout import Layout, Segment
from contracts.receipts import Receipt
from contracts.registry import Lamppost, RegistryFile, save_registry
from contracts.times import US, from_us
from sensors_sim import boots, showers, sky
from sensors_sim.city import City, city_of
from sensors_sim.devices import Devices, Message
from sensors_sim.faults import FaultPlan
from sensors_sim.fleet import build
from sensors_sim.producer import Producer
from sensors_sim.schedule import Schedule

# a message is received, and receipted, at the end of the step that it is due in: nothing here is sent again
_STEP_US = 10 * US


@dataclass(frozen=True, kw_only=True)
class Log:
    """`truth`: what was injected, one record a fault and message. `wet_share`: of the posts' minutes, in how many it
    rained more than 0.5 mm/h."""

    layout: Layout
    segments: list[Segment]
    truth: list[dict[str, Any]]
    wet_share: float


def scalar_posts(count: int, seed: int) -> RegistryFile:
    """A fleet that sends weather, air and status only."""
    posts = (_scalars_only(post) for post in build(count, seed, detectors=False).lampposts)
    return RegistryFile(version=1, lampposts=tuple(posts))


def _scalars_only(post: Lamppost) -> Lamppost:
    sensors = tuple(sensor for sensor in post.sensors if sensor.stream in ("weather", "air"))
    return msgspec.structs.replace(post, sensors=sensors, directions=(), release_clamp=None)


def wettest(seed: int, hours: int) -> int:
    """The start (microseconds) of the hours of a year that bring the city of this seed the most rain after their first
    hour, which is context."""
    best = 0.0, 0
    for day in range(20_454, 20_819):  # 2026
        fallen = [(shower.start_us, shower.peak_mm_h * shower.length_us) for shower in showers.of_day(seed, day)]
        midnight = int(sky.day_start_us(np.array([day]))[0])
        for start_us in range(midnight, midnight + sky.DAY_US - (hours - 1) * sky.HOUR_US, 2 * sky.HOUR_US):
            inside = range(start_us + sky.HOUR_US, start_us + hours * sky.HOUR_US)
            best = max(best, (sum(rain for at_us, rain in fallen if at_us in inside), start_us))
    return best[1]


def make_log(
    root: Path, registry: RegistryFile, plan: FaultPlan, seed: int, start_us: int, minutes: int, spread_us: int = 0
) -> Log:
    """A data root with the registry and so many minutes of faulty messages in sealed segments. Each is received up to
    `spread_us` later than the step ends, so that receipts differ as they do where a network lies between."""
    layout = Layout(root)
    save_registry(layout.registry, registry)
    city = city_of(registry.lampposts, seed)
    segments: list[Segment] = []
    held: list[Landed] = []
    truth: list[dict[str, Any]] = []
    first, random = 0, Random(seed)
    for topic, payload, received_us in _messages(city, plan, start_us, minutes, truth):
        held.append((topic, payload, received_us + random.randrange(spread_us + 1)))
        if len(held) == SEGMENT_ROWS:
            segments.append(land(layout, held, first))
            first, held = first + len(held), []
    segments.append(land(layout, held, first))
    return Log(layout=layout, segments=segments, truth=truth, wet_share=_wet_share(city, start_us, minutes))


def _messages(
    city: City, plan: FaultPlan, start_us: int, minutes: int, truth: list[dict[str, Any]]
) -> Iterator[Landed]:
    boot_ids = [boots.new_boot_id() for _ in city.posts]
    made = Producer(city, plan, start_us, 0, Schedule(city, start_us), lambda counts: Devices(city, counts, boot_ids))
    late: list[tuple[int, Landed]] = []
    for message in made.births({}):
        yield message.topic, message.payload, start_us + US
    for now_us in range(start_us, start_us + minutes * 60 * US, _STEP_US):
        received_us = now_us + _STEP_US
        for message in made.live(now_us, received_us):
            row = message.topic, message.payload, max(received_us, message.release_us)
            _receipt(made.devices, message, received_us)
            if not message.copies or message.is_lost:
                continue
            if message.release_us > received_us:
                late.append((message.release_us, row))
            else:
                yield from [row] * message.copies
        yield from (row for release_us, row in late if release_us <= received_us)
        late = [(release_us, row) for release_us, row in late if release_us > received_us]
        truth += made.records
        made.records.clear()
    yield from (row for _, row in sorted(late))


def _receipt(devices: Devices, message: Message, time_us: int) -> None:
    upto = {message.boot_id: {message.stream: message.seq}}
    receipt = Receipt(time=from_us(time_us), boots=upto)  # type: ignore[arg-type]
    for _ in devices.settle(message.post, receipt, time_us / US):
        pass


def _wet_share(city: City, start_us: int, minutes: int) -> float:
    times = start_us + 60 * US * np.arange(minutes)
    posts = np.arange(len(city.posts))
    rain = showers.intensity_mm_h(city, np.repeat(posts, minutes), np.tile(times, len(posts)))
    return float((rain > 0.5).mean())
