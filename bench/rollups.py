"""`make bench-pipeline`, the part of rollups: processor time of a tick's minutes, windows and hours, in the second
minute of an hour and in its last, when the hour has twelve windows. 400 posts at 2,000 messages a second, no engine.

`rollups.hours/windows`: milliseconds of the hours' stage, beside the windows' in the same ticks.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.days import City
from bench.feed import Devices
from bench.figures import figure
from bench.pipeline import plain
from contracts.layout import Segment
from contracts.schemas import MINUTES
from contracts.times import MINUTE_US
from pipelines import stages
from pipelines.log import chunks, new_segments
from pipelines.stages import Setup
from sensors_sim.fleet import build

HOUR_US = 1_793_520_000_000_000  # 2026-11-01T08:00Z
TICK_MESSAGES = 2_400
FIRST_TICKS = 2  # they read what the others then keep


class Clock:
    """Processor milliseconds by stage, one for each tick."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, list[float]] = defaultdict(list)

    def of(self, stage: str, work: Callable[[], set[int]]) -> set[int]:
        began = time.process_time()
        found = work()
        self.spent[stage].append((time.process_time() - began) * 1e3)
        return found


def tick(setup: Setup, segments: list[Segment], clock: Clock) -> None:
    """As `bench.pipeline.plain`, for the values."""
    dirty: set[int] = set()
    for chunk in chunks(segments):
        for name, batch in stages.decode(setup, chunk).items():
            blocks = stages.unite_blocks(setup, name, [batch])
            if stages.MINUTES_OF.get(name) is MINUTES:
                dirty |= blocks
    name = MINUTES.name
    touched = clock.of("minutes", lambda: stages.make_minutes(setup, name, dirty))
    starts = clock.of("windows", lambda: stages.make_windows(setup, name, touched))
    clock.of("hours", lambda: stages.make_hours(setup, stages.WINDOWS_OF[name].name, starts))


def measure(folder: Path, posts: int, minute: int, ticks: int) -> None:
    """Print the figures of a minute of the hour."""
    registry = build(posts, 1, detectors=False)
    city, devices, clock = City(folder, registry), Devices(registry.lampposts, 1), Clock()
    setup = replace(city.config.setup, is_sole_owner=True)
    offsets: dict[str, int] = {}

    def land(count: int, at_us: int) -> list[Segment]:
        city.land([devices.next(at_us) for _ in range(count)], at_us)
        found, _ = new_segments(city.layout.raw, offsets)
        offsets["a"] = city.landing.next_offset
        return found

    for number in range(minute):
        plain(setup, land(len(devices.slots), HOUR_US + number * MINUTE_US))
    for number in range(ticks + FIRST_TICKS):
        tick(setup, land(TICK_MESSAGES, HOUR_US + minute * MINUTE_US + number), clock)
    spent = {stage: median(found[FIRST_TICKS:]) for stage, found in clock.spent.items()}
    print(f"minute {minute}: " + ", ".join(f"{stage} {ms:.0f} ms" for stage, ms in spent.items()), file=sys.stderr)
    figure(
        "rollups.hours/windows", value=spent["hours"], unit="ms", against=spent["windows"], minute=minute, posts=posts
    )


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.rollups", description=__doc__)
    parser.add_argument("--posts", type=int, default=400)
    parser.add_argument("--ticks", type=int, default=10, help="measured ones")
    options = parser.parse_args(argv)
    for minute in (1, 59):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), options.posts, minute, options.ticks)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
