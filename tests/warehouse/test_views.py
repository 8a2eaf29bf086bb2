"""The views say what the lake says: the same rows, without conflicting copies, each described."""

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from contracts.layout import Layout
from contracts.quantities import QUANTITIES
from contracts.registry import save_registry
from contracts.schemas import READING_TABLES, TABLES, Table
from contracts.times import HONG_KONG
from pipelines.kernels import rollups
from tests.feed_samples import registry
from tests.warehouse.lake_samples import (
    START,
    ask,
    config_of,
    fill_lake,
    oracle,
    same,
    some_minutes,
    some_rows,
    store,
    write,
)
from warehouse.catalogue import publish
from warehouse.query import open_catalogue
from warehouse.reference import REFERENCE, standing
from warehouse.views import carrying, parse_view, sql_views


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    root = tmp_path_factory.mktemp("data")
    versions = fill_lake(root)
    store(root, versions)
    save_registry(Layout(root).registry, registry(4).file)
    publish(config_of(root))
    return root, versions


@pytest.mark.parametrize("name", TABLES)
def test_raw_views_are_the_tables(lake: tuple[Path, dict[str, int]], name: str) -> None:
    root, versions = lake
    wanted = oracle(root, name, versions[name])
    assert wanted.height == 120
    assert same(ask(root, f"SELECT * FROM lake.{name}"), wanted)


@pytest.mark.parametrize("table", READING_TABLES, ids=lambda table: table.name)
def test_readings_come_without_conflicting_copies(lake: tuple[Path, dict[str, int]], table: Table) -> None:
    root, versions = lake
    wanted = oracle(root, table.name, versions[table.name]).filter(~pl.col("is_conflicting")).drop("is_conflicting")
    found = ask(root, f"SELECT * FROM {table.name}")
    assert 0 < found.height < 120
    assert [name for name in found.columns if name != "event_time_hk"] == wanted.columns
    assert same(found, wanted)


@pytest.mark.parametrize("name", ["minutes", "windows", "flow_minutes", "flow_windows"])
def test_derived_tables_are_shown_whole(lake: tuple[Path, dict[str, int]], name: str) -> None:
    root, versions = lake
    assert same(ask(root, f"SELECT * FROM {name}"), oracle(root, name, versions[name]))


def test_quarantine_is_a_set_by_topic_and_digest(lake: tuple[Path, dict[str, int]]) -> None:
    root, versions = lake
    rows = oracle(root, "quarantine", versions["quarantine"])
    wanted = rows.sort("received_time").unique(["topic", "digest"], keep="first", maintain_order=True)
    found = ask(root, "SELECT * FROM quarantine")
    assert found.height == 6
    assert same(found, wanted)
    for payload, text in found.select("payload", "payload_text").iter_rows():
        assert text == (None if payload == b"\xff\xfe" else payload.decode())


def test_lampposts_are_those_valid_now(lake: tuple[Path, dict[str, int]]) -> None:
    root, _ = lake
    found = ask(root, "SELECT post_id, name_tc, streams FROM lampposts ORDER BY post_id")
    valid = registry(4).valid(time.time_ns() // 1000)
    assert found["post_id"].to_list() == [post.post_id for post in valid]
    assert found["name_tc"].to_list() == [post.name.tc for post in valid]
    assert found["streams"].to_list() == [sorted(post.streams) for post in valid]
    assert ask(root, "SELECT count(*) AS n FROM lamppost_entries")["n"].item() == len(registry(4).file.lampposts)
    assert ask(root, "SELECT count(*) AS n FROM directions JOIN lampposts USING (post_id)")["n"].item() == 4


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
@pytest.mark.parametrize("seed", range(3))
def test_an_hour_is_merged_as_the_pipeline_merges_windows(tmp_path: Path, seed: int, zone: str) -> None:
    minutes = some_minutes(seed)
    frame = pl.from_arrow(minutes)
    assert isinstance(frame, pl.DataFrame)
    fives = rollups.windows(frame, 300)
    merged = {"windows": fives, "hours": rollups.hours(fives)}
    written = {"minutes": minutes} | {name: rows.to_arrow().cast(TABLES[name].schema) for name, rows in merged.items()}
    store(tmp_path, {name: write(tmp_path, TABLES[name], rows) for name, rows in written.items()})
    publish(config_of(tmp_path))
    key = ["post_id", "quantity", "window_start"]
    wanted = rollups.windows(frame, 3600).sort(key)
    with open_catalogue(Layout(tmp_path).catalogue) as connection:
        connection.execute(f"SET TimeZone = '{zone}'")
        found = connection.sql("SELECT * FROM hourly").pl()
    found = found.with_columns(pl.col("window_start", "last_event_time").dt.convert_time_zone("UTC")).sort(key)
    exact = [*key, "period_s", "expected_count", "value_count", "flagged_count", "value_min", "value_max"]
    exact.append("last_event_time")
    assert found.select(exact).equals(wanted.select(exact))
    assert found.height == 30
    for name in ("value", "completeness", "increase"):
        for one, other in zip(found[name], wanted[name], strict=True):
            assert one == (None if other is None else pytest.approx(other, rel=1e-9, abs=1e-9))


@pytest.mark.parametrize("length", [60, 900])
def test_windows_of_another_length_are_merged_as_far_as_they_fill_one(tmp_path: Path, length: int) -> None:
    frame: pl.DataFrame = pl.DataFrame(some_minutes(1))
    written = rollups.windows(frame, length).to_arrow().cast(TABLES["windows"].schema)
    store(tmp_path, {"windows": write(tmp_path, TABLES["windows"], written)})
    publish(config_of(tmp_path))
    key = ["post_id", "quantity", "window_start"]
    for period in (300, 900):
        wanted = rollups.windows(frame, period).sort(key) if period >= length else pl.DataFrame()
        found = ask(tmp_path, f"SELECT * FROM value_windows WHERE period_s = {period}")
        assert found.height == wanted.height
        if found.height:
            counts = [*key, "value_count", "flagged_count", "value_max"]
            assert found.sort(key).select(counts).equals(wanted.select(counts))


ONE_STREAM = {"flow_windows": "traffic", "traffic": "traffic", "pedestrians": "pedestrian", "air": "air", "aqhi": "air"}
ONE_STREAM |= dict.fromkeys(("wind", "rain", "uv"), "weather")


def test_a_window_is_final_when_all_of_it_is_announced(tmp_path: Path) -> None:
    moments = [START + timedelta(minutes=minutes) for minutes in (10, 60, 65, 70, 15)]
    final = {"weather": moments[1], "pedestrian": moments[2], "traffic": moments[3]}
    announced = some_rows(TABLES["announcements"], 5, 1).to_pydict()
    announced |= {"stream": ["weather", "weather", "pedestrian", "traffic", "traffic"], "final_through": moments}
    rows = {"announcements": pa.Table.from_pydict(announced, TABLES["announcements"].schema)}
    for table, length in (("windows", "5m"), ("flow_windows", "15m"), ("flow_minutes", "1m")):
        some: pl.DataFrame = pl.DataFrame(some_rows(TABLES[table], 400, 3))
        some = some.with_columns(pl.col("window_start").dt.truncate(length)).unique(TABLES[table].key)
        if "period_s" in some.columns:
            some = some.with_columns(period_s=pl.lit(int(length[:-1]) * 60, pl.Int32))
        rows[table] = some.to_arrow().cast(TABLES[table].schema)
        if table == "windows":
            rows["hours"] = rollups.hours(some).to_arrow().cast(TABLES["hours"].schema)
    store(tmp_path, {table: write(tmp_path, TABLES[table], found) for table, found in rows.items()})
    publish(config_of(tmp_path))
    for name in ("windows", "hourly", "value_windows", *ONE_STREAM):
        found = ask(tmp_path, f"SELECT * FROM {name}")
        for row in found.iter_rows(named=True):
            stream = ONE_STREAM.get(name) or QUANTITIES[row["quantity"]].stream
            end = row["window_start"] + timedelta(seconds=row["period_s"])
            is_final = stream in final and end <= final[stream]
            assert (row["is_final"], row["data_through"]) == (is_final, START), (name, row)
        # of air nothing is announced
        assert set(found["is_final"]) == ({False} if ONE_STREAM.get(name) == "air" else {True, False}), name
    sums = "SELECT sum(revision)::BIGINT AS n FROM"
    changes = ask(tmp_path, f"{sums} lake.windows")["n"].item()
    for period in (300, 900, 3600):
        assert ask(tmp_path, f"{sums} value_windows WHERE period_s = {period}")["n"].item() == changes
    quarter = ["post_id", "direction", "window_start", "revision"]
    known = ask(tmp_path, f"SELECT {', '.join(quarter)} FROM flow_windows")
    traffic = ask(tmp_path, "SELECT * FROM traffic WHERE period_s = 900").join(known, on=quarter[:3])
    assert traffic["revision"].equals(traffic["revision_right"])
    assert traffic["revision"].sum() > 0


def test_an_empty_lake_gives_every_view_with_the_same_columns(
    tmp_path: Path, lake: tuple[Path, dict[str, int]]
) -> None:
    publish(config_of(tmp_path))
    columns = (
        "SELECT schema_name, table_name, column_name, data_type, comment FROM duckdb_columns() "
        "WHERE NOT internal ORDER BY schema_name, table_name, column_index"
    )
    empty = ask(tmp_path, columns)
    assert empty.equals(ask(lake[0], columns))
    for schema, name in empty.select("schema_name", "table_name").unique().iter_rows():
        wanted = {name: rows.num_rows for name, rows in standing(datetime.now(HONG_KONG).year + 1).items()}
        wanted |= {"snapshot": len(TABLES), "state": 1}
        assert ask(tmp_path, f"SELECT count(*) AS n FROM {schema}.{name}")["n"].item() == wanted.get(name, 0)


def test_a_table_that_is_missing_is_empty_beside_the_others(tmp_path: Path) -> None:
    store(tmp_path, {"footfall": write(tmp_path, TABLES["footfall"], some_rows(TABLES["footfall"], 5, 1))})
    publish(config_of(tmp_path))
    assert ask(tmp_path, "SELECT count(*) AS n FROM lake.footfall")["n"].item() == 5
    assert ask(tmp_path, "SELECT count(*) AS n FROM observations")["n"].item() == 0


def test_everything_is_described(lake: tuple[Path, dict[str, int]]) -> None:
    root, _ = lake
    bare = ask(root, "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL")
    assert bare.rows() == []
    functions = "SELECT function_name FROM duckdb_functions() WHERE NOT internal AND schema_name <> 'lake'"
    bare = ask(root, f"{functions} AND comment IS NULL")
    assert bare.rows() == []
    views = ask(root, "SELECT view_name AS name, comment FROM duckdb_views() WHERE NOT internal")
    assert {"observations", "hourly", *TABLES} <= set(views["name"])
    tables = ask(root, "SELECT table_name AS name, comment FROM duckdb_tables()")
    assert set(tables["name"]) == set(REFERENCE)
    for name, comment in [*views.iter_rows(), *tables.iter_rows()]:
        assert "Grain:" in comment, name
        assert "Key:" in comment, name


@pytest.mark.parametrize("view", sql_views(), ids=lambda view: view.name)
def test_a_views_key_tells_its_rows_apart(lake: tuple[Path, dict[str, int]], view: Any) -> None:
    columns = set(ask(lake[0], f"SELECT * FROM {view.name} LIMIT 0").columns)
    assert set(view.key.split(", ")) <= columns


def test_a_name_stands_in_one_schema() -> None:
    names = [*REFERENCE, *(view.name for view in sql_views())]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("text", ["SELECT 1", "-- Meaning\nSELECT 1", "-- Meaning\n-- Grain: a\nSELECT 1"])
def test_a_view_without_meaning_grain_or_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Grain"):
        parse_view("city", "bare", text)


def test_views_that_read_in_a_circle_are_refused() -> None:
    known = {
        name: parse_view("city", name, f"-- Meaning\n-- Grain: a\n-- Key: a\n-- Reads: {other}\nSELECT 1")
        for name, other in (("one", "two"), ("two", "one"))
    }
    with pytest.raises(ValueError, match="one reads two reads one"):
        carrying(known["one"], known)


def test_what_a_view_reads_is_carried_once_and_below_what_reads_it() -> None:
    known = {
        name: parse_view("city", name, f"-- Meaning\n-- Grain: a\n-- Key: a\n{reads}{body}")
        for name, reads, body in (
            ("top", "-- Reads: left, right\n", "SELECT * FROM left_ JOIN right_ USING (a)"),
            ("left", "-- Reads: base\n", "FROM base"),
            ("right", "-- Reads: base\n", "FROM base"),
            ("base", "", "SELECT 1 AS a"),
        )
    }
    body = carrying(known["top"], known).body
    order = [body.index(f"{name} AS (") for name in ("base", "left", "right")]
    assert order == sorted(order)
    assert body.count("SELECT 1 AS a") == 1
