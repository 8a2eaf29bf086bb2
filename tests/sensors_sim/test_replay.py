"""Recorded XML becomes device messages: counted against the file itself, dirt kept as it is."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from contracts.payloads import Message, Reading, Traffic, decode
from contracts.registry import Registry, save_registry
from contracts.settings import SettingError
from contracts.times import HONG_KONG, US, to_us
from sensors_sim import devices
from sensors_sim.config import configure
from sensors_sim.fleet import build
from sensors_sim.recording import read
from sensors_sim.replay import Replay
from sensors_sim.sites import compass_code
from tests.broker import Embedded
from tests.sensors_sim.listener import ROOT, Listener, Simulator, wait_for

RECORDED = ROOT / "tests" / "data" / "rawSpeedVol-all_20240406T2127.xml"
FILE = build(4, 1, True)
REGISTRY = Registry(FILE)
NOW = to_us(datetime(2026, 11, 21, 10, 0, 12, 345, tzinfo=HONG_KONG))


def replayed(*argv: str) -> tuple[Replay, list[devices.Message]]:
    plan = Replay(configure({}, ["replay", *argv]), REGISTRY, NOW)
    return plan, list(plan.messages())


def body(message: devices.Message) -> Traffic:
    reading = decode(message.topic, message.payload)
    assert isinstance(reading, Reading), reading
    assert isinstance(reading.payload, Traffic)
    return reading.payload


def test_the_real_file_against_an_independent_count() -> None:
    text = RECORDED.read_text("utf-8")
    assert text.count("<lane>") == 4068
    assert len(set(re.findall(r"<detector_id>([^<]+)<", text))) == 754
    plan, messages = replayed(str(RECORDED))
    assert plan.counts == {
        "files": 1,
        "periods": 2,
        "detectors": 754,
        "messages": text.count("<detector>"),
        "lane_readings": 4068,
        "repeated": 0,
        "unknown_posts": 81,
    }
    lanes = [lane for message in messages for lane in body(message).lanes]
    assert len(lanes) == 4068
    assert sum(not lane.is_valid for lane in lanes) == text.count("<valid>N</valid>") == 232
    assert sum(lane.vehicle_count for lane in lanes) == sum(map(int, re.findall(r"<volume>(\d+)<", text)))
    assert sum(lane.mean_speed_kmh or 0 for lane in lanes) == sum(map(int, re.findall(r"<speed>(\d+)<", text)))
    assert sum(lane.speed_sd_kmh or 0 for lane in lanes) == pytest.approx(
        sum(map(float, re.findall(r"<s\.d\.>([\d.]+)<", text)))
    )
    for lane in lanes:
        assert lane.class_counts is None
        assert lane.release_speed_sum is None
        assert lane.inverse_speed_sum_h_km is None


def test_messages_stand_in_the_files_order_with_their_lanes() -> None:
    text = RECORDED.read_text("utf-8")
    _, messages = replayed(str(RECORDED))
    assert [m.post_id for m in messages] == re.findall(r"<detector_id>([^<]+)<", text)
    assert [lane.lane for m in messages for lane in body(m).lanes] == re.findall(r"<lane_id>([^<]+)<", text)


def test_seqs_count_per_detector() -> None:
    _, messages = replayed(str(RECORDED))
    boots = {body(message).boot_id for message in messages}
    assert len(boots) == 1
    assert {body(message).seq for message in messages} == {0, 1}


def test_times_move_as_a_whole_by_half_minutes() -> None:
    _, kept = replayed(str(RECORDED), "--keep-times")
    plan, moved = replayed(str(RECORDED))
    recorded = to_us(datetime(2024, 4, 6, 21, 27, tzinfo=HONG_KONG))
    assert sorted({to_us(body(message).time) for message in kept}) == [recorded, recorded + 30 * US]
    assert plan.shift_us % (30 * US) == 0
    for before, after in zip(kept, moved, strict=True):
        assert to_us(body(after).time) - to_us(body(before).time) == plan.shift_us
    last_end = max(to_us(body(message).time) for message in moved) + 30 * US
    assert NOW - 30 * US < last_end <= NOW


def test_a_file_cut_anywhere_gives_its_whole_detectors(tmp_path: Path) -> None:
    content = RECORDED.read_bytes()
    for cut in (0, 100, 192 * 1024, 384 * 1024, len(content) - 5):
        path = tmp_path / f"{cut}.xml"
        path.write_bytes(content[:cut])
        rows, warning = read(path)
        assert len(rows) == content[:cut].count(b"</detector>")
        assert warning is not None
        assert str(path) in warning
    rows, warning = read(RECORDED)
    assert warning is None


def recording(tmp_path: Path, date: str, *periods: tuple[str, str], name: str = "made.xml") -> Path:
    """A file of (period_from, detectors)."""
    inner = "".join(
        f"<period><period_from>{start}</period_from><detectors>{detectors}</detectors></period>"
        for start, detectors in periods
    )
    path = tmp_path / name
    path.write_text(
        f"<raw_speed_volume_list><date>{date}</date><periods>{inner}</periods></raw_speed_volume_list>", "utf-8"
    )
    return path


def detector(name: str, direction: str | None, *lanes: str) -> str:
    word = "" if direction is None else f"<direction>{direction}</direction>"
    return f"<detector><detector_id>{name}</detector_id>{word}<lanes>{''.join(lanes)}</lanes></detector>"


def lane(name: str, speed: str = "50", occupancy: str = "1", volume: str = "2", more: str = "") -> str:
    return (
        f"<lane><lane_id>{name}</lane_id><speed>{speed}</speed><occupancy>{occupancy}</occupancy>"
        f"<volume>{volume}</volume>{more}<valid>Y</valid></lane>"
    )


def test_midnight_belongs_to_the_next_day(tmp_path: Path) -> None:
    one = detector("AID01101", "South East", lane("Fast Lane"))
    for first, second in (("23:59:30", "00:00:00"), ("00:00:00", "00:00:30")):
        rows, _ = read(recording(tmp_path, "2024-04-06", (first, one), (second, one)))
        assert rows[1].start_us - rows[0].start_us == 30 * US
        midnight = rows[0] if first == "00:00:00" else rows[1]
        assert midnight.start_us == to_us(datetime(2024, 4, 7, tzinfo=HONG_KONG))
    rows, _ = read(recording(tmp_path, "2024-04-06", ("00:01:00", one)))
    assert rows[0].start_us == to_us(datetime(2024, 4, 6, 0, 1, tzinfo=HONG_KONG))


def test_dirt_stays_as_it_is(tmp_path: Path) -> None:
    rows = (
        lane("Fast Lane", "70", "-1", "0"),
        lane("Fast Lane", "0", "100", "5", "<s.d.>3.5</s.d.>"),
        lane("Slow Lane", "300", "100", "0"),
    )
    path = recording(tmp_path, "2021-01-01", ("07:00:00", detector("AID01101", "South East ", *rows)))
    _, (message,) = replayed(str(path), "--keep-times")
    lanes = body(message).lanes
    assert [item.direction for item in lanes] == ["SE"] * 3
    assert [item.lane for item in lanes] == ["Fast Lane", "Fast Lane", "Slow Lane"]
    assert [item.mean_speed_kmh for item in lanes] == [70, 0, 300]
    assert [item.occupancy_pct for item in lanes] == [-1, 100, 100]
    assert [item.speed_sd_kmh for item in lanes] == [None, 3.5, None]


def test_a_direction_that_is_missing_is_the_registrys(tmp_path: Path) -> None:
    detectors = detector("TDS/IEC/20002", None, lane("Fast Lane")) + detector("AID99999", None, lane("Fast Lane"))
    path = recording(tmp_path, "2024-04-06", ("07:00:00", detectors))
    plan, (known, unknown) = replayed(str(path), "--keep-times")
    assert known.topic == "lamplight/v1/TDSIEC20002/traffic"
    assert body(known).lanes[0].direction == "W"
    assert body(unknown).lanes[0].direction == "unknown"
    assert plan.counts["unknown_posts"] == 1


def test_the_same_file_twice_is_the_same_messages_twice() -> None:
    plan, messages = replayed(str(RECORDED), str(RECORDED))
    half = len(messages) // 2
    assert [(m.topic, m.payload) for m in messages[:half]] == [(m.topic, m.payload) for m in messages[half:]]
    assert plan.counts["repeated"] == half


def test_a_lane_without_a_volume_is_sent_and_refused_by_the_contract(tmp_path: Path) -> None:
    path = recording(tmp_path, "2024-04-06", ("07:00:00", detector("AID01101", "East", lane("Fast Lane", volume=""))))
    _, (message,) = replayed(str(path))
    assert not isinstance(decode(message.topic, message.payload), Reading)


@pytest.mark.parametrize(
    ("word", "code"), [("North", "N"), ("South ", "S"), (" North  East ", "NE"), ("Up", None), ("", None), (None, None)]
)
def test_compass_words(word: str | None, code: str | None) -> None:
    assert compass_code(word) == code


def test_a_missing_file_is_a_setting_error(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="nothing"):
        read(tmp_path / "nothing.xml")


def test_over_a_broker(tmp_path: Path, embedded_broker: Embedded) -> None:
    simulator = Simulator(tmp_path, embedded_broker.port)
    save_registry(tmp_path / "registry" / "lampposts.json", FILE)
    with Listener(embedded_broker.port) as listener:
        code, out, err = simulator.run("replay", str(RECORDED))
        assert code == 0, err
        assert json.loads(out)["lane_readings"] == 4068
        wait_for(lambda: len(listener.heard) >= 1506)
        readings = [decode(topic, payload) for topic, payload, _ in listener.heard]
        found = [r.payload for r in readings if isinstance(r, Reading) and isinstance(r.payload, Message)]
        assert sum(len(item.lanes) for item in found if isinstance(item, Traffic)) == 4068
