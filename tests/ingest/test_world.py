"""When the world is bad: one clear line that names what to change, and nothing acknowledged that is not on disk."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.layout import Layout
from contracts.settings import SettingError
from ingest.config import Config
from ingest.link import Link
from ingest.stop import Stop
from tests.broker import Embedded, Mosquitto, free_port
from tests.ingest.processes import (
    Running,
    command,
    environment,
    landed,
    loop_in_a_thread,
    numbered,
    payloads,
    publish,
    until,
)
from tests.ingest.scripted import ScriptedBroker


def refusal(root: Path, port: int, *arguments: str, **variables: str) -> str:
    """The one line with which a command ends; its exit code is 2."""
    variables = environment(root, port) | variables
    done = subprocess.run(command(*arguments), env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_an_unreachable_broker_is_one_line(tmp_path: Path) -> None:
    line = refusal(tmp_path / "data", free_port(), "run")
    assert "LAMPLIGHT_MQTT_HOST" in line
    assert "LAMPLIGHT_MQTT_PORT" in line


def test_what_is_no_mqtt_5_broker_is_one_line(tmp_path: Path, embedded_broker: Embedded) -> None:
    line = refusal(tmp_path / "data", embedded_broker.mqtt311_port, "run")
    assert "LAMPLIGHT_MQTT_PORT" in line


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LAMPLIGHT_MQTT_PORT", "mqtt"), ("LAMPLIGHT_MQTT_PORT", "70000"), ("LAMPLIGHT_INGEST_INSTANCE", "a/b")],
)
def test_a_wrong_setting_is_named_and_nothing_is_made(tmp_path: Path, variable: str, value: str) -> None:
    assert variable in refusal(tmp_path / "data", 1883, "run", **{variable: value})
    assert not (tmp_path / "data").exists()


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    for verb in ("run", "stdin"):
        assert "LAMPLIGHT_DATA" in refusal(tmp_path / "data", free_port(), verb)


def test_a_second_process_of_an_instance_is_refused_and_another_instance_is_not(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    root = tmp_path / "data"
    with Running(root, mosquitto.port).until_said("landing from"):
        for verb in ("run", "stdin"):
            assert "LAMPLIGHT_INGEST_INSTANCE" in refusal(root, mosquitto.port, verb)
        with Running(root, mosquitto.port, "run", "--instance", "b").until_said("landing from"):
            publish(mosquitto.port, numbered(0, 100))
            # they share: each message goes to one of them
            until(lambda: landed(root, "a").num_rows + landed(root, "b").num_rows == 100)
            assert 0 < landed(root, "a").num_rows < 100


def test_a_session_that_another_process_keeps_taking_is_not_fought_for_without_pause(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []

    def waited(stop: Stop, seconds: float) -> bool:
        pauses.append(seconds)
        return stop.is_set

    monkeypatch.setattr(Stop, "wait", waited)
    with loop_in_a_thread(tmp_path / "data", mosquitto.port) as loop:
        for generation in range(1, 8):
            thief = Link(loop.config)
            assert thief.connect()
            until(lambda: loop.link.generation == generation and loop.link.is_ready)  # noqa: B023 (called at once)
            thief.drop("the test has seen it")
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert "does another process use the session lamplight-ingest-a?" in capfd.readouterr().err


def test_a_broker_that_says_who_took_the_session_ends_it(tmp_path: Path) -> None:
    broker = ScriptedBroker()
    config = Config(root=tmp_path, instance="a", mqtt_host="127.0.0.1", mqtt_port=broker.port, mqtt311_port=1)
    link = Link(config)
    assert link.connect()
    broker.accept()
    broker.say(b"\xe0\x02\x8e\x00")
    with pytest.raises(SettingError, match="LAMPLIGHT_INGEST_INSTANCE"):
        link.read(1, 1)
    broker.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_everything_sealed(
    tmp_path: Path, mosquitto: Mosquitto, number: signal.Signals
) -> None:
    root = tmp_path / "data"
    with Running(root, mosquitto.port).until_said("landing from") as running:
        publish(mosquitto.port, numbered(0, 100))
        running.process.send_signal(number)
        assert running.ended() == 0
    first = landed(root).num_rows
    assert list(Layout(root).raw.rglob("*.open")) == []
    with Running(root, mosquitto.port).until_said(f"at offset {first}"):
        until(lambda: set(payloads(root)) == set(numbered(0, 100)))
        # a clean end settles what it has taken: nothing comes twice
        assert landed(root).num_rows == 100


def test_a_busy_port_is_one_line(tmp_path: Path, embedded_broker: Embedded) -> None:
    line = refusal(tmp_path, embedded_broker.port, "broker", LAMPLIGHT_MQTT311_PORT=str(free_port()))
    assert "LAMPLIGHT_MQTT_PORT" in line
    line = refusal(tmp_path, free_port(), "broker", LAMPLIGHT_MQTT311_PORT=str(embedded_broker.mqtt311_port))
    assert "LAMPLIGHT_MQTT311_PORT" in line


STARTER = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:])
print(child.pid, flush=True)
sys.exit(child.wait())
"""


@pytest.mark.parametrize(
    ("killed", "number", "code"),
    [("broker", signal.SIGTERM, 0), ("broker", signal.SIGKILL, 256 - 9), ("parent", signal.SIGKILL, -9)],
)
def test_the_embedded_broker_stops_when_told_and_outlives_nobody(
    tmp_path: Path, killed: str, number: signal.Signals, code: int
) -> None:
    """Its parent here starts it and waits, as honcho does."""
    port = free_port()
    variables = environment(tmp_path, port) | {"LAMPLIGHT_MQTT311_PORT": str(free_port())}
    starter = [sys.executable, "-c", STARTER, *command("broker")]
    with subprocess.Popen(starter, env=variables, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        broker = int(parent.stdout.readline())
        until(lambda: _listens(port))
        os.kill(broker if killed == "broker" else parent.pid, number)
        assert parent.wait(30) % 256 == code % 256
    until(lambda: not _listens(port))


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
