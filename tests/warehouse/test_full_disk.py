"""A disk without room: the last good catalogue stays, and one line says what is wrong."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.layout import Layout
from contracts.schemas import TABLES
from tests.small_disk import small_file_system
from tests.warehouse.lake_samples import ask, config_of, some_rows, store, write
from warehouse.catalogue import publish

ROOT = Path(__file__).parents[2]
COUNT = "SELECT count(*) AS n FROM lake.footfall"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of sixteen MiB."""
    with small_file_system(tmp_path / "small", "16m") as folder:
        yield folder


def step(root: Path, seed: int) -> None:
    table = TABLES["footfall"]
    store(root, {"footfall": write(root, table, some_rows(table, 5, seed))})


@pytest.mark.parametrize("room", [20_000, 1_200_000])
def test_publishing_without_room_leaves_the_last_catalogue(small_disk: Path, room: int) -> None:
    root = small_disk / "data"
    step(root, 1)
    publish(config_of(root))
    before = Layout(root).catalogue.read_bytes()
    step(root, 2)
    status = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(status.f_bavail * status.f_frsize - room))
    command = [sys.executable, "-m", "warehouse", "--data", str(root), "publish"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert done.returncode == 2
    assert "the last one stays" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert Layout(root).catalogue.read_bytes() == before
    assert ask(root, COUNT)["n"].item() == 5
    names = {path.name for path in root.iterdir() if path.is_file()}
    assert names == {".catalog.lock", "catalog.duckdb"}
    (small_disk / "ballast").unlink()
    publish(config_of(root))
    assert ask(root, COUNT)["n"].item() == 10
