"""A filter on post and time reaches the files: what a view does not need of them, it does not read."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from contracts.layout import Layout
from contracts.schemas import TABLES
from tests.feed_samples import post_id
from tests.warehouse.lake_samples import START, config_of, some_rows, store, write
from warehouse.catalogue import publish
from warehouse.query import open_catalogue

DAYS = 3
POSTS = (post_id(1), post_id(2))
READ_BY = {
    "observations": ["observations", "weather_messages", "air_messages"],
    "lane_flows": ["lane_flows"],
    "footfall": ["footfall"],
    "minutes": ["minutes"],
    "flow_minutes": ["flow_minutes", "traffic@300"],
    "flow_windows": ["flow_windows", "traffic@900", "traffic@3600"],
    "windows": ["windows", *(f"{view}@{period}" for view in ("value_windows", "air", "wind", "uv", "pedestrians",
        "weather_wide", "air_wide") for period in (300, 900))],
    "hours": ["hourly", "daily", "daily_utc", *(f"{view}@3600" for view in ("value_windows", "air", "wind", "uv",
        "pedestrians", "weather_wide", "air_wide"))],
}  # fmt: skip
# what looks back at other windows reads them whatever its time is
LOOKING_BACK = {"windows": ["rain@300", "rain@900"], "hours": ["rain@3600"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each table for every post and day."""
    root = tmp_path_factory.mktemp("data")
    versions = {}
    for name in READ_BY:
        table = TABLES[name]
        for day in range(DAYS):
            for post in POSTS:
                some = pl.DataFrame(some_rows(table, 60, day))
                some = some.with_columns(post_id=pl.lit(post))
                if name == "windows":
                    some = some.with_columns(period_s=pl.lit(300, pl.Int32))
                if "stream" in some.columns:
                    some = some.with_columns(stream=pl.Series(["weather", "air"] * 30))
                some = some.with_columns(pl.col(table.time).dt.truncate("15m") + timedelta(days=day))
                versions[name] = write(root, table, some.to_arrow().cast(table.schema))
    store(root, versions)
    publish(config_of(root))
    return root


def scans(operators: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What every scan of Parquet files in a plan says of itself."""
    for operator in operators:
        if operator["extra_info"].get("Function") == "READ_PARQUET":
            yield operator
        yield from scans(operator.get("children", []))


def row_groups(root: Path, table: str, view: str, where: str) -> int:
    """Row groups of a table that a question to a view reads."""
    name, _, period = view.partition("@")
    time = "event_time" if "event_time" in TABLES[table].schema.names else "window_start"
    where = where.replace("$time", time) + (f" AND period_s = {period}" if period else "")
    with open_catalogue(Layout(root).catalogue) as connection:
        said = connection.execute(f"EXPLAIN (ANALYZE, FORMAT json) SELECT * FROM {name} WHERE {where}").fetchall()
    found = [
        scan for scan in scans(json.loads(said[0][1])["operator"]) if f"/{table}/" in scan["extra_info"]["Filename(s)"]
    ]
    assert found
    return sum(int(scan["row_groups_scanned"]) for scan in found)


ONE_POST = f"post_id = '{POSTS[0]}'"
# the second day's readings, and where a day that they lie in begins, by UTC or in Hong Kong
ONE_DAY = f"$time >= '{START + timedelta(hours=7)}' AND $time < '{START + timedelta(hours=26)}'"


@pytest.mark.parametrize(("table", "view"), [(table, view) for table, views in READ_BY.items() for view in views])
def test_a_view_reads_only_what_lies_in_the_filter(root: Path, table: str, view: str) -> None:
    assert row_groups(root, table, view, "true") >= DAYS * len(POSTS)
    assert row_groups(root, table, view, ONE_POST) == DAYS
    assert row_groups(root, table, view, ONE_DAY) == len(POSTS)
    assert row_groups(root, table, view, f"{ONE_POST} AND {ONE_DAY}") == 1


@pytest.mark.parametrize(("table", "view"), [(table, view) for table, views in LOOKING_BACK.items() for view in views])
def test_what_looks_back_reads_the_post_in_the_filter(root: Path, table: str, view: str) -> None:
    assert row_groups(root, table, view, ONE_POST) == DAYS
