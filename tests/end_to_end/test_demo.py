"""`make demo` as a newcomer runs it: on a real broker, through every stage, to feeds over HTTP."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from demo.config import HEALTH
from tests.broker import free_port
from tests.end_to_end.city import ROOT, wait_for


@contextmanager
def demo(root: Path, *options: str, **variables: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """The demo in a session of its own, and the port of its API; nothing of it is left at the end."""
    port = free_port()
    environment = {
        **os.environ,
        "LAMPLIGHT_DATA": str(root),
        "LAMPLIGHT_MQTT_PORT": str(free_port()),
        "LAMPLIGHT_API_PORT": str(port),
        **{variable: str(free_port()) for variable in HEALTH},
        **variables,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, port
    finally:
        if process.poll() is None:
            for child in [*stages(process), psutil.Process(process.pid)]:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            process.wait(timeout=20)


def stages(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    return found


def is_fresh(port: int) -> bool:
    try:
        feed = httpx.get(f"http://127.0.0.1:{port}/latest/weather.json", timeout=2)
    except httpx.TransportError:
        return False
    return feed.status_code == 200 and bool(feed.json()["rows"])


def test_it_stops_by_itself_and_says_that_all_is_well(tmp_path: Path) -> None:
    with demo(tmp_path / "our data ü", "--seconds", "35") as (process, port):
        wait_for("the weather feed to fill", lambda: is_fresh(port))
        before = httpx.get(f"http://127.0.0.1:{port}/latest/weather.json").json()["data_through"]
        wait_for(
            "the feed to change",
            lambda: httpx.get(f"http://127.0.0.1:{port}/latest/weather.json").json()["data_through"] > before,
        )
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output[-3000:]
        assert "missing 0, doubled 0" in output
        assert "All is well" in output
        lines = [line for line in output.splitlines() if "published" in line and "freshness p50" in line]
        assert len(lines) > 10


def test_control_c_stops_every_stage(tmp_path: Path) -> None:
    with demo(tmp_path / "data") as (process, port):
        wait_for("the weather feed to fill", lambda: is_fresh(port))
        children = stages(process)
        assert len(children) >= 8
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        wait_for("every stage to end", lambda: not any(child.is_running() for child in children), 20)
        assert "Traceback" not in output, output[-3000:]


def test_a_stage_that_hangs_makes_it_fail(tmp_path: Path) -> None:
    with demo(tmp_path / "data", "--seconds", "20", LAMPLIGHT_DEMO_PATIENCE_S="4") as (process, port):
        wait_for("the weather feed to fill", lambda: is_fresh(port))
        (pipelines,) = [child for child in stages(process) if child.cmdline()[-2:] == ["pipelines", "run"]]
        pipelines.suspend()
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1, output[-3000:]
        assert "NOT WELL: pipelines did not catch up" in output
