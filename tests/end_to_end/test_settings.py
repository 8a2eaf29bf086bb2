"""What a person got wrong is one clear line that names what to change, and exit code 2."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.layout import Layout, try_lock
from contracts.registry import save_registry
from demo.config import HEALTH
from tests.broker import free_port
from tests.end_to_end.city import ROOT
from tests.pipelines.raw_log import registry_file


def refused(command: str, tmp_path: Path, **variables: str) -> str:
    """The one line that a command ends with; fails when it is not exactly one, or not exit code 2."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LAMPLIGHT_")},
        "PYTHONPATH": str(ROOT),
        "LAMPLIGHT_DATA": str(tmp_path / "data"),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


def free_ports() -> dict[str, str]:
    """Every port that the demo listens on."""
    return {name: str(free_port()) for name in ("LAMPLIGHT_MQTT_PORT", "LAMPLIGHT_API_PORT", *HEALTH)}


@pytest.mark.parametrize("port", ["0", "70000", "mqtt"])
@pytest.mark.parametrize("command", ["ingest run", "ingest receipts", "sensors_sim publish", "ingest broker"])
def test_a_port_that_is_none(command: str, port: str, tmp_path: Path) -> None:
    assert "LAMPLIGHT_MQTT_PORT" in refused(command, tmp_path, LAMPLIGHT_MQTT_PORT=port)


@pytest.mark.parametrize(
    "command",
    ["sensors_sim fleet", "pipelines run --once", "ingest run", "ingest stdin", "ingest receipts", "ingest tidy"],
)
def test_a_folder_that_cannot_be_written(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = refused(command, tmp_path, LAMPLIGHT_DATA=str(tmp_path / "file" / "data"))
    assert "LAMPLIGHT_DATA" in line
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.parametrize("command", ["pipelines run --once", "sensors_sim publish"])
def test_a_registry_that_is_missing(command: str, tmp_path: Path) -> None:
    assert "python -m sensors_sim fleet" in refused(command, tmp_path)


def test_a_registry_that_is_broken(tmp_path: Path) -> None:
    path = Layout(tmp_path / "data").registry
    path.parent.mkdir(parents=True)
    path.write_text('{"version": 1, "lampposts": [{"post_id": 5}]}')
    assert str(path) in refused("pipelines run --once", tmp_path)


@pytest.mark.parametrize("command", ["ingest run", "ingest receipts", "sensors_sim publish", "demo after-broker true"])
def test_a_broker_that_does_not_answer(command: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LAMPLIGHT_DATA": str(tmp_path / "data")}
    subprocess.run(
        [sys.executable, "-m", "sensors_sim", "fleet", "--posts", "8"], env=environment, check=True, cwd=ROOT
    )
    line = refused(command, tmp_path, LAMPLIGHT_MQTT_PORT=str(free_port()), LAMPLIGHT_DEMO_PATIENCE_S="0.5")
    assert "LAMPLIGHT_MQTT_PORT" in line


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("ingest broker", "LAMPLIGHT_MQTT_PORT"),
        ("ingest receipts", "LAMPLIGHT_RECEIPTS_HEALTH"),
        ("api run", "LAMPLIGHT_API_PORT"),
        ("demo", "LAMPLIGHT_API_PORT"),
        ("demo", "LAMPLIGHT_RECEIPTS_HEALTH"),
    ],
)
def test_a_busy_port(command: str, variable: str, tmp_path: Path) -> None:
    variables = free_ports()
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        variables[variable] = str(busy.getsockname()[1])
        assert variable in refused(command, tmp_path, **variables)


@pytest.mark.parametrize(
    ("variable", "value"), [("LAMPLIGHT_RECEIPTS_HEALTH", "host:"), ("LAMPLIGHT_RAW_RETENTION_DAYS", "0")]
)
def test_settings_of_the_receipts(variable: str, value: str, tmp_path: Path) -> None:
    line = refused("ingest receipts", tmp_path, **{variable: value})
    assert variable in line
    assert repr(value) in line


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LAMPLIGHT_TICK_S", "-1"),
        ("LAMPLIGHT_WINDOW_S", "7"),
        ("LAMPLIGHT_RETENTION_MOVEMENT_READINGS_DAYS", "a month"),
        ("LAMPLIGHT_FUTURE_TOLERANCE_S", "nan"),
    ],
)
def test_settings_of_the_pipelines(variable: str, value: str, tmp_path: Path) -> None:
    line = refused("pipelines run --once", tmp_path, **{variable: value})
    assert variable in line
    assert repr(value) in line


def test_a_second_pipeline_loop_on_one_lake(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    save_registry(layout.registry, registry_file())
    with try_lock(layout.lake / "lock") as lock:  # type: ignore[union-attr]
        assert lock
        line = refused("pipelines run --once", tmp_path)
    assert "another" in line
    assert "LAMPLIGHT_DATA" in line


def test_a_demo_never_clears_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("mine")
    assert "LAMPLIGHT_DATA" in refused("demo", tmp_path, **free_ports())
    assert (tmp_path / "data" / "thesis.txt").read_text() == "mine"


def test_a_missing_catalogue_names_the_command_that_makes_one(tmp_path: Path) -> None:
    assert "warehouse publish" in refused("warehouse sql SELECT", tmp_path)
