"""`make bench-pipeline`: the whole Beam graph beside the same kernels in plain Polars, and its halves beside
element-wise Beam.

A reading is one value (a temperature, the crossings inwards); a lane's summary counts once. Both sides of a ratio
alternate in one run on the same threads; the figure is the median of the rounds' ratios.
`pipeline.decode/elementwise`: segments to rows, handed to the runner's next stage;
`pipeline.after_decode.beam/elementwise`: all that is behind, with the rows given; `pipeline.beam/polars`: the whole
graph, over a log of its own, which is longer. Element-wise Beam's cost for a reading grows with the log, so fewer
`--peer-minutes` favour it.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from bench import halves
from bench.figures import figure
from bench.load import make_log
from contracts.layout import Segment
from pipelines import graph, lake, stages
from pipelines.log import chunks
from pipelines.stages import Setup
from sensors_sim.fleet import build


def plain(setup: Setup, segments: list[Segment]) -> None:
    """The same stages in one process without Beam."""
    rows: dict[str, list[object]] = {}
    for chunk in chunks(segments):
        for name, batch in stages.decode(setup, chunk).items():
            rows.setdefault(name, []).append(batch)
    dirty: dict[str, set[int]] = {}
    for name, batches in rows.items():
        blocks = stages.unite_blocks(setup, name, batches)
        if name in stages.MINUTES_OF:
            dirty.setdefault(stages.MINUTES_OF[name].name, set()).update(blocks)
    for name, blocks in dirty.items():
        stages.roll_up(setup, name, stages.make_minutes(setup, name, blocks))


class Bench:
    """Lakes in one folder, and what was measured on them."""

    def __init__(self, folder: Path, rounds: int):
        self.folder, self.rounds = folder, rounds

    def log(self, name: str, minutes: int) -> tuple[Setup, list[Segment]]:
        """So many minutes of 400 posts."""
        layout, segments = make_log(self.folder / name, build(400, 1, detectors=False), minutes, seed=1)
        return Setup(root=layout.root, registry=layout.registry), segments

    def lakes(self, setup: Setup) -> Iterator[Setup]:
        """Empty lakes beside the one raw log, for ever; each goes when the next is asked for."""
        while True:
            with tempfile.TemporaryDirectory(dir=self.folder) as root:
                (Path(root) / "raw").symlink_to(setup.layout.raw)
                yield replace(setup, root=Path(root))

    def compare(self, name: str, ours: Callable[[], object], theirs: Callable[[], object], readings: int) -> None:
        """Measure both sides in turn and print the figure, in readings a second."""
        rates: list[tuple[float, float]] = []
        for number in range(self.rounds):
            pair = []
            for side, run in (("ours", ours), ("the other", theirs)):
                began = time.perf_counter()
                run()
                spent_s = time.perf_counter() - began
                pair.append(readings / spent_s)
                print(f"{name} {number}: {side}: {readings} readings in {spent_s:.2f} s", file=sys.stderr, flush=True)
            rates.append((pair[0], pair[1]))
        figure(
            name,
            value=median(rate for rate, _ in rates),
            unit="readings/s",
            against=median(rate for _, rate in rates),
            ratio=median(rate / other for rate, other in rates),
            readings=readings,
        )


def beside_elementwise(bench: Bench, minutes: int) -> None:
    """The two halves beside element-wise Beam's."""
    setup, segments = bench.log("peer", minutes)
    readings = halves.decode_ours(setup, segments)
    if readings != halves.decode_theirs(setup, segments):
        raise SystemExit("bench.pipeline: the two sides do not decode the same number of readings")
    bench.compare(
        "pipeline.decode/elementwise",
        partial(halves.decode_ours, setup, segments),
        partial(halves.decode_theirs, setup, segments),
        readings,
    )
    given, rows = halves.keep_ours(setup, segments), halves.keep_theirs(setup, segments)
    lakes = bench.lakes(setup)
    bench.compare(
        "pipeline.after_decode.beam/elementwise",
        lambda: halves.after_ours(next(lakes), given),
        lambda: halves.after_theirs(next(lakes).root, rows),
        readings,
    )


def beside_polars(bench: Bench, minutes: int) -> None:
    """The whole graph beside its stages without Beam."""
    setup, segments = bench.log("log", minutes)
    lakes = bench.lakes(setup)
    first = next(lakes)
    graph.run(first, chunks(segments[:1]))  # what is imported and made once is not measured
    lake.forget()
    readings = sum(
        halves.READINGS_PER_ROW.get(name, 0) * batch.num_rows
        for chunk in chunks(segments)
        for name, batch in stages.decode(setup, chunk).items()
    )
    bench.compare(
        "pipeline.beam/polars",
        lambda: graph.run(next(lakes), chunks(segments)),
        lambda: plain(next(lakes), segments),
        readings,
    )


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code."""
    top = argparse.ArgumentParser(prog="python -m bench.pipeline", description=__doc__)
    top.add_argument("--minutes", type=int, default=1300, help="of 400 posts beside Polars: 1300 are 10 M readings")
    top.add_argument("--peer-minutes", type=int, default=130, help="beside element-wise Beam: 130 are 1 M readings")
    top.add_argument("--rounds", type=int, default=3)
    arguments = top.parse_args(argv)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.rounds)
        beside_elementwise(bench, arguments.peer_minutes)
        beside_polars(bench, arguments.minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
