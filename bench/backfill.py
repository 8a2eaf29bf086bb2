"""`make bench-pipeline`: `backfill` in two processes beside one, and its memory over a log of four times the length.

Each run is the command itself over one raw log into a lake of its own, its start included; the libraries have one
thread in each process on both sides. `pipeline.two_processes/one` is the median of the rounds' ratios of readings
(rows of the reading tables) per second, one run behind the other. `backfill.memory_growth` compares the sum of the
processes' peaks of resident memory, whoever started them included: two over the whole log against two over its first
quarter. Both need several shares of 200,000 messages in each process: with fewer than 600 minutes the memory of a whole
share is not reached by the quarter, and the two meet in most blocks.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

from bench.figures import figure
from bench.load import START, make_log
from contracts.layout import Layout
from contracts.schemas import READING_TABLES
from contracts.times import isoformat
from pipelines import lake
from sensors_sim.fleet import build

LOOK_S = 0.1
TIMES = 4


def run(layout: Layout, root: Path, processes: int, until: datetime) -> tuple[float, float]:
    """Readings per second and the processes' peak memory (MiB) of one backfill. Raises RuntimeError when it fails."""
    (root / "raw").parent.mkdir(parents=True)
    (root / "raw").symlink_to(layout.raw)
    one_each = dict.fromkeys(("POLARS_MAX_THREADS", "TOKIO_WORKER_THREADS", "OMP_NUM_THREADS"), "1")
    verb = ["backfill", "--data", str(root), "--processes", str(processes), "--to", isoformat(until)]
    peaks: dict[int, int] = {}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *verb],
        env={**os.environ, **one_each, "LAMPLIGHT_REGISTRY": str(layout.registry)},
    )
    while process.poll() is None:
        for pid in (process.pid, *_children(process.pid)):
            peaks[pid] = max(peaks.get(pid, 0), _peak_kib(pid))
        time.sleep(LOOK_S)
    spent = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"the backfill ended with exit code {process.returncode}")
    lake.forget()  # the lake of the run before had the same place
    readings = sum(lake.count_rows(root, table.name) for table in READING_TABLES)
    shutil.rmtree(root)
    peak_mib = sum(peaks.values()) / 1024
    print(f"{processes} processes: {readings:,} readings in {spent:.1f} s, {peak_mib:.0f} MiB", file=sys.stderr)
    return readings / spent, peak_mib


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _peak_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code."""
    top = argparse.ArgumentParser(prog="python -m bench.backfill", description=__doc__)
    top.add_argument("--minutes", type=int, default=1440, help="minutes of 400 posts: 1440 are 11 M readings")
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--only", choices=("speed", "memory"), help="one of the two figures")
    arguments = top.parse_args(argv)
    short = START + timedelta(minutes=arguments.minutes / TIMES)
    whole = START + timedelta(minutes=arguments.minutes + 60)
    rates: dict[int, list[float]] = {1: [], 2: []}
    peaks: dict[datetime, list[float]] = {short: [], whole: []}
    with tempfile.TemporaryDirectory() as folder:
        layout, _ = make_log(Path(folder) / "log", build(400, 1, detectors=False), arguments.minutes, seed=1)
        for number in range(arguments.rounds):
            sides = [(1, whole)] if arguments.only != "memory" else []
            sides += [(2, whole)]
            sides += [(2, short)] if arguments.only != "speed" else []
            for processes, until in sides if number % 2 == 0 else reversed(sides):
                rate, peak = run(layout, Path(folder) / "lake", processes, until)
                if until == whole:
                    rates[processes].append(rate)
                if processes == 2:
                    peaks[until].append(peak)
    if rates[1]:
        pairs = [two / one for two, one in zip(rates[2], rates[1], strict=True)]
        figure(
            "pipeline.two_processes/one",
            value=median(rates[2]),
            unit="readings/s",
            against=median(rates[1]),
            ratio=median(pairs),
        )
    if peaks[short]:
        figure("backfill.memory_growth", value=median(peaks[whole]), unit="MiB", against=median(peaks[short]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
