"""Logs with everything in them that may land: the laws of the pipelines are asked of these.

Five posts of one area and one of another; more than an hour of values that walk, stand still, spike and fall silent;
calm air, counters that reset with a boot, late, future and old messages, copies that are equal and copies that are not,
broken bytes, posts, directions and topics that nobody knows.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any

from contracts import payloads
from contracts.topics import device_topic
from tests.pipelines.raw_log import START, Landed

AREA = ("KT1001", "KT1002", "KT1003", "KT1004", "KT1005")
CITY = (*AREA, "TS1001")
STUCK, SPIKING, FAILING = AREA[:3]


class _Post:
    """One device: what it measures, and the names of its messages."""

    def __init__(self, random: Random, post_id: str, minutes: int):
        self.random, self.post_id = random, post_id
        self.reboots = sorted(random.sample(range(1, minutes), 2))
        self.boot, self.seqs, self.rain = 1, Counter[str](), 0.0
        self.own = {name: random.gauss(0, 0.3) for name in ("temperature_c", "no2_ug_m3")}

    def reboot(self) -> None:
        self.boot, self.seqs, self.rain = self.boot + 1, Counter(), 0.0

    def message(self, kind: Any, stream: str, time: datetime, /, **fields: Any) -> Landed:
        boot_id = f"{int(self.post_id[2:]):08x}{self.boot:08x}"
        seq = self.seqs[stream]
        self.seqs[stream] += 1
        made = kind(schema_version=1, boot_id=boot_id, seq=seq, first_seq=max(0, seq - 9), time=time, **fields)
        # most arrive at once, some hours later
        late_s = 31 if self.random.random() < 0.95 else self.random.randint(60, 7200)
        return Landed(device_topic(self.post_id, stream), payloads.encode(made), time + timedelta(seconds=late_s))


def rich(seed: int, minutes: int = 75) -> list[Landed]:
    """The messages of a seed, in the order of their event times."""
    random = Random(seed)
    devices = [_Post(random, post_id, minutes) for post_id in CITY]
    landed: list[Landed] = []
    shared = {"temperature_c": 20.0, "wind": 3.0, "degrees": 350.0, "no2_ug_m3": 40.0}
    for minute in range(minutes):
        time = START + timedelta(minutes=minute)
        for name, step in (("temperature_c", 0.1), ("wind", 0.4), ("degrees", 8.0), ("no2_ug_m3", 1.0)):
            shared[name] += random.gauss(0, step)
        for device in devices:
            if minute in device.reboots:
                device.reboot()
            landed += [row for row in _minute(random, device, minute, time, shared) if random.random() < 0.97]
    return landed + _dirt(random, landed)


def _minute(random: Random, device: _Post, minute: int, time: datetime, shared: dict[str, float]) -> Iterator[Landed]:
    post_id = device.post_id
    temperature = round(shared["temperature_c"] + device.own["temperature_c"] + random.gauss(0, 0.1), 1)
    no2 = round(max(0.0, shared["no2_ug_m3"] + random.gauss(0, 2)), 1)
    wind = round(max(0.0, shared["wind"] - 2), 1)
    if post_id == STUCK and minute > 3:
        temperature = 21.3
    if post_id == SPIKING and random.random() < 0.08:
        temperature, no2 = temperature + random.choice((-9, 4, 15)), no2 + 400
    values: dict[str, Any] = {
        "temperature_c": temperature,
        "humidity_pct": round(min(100.0, random.gauss(70, 2)), 1),
        "wind_speed_ms": wind,
        "wind_direction_deg": 0.0 if wind == 0 else round(shared["degrees"] % 360 or 360.0, 0),
        "wind_gust_ms": round(wind * 1.4, 1),
        "rain_mm": device.rain + random.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, 4000)),
    }
    device.rain = round(device.rain + random.choice((0.0, 0.0, 0.2, 0.4)), 1)
    if post_id == FAILING:
        name = random.choice(list(values))
        values[name] = random.choice(("////", -999.0, 1e6, None))
    second = time + timedelta(seconds=random.randint(0, 59), microseconds=random.choice((0, 0, 1)))
    yield device.message(payloads.Weather, "weather", second, **values)
    yield device.message(payloads.Air, "air", time, no2_ug_m3=no2, noise_dba=round(random.gauss(65, 1), 1))
    if minute % 5 == 0:
        offset = random.choice((0.0, 0.4, None))
        yield device.message(payloads.Heartbeat, "status", time, firmware="1.0", clock_offset_s=offset)
    if random.random() < 0.02:
        yield device.message(payloads.Dumping, "dumping", time, kind="bulky", confidence=0.7)
    if post_id in (STUCK, CITY[-1]):
        for half in (time, time + timedelta(seconds=30)):
            yield device.message(payloads.Traffic, "traffic", half, lanes=_lanes(random))
            counts = {f"crossings_{way}_count": random.choice((0, 3, 700)) for way in ("in", "out")}
            yield device.message(payloads.Pedestrian, "pedestrian", half, **counts)


def _lanes(random: Random) -> list[payloads.Lane]:
    lanes = []
    for direction, name in (("N", "Fast Lane"), ("N", "Slow Lane"), ("S", "Fast Lane"), ("S", "Fast Lane")):
        count = random.choice((0, 2, 5, 90))
        speed = float(random.choice((0, 30, 55, 140)))
        classes = dict.fromkeys(payloads.VEHICLE_CLASSES, 0) | {"taxi": count}
        lanes.append(
            payloads.Lane(
                lane=name,
                direction=direction,
                vehicle_count=count,
                class_counts=random.choice((None, payloads.ClassCounts(**classes))),
                speed_count=random.choice((None, count, count // 2)),
                mean_speed_kmh=random.choice((None, speed)),
                inverse_speed_sum_h_km=count / 40,
                occupancy_pct=random.choice((None, -1.0, 7.0, 100.0, 120.0)),
                is_valid=random.random() < 0.9,
                release_speed_sum=random.choice((None, count * 3)),
            )
        )
    return lanes


def _dirt(random: Random, landed: list[Landed]) -> list[Landed]:
    """Copies and what belongs in quarantine; each besides the message that it was made from."""

    def some(share: float) -> list[Landed]:
        return random.sample(landed, max(1, int(len(landed) * share)))

    def later(row: Landed, seconds: float) -> Landed:
        return Landed(row.topic, row.payload, row.received + timedelta(seconds=seconds))

    def as_other(row: Landed, old: bytes, new: bytes) -> Landed:
        return Landed(row.topic, row.payload.replace(old, new, 1), row.received)

    more = [later(row, random.choice((0.000001, 40, 4000, -40))) for row in some(0.05)]
    more += [as_other(row, b'"first_seq":', b'"first_seq": ') for row in some(0.02)]  # conflicts, with equal values
    more += [as_other(row, b'_c":2', b'_c":3') for row in some(0.1)]  # conflicts
    more += [as_other(row, b'"seq":1', b'"seq":2') for row in some(0.05)]  # conflicts with another, or a number skipped
    more += [Landed(row.topic, row.payload[: random.randint(0, 90)], row.received) for row in some(0.02)]
    more += [Landed(row.topic, b"", row.received) for row in some(0.001)]
    more += [
        later(row, random.choice((-120, -100_000, 31 * 86_400, 30 * 86_400, 91 * 86_400, 90 * 86_400)))
        for row in some(0.02)
    ]
    more += [Landed(row.topic.replace("1001", "9999"), row.payload, row.received) for row in some(0.02)]
    more += [Landed(row.topic + "/x", row.payload, row.received) for row in some(0.005)]
    more += [as_other(row, b'"direction":"N"', b'"direction":"NW"') for row in some(0.1) if b'"N"' in row.payload]
    wills = [payloads.Will(schema_version=1, boot_id="00000000000000a1", connection=k) for k in range(3)]
    more += [
        Landed(device_topic(random.choice((CITY[0], "GW0001", "GW0002")), "status"), payloads.encode(will), START)
        for will in wills
    ]
    return more
