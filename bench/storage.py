"""What the bytes of `storage.bytes_per_reading` (bench.warehouse, a month) are spent on, by table and column.

A log of so many hours of the pilot is brought into a lake by `backfill`, compacted as when all of it is old, and what
was replaced is removed. All in: Delta's logs and checkpoints too, by rows of the reading tables; `/{table}` are the
parts, columns go to standard error. Values are those of the simulated devices without faults, each message received
in a microsecond of its own (`devices`), or drawn uniformly and received at whole seconds (`load`).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from bench import faulty, load
from bench.figures import figure
from bench.month import ENVIRON, settle
from contracts.layout import Layout
from contracts.schemas import READING_TABLES, TABLES
from contracts.times import US, to_us
from pipelines import files, lake
from pipelines.housekeeping import Span, rewrite
from sensors_sim.faults import FaultPlan
from sensors_sim.fleet import build

PEER_BYTES = 152.0  # ThingsBoard's, as its users report


def make_log(root: Path, values: str, posts: int, hours: int, seed: int) -> Layout:
    """A data root with the registry and so many hours of the posts' messages in sealed segments."""
    registry = build(posts, seed, detectors=False)
    if values == "load":
        return load.make_log(root, registry, 60 * hours, seed)[0]
    return faulty.make_log(root, registry, FaultPlan({}), seed, to_us(load.START), 60 * hours, US).layout


def fill(layout: Layout) -> None:
    """Bring the log into the lake and leave of it what is left of it days later. Raises RuntimeError."""
    verb = [sys.executable, "-m", "pipelines", "backfill", "--data", str(layout.root)]
    if subprocess.run(verb, env={**os.environ, **ENVIRON}, check=False).returncode:
        raise RuntimeError("the backfill failed")
    lake.forget()
    for name, table in TABLES.items():
        # few posts make fewer files than compaction asks for
        listed = tuple(files.listed(lake.newest_version(layout.root, name), table))
        if listed:
            end_us = max(file.high_us for file in listed) + 1
            rewrite(layout.root, Span(table=table, start_us=0, end_us=end_us, files=listed))
    settle(layout.root)
    for name in TABLES:  # what processes wrote that lost a race is in no log
        handle = lake.open_table(layout.root, name)
        handle.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)


def bytes_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def columns_of(folder: Path) -> Counter[str]:
    """Compressed bytes by column of a table's Parquet files."""
    found: Counter[str] = Counter()
    for path in folder.glob("*.parquet"):
        metadata = pq.read_metadata(path)
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(number)
                found[chunk.path_in_schema] += chunk.total_compressed_size
    return found


def report(layout: Layout, values: str) -> None:
    """Print the figures; each column's share goes to standard error."""
    rows = {name: lake.count_rows(layout.root, name) for name in TABLES}
    readings = sum(rows[table.name] for table in READING_TABLES)
    sizes = {name: bytes_of(layout.table(name)) for name in TABLES}
    whole = sum(sizes.values())
    figure(
        f"storage.bytes_per_reading.{values}",
        value=whole / readings,
        unit="bytes",
        against=PEER_BYTES,
        readings=readings,
        bytes=whole,
    )
    for name in TABLES:
        folder = layout.table(name)
        figure(
            f"storage.bytes_per_reading.{values}/{name}",
            value=sizes[name] / readings,
            unit="bytes",
            rows=rows[name],
            files=len(list(folder.glob("*.parquet"))),
            log_bytes=bytes_of(folder / "_delta_log"),
        )
        for column, taken in columns_of(folder).most_common():
            if taken > readings / 1000:
                shares = f"{taken / readings:.3f} a reading, {taken / rows[name]:.2f} a row"
                print(f"{name}.{column}: {shares}", file=sys.stderr)


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code."""
    top = argparse.ArgumentParser(prog="python -m bench.storage", description=__doc__)
    top.add_argument("--values", choices=("devices", "load"), default="devices")
    top.add_argument("--posts", type=int, default=400)
    top.add_argument("--hours", type=int, default=24)
    top.add_argument("--seed", type=int, default=1)
    top.add_argument("--keep", type=Path, help="make the data root here and leave it")
    arguments = top.parse_args(argv)
    root = arguments.keep or Path(tempfile.mkdtemp(prefix="lamplight-"))
    try:
        layout = make_log(root, arguments.values, arguments.posts, arguments.hours, arguments.seed)
        fill(layout)
        report(layout, arguments.values)
    finally:
        if not arguments.keep:
            shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
