"""`storage.bytes_per_reading`: bytes on disk of the whole lake, all in, by rows of its reading tables.

A log of so many hours of the pilot is brought into a lake by `backfill`, compacted as when all of it is old, and what
was replaced is vacuumed. All in: every file below `lake/`, Delta's logs and checkpoints too. `/{table}` are the parts:
they add up to the whole. `--values load` takes uniformly drawn values (`bench.load`), which compress worst; `devices`
those of the simulated devices without faults, each received in a microsecond of its own.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from bench import faulty, load
from bench.figures import figure
from contracts.layout import Layout
from contracts.schemas import READING_TABLES, TABLES
from contracts.times import US, to_us
from pipelines import housekeeping, lake
from sensors_sim.faults import FaultPlan
from sensors_sim.fleet import build

DAY_US = 86_400 * US
PEER_BYTES = 152.0  # ThingsBoard's, as its users report


def make_log(root: Path, values: str, posts: int, hours: int, seed: int) -> Layout:
    """A data root with the registry and so many hours of the posts' messages in sealed segments."""
    registry = build(posts, seed, detectors=False)
    if values == "load":
        return load.make_log(root, registry, 60 * hours, seed)[0]
    return faulty.make_log(root, registry, FaultPlan({}), seed, to_us(load.START), 60 * hours, US).layout


def fill(layout: Layout, end_us: int) -> None:
    """Bring the log into the lake and leave of it what is left of it days later. Raises RuntimeError."""
    verb = [sys.executable, "-m", "pipelines", "backfill", "--data", str(layout.root)]
    if subprocess.run(verb, check=False).returncode:
        raise RuntimeError("the backfill failed")
    lake.forget()
    housekeeping.compact_all(layout.root, end_us + 7 * DAY_US)
    for name in TABLES:
        handle = lake.open_table(layout.root, name)
        handle.create_checkpoint()
        handle.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        handle.cleanup_metadata()


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
    whole = bytes_of(layout.lake)
    figure(
        "storage.bytes_per_reading" + ("" if values == "devices" else f".{values}"),
        value=whole / readings,
        unit="bytes",
        against=PEER_BYTES,
        readings=readings,
        bytes=whole,
    )
    for name in TABLES:
        folder = layout.table(name)
        size = bytes_of(folder)
        files = len(list(folder.glob("*.parquet")))
        figure(
            f"storage.bytes_per_reading/{name}",
            value=size / readings,
            unit="bytes",
            rows=rows[name],
            files=files,
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
        fill(layout, to_us(load.START) + arguments.hours * 3600 * US)
        report(layout, arguments.values)
    finally:
        if not arguments.keep:
            shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
