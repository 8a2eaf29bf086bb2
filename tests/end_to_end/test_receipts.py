"""From the device to the disk: a broker that loses its whole queue, and a fleet that is killed, lose nothing."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.layout import Layout, instances, sealed_segments
from contracts.payloads import Birth, Reading, decode, head
from contracts.segments import read_segment
from contracts.topics import parse_device_topic
from tests.broker import Mosquitto
from tests.end_to_end.city import City, wait_for

Key = tuple[str, str, str, int]  # post, stream, boot, seq


@pytest.fixture
def city(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[City]:
    with City(tmp_path / "data", mosquitto.port) as city:
        city.run("sensors_sim", "fleet", "--posts", "40")
        yield city


def landed(layout: Layout) -> set[Key]:
    """Every message of a device that lies in a sealed segment."""
    found: set[Key] = set()
    for instance in instances(layout.raw):
        for segment in sealed_segments(layout.raw, instance):
            rows = read_segment(layout.raw, segment)
            for topic, payload in zip(rows["topic"].to_pylist(), rows["payload"].to_pylist(), strict=True):
                place, said = parse_device_topic(topic), head(payload)
                if place and said:
                    found.add((*place, said[0], said[1]))
    return found


def births(layout: Layout) -> Iterator[Key]:
    """Every message that the boots before a landed birth had given, as that birth says."""
    for instance in instances(layout.raw):
        for segment in sealed_segments(layout.raw, instance):
            rows = read_segment(layout.raw, segment)
            for topic, payload in zip(rows["topic"].to_pylist(), rows["payload"].to_pylist(), strict=True):
                found = decode(topic, payload)
                if isinstance(found, Reading) and isinstance(found.payload, Birth) and found.payload.previous:
                    previous = found.payload.previous
                    for stream, last in previous.highest_seq.items():
                        yield from ((found.post_id, stream, previous.boot_id, seq) for seq in range(last + 1))


def never_held(city: City) -> set[Key]:
    """What the truth file says was lost in the device."""
    records = [json.loads(line) for line in (city.layout.devices / "truth.ndjson").read_text().splitlines()]
    assert {record["fault"] for record in records} >= {"drop"}
    return {(r["post_id"], r["stream"], r["boot_id"], r["seq"]) for r in records if r["fault"] == "drop"}


def start_ingest(city: City) -> "subprocess.Popen[bytes]":
    path = city.layout.progress("ingest")
    path.unlink(missing_ok=True)
    process = city.start("ingest", "run")
    wait_for("ingest to subscribe", lambda: "durable" in city.progress("ingest"))
    return process


def published(city: City) -> int:
    return city.progress("fleet").get("published", 0)


def test_a_broker_that_loses_its_queue_loses_nothing(city: City, mosquitto: Mosquitto) -> None:
    ingest = start_ingest(city)
    city.start("ingest", "receipts")
    faults = "drop=0.05,duplicate=0.01,reorder=0.01"
    arguments = ("--rate", "100", "--seconds", "10", "--faults", faults, "--resend-after", "2")
    fleet = city.start("sensors_sim", "publish", *arguments, "--confirm")
    wait_for("messages to land", lambda: city.landed() > 100)
    city.kill(ingest)
    # both figures lag behind, so the queue is at least so long
    wait_for("the broker to queue messages", lambda: published(city) > city.landed() + 200)
    mosquitto.kill()
    for path in mosquitto.folder.glob("*.db*"):
        path.unlink()  # as a broker without persistence
    mosquitto.start()
    start_ingest(city)
    assert fleet.wait(timeout=120) == 0
    city.running.remove(fleet)
    found, lost = landed(city.layout), never_held(city)
    assert len(found | lost) == city.progress("fleet")["produced"]
    assert not found & lost
    assert city.progress("fleet")["resent"] > 150


def test_a_fleet_that_is_killed_loses_nothing(city: City) -> None:
    start_ingest(city)
    city.start("ingest", "receipts")
    faults = "drop=0.05,wire=0.05"
    fleet = city.start("sensors_sim", "publish", "--rate", "100", "--faults", faults)
    for kills in range(3):
        before = city.landed()
        wait_for("messages to land", lambda: city.landed() > before + 150)  # noqa: B023
        city.kill(fleet)
        if kills < 2:
            fleet = city.start("sensors_sim", "publish", "--rate", "100", "--faults", faults)
    arguments = ("--seconds", "1", "--faults", faults, "--resend-after", "1", "--confirm")
    city.run("sensors_sim", "publish", *arguments)
    found, lost = landed(city.layout), never_held(city)
    due = set(births(city.layout))
    assert len({boot_id for _, _, boot_id, _ in due}) == 3 * 40
    assert due - found <= lost
    assert not found & lost
