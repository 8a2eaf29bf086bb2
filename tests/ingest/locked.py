"""The production broker as it is deployed, on free ports, and clients of it that remember what they were told."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from contracts.credentials import Credentials
from contracts.layout import Layout
from contracts.registry import save_registry
from ingest.__main__ import main
from ingest.passwords import Passwords
from sensors_sim import fleet
from tests.broker import MOSQUITTO, free_port, wait_until_listening
from tests.ingest.processes import PATIENCE_S, until

NOT_AUTHORIZED = 135
SUCCESS = (0, 16)  # 16: nobody subscribes


class Locked:
    """`deploy/mosquitto` in a folder that `python -m ingest provision` made; only ports and the user are changed."""

    def __init__(self, root: Path):
        assert MOSQUITTO is not None
        self.root = root
        self.folder = Layout(root).broker
        self.password_port = free_port()
        self.certificate_port = free_port()
        save_registry(Layout(root).registry, fleet.build(120, seed=1, detectors=False))

    def command(self, *arguments: str) -> None:
        """`python -m ingest`, which leaves rules for those that it knows only."""
        assert main([*arguments, "--data", str(self.root)]) == 0
        with (self.folder / "acl").open("a") as rules:
            rules.write("\nuser tester\ntopic readwrite #\n")

    def add_tester(self) -> None:
        """A name of the test's own, who may do anything."""
        Passwords(self.folder / "passwords").add(["tester"], self.folder / "credentials")

    def start(self) -> None:
        path = self.folder / "mosquitto.conf"
        text = path.read_text()
        for listener, port in (("8883", self.password_port), ("8884", self.certificate_port)):
            assert text.count(f"\nlistener {listener}\n") == 1
            text = text.replace(f"\nlistener {listener}\n", f"\nlistener {port} 127.0.0.1\n")
        # a broker that root starts becomes another user, who could not read the test's folder; a reload is told as
        # information
        own = ["log_type information", *(["user root"] if os.getuid() == 0 else [])]
        path.write_text("\n".join([*own, text]))
        self.log = (self.folder / "log").open("w+b")
        self.process = subprocess.Popen(
            [str(MOSQUITTO), "-c", "mosquitto.conf"], cwd=self.folder, stderr=self.log, stdout=self.log
        )
        for port in (self.password_port, self.certificate_port):
            wait_until_listening(port, self.process)

    def reload(self) -> None:
        """Return when the broker has read its files again."""
        said = self.said("Reloading config.")
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.said("Reloading config.") > said)

    def said(self, words: str) -> int:
        return (self.folder / "log").read_text(errors="replace").count(words)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self.log.close()

    def credentials(self, name: str) -> Credentials:
        """What `provision` made for a name."""
        made = self.folder / "credentials" / name
        ca = str(self.folder / "tls" / "ca.crt")
        if made.with_suffix(".password").exists():
            return Credentials(ca=ca, username=name, password_file=f"{made}.password")
        return Credentials(ca=ca, certificate=f"{made}.crt", key=f"{made}.key")

    def client(self, name: str, **options: Any) -> "Client":
        return Client(self, self.credentials(name), **options)


class Client:
    """One MQTT connection. `code` is the answer to it, None when there was none (TLS refused)."""

    def __init__(
        self,
        broker: Locked,
        credentials: Credentials,
        client_id: str = "anybody",
        topics: tuple[str, ...] = (),
        version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        port: int | None = None,
    ):
        self.got: list[tuple[str, bytes]] = []
        self.code: int | None = None
        self.is_up = False
        self._answers: dict[int, int] = {}
        self._subscribed = 0
        self._mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, reconnect_on_failure=False
        )
        credentials.give(self._mqtt)
        self._mqtt.on_connect = self._on_connect
        self._mqtt.on_disconnect = self._on_disconnect
        self._mqtt.on_message = lambda _c, _u, message: self.got.append((message.topic, bytes(message.payload)))
        self._mqtt.on_publish = self._on_publish
        self._mqtt.on_subscribe = self._on_subscribe
        port = port or (broker.certificate_port if credentials.certificate else broker.password_port)
        self._is_over = False
        try:
            self._mqtt.connect("127.0.0.1", port)
        except OSError:
            self._is_over = True
            return
        self._mqtt.loop_start()
        until(lambda: self.code is not None or self._is_over)
        if self.is_up:
            for topic in topics:
                self._mqtt.subscribe(topic, 1)
            until(lambda: self._subscribed == len(topics))

    def publish(self, topic: str, payload: bytes = b"{}") -> int:
        """Publish at QoS 1; the reason code of the PUBACK."""
        mid = self._mqtt.publish(topic, payload, 1).mid
        until(lambda: mid in self._answers)
        return self._answers[mid]

    def until_got(self, topic: str, payload: bytes) -> None:
        until(lambda: (topic, payload) in self.got)

    def until_cut(self) -> None:
        until(lambda: not self.is_up)

    def _on_connect(self, _c: Any, _u: Any, _flags: Any, code: ReasonCode, _p: Any) -> None:
        self.is_up = not code.is_failure
        self.code = code.value

    def _on_disconnect(self, _c: Any, _u: Any, _flags: Any, _code: ReasonCode, _p: Any) -> None:
        self.is_up = False
        self._is_over = True

    def _on_publish(self, _c: Any, _u: Any, mid: int, code: ReasonCode, _p: Any) -> None:
        self._answers[mid] = code.value

    def _on_subscribe(self, *_: Any) -> None:
        self._subscribed += 1

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self._mqtt.disconnect()
        self._mqtt.loop_stop()
