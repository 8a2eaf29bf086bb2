"""Messages to rows: decoding, flags and uniting, each beside an oracle."""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from contracts import payloads
from contracts.payloads import Reason
from contracts.registry import Registry, RegistryFile
from contracts.schemas import (
    LANE_FLOWS,
    OBSERVATIONS,
    TABLES,
)
from pipelines.kernels import decode
from pipelines.kernels.decode import Heads, Tolerance, decode_messages
from pipelines.kernels.frames import empty
from pipelines.kernels.rows import Frames
from pipelines.kernels.unite import unite
from tests.pipelines.raw_log import BOOT, START, Landed, messages, raw_batch, registry, registry_file

HEAD = {"schema_version": 1, "boot_id": BOOT, "seq": 0, "first_seq": 0, "time": START}


def decoded(landed: list[Landed], tolerance: Tolerance | None = None) -> Frames:
    import pyarrow as pa

    return decode_messages(pa.Table.from_batches([raw_batch(landed)]), registry(), tolerance or Tolerance())


def one(payload: bytes, stream: str = "weather", post: str = "KT1001", later_s: float = 1.0) -> Frames:
    return decoded([Landed(f"lamplight/v1/{post}/{stream}", payload, START + timedelta(seconds=later_s))])


def reason_of(frames: Frames) -> str:
    assert list(frames) == ["quarantine"]
    reason: str = frames["quarantine"]["reason"].item()
    return reason


def weather(time: datetime = START, **fields: object) -> bytes:
    return payloads.encode(payloads.Weather(**{**HEAD, "time": time}, **fields))  # type: ignore[arg-type]


def traffic(*lanes: payloads.Lane) -> bytes:
    return payloads.encode(payloads.Traffic(**HEAD, lanes=list(lanes)))  # type: ignore[arg-type]


def lane(name: str = "Fast Lane", direction: str = "N", count: int = 3, **fields: object) -> payloads.Lane:
    return payloads.Lane(lane=name, direction=direction, vehicle_count=count, **fields)  # type: ignore[arg-type]


def test_every_message_is_accounted_for() -> None:
    landed = messages(3)
    landed[5] = Landed(landed[5].topic, landed[5].payload[:40], landed[5].received)
    frames = decoded(landed)
    named = set()
    for name, frame in frames.items():
        if TABLES[name].is_reading:
            stream = pl.col("stream") if name == "observations" else pl.lit(name)
            named |= set(frame.select("post_id", stream.alias("s"), "boot_id", "seq").rows())
    assert len(named) + frames["quarantine"].height == len(landed)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (one(weather(temperature_c=1.0), post="ZZ9999"), Reason.UNKNOWN_POST),
        (one(b"not json"), Reason.MALFORMED),
        (one(weather(temperature_c=1.0), later_s=-61), Reason.FUTURE),
        (one(weather(temperature_c=1.0), later_s=91 * 86_400), Reason.TOO_OLD),
        (one(traffic(lane(direction="NW")), "traffic"), Reason.UNKNOWN_DIRECTION),
        (one(weather()), Reason.EMPTY),
        (decoded([Landed("somewhere/else", b"{}", START)]), Reason.UNKNOWN_TOPIC),
        (
            one(payloads.encode(payloads.Will(schema_version=1, boot_id=BOOT, connection=1)), "status", "GW0009"),
            Reason.UNKNOWN_POST,
        ),
    ],
)
def test_quarantine_reasons(frames: Frames, reason: Reason) -> None:
    assert reason_of(frames) == reason.value


def test_a_gateways_will_is_status_at_its_receipt() -> None:
    will = payloads.Will(schema_version=1, boot_id=BOOT, connection=4, gateway_id="GW0001")
    row = one(payloads.encode(will), "status", "GW0001")["device_status"].row(0, named=True)
    assert (row["kind"], row["seq"], row["gateway_id"]) == ("will", 4, "GW0001")
    assert row["event_time"] == row["received_time"]


@pytest.mark.parametrize(
    ("value", "flag", "kept"), [(21.5, 1, 21.5), (80.0, 4, 80.0), (-999.0, 9, None), ("////", 9, None)]
)
def test_flags_of_values(value: object, flag: int, kept: float | None) -> None:
    row = one(weather(temperature_c=value))["observations"].row(0, named=True)
    assert (row["flag"], row["value"]) == (flag, kept)


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ({"wind_speed_ms": 4.0, "wind_gust_ms": 3.0}, {"wind_speed_ms": 3, "wind_gust_ms": 3}),
        ({"wind_speed_ms": 4.0, "wind_gust_ms": 3.9}, {"wind_speed_ms": 1, "wind_gust_ms": 1}),  # their resolution
        ({"wind_speed_ms": 0.0, "wind_direction_deg": 90.0}, {"wind_speed_ms": 3, "wind_direction_deg": 3}),
        ({"wind_speed_ms": 2.0, "wind_direction_deg": 0.0}, {"wind_speed_ms": 3, "wind_direction_deg": 3}),
        ({"wind_speed_ms": 0.0, "wind_direction_deg": 0.0}, {"wind_speed_ms": 1, "wind_direction_deg": 1}),
        # what is refused already, or was not measured, contradicts nothing
        ({"wind_speed_ms": 90.0, "wind_gust_ms": 3.0}, {"wind_speed_ms": 4, "wind_gust_ms": 1}),
        ({"wind_speed_ms": 3.0, "wind_gust_ms": -999.0}, {"wind_speed_ms": 1, "wind_gust_ms": 9}),
        ({"wind_speed_ms": 0.0, "wind_direction_deg": "////"}, {"wind_speed_ms": 1, "wind_direction_deg": 9}),
        ({"wind_direction_deg": 0.0}, {"wind_direction_deg": 1}),
    ],
)
def test_flags_of_values_that_contradict_each_other(values: dict[str, Any], flags: dict[str, int]) -> None:
    other = weather(START + timedelta(seconds=60), wind_speed_ms=1.0, wind_direction_deg=10.0, wind_gust_ms=2.0)
    landed = [
        Landed("lamplight/v1/KT1001/weather", payload, START + timedelta(seconds=61))
        for payload in (weather(**values), other)
    ]
    rows = decoded(landed)["observations"]
    found = rows.filter(pl.col("event_time") == START)
    assert dict(zip(found["quantity"], found["flag"], strict=True)) == flags
    assert rows.filter(pl.col("event_time") > START)["flag"].to_list() == [1, 1, 1]


def test_fine_particles_are_part_of_the_respirable_ones() -> None:
    for fine, flag in ((20.0, 1), (24.0, 1), (26.0, 3)):
        payload = payloads.encode(payloads.Air(**HEAD, pm2_5_ug_m3=fine, pm10_ug_m3=20.0))  # type: ignore[arg-type]
        assert one(payload, "air")["observations"]["flag"].to_list() == [flag, flag]


@pytest.mark.parametrize(
    ("lanes", "flags"),
    [
        ([lane(count=0, mean_speed_kmh=50.0, occupancy_pct=-1.0)], [1]),
        ([lane(count=2, mean_speed_kmh=0.0)], [4]),
        ([lane(count=2, mean_speed_kmh=131.0)], [4]),
        ([lane(count=0, mean_speed_kmh=131.0)], [1]),  # no vehicle: a placeholder, not a speed
        ([lane(count=2, mean_speed_kmh=50.0, occupancy_pct=101.0)], [4]),
        ([lane(count=2, mean_speed_kmh=50.0, occupancy_pct=-1.0)], [4]),
        ([lane(count=2, mean_speed_kmh=50.0, occupancy_pct=100.0)], [1]),  # a queue
        ([lane(count=0, mean_speed_kmh=0.0, occupancy_pct=100.0)], [3]),
        ([lane(is_valid=False)], [9]),
        ([lane(), lane(), lane("Slow Lane")], [1, 3, 1]),
        ([lane(count=76)], [4]),
    ],
)
def test_flags_of_lanes(lanes: list[payloads.Lane], flags: list[int]) -> None:
    frame = one(traffic(*lanes), "traffic")["lane_flows"]
    assert frame.sort("lane_index")["flag"].to_list() == flags


def test_an_equal_copy_keeps_its_flags() -> None:
    payload = traffic(lane(), lane())
    copies = [Landed("lamplight/v1/KT1001/traffic", payload, START + timedelta(seconds=1))] * 2
    frame = unite(empty(LANE_FLOWS), decoded(copies)["lane_flows"], LANE_FLOWS)
    assert frame.sort("lane_index")["flag"].to_list() == [1, 3]


def test_the_least_digest_is_the_reading_and_the_other_stays_conflicting() -> None:
    rows = [Landed("lamplight/v1/KT1001/weather", weather(temperature_c=float(k)), START) for k in range(6)]
    united = unite(empty(OBSERVATIONS), decoded(rows)["observations"], OBSERVATIONS)
    assert united.height == 6
    assert united.filter(~pl.col("is_conflicting"))["digest"].to_list() == [united["digest"].min()]


@pytest.mark.parametrize("name", ["observations", "lane_flows", "footfall", "device_status", "quarantine"])
def test_uniting_is_a_set_union(name: str) -> None:
    table, random = TABLES[name], Random(5)
    landed = messages(7, minutes=4)
    again = [Landed(row.topic, row.payload, row.received + timedelta(seconds=9)) for row in random.sample(landed, 30)]
    other = [
        Landed(row.topic, row.payload.replace(b'"seq":1,', b'"seq":2,'), row.received)
        for row in random.sample(landed, 40)
    ]
    broken = [Landed(row.topic, row.payload[:-9], row.received) for row in random.sample(landed, 20)]
    everything = landed + again + other + broken
    whole = unite(empty(table), decoded(everything)[name], table).sort(table.identity)
    for _ in range(5):
        random.shuffle(everything)
        cut = random.randint(0, len(everything))
        a, b = (decoded(part).get(name, empty(table)) for part in (everything[:cut], everything[cut:]))
        left, right = unite(empty(table), a, table), unite(empty(table), b, table)
        for mine, theirs in ((left, right), (right, left), (whole, left), (whole, whole)):
            assert_frame_equal(unite(mine, theirs, table).sort(table.identity), whole)


def refuses_all(short_way: Callable[..., Heads]) -> Callable[..., Heads]:
    """The short way as one that decides nothing, so that every message goes the long one."""

    def nothing(*given: Any) -> Heads:
        heads = short_way(*given)
        heads.is_reading[:] = False
        return heads

    return nothing


def test_the_short_way_to_a_reading_decides_as_the_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random, landed = Random(8), messages(19, minutes=5)
    for row in random.sample(landed, 60):
        payload = bytearray(row.payload)
        payload[random.randrange(len(payload))] = random.randrange(256)
        shift = timedelta(seconds=random.choice((0, -40, -90, 40 * 86_400)))
        landed.append(Landed(row.topic, bytes(payload), row.received + shift))
    landed += [Landed(row.topic.replace("KT", "ZZ"), row.payload, row.received) for row in random.sample(landed, 9)]
    short = decoded(landed)
    monkeypatch.setattr(decode, "short_way", refuses_all(decode.short_way))
    long = decoded(landed)
    assert set(short) == set(long) == {name for name, table in TABLES.items() if table.is_reading} | {"quarantine"}
    for name, frame in long.items():
        assert_frame_equal(short[name], frame)


def test_the_short_way_decides_as_the_long_one_where_the_registry_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A post that is moved in the middle of a batch, and loses a direction and a sensor on the way."""
    middle, first = START + timedelta(minutes=3), registry_file().lampposts[0]
    moved = msgspec.structs.replace(
        first, valid_from=middle, directions=first.directions[:1], sensors=first.sensors[1:], area="TS"
    )
    entries = (msgspec.structs.replace(first, valid_to=middle), moved, *registry_file().lampposts[1:])
    changing = Registry(RegistryFile(version=2, lampposts=entries))
    raw = pa.Table.from_batches([raw_batch(messages(19, minutes=6))])
    short = decode_messages(raw, changing, Tolerance())
    monkeypatch.setattr(decode, "short_way", refuses_all(decode.short_way))
    long = decode_messages(raw, changing, Tolerance())
    assert set(short["quarantine"]["reason"]) == {"unknown_direction", "unknown_sensor"}
    assert short["lane_flows"].filter(pl.col("post_id") == first.post_id).height == 24
    for name, frame in long.items():
        assert_frame_equal(short[name], frame)
