"""`disk`: what takes how much room, per table and part of the data root, and per reading."""

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from contracts.layout import Layout, Positions
from contracts.schemas import TABLES
from contracts.settings import SettingError
from warehouse.config import Config, Verbs

FORMATS = ("table", "json")


@dataclass(frozen=True, kw_only=True)
class Use:
    """Files of one part of a place and their bytes; `rows` of a table's current files."""

    place: str
    part: str
    files: int
    bytes: int
    rows: int | None = None


def add_parser(verbs: Verbs) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("disk", help="how much room tables, raw log, pins and the rest take")
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.set_defaults(run=run)


def run(config: Config, options: argparse.Namespace) -> int:
    """Print the report."""
    uses = disk_use(config.layout)
    if options.format == "json":
        print(json.dumps({"uses": [asdict(use) for use in uses], **_totals(uses)}, indent=1))
    else:
        for line in _report(uses):
            print(line)
    return 0


def disk_use(layout: Layout) -> list[Use]:
    """What lies below the data root, each file once: hard links of a pin count only where the table has let go.

    Tables: `current` is the version that the positions name, `replaced` waits for the vacuum (with what was committed
    since), `log` is Delta's own.
    """
    seen: set[tuple[int, int]] = set()
    versions = Positions.load(layout.positions).versions
    uses = []
    for name in TABLES:
        folder = layout.table(name)
        current, rows = _current(folder, versions.get(name))
        files = list(_files(folder))
        logs = [path for path in files if path.is_relative_to(folder / "_delta_log")]
        rest = [path for path in files if path not in current and path not in set(logs)]
        uses.append(_use(name, "current", current, seen, rows))
        uses.append(_use(name, "replaced", rest, seen))
        uses.append(_use(name, "log", logs, seen))
    uses.append(_use("pins", "", _files(layout.pins), seen))
    uses.append(_use("raw", "", _files(layout.raw), seen))
    uses.append(_use("open", "", _files(layout.open), seen))
    uses.append(_use("catalogue", "", layout.root.glob("*catalog.*"), seen))
    uses.append(_use("other", "", _files(layout.root), seen))
    return uses


def _current(folder: Path, version: int | None) -> tuple[set[Path], int]:
    """The Parquet files of a table version, and their rows."""
    if version is None:
        return set(), 0
    try:
        table = DeltaTable(str(folder.absolute()), version=version)
    except DeltaError as error:
        raise SettingError(f"version {version} of {folder} cannot be read: {error}") from error
    actions = pa.table(table.get_add_actions(flatten=True))
    return {folder / name for name in actions["path"].to_pylist()}, sum(actions["num_records"].to_pylist())


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)


def _use(place: str, part: str, paths: Iterable[Path], seen: set[tuple[int, int]], rows: int | None = None) -> Use:
    files = size = 0
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # the city runs on
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            files += 1
            size += status.st_size
    return Use(place=place, part=part, files=files, bytes=size, rows=rows)


def _totals(uses: list[Use]) -> dict[str, float | int | None]:
    """Bytes of everything and of the lake, readings, and bytes of the lake for each of them: of the current files, and
    with all that lies beside them."""
    readings = sum(use.rows or 0 for use in uses if use.part == "current" and TABLES[use.place].is_reading)
    lake = [use for use in uses if use.part]
    current = sum(use.bytes for use in lake if use.part == "current")
    whole = sum(use.bytes for use in lake) + sum(use.bytes for use in uses if use.place == "pins")
    return {
        "bytes": sum(use.bytes for use in uses),
        "lake_bytes": whole,
        "readings": readings,
        "current_bytes_per_reading": round(current / readings, 3) if readings else None,
        "lake_bytes_per_reading": round(whole / readings, 3) if readings else None,
    }


def _report(uses: list[Use]) -> Iterator[str]:
    yield f"{'table':16}{'rows':>14}{'files':>8}{'current':>12}{'replaced':>12}{'log':>12}{'bytes/row':>12}"
    for name in TABLES:
        parts = {use.part: use for use in uses if use.place == name}
        current = parts["current"]
        cells = "".join(f"{_size(parts[part].bytes):>12}" for part in ("current", "replaced", "log"))
        each = f"{current.bytes / current.rows:.2f}" if current.rows else "-"
        yield f"{name:16}{current.rows or 0:>14,}{current.files:>8,}{cells}{each:>12}"
    yield ""
    for use in uses:
        if not use.part:
            yield f"{use.place:16}{'':14}{use.files:>8,}{_size(use.bytes):>12}"
    totals = _totals(uses)
    yield f"{'all':16}{'':14}{sum(use.files for use in uses):>8,}{_size(int(totals['bytes'] or 0)):>12}"
    yield ""
    if totals["readings"]:
        yield (
            f"{totals['readings']:,} readings: {totals['current_bytes_per_reading']} bytes each in current files of "
            f"all tables, {totals['lake_bytes_per_reading']} with replaced files, logs and pins"
        )


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
