"""Real brokers for tests and benchmarks: Debian's Mosquitto as in production, iotcore as in the demo."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from ingest import embedded

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")

# as in production (durable sessions, no limit in flight but the client's, queues that never drop), but anonymous
_CONFIGURATION = """\
per_listener_settings true
persistence true
persistence_location {folder}/
autosave_on_changes {on_changes}
autosave_interval {interval}
max_inflight_messages 0
max_queued_messages 10000000
max_queued_bytes 2000000000
set_tcp_nodelay true
persistent_client_expiration 14d
log_dest stderr
log_type error
log_type warning
user root
listener {port} 127.0.0.1
allow_anonymous true
"""


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_listening(port: int, process: "subprocess.Popen[bytes] | None" = None, patience_s: float = 20.0) -> None:
    """Return when the port accepts connections; raises RuntimeError when the process ends or time is up."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the broker ended with exit code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nothing listens on port {port} after {patience_s:g} s")


def need_mosquitto() -> None:
    """Skip the test where Mosquitto is missing; in CI, which installs it, fail."""
    if MOSQUITTO is None:
        reason = "mosquitto is not installed (Debian: apt install mosquitto)"
        if os.environ.get("LAMPLIGHT_CI"):
            pytest.fail(reason)
        pytest.skip(reason)


class Mosquitto:
    """A Mosquitto of our own, on a port and a persistence folder that stay the same over restarts.

    `is_autosaving`: write the store after each 100 changes, as production does (rewriting a long queue is slow, so
    benchmarks leave it). `stop` ends it cleanly (it then keeps everything), `kill` is kill -9, `forget` empties the
    store of one that has ended. `changes` replaces lines of the configuration.
    """

    subscription = "shared"

    def __init__(self, folder: Path, is_autosaving: bool = True, changes: Mapping[str, str] = MappingProxyType({})):
        if MOSQUITTO is None:
            raise RuntimeError("mosquitto is not installed")
        self.port = free_port()
        self.folder = folder
        self._program = MOSQUITTO
        self._is_autosaving = is_autosaving
        self._changes = changes
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Mosquitto":
        """Start, and return when it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "mosquitto.conf"
        text = _CONFIGURATION.format(
            folder=self.folder,
            port=self.port,
            on_changes="true" if self._is_autosaving else "false",
            interval=100 if self._is_autosaving else 1800,
        )
        for line, other in self._changes.items():
            assert f"{line}\n" in text
            text = text.replace(f"{line}\n", f"{other}\n")
        configuration.write_text(text)
        self._process = subprocess.Popen([self._program, "-c", str(configuration)])
        wait_until_listening(self.port, self._process)
        return self

    def stop(self) -> None:
        """SIGTERM; safe to call twice."""
        self._end(is_kill=False)

    def kill(self) -> None:
        """SIGKILL; safe to call twice."""
        self._end(is_kill=True)

    def forget(self) -> None:
        """Lose every session and message."""
        (self.folder / "mosquitto.db").unlink(missing_ok=True)

    def _end(self, is_kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if is_kill:
            process.kill()
        else:
            process.terminate()
        process.wait(20)

    def __enter__(self) -> "Mosquitto":
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.stop()


class Embedded:
    """The demo's broker on free ports: MQTT 5 on `port`, MQTT 3.1.1 on `mqtt311_port`. It forgets all when it stops.

    `subscription`: what LAMPLIGHT_INGEST_SUBSCRIPTION must be with it. A shared one loses what comes while the
    subscriber is away, and ends the broker's router when it goes with messages in flight (rumqttd 0.20.0).
    """

    subscription = "plain"

    def __init__(self) -> None:
        self.port = free_port()
        self.mqtt311_port = free_port()
        self._broker: Any = None

    def start(self) -> "Embedded":
        """Start, and return when it listens."""
        self._broker = embedded.start("127.0.0.1", self.port, self.mqtt311_port)
        return self

    def stop(self) -> None:
        """Safe to call twice."""
        broker, self._broker = self._broker, None
        if broker is not None:
            broker.stop()

    kill = stop

    def __enter__(self) -> "Embedded":
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.stop()
