"""Stages as a service manager runs them: whoever ends is started again."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 0.05
RESTART_S = 0.1
AGAIN_S = 0.5  # after a stage that ended by itself
STOP_S = 60.0


@dataclass
class Stage:
    """`ends` are exits that nobody here asked for, with their codes: a broker that was away makes some."""

    command: tuple[str, ...]
    process: "subprocess.Popen[bytes]"
    start_at: float = 0.0
    was_killed: bool = False


class Supervisor:
    """Runs `python -m ...` under names until closed. All that they say goes to one log file."""

    def __init__(self, environment: Mapping[str, str], folder: Path, log: Path):
        self.ends: list[tuple[str, int]] = []
        self._environment = dict(environment)
        self._folder = folder
        # by a pipe: a stage that may write no file goes on speaking
        reader, self._stderr = os.pipe()
        self._copy = threading.Thread(target=_copy, args=(reader, log), daemon=True, name="log")
        self._copy.start()
        self._stages: dict[str, Stage] = {}
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._watch = threading.Thread(target=self._run, daemon=True, name="supervisor")
        self._watch.start()

    def start(self, name: str, *command: str) -> None:
        with self._lock:
            self._stages[name] = Stage(command, self._begin(command))

    def pid(self, name: str) -> int:
        return self._stages[name].process.pid

    def kill(self, names: list[str]) -> None:
        """kill -9, all of them at once; they are started again."""
        with self._lock:
            for name in names:
                self._stages[name].was_killed = True
                self._stages[name].process.kill()

    def stop(self, name: str) -> int:
        """End a stage for good, as a service manager would; its exit code (-9 when it would not end)."""
        with self._lock:
            process = self._stages.pop(name).process
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def is_up(self) -> bool:
        """Whether every stage runs."""
        with self._lock:
            return all(stage.process.poll() is None for stage in self._stages.values())

    def close(self) -> None:
        """Kill whatever still runs."""
        self._is_closed.set()
        self._watch.join()
        for stage in self._stages.values():
            stage.process.kill()
            stage.process.wait()
        os.close(self._stderr)
        self._copy.join(STOP_S)

    def _begin(self, command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        arguments = [sys.executable, "-m", *command]
        return subprocess.Popen(arguments, env=self._environment, cwd=self._folder, stderr=self._stderr)

    def _run(self) -> None:
        while not self._is_closed.wait(LOOK_S):
            with self._lock:
                for name, stage in self._stages.items():
                    self._look(name, stage)

    def _look(self, name: str, stage: Stage) -> None:
        code = stage.process.poll()
        if code is None:
            return
        now = time.monotonic()
        if not stage.start_at:
            stage.start_at = now + (RESTART_S if stage.was_killed else AGAIN_S)
            if not stage.was_killed:
                self.ends.append((name, code))
        elif now >= stage.start_at:
            stage.process, stage.start_at, stage.was_killed = self._begin(stage.command), 0.0, False

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _copy(reader: int, log: Path) -> None:
    with open(reader, "rb", buffering=0) as source, log.open("ab", buffering=0) as sink:
        while piece := source.read(65_536):
            sink.write(piece)


def limit_files(pid: int, size: int | None) -> None:
    """Let a running process write no file beyond `size` bytes, which to it is a full disk; None: as before."""
    import resource

    soft = resource.RLIM_INFINITY if size is None else size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


def is_root() -> bool:
    return os.geteuid() == 0
