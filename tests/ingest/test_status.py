"""What a watcher sees of a running ingest: figures that are right, and 503 for each thing that can be wrong."""

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts.topics import device_topic
from ingest.config import Config
from ingest.landing import Landing, NotDurableError
from ingest.link import Link
from ingest.loop import Loop
from ingest.status import well
from ingest.stop import Stop
from tests.broker import Mosquitto, free_port
from tests.ingest.processes import Running, landed, loop_in_a_thread, numbered, publish, until
from tests.ingest.test_world import refusal


def scrape(port: int) -> dict[tuple[str, str], float]:
    """(name, stream) -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        (sample.name.removeprefix("lamplight_ingest_"), sample.labels.get("stream", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_the_figures_are_those_of_what_landed(tmp_path: Path, mosquitto: Mosquitto) -> None:
    root, port = tmp_path / "data", free_port()
    began = time.time()
    with Running(root, mosquitto.port, "run", "--health", str(port)).until_said("landing from"):
        publish(mosquitto.port, numbered(0, 30), device_topic("KT1000", "air"))
        publish(mosquitto.port, numbered(0, 20), device_topic("KT1001", "weather"))
        publish(mosquitto.port, [b"12345"], "lamplight/v1/nobody")
        until(lambda: landed(root).num_rows == 51)
        until(lambda: scrape(port)["unacknowledged", ""] == 0)
        found = scrape(port)
        mosquitto.stop()
        mosquitto.start()
        until(lambda: scrape(port)["reconnects_total", ""] == 1)
    assert [found["messages_total", stream] for stream in ("air", "weather", "other")] == [30, 20, 1]
    assert found["payload_bytes_total", ""] == sum(map(len, numbered(0, 30) + numbered(0, 20))) + 5
    assert found["next_offset", ""] == 51
    assert 1 <= found["commit_seconds_count", ""] <= 51
    assert began <= found["last_landed_timestamp_seconds", "air"] <= time.time()
    assert (found["inbox_bytes", ""], found["is_connected", ""], found["disk_failing", ""]) == (0, 1, 0)
    assert found["sessions_lost_total", ""] == found["reconnects_total", ""] == 0


def test_a_busy_health_port_is_one_line(tmp_path: Path, mosquitto: Mosquitto) -> None:
    taken = {"LAMPLIGHT_INGEST_HEALTH": str(mosquitto.port)}
    assert "LAMPLIGHT_INGEST_HEALTH" in refusal(tmp_path, mosquitto.port, "run", **taken)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    config = Config(root=tmp_path, instance="a", mqtt_host="127.0.0.1", mqtt_port=1, mqtt311_port=1)
    with Landing(config.layout, "a") as landing:
        yield Loop(config, Link(config), landing, Stop())


def test_each_thing_that_can_be_wrong_is_said(loop: Loop) -> None:
    assert well(loop) == (True, {"instance": "a", "offset": 0, "why": None})
    loop.unready_since = time.monotonic() - 11
    assert "no connection" in str(well(loop)[1]["why"])
    loop.unready_since = None
    loop.turned_at = time.monotonic() - 11
    assert "stood still" in str(well(loop)[1]["why"])
    loop.turned_at = time.monotonic()
    loop.disk.failed(NotDurableError("full"))
    is_well, said = well(loop)
    assert not is_well
    assert "the disk has refused" in str(said["why"])
    assert loop.disk.try_again()
    assert well(loop)[0]


def test_received_time_never_goes_back_over_a_restart_or_with_the_clock(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    for behind_s, first in ((0, 0), (100, 50)):
        clock_ns = time.time_ns() - behind_s * 10**9
        with monkeypatch.context() as patch, loop_in_a_thread(root, mosquitto.port):
            patch.setattr(time, "time_ns", lambda: clock_ns)  # noqa: B023 (undone before the next round)
            publish(mosquitto.port, numbered(first, 50))
            until(lambda: landed(root).num_rows == first + 50)  # noqa: B023 (called at once)
    received = landed(root)["received_time"].to_pylist()
    assert received == sorted(set(received))
