"""Two instances share a subscription; one is killed and comes back, one is retired: no gap, no double."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from contracts.layout import instances, sealed_segments
from contracts.payloads import Weather, encode
from contracts.segments import read_segment
from contracts.topics import device_topic
from demo.account import account
from tests.broker import Mosquitto
from tests.end_to_end.city import City, wait_for
from tests.pipelines.raw_log import BOOT, make_root

POST = "KT1001"
AT_ONCE = 100


class Publisher:
    """Weather without pause, a message a second of event time; `taken` are those that the broker acknowledged."""

    def __init__(self, port: int):
        self.taken: set[bytes] = set()
        self._sent: dict[int, bytes] = {}
        self._room = threading.Semaphore(AT_ONCE)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_publish = self._on_publish
        self._client.connect("127.0.0.1", port)
        self._is_over = threading.Event()
        self._began = time.time() - 86_400
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        seq = 0
        while not self._is_over.is_set():
            if not self._room.acquire(timeout=1):
                continue
            when = datetime.fromtimestamp(self._began + seq, UTC)
            message = Weather(schema_version=1, boot_id=BOOT, seq=seq, first_seq=0, time=when, temperature_c=20.0)
            payload = encode(message)
            self._sent[seq + 1] = payload  # paho counts its packet ids from 1
            assert self._client.publish(device_topic(POST, "weather"), payload, 1).mid == seq + 1
            seq += 1
            time.sleep(0.001)

    def _on_publish(self, _client: object, _userdata: object, mid: int, *_: object) -> None:
        self.taken.add(self._sent[mid])
        self._room.release()

    @contextmanager
    def at_work(self) -> Iterator["Publisher"]:
        self._client.loop_start()
        self._thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            self._thread.join()
            wait_for("the broker to take what was sent", lambda: len(self.taken) == len(self._sent))
            self._client.disconnect()
            self._client.loop_stop()


def rows(city: City) -> dict[str, list[bytes]]:
    """Payloads by instance; its offsets count from 0 without a gap or an overlap, its received_time grows."""
    raw = city.layout.raw
    found: dict[str, list[bytes]] = {}
    for instance in instances(raw):
        tables = [read_segment(raw, segment) for segment in sealed_segments(raw, instance)]
        offsets = [offset for table in tables for offset in table["offset"].to_pylist()]
        assert offsets == list(range(len(offsets)))
        received = [each for table in tables for each in table["received_time"].to_pylist()]
        assert received == sorted(set(received))
        found[instance] = [payload for table in tables for payload in table["payload"].to_pylist()]
    return found


def test_one_of_two_instances_is_killed_and_the_other_retired(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with City(tmp_path / "data", mosquitto.port) as city:
        make_root(city.layout.root)

        def start(instance: str) -> "subprocess.Popen[bytes]":
            said = city.layout.progress("ingest" if instance == "a" else f"ingest-{instance}")
            said.unlink(missing_ok=True)
            process = city.start("ingest", "run", "--instance", instance)
            wait_for(f"{instance} to subscribe", said.exists)
            return process

        def landed(instance: str) -> int:
            return sum(each.last - each.first + 1 for each in sealed_segments(city.layout.raw, instance))

        def both_go_on() -> None:
            before = {instance: landed(instance) for instance in "ab"}
            for instance, count in before.items():
                wait_for(f"{instance} to land", lambda: landed(instance) > count + 50)  # noqa: B023 (called at once)

        a, b = start("a"), start("b")
        with Publisher(mosquitto.port).at_work() as publisher:
            both_go_on()
            city.kill(b)
            taken = len(publisher.taken)
            wait_for("messages while b is dead", lambda: len(publisher.taken) > taken + 200)
            b = start("b")
            both_go_on()
            assert city.stop(b) == 0
            city.run("ingest", "retire", "--instance", "b")
            after = landed("b")
            taken = len(publisher.taken)
            wait_for("messages after b", lambda: len(publisher.taken) > taken + 200)
        wait_for("all that was taken to land", lambda: set().union(*rows(city).values()) >= publisher.taken)
        assert landed("b") == after
        assert city.stop(a) == 0
        # a retired instance's raw log is read like any other's
        city.run("pipelines", "run", "--once")
        found = account(city.layout, time.time_ns() // 1000)
        assert (found.missing, found.doubled, found.quarantined) == (0, 0, 0)
        assert found.readings == len(publisher.taken)
