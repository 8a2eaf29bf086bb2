"""`make bench-stream`: `pipelines stream` on Prism, with workers in the driver.

`stream.claimed_p95_s`: from the fsync of a message to the stored positions that pass it, at a modest rate; ingest seals
up to 0.25 s after the fsync, which counts. `stream.prism_memory_growth`: Prism's memory in the last third of that time
against the first. `stream.backlog_rate`: messages a second from the start of the command until all that had landed
before it is claimed, starting (some 6 s) included.
"""

import argparse
import sys
import tempfile
import time
from bisect import bisect_left
from pathlib import Path
from statistics import median

import psutil

from bench.figures import figure
from bench.freshness import percentile
from bench.tick import commits_of
from contracts.layout import Layout, Positions
from contracts.registry import save_registry
from sensors_sim.fleet import build
from tests.end_to_end.city import City, wait_for

LOOK_S = 0.02
POSTS = 400


def stream(folder: Path, rate: float, seconds: float, backlog_s: float) -> None:
    """Take up a backlog, then live messages."""
    layout = Layout(folder)
    save_registry(layout.registry, build(POSTS, 1, detectors=False))
    claims: list[tuple[int, int]] = []
    memory: list[float] = []

    def look() -> int:
        offset = Positions.load(layout.positions).offsets.get("a", 0)
        if not claims or offset > claims[-1][1]:
            claims.append((time.time_ns() // 1000, offset))
        return offset

    with City(folder, 0) as city:
        city.run("bench.feed", str(folder), "--rate", "2000", "--seconds", str(backlog_s), timeout_s=10 * backlog_s)
        waiting = commits_of(folder)[-1].offset
        began = time.monotonic()
        supervisor = psutil.Process(city.start("pipelines", "stream", "--no-release").pid)
        wait_for("the backlog", lambda: look() >= waiting, patience_s=600)
        spent_s = time.monotonic() - began
        figure("stream.backlog_rate", value=waiting / spent_s, unit="msg/s", messages=waiting)
        feeder = city.start("bench.feed", str(folder), "--rate", str(rate), "--seconds", str(seconds), "--seed", "2")
        while feeder.poll() is None:
            look()
            memory += [one.memory_info().rss / 2**20 for one in supervisor.children(recursive=True) if is_prism(one)]
            time.sleep(LOOK_S)
        commits = commits_of(folder)
        wait_for("the last message", lambda: look() >= commits[-1].offset, patience_s=120)
    offsets = [offset for _, offset in claims]
    live = [commit for commit in commits if commit.offset > waiting]
    ages = [(claims[bisect_left(offsets, one.offset)][0] - one.durable_us) / 1e6 for one in live]
    figure("stream.claimed_p95_s", value=percentile(ages, 0.95), unit="s", samples=len(ages))
    figure("stream.claimed_p50_s", value=percentile(ages, 0.5), unit="s", samples=len(ages))
    third = len(memory) // 3
    figure("stream.prism_memory_growth", value=median(memory[-third:]), unit="MiB", against=median(memory[:third]))


def is_prism(process: psutil.Process) -> bool:
    """Whether a process is the runner."""
    return bool(process.name() == "prism")


def main(argv: list[str]) -> int:
    """Print the figures."""
    top = argparse.ArgumentParser(prog="python -m bench.stream", description=__doc__)
    top.add_argument("--rate", type=float, default=40, help="messages a second, live")
    top.add_argument("--seconds", type=float, default=300, help="of live messages")
    top.add_argument("--backlog", type=float, default=60, help="seconds of 2,000 messages each before the start")
    options = top.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        stream(Path(folder), options.rate, options.seconds, options.backlog)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
