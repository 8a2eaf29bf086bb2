"""A lake that the pipeline made of a log with everything in it, and lakes that differ from it in one thing."""

import shutil
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
from deltalake import write_deltalake

from contracts.layout import Layout, Positions
from contracts.schemas import TABLES
from contracts.times import to_us
from pipelines import lake
from tests.pipelines.laws import in_one_go
from tests.pipelines.raw_log import START
from tests.pipelines.rich_log import rich
from tests.warehouse.lake_samples import config_of
from warehouse.catalogue import publish

END = START + timedelta(minutes=75)
Change = Callable[[pl.DataFrame], pl.DataFrame]


def build(root: Path, seed: int = 1) -> None:
    """75 minutes of six posts, as they land with faults of devices and lines, published."""
    in_one_go(root, rich(seed))
    publish_as_it_is(root)


def publish_as_it_is(root: Path, covered: datetime = END) -> None:
    """Claim the tables as they stand and publish their catalogue."""
    lake.forget()
    Positions(offsets={}, versions=lake.versions(root), covered_us=to_us(covered)).store(Layout(root).positions)
    publish(config_of(root))


def stored(root: Path, table: str) -> pl.DataFrame:
    frame: pl.DataFrame = pl.scan_delta(str(Layout(root).table(table))).collect()
    return frame


def changed(healthy: Path, root: Path, changes: Sequence[tuple[str, Change]] = ()) -> Path:
    """A copy of a lake in which some tables hold something else, published."""
    for name in ("lake", "registry"):
        shutil.copytree(healthy / name, root / name)
    for name in {name for name, _ in changes}:
        rows = stored(root, name)
        for change in (change for table, change in changes if table == name):
            rows = change(rows)
        write_deltalake(str(Layout(root).table(name)), rows.to_arrow().cast(TABLES[name].schema), mode="overwrite")
    publish_as_it_is(root)
    return root


def first(frame: pl.DataFrame, wanted: pl.Expr | bool = True, **values: object) -> pl.DataFrame:
    """The frame with other values in the first row that is wanted, by key."""
    frame = frame.sort(frame.columns)
    row = frame.with_row_index("row").filter(wanted)["row"][0]
    is_it = pl.int_range(pl.len()) == row
    return frame.with_columns(
        pl.when(is_it).then(pl.lit(value, dtype=frame.schema[name])).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def without_first(frame: pl.DataFrame, wanted: pl.Expr | bool = True) -> pl.DataFrame:
    """The frame without the first row that is wanted, by key."""
    frame = frame.sort(frame.columns).with_row_index("row")
    return frame.filter(pl.col("row") != frame.filter(wanted)["row"][0]).drop("row")
