"""What announcing costs a tick: a look at what was received since the last one, and a part of the first looks after a
start, over the readings of a city that is behind by the whole grace.

    python -m bench.finality --posts 340 --minutes 6       # the pilot's 40 messages a second
    python -m bench.finality --posts 17000 --minutes 6     # 2,000 messages a second
"""

import argparse
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import polars as pl

from bench.figures import figure
from contracts.layout import Layout
from contracts.quantities import of_stream
from contracts.registry import save_registry
from contracts.schemas import DEVICE_STATUS, FOOTFALL, LANE_FLOWS, OBSERVATIONS, Table
from contracts.times import MINUTE_US, to_us
from pipelines.finality import Finality
from pipelines.kernels.frames import conform
from pipelines.lake import append_rows
from pipelines.stages import Setup
from tests.pipelines.raw_log import registry_file

START = datetime(2026, 11, 21, 8, tzinfo=UTC)
LANES = 4


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=340)
    parser.add_argument("--minutes", type=int, default=6, help="length of the city's time")
    arguments = parser.parse_args(argv)
    with TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        names = [f"ZZ{number:05d}" for number in range(arguments.posts)]
        save_registry(layout.registry, registry_file(names))
        finality = Finality(Setup(root=layout.root, registry=layout.registry), 3600)
        parts: list[float] = []
        looks: list[float] = []
        for minute in range(arguments.minutes):
            _land(layout.root, names, minute)
            covered_us = to_us(START) + (minute + 2) * MINUTE_US
            while True:
                was_caught_up = finality.is_caught_up
                began = time.perf_counter()
                finality.look(covered_us)
                (looks if was_caught_up else parts).append(time.perf_counter() - began)
                if finality.is_caught_up:
                    break
            print(f"minute {minute}: {looks[-1:] or parts[-1:]} s", file=sys.stderr)
        fresh = Finality(finality._setup, 3600)
        while not fresh.is_caught_up:
            began = time.perf_counter()
            fresh.look(covered_us)
            parts.append(time.perf_counter() - began)
    figure("finality.look_s", value=median(looks), unit="s", posts=arguments.posts, looks=len(looks))
    figure("finality.part_max_s", value=max(parts), unit="s", posts=arguments.posts, parts=len(parts))
    return 0


def _land(root: Path, names: list[str], minute: int) -> None:
    """A minute of every post: weather, air, status, two half-minutes of traffic and pedestrians."""
    time_us = START + timedelta(minutes=minute)
    posts = pl.DataFrame({"post_id": names, "boot_id": [f"{number:016x}" for number in range(len(names))]})
    head = {"received_time": pl.lit(time_us + timedelta(seconds=31)), "digest": pl.lit(minute), "flag": pl.lit(1)}

    def rows(table: Table, seq: int, shift_s: int, **more: object) -> pl.DataFrame:
        event_time = pl.lit(time_us + timedelta(seconds=shift_s))
        said = {name: pl.lit(value) for name, value in more.items()}
        frame = posts.with_columns(
            seq=pl.lit(seq), first_seq=pl.lit(max(0, seq - 2)), event_time=event_time, **head, **said
        )
        return conform(frame, table)

    halves = ((2 * minute, 0), (2 * minute + 1, 30))
    for table, frames in (
        (
            OBSERVATIONS,
            [
                rows(OBSERVATIONS, minute, 0, stream=stream, quantity=quantity.name, value=1.0)
                for stream in ("weather", "air")
                for quantity in of_stream(stream)
            ],
        ),
        (
            LANE_FLOWS,
            [
                rows(
                    LANE_FLOWS,
                    *half,
                    period_s=30,
                    lane_index=lane,
                    lane="x",
                    direction="N",
                    vehicle_count=1,
                    is_valid=True,
                )
                for half in halves
                for lane in range(LANES)
            ],
        ),
        (FOOTFALL, [rows(FOOTFALL, *h, period_s=30, crossings_in_count=1, crossings_out_count=1) for h in halves]),
        (DEVICE_STATUS, [rows(DEVICE_STATUS, minute, 0, kind="heartbeat")]),
    ):
        append_rows(root, table, pl.concat(frames))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
