"""The real stages as processes on one data root and one real broker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from contracts.layout import Layout, instances, read_progress, sealed_segments

ROOT = Path(__file__).parents[2]


class City:
    """Starts stages by their own commands; whatever still runs at the end is stopped."""

    def __init__(self, root: Path, port: int, **variables: str):
        self.layout = Layout(root)
        self.environment = {
            **os.environ,
            "LAMPLIGHT_DATA": str(root),
            "LAMPLIGHT_MQTT_HOST": "127.0.0.1",
            "LAMPLIGHT_MQTT_PORT": str(port),
            "PYTHONPATH": str(ROOT),
            **variables,
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        """`python -m <command>` in the background."""
        process = subprocess.Popen([sys.executable, "-m", *command], env=self.environment, cwd=ROOT)
        self.running.append(process)
        return process

    def run(self, *command: str, timeout_s: float = 120) -> str:
        """`python -m <command>` to its end; its standard output. Fails when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def stop(self, process: "subprocess.Popen[bytes]") -> int:
        """End a stage as a service manager would; its exit code."""
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
        self.running.remove(process)
        return code

    def kill(self, process: "subprocess.Popen[bytes]") -> None:
        """kill -9."""
        process.kill()
        process.wait(timeout=60)
        self.running.remove(process)

    def landed(self) -> int:
        """Messages in sealed segments."""
        return sum(
            segment.last - segment.first + 1
            for instance in instances(self.layout.raw)
            for segment in sealed_segments(self.layout.raw, instance)
        )

    def progress(self, stage: str) -> dict[str, int]:
        return read_progress(self.layout.progress(stage))

    def __enter__(self) -> "City":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill whatever still runs."""
        for process in list(self.running):
            self.kill(process)


def wait_for(what: str, is_true: Callable[[], bool], patience_s: float = 60) -> None:
    """Return when the condition holds; fails with `what` when it does not in time."""
    until = time.monotonic() + patience_s
    while not is_true():
        assert time.monotonic() < until, f"waited {patience_s:g} s for: {what}"
        time.sleep(0.05)
