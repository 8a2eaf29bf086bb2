"""`make bench-pipeline`: the whole Beam graph beside the same kernels in plain Polars, and beside element-wise Beam.

Rates are readings (rows of the reading tables) per second. Both sides of a ratio alternate in one run; the figure is
the median of the rounds' ratios. `--part` gives element-wise Beam less of the log, for a quick look: its cost for a
reading grows with the log's length, so a part favours it.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from bench import elementwise
from bench.figures import figure
from bench.load import make_log
from contracts.layout import Segment
from contracts.schemas import READING_TABLES
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
        stages.make_windows(setup, name, stages.make_minutes(setup, name, blocks))


def _run(name: str, setup: Setup, segments: list[Segment]) -> None:
    if name == "beam":
        graph.run(setup, chunks(segments))
    else:
        plain(setup, segments)


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code."""
    top = argparse.ArgumentParser(prog="python -m bench.pipeline", description=__doc__)
    top.add_argument("--minutes", type=int, default=260, help="minutes of 400 posts: 260 are 2 M readings")
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--part", type=int, default=1, help="element-wise Beam gets one in so many segments")
    arguments = top.parse_args(argv)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        layout, segments = make_log(Path(folder) / "log", build(400, 1, detectors=False), arguments.minutes, seed=1)
        setup = Setup(root=layout.root, registry=layout.registry)
        part = segments[: max(1, len(segments) // arguments.part)]
        rates: dict[str, list[float]] = {"beam": [], "polars": [], "elementwise": []}
        readings: dict[str, int] = {}

        def timed(name: str, run: Callable[[], None], root: Path | None) -> None:
            began = time.perf_counter()
            run()
            spent = time.perf_counter() - began
            if root is not None:
                readings[name] = sum(lake.count_rows(root, table.name) for table in READING_TABLES)
            rates[name].append(readings[name] / spent)
            print(f"{name}: {readings[name]} readings in {spent:.1f} s", file=sys.stderr)

        for number in range(arguments.rounds):
            # each round writes a lake of its own beside the one raw log
            for name in ("beam", "polars"):
                root = Path(folder) / f"{name}-{number}"
                root.mkdir()
                (root / "raw").symlink_to(layout.raw)
                own = replace(setup, root=root)
                timed(name, partial(_run, name, own, segments), root)
                shutil.rmtree(root / "lake")
            if "elementwise" not in readings:
                readings["elementwise"] = sum(
                    batch.num_rows
                    for name, batch in stages.decode(setup, part).items()
                    if name in {table.name for table in READING_TABLES}
                )
            peer = Path(folder) / f"elementwise-{number}"
            timed("elementwise", partial(elementwise.run, layout.raw, layout.registry, part, peer), None)
            shutil.rmtree(peer)
    for other in ("polars", "elementwise"):
        pairs = [ours / theirs for ours, theirs in zip(rates["beam"], rates[other], strict=True)]
        figure(
            f"pipeline.beam/{other}",
            value=median(rates["beam"]),
            unit="readings/s",
            against=median(rates[other]),
            ratio=median(pairs),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
