"""The Flink job on a real cluster out of the wheel: two TaskManagers share the work, and after kill -9 of one, then of
everything, the tables equal those of one batch of the Beam graph on one machine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from contracts.layout import Layout, Positions
from pipelines import graph
from pipelines.log import chunks, new_segments
from tests.broker import free_port
from tests.pipelines.raw_log import Landed, land, make_root
from tests.pipelines.test_lake import assert_same, dirty_log, setup_of, tables

ROOT = Path(__file__).parents[2]
FLINK = ROOT / ".venv-flink" / "bin" / "python"
PATIENCE_S = 120.0
SEGMENT_ROWS = 12

needs_flink = pytest.mark.skipif(
    not FLINK.exists() and not os.environ.get("LAMPLIGHT_CI"), reason="PyFlink is not installed: make flink-env"
)


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.2)


def verb(*arguments: str, python: Path = FLINK) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "pipelines.cluster", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


class Cluster:
    """`pipelines.cluster start` as a process of its own, and what its REST interface tells."""

    def __init__(self, root: Path):
        self.port = free_port()
        command = [str(FLINK), "-m", "pipelines.cluster", "start", "--data", str(root), "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        until(lambda: self._slots() == 2, "two TaskManagers are there")

    def _slots(self) -> int:
        try:
            return int(self.ask("/overview")["slots-total"])
        except OSError:
            assert self.process.poll() is None
            return 0

    def ask(self, path: str):  # type: ignore[no-untyped-def]
        with urllib.request.urlopen(f"http://localhost:{self.port}{path}", timeout=30) as answer:
            return json.load(answer)

    def run(self, root: Path) -> str:
        """Hand the job over; what was said."""
        done = verb("run", "--data", str(root), "--port", str(self.port))
        assert done.returncode == 0, done.stderr
        return done.stderr

    def records(self, job: str, step: str) -> dict[str, int]:
        """Elements that a step of the job has read, by TaskManager."""
        found: dict[str, int] = {}
        for vertex in self.ask(f"/jobs/{job}")["vertices"]:
            if step in vertex["name"]:
                for task in self.ask(f"/jobs/{job}/vertices/{vertex['id']}")["subtasks"]:
                    manager = task["taskmanager-id"]
                    found[manager] = found.get(manager, 0) + task["metrics"]["read-records"]
        return found

    def is_shared(self, job: str, step: str) -> bool:
        """Whether both TaskManagers have worked on a step of the job."""
        records = self.records(job, step)
        return len(records) == 2 and min(records.values()) > 0

    def task_managers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "taskexecutor" in " ".join(child.cmdline())]

    def kill_a_task_manager(self) -> None:
        """kill -9 of one TaskManager; its Python workers must not outlive it."""
        victim = max(self.task_managers(), key=lambda one: len(one.children(recursive=True)))
        workers = victim.children(recursive=True)
        assert any("pyflink" in " ".join(worker.cmdline()) for worker in workers)
        victim.kill()
        until(lambda: not any(map(is_alive, workers)), "the dead TaskManager's workers have left")

    def kill(self) -> None:
        """kill -9 of everything."""
        everything = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in everything:
            process.send_signal(signal.SIGSTOP)  # nobody sees another die
        for process in everything:
            process.kill()
        self.process.wait()
        until(lambda: not any(map(is_alive, everything)), "all have died")

    def stop(self) -> None:
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        assert self.process.wait(60) == 0
        until(lambda: not any(map(is_alive, children)), "a stopped cluster leaves no process")


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def landing(layout: Layout, rows: list[Landed], first: int) -> Iterator[None]:
    """A log that grows while the block runs; all of the rows have landed after it."""

    def grow() -> None:
        for at in range(0, len(rows), SEGMENT_ROWS):
            land(layout, rows[at : at + SEGMENT_ROWS], first=first + at)
            time.sleep(0.3)

    thread = threading.Thread(target=grow)
    thread.start()
    yield
    thread.join()


def claimed(layout: Layout) -> int:
    return Positions.load(layout.positions).offsets.get("a", 0)


@needs_flink
def test_two_task_managers_killed_and_resumed_make_the_tables_of_one_batch(tmp_path: Path) -> None:
    rows = dirty_log(1)
    third = len(rows) // 3
    layout = make_root(tmp_path / "flink")
    cluster = Cluster(layout.root)
    try:
        with landing(layout, rows[:third], 0):
            job = cluster.run(layout.root).split("job ")[1].split()[0]
        until(lambda: claimed(layout) == third, "the first third is in the tables")
        for step in ("decode", "unite", "aggregate"):
            until(lambda name=step: cluster.is_shared(job, name), f"both TaskManagers {step}")  # type: ignore[misc]
        with landing(layout, rows[third : 2 * third], third):
            cluster.kill_a_task_manager()
        until(lambda: claimed(layout) == 2 * third, "the second third is in the tables")
        with landing(layout, rows[2 * third :], 2 * third):
            until(lambda: claimed(layout) > 2 * third, "some of the last third is in the tables")
            cluster.kill()
    except BaseException:
        cluster.kill()
        raise
    assert claimed(layout) < len(rows)
    again = Cluster(layout.root)
    try:
        assert "from checkpoint chk-" in again.run(layout.root)
        until(lambda: claimed(layout) == len(rows), "all is in the tables")
        stopped = verb("stop", "--data", str(layout.root), "--port", str(again.port))
        assert stopped.returncode == 0, stopped.stderr
        for checkpoint in layout.root.glob("flink/checkpoints/*/chk-*/_metadata"):
            checkpoint.write_bytes(checkpoint.read_bytes()[:100])
        torn = verb("run", "--data", str(layout.root), "--port", str(again.port))
        assert torn.returncode == 2
        assert "--fresh" in torn.stderr.splitlines()[-1]
        again.stop()
    except BaseException:
        again.kill()
        raise
    batch = make_root(tmp_path / "batch")
    land(batch, rows)
    graph.run(setup_of(batch), chunks(new_segments(batch.raw, {})[0]))
    assert_same(tables(layout.root), tables(batch.root))


@needs_flink
def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    make_root(tmp_path)
    done = verb("run", "--data", str(tmp_path), "--port", str(free_port()))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "make flink-cluster" in done.stderr


def test_a_missing_pyflink_is_one_clear_line(tmp_path: Path) -> None:
    make_root(tmp_path)
    done = verb("start", "--data", str(tmp_path), python=Path(sys.executable))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "make flink-env" in done.stderr
