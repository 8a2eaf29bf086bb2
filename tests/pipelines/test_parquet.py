"""Compaction changes how rows lie and are encoded, and nothing else; row groups tell which hold a post."""

from itertools import pairwise
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from contracts.layout import Layout
from contracts.schemas import FOOTFALL, TABLES, Table
from pipelines import housekeeping, lake, parquet
from pipelines.kernels.frames import conform, schema_of
from pipelines.parquet import order
from tests.warehouse.lake_samples import START, some_rows

FAR_US = 2**62


def rows_of(table: Table, seed: int) -> pl.DataFrame:
    """Random rows of one span of compaction."""
    rows: pl.DataFrame = pl.DataFrame(some_rows(table, 500, seed))
    later = pl.duration(microseconds=pl.col(table.time).dt.epoch("us") % 500_000_000)
    return rows.with_columns((pl.lit(START) + later).alias(table.time))


def compacted(root: Path, table: Table, rows: pl.DataFrame) -> list[Path]:
    """The files that compaction leaves of rows that came in five commits."""
    for part in range(5):
        lake.append_rows(root, table, rows[part::5])
    before = set(lake.open_table(root, table.name).file_uris())
    housekeeping.compact_all(root, FAR_US)
    after = set(lake.open_table(root, table.name).file_uris())
    assert not before & after
    return sorted(Path(uri.removeprefix("file://")) for uri in after)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_reader_sees_the_rows_and_types_that_were_written_sorted(tmp_path: Path, table: Table) -> None:
    rows = rows_of(table, seed=3)
    files = compacted(tmp_path, table, rows)
    names = [str(path) for path in files]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        duck = connection.read_parquet(names, hive_partitioning=False).pl()
    readers = {
        "scan_delta": pl.scan_delta(str(Layout(tmp_path).table(table.name))).collect(),
        "polars": pl.read_parquet(names, hive_partitioning=False),
        "pyarrow": pl.DataFrame(pq.ParquetDataset(names).read()),
        "duckdb": duck,
    }
    for found in readers.values():
        assert found.schema == schema_of(table)
        assert_frame_equal(found, rows, check_row_order=False, check_exact=True)
    for path in files:
        kinds = pq.read_schema(path)
        lies = pl.read_parquet(path).select(order(table))
        assert lies.equals(lies.sort(order(table)))
        assert [(one.name, one.type, one.nullable) for one in kinds] == [
            (one.name, one.type, one.nullable) for one in table.schema
        ]


def test_row_groups_tell_which_hold_a_post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 100)
    rows = conform(
        pl.DataFrame({"seq": range(1200)}).with_columns(
            post_id=pl.format("KT{}", 1000 + pl.col("seq") % 30),
            boot_id=pl.lit("b"),
            event_time=pl.lit(START) + pl.duration(milliseconds=500 * pl.col("seq")),
            received_time=pl.lit(START) + pl.duration(milliseconds=500 * pl.col("seq") + 7),
            **{name: pl.lit(1) for name in ("first_seq", "period_s", "flag", "digest")},
            **{name: pl.lit(2) for name in ("crossings_in_count", "crossings_out_count")},
        ),
        FOOTFALL,
    )
    (path,) = compacted(tmp_path, FOOTFALL, rows)
    metadata = pq.read_metadata(path)
    place = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
    written = pl.read_parquet(path)
    found = []
    for number, group in enumerate(map(metadata.row_group, range(metadata.num_row_groups))):
        part = written[100 * number : 100 * (number + 1)]
        for name in ("post_id", "event_time"):
            said = group.column(place[name]).statistics
            assert (said.min, said.max) == (part[name].min(), part[name].max())
        assert group.column(place["digest"]).statistics is None
        found.append((part["post_id"][0], part["post_id"][-1]))
    assert len(found) == 12
    assert all(one[1] <= other[0] for one, other in pairwise(found))
