"""The files of a version are known from the log as Delta itself knows them, and from nothing else."""

import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from contracts.layout import Layout
from contracts.schemas import FOOTFALL, HOURS
from contracts.times import to_us
from tests.warehouse.lake_samples import START, some_rows, write
from warehouse import files
from warehouse.catalogue import Kept


def grow(root: Path, seed: int) -> DeltaTable:
    """A table with appends, a replacement and a compaction."""
    for number in range(3):
        write(root, FOOTFALL, some_rows(FOOTFALL, 5, seed + number))
    table = DeltaTable(str(Layout(root).table("footfall")))
    table.delete("flag = 1")
    table.optimize.compact()
    write(root, FOOTFALL, some_rows(FOOTFALL, 5, seed + 9))
    return DeltaTable(str(Layout(root).table("footfall")))


def wanted(table: DeltaTable, version: int) -> list[str]:
    return sorted(DeltaTable(table.table_uri, version=version).file_uris())


def test_they_go_forward_and_back_as_delta_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, lists, table = Layout(tmp_path), Kept(), grow(tmp_path, 1)
    versions = range(table.version() + 1)
    expected = [wanted(table, version) for version in versions]

    def found(version: int) -> list[str]:
        return [f"{tmp_path}{path}" for path in lists.of(layout, "footfall", version)]

    assert found(0) == expected[0]
    with monkeypatch.context() as patch:
        # by the log's entries alone
        patch.delattr(files, "DeltaTable")
        assert [found(version) for version in versions] == expected
    assert [found(version) for version in reversed(versions)] == expected[::-1]
    with pytest.raises(Exception, match="99"):
        found(99)
    assert found(versions[-1]) == expected[-1]
    # another table in its place has versions of the same numbers
    shutil.rmtree(layout.table("footfall"))
    other = grow(tmp_path, 50)
    assert found(other.version()) == wanted(other, other.version())


def test_an_entry_that_is_gone_is_read_around(tmp_path: Path) -> None:
    table = grow(tmp_path, 1)
    folder = Layout(tmp_path).table("footfall")
    before = files.listed(folder, 1)
    table.create_checkpoint()
    (folder / "_delta_log" / f"{2:020d}.json").unlink()
    found = files.listed(folder, table.version(), before)
    assert {str(folder / name) for name in found.names} == set(wanted(table, table.version()))
    with pytest.raises(DeltaError):
        files.listed(folder, 99, found)


def test_the_span_is_that_of_the_rows(tmp_path: Path) -> None:
    rows = [some_rows(HOURS, 20, seed) for seed in range(3)]
    for some in rows:
        write(tmp_path, HOURS, some)
    paths = DeltaTable(str(Layout(tmp_path).table("hours"))).file_uris()
    times = [time for some in rows for time in some["window_start"].to_pylist()]
    assert files.time_span(HOURS, paths) == (min(times), max(times))
    assert to_us(min(times)) >= to_us(START)
    assert files.time_span(HOURS, []) == (None, None)
