"""The catalogue says what the lake says at one vector of versions, and nothing in between is ever seen."""

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from contracts.layout import Layout, Positions, read_progress
from contracts.quantities import QUANTITIES
from contracts.registry import save_registry
from contracts.schemas import READING_TABLES, TABLES, Table
from contracts.settings import SettingError
from contracts.times import to_us
from pipelines.kernels import rollups
from tests.feed_samples import post_id, registry
from warehouse.catalogue import publish
from warehouse.config import Config
from warehouse.reference import REFERENCE
from warehouse.views import parse_view, sql_views

ROOT = Path(__file__).parents[2]
START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def config_of(root: Path) -> Config:
    return Config.build({}, root)


def _value(field: pa.Field, dice: random.Random) -> object:
    if field.nullable and dice.random() < 0.2:
        return None
    if field.name == "payload":
        return dice.choice([b"\xff\xfe", b"{}", b"{", "中".encode()])
    named: dict[str, list[object]] = {
        "post_id": [post_id(number) for number in range(3)],
        "topic": ["lamplight/v1/KT1001/weather", "x"],
        "digest": [1, 2, 3],
        "flag": [1, 4],
        "quantity": list(QUANTITIES),
    }
    if field.name in named:
        return dice.choice(named[field.name])
    if pa.types.is_timestamp(field.type):
        return START + timedelta(seconds=dice.randint(0, 7200), microseconds=dice.randint(0, 999_999))
    if pa.types.is_floating(field.type):
        return dice.uniform(-1e3, 1e3)
    if pa.types.is_boolean(field.type):
        return dice.random() < 0.3
    if pa.types.is_integer(field.type):
        return dice.randint(0, 100)
    return dice.choice(["a", "it's", "b\nc", ""])


def some_rows(table: Table, count: int, seed: int) -> pa.Table:
    dice = random.Random(f"{table.name} {seed}")
    rows = [{field.name: _value(field, dice) for field in table.schema} for _ in range(count)]
    return pa.Table.from_pylist(rows, table.schema)


def some_minutes(seed: int) -> pa.Table:
    """Minutes as the pipeline makes them: gaps, a counter that restarts, quantities of every method."""
    dice = random.Random(seed)
    table, rows = TABLES["minutes"], []
    for post in (post_id(1), post_id(2)):
        for name in ("temperature_c", "wind_direction_deg", "wind_gust_ms", "rain_mm", "crossings_in_count"):
            counter = 10.0
            for minute in range(180):
                if dice.random() < 0.1 or (post == post_id(1) and 40 < minute < 60):
                    continue
                count = dice.choice([0, 1, 1, 2])
                counter = 0.2 if dice.random() < 0.03 else counter + dice.choice([0.0, 0.2, 0.4])
                value = counter if name == "rain_mm" else dice.uniform(0, 360)
                row: dict[str, Any] = {field.name: None for field in table.schema}
                row |= {"post_id": post, "quantity": name, "window_start": START + timedelta(minutes=minute)}
                row |= {"value_count": count, "flagged_count": dice.randint(0, 2)}
                row["last_event_time"] = row["window_start"] + timedelta(seconds=dice.randint(0, 59))
                if count:
                    row |= {"value_min": value, "value_max": value + 1, "first_value": value, "last_value": value + 0.2}
                    if name == "wind_direction_deg":
                        row |= {"sin_sum": dice.uniform(-1, 1), "cos_sum": dice.uniform(-1, 1)}
                    else:
                        row |= {"value_sum": value * count, "value_sum_squares": value * value * count}
                    if name == "rain_mm":
                        row["increase"], counter = 0.2, value + 0.2
                rows.append(row)
    return pa.Table.from_pylist(rows, table.schema)


def write(root: Path, table: Table, rows: pa.Table) -> int:
    """Append rows to a table of the lake as the pipeline writes; its new version."""
    path = str(Layout(root).table(table.name))
    Path(path).mkdir(parents=True, exist_ok=True)
    DeltaTable.create(path, schema=table.schema, mode="ignore")
    write_deltalake(path, rows, mode="append")
    return DeltaTable(path).version()


def store(root: Path, versions: dict[str, int]) -> None:
    Positions(offsets={"one": 7}, versions=versions, covered_us=to_us(START)).store(Layout(root).positions)


def fill_lake(root: Path, seed: int = 1, count: int = 60) -> dict[str, int]:
    """Two appends to each table, so that a version has more than one file."""
    versions = {}
    for table in TABLES.values():
        write(root, table, some_rows(table, count, seed))
        versions[table.name] = write(root, table, some_rows(table, count, seed + 100))
    return versions


def ask(root: Path, query: str) -> pl.DataFrame:
    with duckdb.connect(str(Layout(root).catalogue), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        frame: pl.DataFrame = connection.sql(query).pl()
    return frame


def oracle(root: Path, name: str, version: int) -> pl.DataFrame:
    frame: pl.DataFrame = pl.scan_delta(str(Layout(root).table(name)), version=version).collect()
    return frame


def same(found: pl.DataFrame, wanted: pl.DataFrame) -> bool:
    """Equal as sets of rows with multiplicity, column order of `wanted`."""
    found = found.select(wanted.columns).cast(dict(wanted.schema))  # type: ignore[arg-type]
    return found.sort(wanted.columns).equals(wanted.sort(wanted.columns))


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
    assert found.columns == wanted.columns
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
    fives = rollups.windows(frame, 300).to_arrow().cast(TABLES["windows"].schema)
    written = {"minutes": minutes, "windows": fives}
    store(tmp_path, {name: write(tmp_path, TABLES[name], rows) for name, rows in written.items()})
    publish(config_of(tmp_path))
    key = ["post_id", "quantity", "window_start"]
    wanted = rollups.windows(frame, 3600).sort(key)
    with duckdb.connect(str(Layout(tmp_path).catalogue), read_only=True) as connection:
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
        wanted = {"quantities": len(QUANTITIES), "snapshot": len(TABLES)}.get(name, 0)
        assert ask(tmp_path, f"SELECT count(*) AS n FROM {schema}.{name}")["n"].item() == wanted


def test_a_table_that_is_missing_is_empty_beside_the_others(tmp_path: Path) -> None:
    store(tmp_path, {"footfall": write(tmp_path, TABLES["footfall"], some_rows(TABLES["footfall"], 5, 1))})
    publish(config_of(tmp_path))
    assert ask(tmp_path, "SELECT count(*) AS n FROM lake.footfall")["n"].item() == 5
    assert ask(tmp_path, "SELECT count(*) AS n FROM observations")["n"].item() == 0


def test_everything_is_described(lake: tuple[Path, dict[str, int]]) -> None:
    root, _ = lake
    bare = ask(root, "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL")
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


@pytest.mark.parametrize("text", ["SELECT 1", "-- Meaning\nSELECT 1", "-- Meaning\n-- Grain: a\nSELECT 1"])
def test_a_view_without_meaning_grain_or_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Grain"):
        parse_view("bare", text)


def test_the_catalogue_follows_the_stored_vector_and_not_the_tables(tmp_path: Path) -> None:
    first = fill_lake(tmp_path, seed=1, count=10)
    store(tmp_path, first)
    fill_lake(tmp_path, seed=2, count=10)  # committed, but no positions yet: a state between two
    publish(config_of(tmp_path))
    for name, version in first.items():
        assert same(ask(tmp_path, f"SELECT * FROM lake.{name}"), oracle(tmp_path, name, version))
    snapshot = dict(ask(tmp_path, "SELECT table_name, version FROM snapshot").iter_rows())
    assert snapshot == first


def test_a_version_that_does_not_exist_leaves_the_last_catalogue(tmp_path: Path) -> None:
    versions = fill_lake(tmp_path, count=3)
    store(tmp_path, versions)
    publish(config_of(tmp_path))
    before = Layout(tmp_path).catalogue.read_bytes()
    store(tmp_path, versions | {"minutes": 99})
    with pytest.raises(Exception, match="99"):
        publish(config_of(tmp_path))
    assert Layout(tmp_path).catalogue.read_bytes() == before


def test_an_open_reader_keeps_its_snapshot(tmp_path: Path) -> None:
    table = TABLES["footfall"]
    store(tmp_path, {"footfall": write(tmp_path, table, some_rows(table, 5, 1))})
    publish(config_of(tmp_path))
    with duckdb.connect(str(Layout(tmp_path).catalogue), read_only=True) as reader:
        count = "SELECT count(*) FROM lake.footfall"
        assert reader.execute(count).fetchone() == (5,)
        path = str(Layout(tmp_path).table("footfall"))
        write_deltalake(path, some_rows(table, 9, 2), mode="overwrite")
        store(tmp_path, {"footfall": DeltaTable(path).version()})
        in_another_process(tmp_path)
        assert reader.execute(count).fetchone() == (5,)
    assert ask(tmp_path, count + " ")["count_star()"].item() == 9


def in_another_process(root: Path, *options: str) -> None:
    command = [sys.executable, "-m", "warehouse", "--data", str(root), "publish", *options]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_it_is_written_for_duckdb_1_5(lake: tuple[Path, dict[str, int]]) -> None:
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH '{Layout(lake[0]).catalogue}' AS other (READ_ONLY)")
        found = connection.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'other'").fetchone()
        # and it reads the same under another name than its own
        assert connection.execute("SELECT count(*) FROM other.lake.minutes").fetchone() == (120,)
        assert connection.execute("SELECT count(*) FROM other.hourly").fetchone() is not None
    assert found is not None
    assert "v1.5" in str(found[0])


def test_a_broken_registry_is_refused_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    Layout(tmp_path).registry.parent.mkdir(parents=True)
    Layout(tmp_path).registry.write_text("{")
    with pytest.raises(SettingError, match="registry"):
        publish(config_of(tmp_path))
    assert not Layout(tmp_path).catalogue.exists()
    Layout(tmp_path).registry.unlink()
    publish(config_of(tmp_path))
    assert ask(tmp_path, "SELECT count(*) AS n FROM lampposts")["n"].item() == 0


def follower(root: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "warehouse", "--data", str(root), "publish", "--follow"]
    environ = {**os.environ, "LAMPLIGHT_CATALOGUE_POLL_S": "0.02"}
    return subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE)


def snapshot_version(root: Path) -> int | None:
    """The footfall version that the catalogue reads; the rows must be that version's."""
    if not Layout(root).catalogue.exists():
        return None
    with duckdb.connect(str(Layout(root).catalogue), read_only=True) as connection:
        state = connection.execute(
            "SELECT version, (SELECT count(*) FROM lake.footfall), (SELECT count(*) FROM lake.dumping_events) "
            "FROM snapshot WHERE table_name = 'footfall'"
        ).fetchone()
    assert state is not None
    version, footfall, dumping = state
    assert footfall == dumping == 5 * (version or 0), "two tables of different states"
    return int(version or 0)


def step(root: Path, seed: int) -> int:
    """Five rows more in two tables, then the positions."""
    names = ("footfall", "dumping_events")
    versions = {name: write(root, TABLES[name], some_rows(TABLES[name], 5, seed)) for name in names}
    store(root, versions)
    return versions["footfall"]


def wait_until(root: Path, version: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        if snapshot_version(root) == version:
            return
        assert process.poll() is None
        time.sleep(0.03)
    raise AssertionError(f"version {version} was never published")


def test_following_publishes_every_change_and_stops_cleanly(tmp_path: Path) -> None:
    process = follower(tmp_path)
    try:
        for seed in range(4):
            wait_until(tmp_path, step(tmp_path, seed), process)
        save_registry(Layout(tmp_path).registry, registry(3).file)
        for _ in range(400):
            if ask(tmp_path, "SELECT count(*) AS n FROM lampposts")["n"].item():
                break
            time.sleep(0.03)
        assert ask(tmp_path, "SELECT count(*) AS n FROM lampposts")["n"].item() == 4
        for _ in range(400):
            if read_progress(Layout(tmp_path).progress("warehouse")).get("published", 0) >= 2:
                break
            time.sleep(0.03)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, b"")
        assert read_progress(Layout(tmp_path).progress("warehouse"))["published"] >= 2
    finally:
        process.kill()
        process.wait()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [".catalog.lock", "catalog.duckdb"]


def test_a_killed_publisher_leaves_a_whole_catalogue(tmp_path: Path) -> None:
    step(tmp_path, 0)
    in_another_process(tmp_path)
    version = 1
    delays = random.Random(3)
    for seed in range(1, 9):
        process = follower(tmp_path)
        try:
            # killed while it starts, while it builds, or after it
            wait_until_started(process, delays.uniform(0.1, 0.6))
            version = step(tmp_path, seed)
            time.sleep(delays.uniform(0.0, 0.1))
        finally:
            process.kill()
            process.communicate()
        assert snapshot_version(tmp_path) in range(1, version + 1)
    in_another_process(tmp_path)
    assert snapshot_version(tmp_path) == version
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [".catalog.lock", "catalog.duckdb"]


def wait_until_started(process: subprocess.Popen[bytes], seconds: float) -> None:
    assert process.poll() is None
    time.sleep(seconds)
