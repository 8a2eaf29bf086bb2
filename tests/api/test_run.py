"""`python -m api run`: serves, stops cleanly, and says in one line what to change when it cannot."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.broker import free_port
from tests.feed_samples import fill

ROOT = Path(__file__).parents[2]


@contextmanager
def running(data: Path, port: int, **environ: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "api", "run"],
        cwd=ROOT,
        env={**os.environ, "LAMPLIGHT_DATA": str(data), "LAMPLIGHT_API_PORT": str(port), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def wait_for(url: str) -> httpx.Response:
    for _ in range(200):
        try:
            return httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"{url} never answered")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    with running(tmp_path, port) as process:
        assert wait_for(f"http://127.0.0.1:{port}/latest/weather.json").status_code == 503
        fill(tmp_path / "open")
        assert httpx.get(f"http://127.0.0.1:{port}/latest/weather.json").status_code == 200
        head = httpx.head(f"http://127.0.0.1:{port}/latest/weather.json")
        assert (head.status_code, head.content) == (200, b"")
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        assert f"http://127.0.0.1:{port}/" in out


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "LAMPLIGHT_API_PORT"),
        ({"LAMPLIGHT_API_PORT": "http"}, "LAMPLIGHT_API_PORT"),
        ({"LAMPLIGHT_API_STALE_AFTER_S": "-1"}, "LAMPLIGHT_API_STALE_AFTER_S"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(tmp_path: Path, environ: dict[str, str], named: str) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        with running(tmp_path, int(busy.getsockname()[1]), **environ) as process:
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert named in err
    assert list(tmp_path.iterdir()) == []
