"""The processes of a streaming job: Prism or another runner's endpoint, external workers, the driver. They start
together, and when one of them dies all of them end and start anew: what was on its way is read again."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any

from apache_beam.version import __version__ as beam_version

from contracts import settings
from contracts.layout import Layout
from contracts.logs import say

PRISM = "LAMPLIGHT_PRISM"
COUNTS = "counts.json"  # what the job has met so far, by the names of `counts`
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
END_S = 5.0
_NO_END_S = 100_000_000  # Beam ends a streaming job after job_server_timeout, 300 s by default
_USAGE = 2
_SOURCES = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What runs the job. `prism`: the binary, None where somebody else's endpoint is used. `is_external`: workers are
    processes of their own. `arguments`: the command line of `pipelines stream`; `beam`: further options of Beam."""

    runner: str
    prism: Path | None
    is_external: bool
    arguments: tuple[str, ...]
    beam: tuple[str, ...]


def engine(
    environ: Mapping[str, str], argv: Sequence[str], runner: str, prism: Path | None, environment: str
) -> Engine:
    """The engine that a command line asks for; raises SettingError when it cannot run here."""
    at = argv.index("--") if "--" in argv else len(argv)
    beam = tuple(argv[at + 1 :])
    if not runner.endswith("Runner") or runner in ("DirectRunner", "FnApiRunner"):
        raise settings.SettingError(
            f"--runner={runner} is no portable runner: PrismRunner, FlinkRunner, PortableRunner"
        )
    has_endpoint = any(option.startswith("--job_endpoint") for option in beam)
    if runner == "PortableRunner" and not has_endpoint:
        raise settings.SettingError("--runner=PortableRunner needs a job server: add `-- --job_endpoint=HOST:PORT`")
    return Engine(
        runner=runner,
        prism=find_prism(environ, prism) if runner == "PrismRunner" and not has_endpoint else None,
        is_external=environment == "EXTERNAL",
        arguments=tuple(argv[:at]),
        beam=beam,
    )


def find_prism(environ: Mapping[str, str], given: Path | None = None) -> Path:
    """The Prism binary: as given, by LAMPLIGHT_PRISM, on the PATH, or where `go install` leaves it.

    Raises SettingError with the command that installs it. Nothing is downloaded here.
    """
    named = given or settings.read(environ, PRISM, None, Path)
    go = [Path(environ["GOBIN"])] if environ.get("GOBIN") else []
    go.append(Path(environ.get("GOPATH") or Path.home() / "go") / "bin")
    found = [named] if named else [*map(Path, filter(None, [shutil.which("prism")])), *(path / "prism" for path in go)]
    for path in found:
        if os.access(path, os.X_OK) and path.is_file():
            return path.absolute()
    command = f"go install github.com/apache/beam/sdks/v2/go/cmd/prism@v{beam_version}"
    where = f" at {named}" if named else ""
    raise settings.SettingError(
        f"there is no Prism{where}: `{command}` (or `make prism`), or name it by --prism or {PRISM}"
    )


def folder(layout: Layout) -> Path:
    """Where the processes of a streaming job and their supervisor meet."""
    return layout.root / "run" / "stream"


class Job:
    """The processes of one job. Each is the leader of a group of its own and dies with this process."""

    def __init__(self, engine: Engine, layout: Layout, lock: IO[Any]):
        self.engine = engine
        self.folder = folder(layout)
        self._lock = lock
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._pause_s = FIRST_PAUSE_S
        self._start_at = 0.0

    def watch(self) -> None:
        """Start the job when it is time, or end what is left of it when a process died. Raises SettingError when the
        driver refuses its command line."""
        dead = next((name for name, process in self.running.items() if process.poll() is not None), None)
        if dead is not None:
            code, words = self.running[dead].returncode, self._last_words(dead)
            if dead == "driver" and code == _USAGE:
                raise settings.SettingError(f"the job was refused: {words}")
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code} ({words})"
            self.begin_anew(f"{dead} {how}")
        if not self.running and monotonic() >= self._start_at:
            self._start()

    def begin_anew(self, why: str) -> None:
        """End what runs, to start it again after a pause that grows."""
        self.end()
        self._start_at = monotonic() + self._pause_s
        say("pipelines", f"{why}: the job starts again in {self._pause_s:g} s", "warning")
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def went_on(self) -> None:
        """It did some of its work: the next pause is short again."""
        self._pause_s = FIRST_PAUSE_S

    def _start(self) -> None:
        (self.folder / COUNTS).unlink(missing_ok=True)
        options = [f"--job_server_timeout={_NO_END_S}"]
        if self.engine.prism is not None:
            port = _free_port()
            options.append(f"--job_endpoint=localhost:{port}")
            quiet = ["--serve_http=false", "--log_level=error", "--log_kind=text"]
            self._spawn("prism", [str(self.engine.prism), f"--job_port={port}", *quiet])
        if self.engine.is_external:
            port = _free_port()
            options += ["--environment_type=EXTERNAL", f"--environment_config=localhost:{port}"]
            self._spawn("workers", [sys.executable, "-m", "pipelines.workers", str(port)])
        else:
            options.append("--environment_type=LOOPBACK")
        driver = [sys.executable, "-m", "pipelines.submission", *self.engine.arguments, "--"]
        self._spawn("driver", [*driver, *options, *self.engine.beam])

    def _spawn(self, name: str, command: list[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sources = os.pathsep.join(filter(None, [str(_SOURCES), os.environ.get("PYTHONPATH")]))
        with self._log(name).open("wb") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "pipelines.tether", str(os.getpid()), *command],
                env={**os.environ, "PYTHONPATH": sources},
                # whoever writes the tables holds the lake, should this process be killed
                pass_fds=() if name == "prism" else [self._lock.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _last_words(self, name: str) -> str:
        lines = [line for line in self._log(name).read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else ""

    def end(self) -> None:
        """End all of them, the driver first, with what they started."""
        for name in reversed(list(self.running)):
            process = self.running.pop(name)
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            # the group outlives its leader where a worker does
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
