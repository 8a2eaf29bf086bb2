"""Messages: all of them keep the contract unless a fault broke them, and every fault is on record."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from contracts.payloads import Birth, Heartbeat, Message, Reading, Reason, Reject, Traffic, decode
from contracts.quantities import QUANTITIES
from contracts.receipts import Receipt
from contracts.settings import SettingError
from contracts.streams import STREAMS
from contracts.times import US, to_us
from sensors_sim import devices
from sensors_sim.boots import new_boot_id
from sensors_sim.city import city_of
from sensors_sim.faults import FAULTS, FaultPlan, parse
from sensors_sim.fleet import build
from sensors_sim.producer import Producer
from sensors_sim.schedule import Schedule, natural_rate

CITY = city_of(build(120, 1, False).lampposts, 3)
START = 1_795_257_012 * US + 345_678
MINUTE = 60 * US


def producer(plan: FaultPlan, history_minutes: int = 0, factor: float = 1.0, seconds: float = 3600) -> Producer:
    live = Schedule(CITY, START, factor, seconds)
    boot_ids = [new_boot_id() for _ in CITY.posts]
    return Producer(
        CITY, plan, START, history_minutes * MINUTE, live, lambda counts: devices.Devices(CITY, counts, boot_ids)
    )


def settle(made: Producer, messages: Iterable[devices.Message]) -> None:
    """Receipts that cover exactly these messages (of each boot and stream the lowest that are held)."""
    highest: dict[int, dict[str, dict[Any, int]]] = defaultdict(lambda: defaultdict(dict))
    for message in messages:
        streams = highest[message.post][message.boot_id]
        streams[message.stream] = max(message.seq, streams.get(message.stream, 0))
    for post, boots in highest.items():
        for _ in made.devices.settle(post, Receipt(time=datetime.now(UTC), boots=dict(boots)), 1.0):
            pass


def run(made: Producer, minutes: int, step_us: int) -> list[devices.Message]:
    """Births, then live messages in steps."""
    messages = made.births({})
    for at in range(START, START + minutes * MINUTE, step_us):
        messages += made.live(at, min(at + step_us, START + minutes * MINUTE))
    return messages


def payload(message: devices.Message) -> Message:
    reading = decode(message.topic, message.payload)
    assert isinstance(reading, Reading), reading
    assert isinstance(reading.payload, Message)
    return reading.payload


def test_every_message_keeps_the_contract_and_says_what_the_registry_promises() -> None:
    made = producer(parse("none"), history_minutes=5)
    messages = made.births({}) + made.stored(made.begin_us, START) + made.live(START, START + 5 * MINUTE)
    seen = Counter(message.stream for message in messages)
    assert {"traffic", "pedestrian", "weather", "air", "status"} <= set(seen)
    for message in messages:
        body = payload(message)
        post = CITY.posts[message.post]
        assert message.stream in post.streams
        assert body.first_seq <= body.seq == message.seq
        if isinstance(body, Traffic):
            assert [(lane.direction, lane.lane) for lane in body.lanes] == [
                (way.direction_id, lane) for way in post.directions for lane in way.lanes
            ]
            assert post.release_clamp is not None
            reach = post.release_clamp.hi_kmh - post.release_clamp.centre_kmh
            for lane in body.lanes:
                assert lane.class_counts is not None
                assert sum(msgspec.structs.astuple(lane.class_counts)) == lane.vehicle_count
                assert abs(lane.release_speed_sum or 0) <= reach * lane.vehicle_count
        if message.stream in ("weather", "air"):
            sent = {name for name in QUANTITIES if getattr(body, name, None) is not None}
            assert sent == set(post.quantities(message.stream))


def numbers(messages: Iterable[devices.Message]) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for message in messages:
        found[message.post_id, message.stream].append(message.seq)
    return found


def test_stored_readings_come_before_live_ones_without_gap_or_overlap() -> None:
    made = producer(parse("none"), history_minutes=5)
    births = made.births({})
    live = made.live(START, START + 3 * MINUTE)
    stored = made.stored(made.begin_us, START)
    assert len(stored) == made.stored_count
    for (post_id, stream), seqs in numbers(births + stored + live).items():
        assert seqs == list(range(len(seqs))), (post_id, stream)
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    for message in stored + live:
        times[message.post_id, message.stream].append(to_us(payload(message).time))
    for (_, stream), moments in times.items():
        cadence_us = (STREAMS[stream].cadence_s or 0) * US
        if cadence_us:
            assert np.diff(moments).tolist() == [cadence_us] * (len(moments) - 1)


def test_ticks_of_any_length_make_the_same_messages() -> None:
    def content(step_us: int) -> list[tuple[str, int, Any]]:
        made = producer(parse("none"))
        return sorted(
            (m.topic, m.seq, msgspec.structs.replace(payload(m), boot_id="0" * 16, first_seq=0))
            for m in run(made, 2, step_us)
        )

    assert content(100_000) == content(7_000_000)


def test_first_seq_is_the_lowest_that_is_still_held() -> None:
    made = producer(parse("none"), history_minutes=3)
    births = made.births({})
    early = [payload(m) for m in made.live(START, START + MINUTE) if m.stream == "weather"]
    assert {body.first_seq for body in early} == {0}  # stored ones are held although not yet made
    stored = made.stored(made.begin_us, START)
    settle(made, births + stored)
    late = made.live(START + MINUTE, START + 2 * MINUTE)
    for message in late:
        if message.stream in ("weather", "status"):
            assert payload(message).first_seq == message.seq - 1  # only the early ones are left


def test_live_times_are_the_moment_of_sending_or_the_period_that_ended() -> None:
    schedule = Schedule(CITY, START)
    for slots in schedule.due(START, START + MINUTE):
        if STREAMS[slots.stream].is_period:
            waited = slots.due_us - slots.time_us - 30 * US
            assert (slots.time_us % (30 * US) == 0).all()
            assert ((waited > 0) & (waited < 5 * US)).all()
        else:
            assert (slots.time_us == slots.due_us).all()


@pytest.mark.parametrize("rate", [2.0, 500.0])
def test_a_load_keeps_the_mix_and_no_half_minute_comes_twice(rate: float) -> None:
    seconds = 20.0
    factor = rate / natural_rate(CITY.posts)
    made = producer(parse("none"), factor=factor, seconds=seconds)
    messages = made.live(START, START + round(seconds * US))
    assert len(messages) == pytest.approx(rate * seconds, rel=0.25)
    keys = [(m.post_id, m.stream, payload(m).time) for m in messages]
    assert len(set(keys)) == len(keys)
    assert all(to_us(time) <= START + round(seconds * US) for _, _, time in keys)


def test_a_rate_next_to_the_natural_one_is_the_natural_one() -> None:
    assert Schedule(CITY, START, 1.01).factor == 1.0
    assert Schedule(CITY, START, 0.5).cadence_us("weather") == 120 * US


def test_a_reboot_is_born_with_what_the_boot_before_had_given() -> None:
    made = producer(FaultPlan({"reboot": 1.0}))
    messages = run(made, 30, 10 * US)
    births = [m for m in messages if isinstance(payload(m), Birth)]
    assert len(births) > len(CITY.posts)
    highest: dict[tuple[str, str], int] = {}
    for message in messages:
        body = payload(message)
        if isinstance(body, Birth):
            assert body.seq == 0
            if body.previous is not None:
                for stream, seq in body.previous.highest_seq.items():
                    assert highest[body.previous.boot_id + message.post_id, stream] == seq
        highest[body.boot_id + message.post_id, message.stream] = body.seq


EASY = FaultPlan({name: 0.05 if fault.minutes is None else 0.6 for name, fault in FAULTS.items()})


def test_faults_are_the_same_for_the_same_seed() -> None:
    def records() -> list[dict[str, Any]]:
        made = producer(EASY)
        run(made, 4, 3 * US)
        return [{key: item for key, item in record.items() if "boot_id" not in key} for record in made.records]

    first = records()
    assert first == records()
    assert {record["fault"] for record in first} == set(FAULTS)


def test_every_fault_is_recorded_as_injected() -> None:
    made = producer(FaultPlan({name: rate for name, rate in EASY.rates.items() if name != "reboot"}))
    messages = run(made, 4, 3 * US)
    sent = {(m.post_id, m.stream, m.seq): m for m in messages}
    notes: dict[int, set[str]] = defaultdict(set)
    for record in made.records:
        notes[id(sent[record["post_id"], record["stream"], record["seq"]])].add(record["fault"])
    assert sum(m.copies == 0 for m in messages) > 0
    for message in messages:
        names = notes[id(message)]
        found = decode(message.topic, message.payload)
        if isinstance(found, Reject):
            reasons = {Reason.MALFORMED: {"malformed", "truncated"}, Reason.UNKNOWN_TOPIC: {"wrong_topic"}}
            assert names & reasons[found.reason], (names, found)
        assert (message.copies == 2) == ("duplicate" in names)
        assert (message.copies == 0) == ("drop" in names)
        assert message.is_lost == ("wire" in names)
        assert message.swaps == ("reorder" in names)
        assert (message.release_us > 0) == ("late" in names)
        assert message.topic.startswith("lamplight/v1/ZZ") == ("unknown_post" in names)


def test_value_faults_show_the_value_that_the_record_names() -> None:
    for name in ("stuck", "spike", "drift", "sentinel", "out_of_range"):
        made = producer(FaultPlan({name: 0.6}))
        sent = {(m.post_id, m.stream, m.seq): m for m in run(made, 2, 10 * US)}
        assert made.records
        for record in made.records:
            body = payload(sent[record["post_id"], record["stream"], record["seq"]])
            limits = QUANTITIES[record["quantity"]]
            shown = getattr(body, record["quantity"])
            assert shown == record["sent_value"]
            if name == "sentinel":
                assert shown in (-999.0, "////")
            else:
                assert (limits.low <= shown <= limits.high) == (name != "out_of_range")


def test_a_wrong_clock_is_what_the_heartbeat_says() -> None:
    made = producer(FaultPlan({"skew": 1.0}))
    messages = {(m.post_id, m.stream, m.seq): m for m in run(made, 40, 10 * US)}
    beats = [record for record in made.records if record["stream"] == "status"]
    assert beats
    for record in beats:
        body = payload(messages[record["post_id"], "status", record["seq"]])
        assert isinstance(body, Heartbeat)
        assert body.clock_offset_s == pytest.approx(record["offset_s"], abs=0.2)
        assert to_us(body.time) - record["true_time_us"] == pytest.approx(record["offset_s"] * US, abs=1)


def test_no_faults_means_no_records() -> None:
    made = producer(parse("none"))
    assert all(m.copies == 1 and not m.swaps and not m.release_us for m in run(made, 1, 5 * US))
    assert not made.records


@pytest.mark.parametrize("spec", ["", "dropp=0.1", "drop=2", "drop=x", "drop", "drop=0.1,,"])
def test_a_wrong_spec_is_one_clear_line(spec: str) -> None:
    with pytest.raises(SettingError, match="--faults"):
        parse(spec)


def test_rates_are_read_one_by_one() -> None:
    assert parse("drop=0.001,duplicate=0.002").rates == {"drop": 0.001, "duplicate": 0.002}
    assert set(parse("default").rates) == set(FAULTS)
