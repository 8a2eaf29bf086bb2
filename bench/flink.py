"""`make bench-flink`: readings/s of the Flink job with one and with two workers, beside the local loop.

All drain the same log with one Polars thread in each process, taking turns; a rate is taken between the first and the
last claim of positions, so that nobody's start counts. Figures are medians of the rounds.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.figures import figure
from bench.load import make_log
from contracts.layout import Layout, Positions
from contracts.schemas import READING_TABLES
from pipelines import lake
from sensors_sim.fleet import build

FLINK = Path(".venv-flink/bin/python")
SIDES = ("local", "flink_1", "flink_2")
PATIENCE_S = 1800.0
PORT = 18099


def drain(side: str, root: Path, messages: int, environ: dict[str, str]) -> float:
    """Messages/s between the first and the last claim while one engine drains the log."""
    if side == "local":
        command = [sys.executable, "-m", "pipelines", "run", "--once", "--no-release"]
    else:
        workers = side.rpartition("_")[2]
        command = [str(FLINK), "-m", "pipelines.cluster", "run", "--once", "--fresh", "--workers", workers]
        command += ["--port", str(PORT)]
    positions, claims = Layout(root).positions, list[tuple[float, int]]()
    with subprocess.Popen([*command, "--data", str(root)], env=environ, stdout=sys.stderr) as process:
        began = time.monotonic()
        while not claims or claims[-1][1] < messages:
            if process.poll() not in (None, 0) or time.monotonic() > began + PATIENCE_S:
                process.kill()
                raise RuntimeError(f"{side} did not come through")
            done = sum(Positions.load(positions).offsets.values())
            if done > (claims[-1][1] if claims else 0):
                claims.append((time.monotonic(), done))
            time.sleep(0.02)
    (first_s, first), (last_s, last) = claims[0], claims[-1]
    if len(claims) < 3:
        raise RuntimeError("too short a log: a rate needs three claims")
    return (last - first) / (last_s - first_s)


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code."""
    top = argparse.ArgumentParser(prog="python -m bench.flink", description=__doc__)
    top.add_argument("--minutes", type=int, default=240, help="minutes of 400 posts: 240 are 1.9 M readings")
    top.add_argument("--rounds", type=int, default=3)
    arguments = top.parse_args(argv)
    if not FLINK.exists():
        print("lamplight: PyFlink is not installed: make flink-env", file=sys.stderr)
        return 2
    environ = {**os.environ, "POLARS_MAX_THREADS": "1"}
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        layout, segments = make_log(Path(folder) / "log", build(400, 1, detectors=False), arguments.minutes, seed=1)
        messages = segments[-1].last + 1
        start = [str(FLINK), "-m", "pipelines.cluster", "start", "--port", str(PORT), "--data", folder]
        with subprocess.Popen(start, env=environ, stdout=sys.stderr) as cluster:
            try:
                for number in range(arguments.rounds):
                    for side in SIDES:
                        root = Path(folder) / f"{side}-{number}"
                        root.mkdir()
                        for name in ("raw", "registry"):
                            (root / name).symlink_to(layout.root / name)
                        a_message = drain(side, root, messages, environ)
                        readings = sum(lake.count_rows(root, table.name) for table in READING_TABLES)
                        rates[side].append(a_message * readings / messages)
                        print(f"{side}: {rates[side][-1]:.0f} readings/s", file=sys.stderr)
                        shutil.rmtree(root)
            finally:
                cluster.send_signal(signal.SIGTERM)
    for side, other in (("flink_1", "local"), ("flink_2", "local"), ("flink_2", "flink_1")):
        pairs = [one / two for one, two in zip(rates[side], rates[other], strict=True)]
        figure(
            f"{side.replace('_', '.workers_')}/{other}",
            value=median(rates[side]),
            unit="readings/s",
            against=median(rates[other]),
            ratio=median(pairs),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
