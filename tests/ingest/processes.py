"""Ingest as it really runs, a publisher that remembers what the broker has taken, and what lies on disk afterwards."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import paho.mqtt.client as mqtt
import pyarrow as pa
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from contracts.layout import Layout, open_segments, sealed_segments
from contracts.segments import RAW_SCHEMA, read_segment
from contracts.topics import device_topic
from ingest.config import Config
from ingest.landing import Landing
from ingest.link import Link
from ingest.loop import Loop
from ingest.stop import Stop

ROOT = Path(__file__).parents[2]
TOPIC = device_topic("KT1001", "air")
PATIENCE_S = 30.0


def environment(root: Path, port: int) -> dict[str, str]:
    return {**os.environ, "LAMPLIGHT_DATA": str(root), "LAMPLIGHT_MQTT_PORT": str(port), "PYTHONPATH": str(ROOT)}


def command(*arguments: str, script: str | None = None) -> list[str]:
    """`python -m ingest ...`, or the same after a script that changes something in the process."""
    if script is None:
        return [sys.executable, "-m", "ingest", *arguments]
    start = "from contracts.settings import run\nfrom ingest.__main__ import main\nrun(main)"
    return [sys.executable, "-c", f"{script}\n{start}", *arguments]


class Running:
    """A process of ingest; its standard error is collected."""

    def __init__(
        self,
        root: Path,
        port: int,
        *arguments: str,
        script: str | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ):
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command(*(arguments or ("run",)), script=script),
            env={**environment(root, port), **variables},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def until_said(self, words: str) -> "Running":
        """Return when a line of standard error holds these words."""
        until(lambda: any(words in line for line in self.lines) or self.process.poll() is not None)
        assert any(words in line for line in self.lines), self.lines
        return self

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.terminate()
        self.ended()


def until(is_so: Callable[[], bool]) -> None:
    """Return when it is so; fails a test that would hang."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "this never came to be"
        time.sleep(0.01)


def publish(port: int, payloads: list[bytes], topic: str = TOPIC, is_retained: bool = False) -> None:
    """Publish at QoS 1; on return the broker has acknowledged each of them."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="publisher", protocol=MQTTProtocolVersion.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        sent = [client.publish(topic, payload, 1, is_retained) for payload in payloads]
        for each in sent:
            each.wait_for_publish(PATIENCE_S)
            assert each.is_published()
    finally:
        client.disconnect()
        client.loop_stop()


def numbered(first: int, count: int) -> list[bytes]:
    return [b"message %d" % number for number in range(first, first + count)]


def landed(root: Path, instance: str = "a") -> pa.Table:
    """All rows of the sealed segments; the offsets count from 0 without a gap or an overlap."""
    raw = Layout(root).raw
    tables = [read_segment(raw, segment) for segment in sealed_segments(raw, instance)]
    table = pa.concat_tables(tables) if tables else RAW_SCHEMA.empty_table()
    assert table["offset"].to_pylist() == list(range(table.num_rows))
    return table


def payloads(root: Path) -> list[bytes]:
    found: list[bytes] = landed(root)["payload"].to_pylist()
    return found


def nothing_is_open(root: Path) -> bool:
    return not open_segments(Layout(root).raw, "a")


@contextlib.contextmanager
def loop_in_a_thread(root: Path, port: int, **settings: Any) -> Iterator[Loop]:
    """The loop of `ingest run` in this process, subscribed; stopped cleanly at the end, its error raised here."""
    config = Config(root=root, instance="a", mqtt_host="127.0.0.1", mqtt_port=port, mqtt311_port=1, **settings)
    errors: list[BaseException] = []
    with Landing(config.layout, "a") as landing:
        loop = Loop(config, Link(config), landing, Stop())

        def run() -> None:
            try:
                loop.run()
            except BaseException as error:  # noqa: BLE001 (raised again below, in the test's own thread)
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            until(lambda: loop.link.is_ready or bool(errors))
            yield loop
        finally:
            loop.stop.set()
            thread.join(PATIENCE_S)
    if errors:
        raise errors[0]
