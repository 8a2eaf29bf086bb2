"""`disk`: every file below the data root is counted once, where it belongs."""

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable

from contracts.layout import Layout
from contracts.schemas import TABLES
from tests.warehouse.lake_samples import START, fill_lake, oracle, store
from tests.warehouse.test_command import call
from tests.warehouse.test_snapshots import pin
from warehouse.disk import disk_use


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A pinned lake whose minutes were replaced, and files of every other kind."""
    versions = fill_lake(tmp_path)
    pin(tmp_path, versions, START)
    minutes = DeltaTable(str(Layout(tmp_path).table("minutes")))
    minutes.delete()
    store(tmp_path, versions | {"minutes": minutes.version()})
    for name in ("raw/a/00000000/0-9.arrow", "open/latest/air.json", "catalog.duckdb", "receipts/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 100)
    return tmp_path


def sizes(paths: list[Path]) -> tuple[int, int]:
    return len(paths), sum(path.stat().st_size for path in paths)


def test_every_file_is_counted_once(root: Path) -> None:
    uses = {(use.place, use.part): use for use in disk_use(Layout(root))}
    files = {path.stat().st_ino: path for path in root.rglob("*") if path.is_file()}
    assert sum(use.files for use in uses.values()) == len(files)
    assert sum(use.bytes for use in uses.values()) == sum(path.stat().st_size for path in files.values())
    for name in TABLES:
        folder = Layout(root).table(name)
        parquet = sizes(list(folder.glob("*.parquet")))
        found = uses[name, "replaced" if name == "minutes" else "current"]
        assert (found.files, found.bytes) == parquet, name
        assert uses[name, "log"].files == len(list((folder / "_delta_log").iterdir()))
        assert uses[name, "current"].rows == (0 if name == "minutes" else oracle(root, name, 2).height)
    for place in ("raw", "open", "catalogue"):
        assert (uses[place, ""].files, uses[place, ""].bytes) == (1, 100)
    assert uses["pins", ""].files == 1  # its positions: the files are the tables'


def test_files_that_only_a_pin_keeps_are_the_pins(root: Path) -> None:
    kept = sizes(list(Layout(root).table("minutes").glob("*.parquet")))
    minutes = DeltaTable(str(Layout(root).table("minutes")))
    minutes.vacuum(0, dry_run=False, enforce_retention_duration=False)
    uses = {(use.place, use.part): use for use in disk_use(Layout(root))}
    assert uses["minutes", "replaced"].files == 0
    positions = next(Layout(root).pins.glob("*/positions.json")).stat().st_size
    assert (uses["pins", ""].files, uses["pins", ""].bytes) == (kept[0] + 1, kept[1] + positions)


def test_bytes_per_reading(root: Path) -> None:
    told = json.loads(call(root, "disk", "--format", "json").stdout)
    readings = sum(120 for table in TABLES.values() if table.is_reading)
    current = sum(
        path.stat().st_size
        for name in TABLES
        if name != "minutes"
        for path in Layout(root).table(name).glob("*.parquet")
    )
    assert told["readings"] == readings
    assert told["current_bytes_per_reading"] == pytest.approx(current / readings, abs=0.001)
    table = call(root, "disk").stdout.decode()
    assert f"{readings:,} readings" in table
    assert all(name in table for name in TABLES)


def test_an_empty_data_root_takes_nothing(tmp_path: Path) -> None:
    assert sum(use.bytes for use in disk_use(Layout(tmp_path))) == 0
    assert call(tmp_path, "disk").returncode == 0
