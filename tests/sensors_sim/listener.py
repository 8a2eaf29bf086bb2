"""A subscriber that keeps everything it hears, over broker restarts too; and the simulator as a process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from contracts.layout import Layout, read_progress
from contracts.topics import SUBSCRIPTION

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
_LIMITED = """\
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from contracts.settings import run
from sensors_sim.__main__ import main
run(main)
"""


class Listener:
    """`heard` is (topic, payload, is_retained) in order of arrival."""

    def __init__(self, port: int):
        self.heard: list[tuple[str, bytes, bool]] = []
        self._is_ready = False
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"test-{uuid4().hex}", protocol=mqtt.MQTTv5)
        self._client.on_connect = self._subscribe
        self._client.on_subscribe = self._ready
        self._client.on_message = self._hear
        self._client.reconnect_delay_set(1, 1)
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = 600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=session)
        self._client.loop_start()

    def __enter__(self) -> "Listener":
        wait_for(lambda: self._is_ready)
        return self

    def __exit__(self, *_: Any) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def payloads(self) -> set[tuple[str, bytes]]:
        """Different messages that were heard."""
        return {(topic, payload) for topic, payload, _ in self.heard}

    def _subscribe(self, *_: Any) -> None:
        self._client.subscribe(SUBSCRIPTION, 1)

    def _ready(self, *_: Any) -> None:
        self._is_ready = True

    def _hear(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self.heard.append((message.topic, bytes(message.payload), message.retain))


def wait_for(holds: Callable[[], bool]) -> None:
    """Return when a condition holds; AssertionError when it does not within the patience."""
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


class Simulator:
    """`python -m sensors_sim` with its own data root."""

    def __init__(self, root: Path, port: int):
        self.root = root
        self._environ = os.environ | {
            "LAMPLIGHT_DATA": str(root),
            "LAMPLIGHT_MQTT_PORT": str(port),
            "LAMPLIGHT_MQTT_HOST": "127.0.0.1",
            "LAMPLIGHT_REGISTRY": "",
        }

    def start(self, *argv: str, limit: int | None = None) -> "subprocess.Popen[str]":
        """In the background; with a limit no file may grow beyond so many bytes, as on a full disk."""
        command = ["-m", "sensors_sim", *argv]
        if limit is not None:
            command = ["-c", _LIMITED.format(limit=limit), *argv]
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *argv: str) -> tuple[int, str, str]:
        """(exit code, standard output, standard error)."""
        process = self.start(*argv)
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        return process.returncode, out, err

    def progress(self) -> dict[str, Any]:
        return read_progress(Layout(self.root).progress("fleet"))

    def truth(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / "devices" / "truth.ndjson").read_text().splitlines()]
