"""The loss ledger against the simulator's truth: each fault in its own column, exactly, and nothing else anywhere; and
a segment that somebody deletes is missing, message by message."""

import json
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from contracts.layout import Layout, Segment, instances, sealed_segments
from contracts.payloads import Will, head
from contracts.segments import read_segment
from contracts.topics import parse_device_topic
from tests.broker import Mosquitto, need_mosquitto
from tests.end_to_end.city import City, wait_for
from warehouse.query import open_catalogue

Key = tuple[str, str, int]  # boot, stream, seq
REASONS = {"malformed": "malformed", "truncated": "malformed", "future": "future", "unknown_post": "unknown_post"}
FAULTS = (*REASONS, "wrong_topic", "drop", "wire", "duplicate", "reorder")
RATES = ",".join(f"{name}=0.01" for name in FAULTS) + ",late=0.5"
PUBLISH = ("sensors_sim", "publish", "--resend-after", "1", "--give-up", "2")


class Raw:
    """What really landed, from the bytes alone."""

    def __init__(self, layout: Layout):
        self.by_segment: dict[Segment, list[tuple[Key, str, str]]] = {}
        self.messages: Counter[tuple[str, bytes]] = Counter()
        self.keyless: set[tuple[str, bytes]] = set()
        for instance in instances(layout.raw):
            for segment in sealed_segments(layout.raw, instance):
                found = self.by_segment[segment] = []
                for topic, payload in pl.DataFrame(read_segment(layout.raw, segment)).select("topic", "payload").rows():
                    self.messages[topic, payload] += 1
                    place, name = parse_device_topic(topic), head(payload)
                    if place is not None and name is not None:
                        time = msgspec.json.decode(payload)["time"] if payload.endswith(b"}") else ""
                        found.append(((name[0], place[1], name[1]), place[0], time))
                    elif not _is_will(payload):
                        self.keyless.add((topic, payload))

    @property
    def keys(self) -> set[Key]:
        return {key for rows in self.by_segment.values() for key, _, _ in rows}


def _is_will(payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload, type=Will)
    except msgspec.DecodeError:
        return False
    return True


@pytest.fixture(scope="module")
def clean_and_faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[City, Path]:
    """A city of sixteen posts after six boots, the third with all faults, the fifth with too small a buffer; and a
    copy of what had landed before the faults."""
    need_mosquitto()
    folder = tmp_path_factory.mktemp("ledger")
    copy = folder / "clean"
    with Mosquitto(folder / "mosquitto") as broker, City(folder / "data", broker.port) as city:
        city.run("sensors_sim", "fleet", "--posts", "16")
        ingest, receipts = city.start("ingest", "run"), city.start("ingest", "receipts")
        wait_for("ingest to subscribe", lambda: "durable" in city.progress("ingest"))
        city.run(*PUBLISH, "--history", "150", "--seconds", "1", "--confirm")
        city.run(*PUBLISH, "--history", "10", "--seconds", "1", "--confirm")
        shutil.copytree(city.layout.root / "registry", copy / "registry")
        shutil.copytree(city.layout.raw, copy / "raw")
        city.run(*PUBLISH, "--rate", "300", "--seconds", "12", "--faults", RATES)
        told = ("--truth", str(city.layout.devices / "truth.ndjson"))
        # the next boot sends what was lost on the wire again; receipts that go on for its own messages pass over what
        # they cannot name, and then that is given up
        city.run(*PUBLISH, "--rate", "100", "--seconds", "12", "--confirm", *told, timeout_s=240)
        city.run(*PUBLISH, "--rate", "300", "--seconds", "2", "--buffer", "4", *told)
        city.run(*PUBLISH, "--rate", "100", "--seconds", "2", "--confirm", *told, timeout_s=240)
        assert city.stop(receipts) == 0
        assert city.stop(ingest) == 0
        city.run("pipelines", "run", "--once", "--no-release")
        city.run("warehouse", "publish")
    return city, copy


@pytest.fixture(scope="module")
def city(clean_and_faulty: tuple[City, Path]) -> City:
    return clean_and_faulty[0]


@pytest.fixture(scope="module")
def raw(city: City) -> Raw:
    return Raw(city.layout)


@pytest.fixture(scope="module")
def truth(city: City) -> dict[str, dict[Key, str]]:
    """Post of each struck message, by fault and key."""
    found: dict[str, dict[Key, str]] = {}
    for line in (city.layout.root / "devices" / "truth.ndjson").read_text().splitlines():
        record = json.loads(line)
        key = (record["boot_id"], record["stream"], record["seq"])
        found.setdefault(record["fault"], {})[key] = record["post_id"]
    return found


def ask(layout: Layout, query: str) -> list[tuple[Any, ...]]:
    with open_catalogue(layout.catalogue) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(query).fetchall()


def seqs(layout: Layout, view: str) -> dict[Key, str]:
    """Post of each seq in a view of ranges."""
    rows = ask(layout, f"SELECT boot_id, stream, first_seq, last_seq, post_id FROM {view}")
    return {(boot, stream, seq): post for boot, stream, a, b, post in rows for seq in range(a, b + 1)}


def test_what_was_never_held_is_missing_and_nothing_else(city: City, truth: dict[str, dict[Key, str]]) -> None:
    assert seqs(city.layout, "missing_ranges") == truth["drop"]
    assert len(truth["drop"]) > 10


def test_what_the_posts_gave_up_is_dropped(city: City, truth: dict[str, dict[Key, str]], raw: Raw) -> None:
    given_up = truth["overflow"] | truth["given_up"]
    wanted = {key: post for key, post in given_up.items() if key not in raw.keys}
    assert seqs(city.layout, "dropped_ranges") == wanted
    assert truth["overflow"].keys() & wanted.keys()
    # what no receipt can name is given up in the end
    assert truth["wrong_topic"].keys() - truth["drop"].keys() <= wanted.keys()


def test_what_is_broken_but_named_is_quarantined_under_its_own_post(
    city: City, truth: dict[str, dict[Key, str]], raw: Raw
) -> None:
    struck: dict[Key, str] = {}
    reasons: dict[Key, str] = {}
    for fault in reversed(REASONS):
        for key in truth[fault].keys() & raw.keys:
            struck[key], reasons[key] = truth[fault][key], REASONS[fault]
    found = ask(city.layout, "SELECT boot_id, stream, seq, post_id, reason FROM messages WHERE status = 'quarantined'")
    assert {row[:3]: row[3] for row in found} == struck
    assert {row[:3]: row[4] for row in found} == reasons
    assert set(reasons.values()) == set(REASONS.values())
    counted = ask(
        city.layout,
        "SELECT entry.key, sum(entry.value) FROM (SELECT unnest(map_entries(quarantine_reasons)) AS entry FROM ledger "
        "WHERE NOT is_keyless) GROUP BY 1",
    )
    assert dict(counted) == Counter(reasons.values())


def test_what_healed_or_came_late_or_in_disorder_is_accepted(
    city: City, truth: dict[str, dict[Key, str]], raw: Raw
) -> None:
    accepted = {
        row[:3] for row in ask(city.layout, "SELECT boot_id, stream, seq FROM messages WHERE status='accepted'")
    }
    refused = set().union(*(truth[fault] for fault in (*REASONS, "wrong_topic", "drop")))
    assert accepted == raw.keys - refused
    for fault in ("wire", "reorder", "duplicate", "late"):
        assert truth[fault].keys() - refused <= accepted
        assert truth[fault].keys() - refused


def test_messages_without_a_key_stand_apart(city: City, truth: dict[str, dict[Key, str]], raw: Raw) -> None:
    rows = ask(city.layout, "SELECT sum(keyless_count), sum(expected_count), sum(duplicate_count) FROM ledger "
               "WHERE is_keyless")  # fmt: skip
    copies = sum(raw.messages[message] - 1 for message in raw.keyless)
    assert rows == [(len(raw.keyless), 0, copies)]
    nameless = truth["wrong_topic"].keys() | (truth["truncated"].keys() - raw.keys)
    assert len(raw.keyless) == len(nameless - truth["drop"].keys())


def test_copies_are_counted_and_none_conflicts(city: City, truth: dict[str, dict[Key, str]], raw: Raw) -> None:
    copies = sum(count - 1 for (_, payload), count in raw.messages.items() if not _is_will(payload))
    assert ask(city.layout, "SELECT sum(duplicate_count), sum(conflicting_count) FROM ledger") == [(copies, 0)]
    doubled = {
        row[:3] for row in ask(city.layout, "SELECT boot_id, stream, seq FROM messages WHERE duplicate_count > 0")
    }
    assert truth["duplicate"].keys() & raw.keys <= doubled


def test_it_adds_up_to_what_the_devices_made(city: City, truth: dict[str, dict[Key, str]], raw: Raw) -> None:
    gone = truth["drop"].keys() | truth["overflow"].keys() | truth["given_up"].keys()
    made = raw.keys | gone
    assert ask(city.layout, "SELECT sum(expected_count) FROM ledger") == [(len(made),)]
    assert ask(city.layout, "SELECT sum(last_seq - first_seq + 1) FROM boot_streams") == [(len(made),)]
    said = city.run("warehouse", "ledger")
    assert f"It adds up: {len(made):,} = " in said
    (total,) = json.loads(city.run("warehouse", "ledger", "--by", "total", "--format", "json"))
    assert total["expected"] == total["accepted"] + total["quarantined"] + total["dropped"] + total["missing"]


def test_a_deleted_segment_is_missing_seq_by_seq(clean_and_faulty: tuple[City, Path]) -> None:
    _, copy = clean_and_faulty
    layout = Layout(copy)
    whole = Raw(layout)
    segment = list(whole.by_segment)[len(whole.by_segment) // 2]
    segment.path(layout.raw).unlink()
    left = Raw(layout)
    lost = whole.keys - left.keys
    assert len(lost) > 20
    with City(copy, 1) as other:
        other.run("pipelines", "run", "--once", "--no-release")
        other.run("warehouse", "publish")
        said = other.run("warehouse", "ledger")
    assert seqs(layout, "missing_ranges").keys() == lost
    assert f"+ missing{len(lost):>19,}" in said
    # in the hour of the next lower seq that landed
    landed = {key: time for rows in left.by_segment.values() for key, _, time in rows}
    hours: Counter[tuple[str, datetime]] = Counter()
    for boot, stream, seq in lost:
        below = next(lower for lower in range(seq - 1, -1, -1) if (boot, stream, lower) in landed)
        time = datetime.fromisoformat(str(landed[boot, stream, below])).astimezone(UTC)
        hours[stream, time.replace(minute=0, second=0, microsecond=0)] += 1
    found = ask(
        layout, "SELECT stream, window_start, sum(missing_count) FROM ledger GROUP BY ALL HAVING sum(missing_count) > 0"
    )
    assert {(stream, hour): count for stream, hour, count in found} == hours
