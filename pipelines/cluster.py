"""`python -m pipelines.cluster`: a Flink cluster on this machine out of PyFlink's wheel, and the job on any cluster.

Runs in the environment of `make flink-env`; Flink's REST interface is asked about jobs.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from contracts import settings
from contracts.layout import Layout, Positions, try_lock
from contracts.logs import say
from contracts.settings import SettingError
from pipelines.config import Config, from_environment
from pipelines.log import new_segments
from pipelines.stages import registry

ENDED = ("FINISHED", "CANCELED", "FAILED")
STOP_S = 15.0
SLOTS_S = 30.0

# These processes mostly pass bytes on: a quick start is worth more than the fastest code.
_JAVA = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
# One slot each, because a slot's Python worker decodes on one core. A TaskManager that dies is missed within seconds
# (Flink's own default is 50 s).
_CONFIG = {
    "jobmanager.rpc.address": "localhost",
    "jobmanager.bind-host": "localhost",
    "jobmanager.memory.process.size": "1g",
    "taskmanager.host": "localhost",
    "taskmanager.bind-host": "localhost",
    "taskmanager.numberOfTaskSlots": "1",
    "taskmanager.memory.process.size": "1400m",
    "taskmanager.memory.managed.size": "64m",
    "rest.address": "localhost",
    "rest.bind-address": "localhost",
    "heartbeat.interval": "2000",
    "heartbeat.timeout": "10000",
    "web.submit.enable": "false",
    # what it logs goes to files that roll over, not to the console as well
    "env.stdout-err.redirect-to-file": "true",
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """`folder` holds configuration, logs and scratch files; the job's checkpoints lie in the data root."""

    folder: Path
    port: int
    task_managers: int

    def run(self) -> int:
        """Start all, start again a TaskManager that dies, stop all on SIGTERM or SIGINT; the exit code."""
        self._configure()
        stopped = False

        def stop(*_: object) -> None:
            nonlocal stopped
            stopped = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        manager = self._start("jobmanager")
        workers = {number: self._start("taskmanager", number) for number in range(self.task_managers)}
        code, is_said = 0, False
        while not stopped:
            if not is_said and self._is_up():
                say("flink", f"JobManager and {self.task_managers} TaskManagers: http://localhost:{self.port}")
                is_said = True
            if manager.poll() is not None:
                say("flink", f"the JobManager ended: its log is in {self.folder / 'log'}", "error")
                code = 1
                break
            for number, worker in workers.items():
                if worker.poll() is not None:
                    say("flink", f"TaskManager {number} ended and is started again", "warning")
                    workers[number] = self._start("taskmanager", number)
            time.sleep(0.5)
        _stop([*workers.values(), manager])
        return code

    def _is_up(self) -> bool:
        try:
            slots = Jobs("localhost", self.port).ask("/overview")["slots-total"]
        except SettingError:
            return False
        return bool(slots >= self.task_managers)

    def _configure(self) -> None:
        with socket.socket() as probe:
            # as the JobManager does, so that a port that was just left can be used again
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("localhost", self.port))
            except OSError as error:
                raise SettingError(f"port {self.port} is taken: change --port") from error
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            rpc_port = probe.getsockname()[1]
        conf = self.folder / "conf"
        shutil.copytree(home() / "conf", conf, dirs_exist_ok=True)
        for name in ("tmp", "log", "run"):
            (self.folder / name).mkdir(exist_ok=True)
        config = _CONFIG | {
            "jobmanager.rpc.port": str(rpc_port),
            "rest.port": str(self.port),
            "rest.bind-port": str(self.port),
            "io.tmp.dirs": str(self.folder / "tmp"),
        }
        # Java 17 has to be told which of its packages Flink may see; the wheel's configuration has the list
        opened = next(line for line in (conf / "config.yaml").read_text().splitlines() if line.startswith("      all:"))
        lines = [f"{name}: {value}" for name, value in config.items()]
        (conf / "config.yaml").write_text("\n".join([*lines, "env:", "  java:", "    opts:", f"{opened} {_JAVA}", ""]))

    def _start(self, what: str, number: int = 0) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            "FLINK_HOME": str(home()),
            "FLINK_CONF_DIR": str(self.folder / "conf"),
            "FLINK_LOG_DIR": str(self.folder / "log"),
            "FLINK_PID_DIR": str(self.folder / "run"),
            # its own scripts call `python`
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        with (self.folder / "log" / f"{what}-{number}.out").open("ab") as out:
            command = ["bash", str(home() / "bin" / f"{what}.sh"), "start-foreground"]
            # a session of its own: Ctrl-C reaches us, and we stop them in order
            return subprocess.Popen(command, env=environ, stdout=out, stderr=out, start_new_session=True)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    until = time.monotonic() + STOP_S
    for process in processes:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def home() -> Path:
    """Flink's folder in the wheel, its scripts made executable. Raises SettingError when PyFlink or Java is missing."""
    found = find_spec("pyflink")
    if found is None or found.origin is None:
        raise SettingError("PyFlink is not in this environment: `make flink-env`, then .venv-flink/bin/python")
    java_home = os.environ.get("JAVA_HOME")
    java = Path(java_home, "bin", "java") if java_home else None
    if not (java.exists() if java else shutil.which("java")):
        raise SettingError("Flink needs Java 11 or 17: put `java` on the PATH or set JAVA_HOME")
    folder = Path(found.origin).parent
    for script in (folder / "bin").glob("*.sh"):
        if not os.access(script, os.X_OK):
            script.chmod(0o755)
    return folder


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m pipelines.cluster`."""
    top = argparse.ArgumentParser(prog="python -m pipelines.cluster", description="The pipelines on Apache Flink.")
    verbs = top.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("start", help="JobManager and TaskManagers on this machine, until stopped")
    start.add_argument("--taskmanagers", type=int, default=2, metavar="N")
    run = verbs.add_parser("run", help="hand the job to a cluster; it goes on from its newest checkpoint")
    run.add_argument("--workers", type=int, default=2, metavar="N", help="as many as the cluster has slots")
    run.add_argument("--fresh", action="store_true", help="leave checkpoints alone and begin at the lake's positions")
    run.add_argument("--once", action="store_true", help="cancel the job when all that has landed is claimed")
    stop = verbs.add_parser("stop", help="cancel the job; its newest checkpoint stays")
    for verb in (start, run, stop):
        verb.add_argument("--data", type=Path, help="data root (LAMPLIGHT_DATA)")
        verb.add_argument("--port", type=int, default=8081, help="of the cluster's REST interface")
    for verb in (run, stop):
        verb.add_argument("--host", default="localhost", help="where the JobManager runs")
    return top


def main(argv: list[str]) -> int:
    """Run one verb; the exit code."""
    arguments = parser().parse_args(argv)
    home()
    config = from_environment(os.environ, arguments)
    folder = config.root.resolve() / "flink"
    settings.writable_folder(folder)
    if arguments.verb == "start":
        return Cluster(folder=folder, port=arguments.port, task_managers=arguments.taskmanagers).run()
    jobs = Jobs(arguments.host, arguments.port)
    if arguments.verb == "stop":
        return jobs.cancel_all()
    return _run(config, jobs, folder / "checkpoints", arguments)


def _run(config: Config, jobs: "Jobs", checkpoints: Path, arguments: argparse.Namespace) -> int:
    # workers run in folders of their own
    setup = replace(config.setup, root=config.root.resolve(), registry=config.registry.resolve())
    registry(setup.registry)
    if jobs.running():
        raise SettingError(f"the cluster at {jobs.address} runs the job already: `stop` it first")
    lock = try_lock(setup.layout.lake / "lock")
    if lock is None:
        raise SettingError(f"another process (`pipelines run`?) works on {setup.layout.lake}: stop it first")
    lock.close()
    jobs.wait_for_slots(arguments.workers)
    os.environ.setdefault("JVM_ARGS", _JAVA)
    from pipelines import flink

    newest = None if arguments.fresh else newest_checkpoint(checkpoints)
    job = flink.Job(
        setup=setup,
        workers=arguments.workers,
        checkpoints=checkpoints,
        final_grace_s=config.final_grace_s,
        rules=config.rules,
    )
    job_id = flink.submit(job, arguments.host, arguments.port, newest)
    say("flink", f"job {job_id}" + (f" from checkpoint {newest.name}" if newest else ""))
    return _drain(setup.layout, jobs, job_id) if arguments.once else 0


def _drain(layout: Layout, jobs: "Jobs", job_id: str) -> int:
    """Wait until all that has landed is claimed, and cancel the job; the exit code."""
    said = "RUNNING"
    try:
        while not is_drained(layout):
            state = jobs.state(job_id)
            if state not in (said, "CREATED", "INITIALIZING"):
                say("flink", f"the job is {state}: see {jobs.address}", "info" if state == "RUNNING" else "warning")
                said = state
            if state in ENDED:
                return 1
            time.sleep(0.2)
    finally:
        jobs.cancel_all()
    return 0


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint that any job left in a folder."""
    found = [path.parent for path in folder.glob("*/chk-*/_metadata")]
    return max(found, key=lambda path: (path / "_metadata").stat().st_mtime_ns, default=None)


def is_drained(layout: Layout) -> bool:
    """Whether the stored positions contain all that has landed."""
    offsets = Positions.load(layout.positions).offsets
    return not new_segments(layout.raw, offsets, limit_rows=1)[0]


class Jobs:
    """Jobs of a cluster, asked of its REST interface. Raises SettingError when nobody answers."""

    def __init__(self, host: str, port: int):
        self.address = f"http://{host}:{port}"

    def ask(self, path: str, method: str = "GET") -> dict[str, Any]:
        """What the interface answers to a path."""
        request = urllib.request.Request(f"{self.address}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                content: dict[str, Any] = json.load(answer)
        except (OSError, ValueError) as error:
            words = f"no Flink cluster answers at {self.address} ({error}): `make flink-cluster`, or --host and --port"
            raise SettingError(words) from error
        return content

    def running(self) -> list[str]:
        """Ids of jobs that have not ended."""
        return [job["jid"] for job in self.ask("/jobs/overview")["jobs"] if job["state"] not in ENDED]

    def wait_for_slots(self, wanted: int) -> None:
        """TaskManagers that were just started report within seconds. Raises SettingError when there are too few."""
        until = time.monotonic() + SLOTS_S
        while (free := self.ask("/overview")["slots-available"]) < wanted:
            if time.monotonic() > until:
                raise SettingError(f"the cluster has {free} free slots: change --workers or start more TaskManagers")
            time.sleep(0.2)

    def state(self, job_id: str) -> str:
        """RUNNING, RESTARTING, FAILED and so on."""
        return str(self.ask(f"/jobs/{job_id}")["state"])

    def cancel_all(self) -> int:
        """Cancel every job and wait until they are gone; the exit code."""
        for job_id in self.running():
            self.ask(f"/jobs/{job_id}?mode=cancel", "PATCH")
        while self.running():
            time.sleep(0.1)
        return 0


if __name__ == "__main__":
    settings.run(main)
