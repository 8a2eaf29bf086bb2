"""`warehouse.connect()`, and other readers of the same files: they find what we find."""

import json
import os
import subprocess
from pathlib import Path

import duckdb
import polars as pl
import pytest

import warehouse
from contracts.layout import Layout
from contracts.schemas import TABLES
from contracts.settings import SettingError
from pipelines.sparse import whole
from tests.warehouse.lake_samples import config_of, fill_lake, same, some_rows, store, write
from warehouse.catalogue import publish
from warehouse.views import sql_views

ROOT = Path(__file__).parents[2]
DUCKDB15 = ROOT / ".venv-duckdb15" / "bin" / "python"
# random rows are no device's, so views that account for messages do not take them
SCHEMAS = ("readings", "minutes", "windows", "city")
LOGARITHMS = {"windows.value_windows", "windows.air", "windows.air_wide"}  # of random rows they may be undefined
COUNTED = (*(f"lake.{name}" for name in TABLES), *(view.full_name for view in sql_views() if view.schema in SCHEMAS))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    store(folder, fill_lake(folder))
    publish(config_of(folder))
    return folder


def test_a_notebook_gets_frames(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPLIGHT_DATA", str(root))
    with warehouse.connect() as db, warehouse.connect(catalogue=Layout(root).catalogue) as named:
        frame = db.sql("FROM observations").pl()
        assert isinstance(frame, pl.DataFrame)
        assert same(named.sql("FROM readings.observations").pl(), frame)
        posts = pl.DataFrame({"post_id": frame["post_id"].unique()})
        joined = db.sql("FROM observations JOIN posts USING (post_id)")
        assert joined.pl().height == frame.height
        assert posts.height == 3


def test_a_connection_keeps_its_state_and_the_next_one_has_the_newest(tmp_path: Path) -> None:
    table = TABLES["footfall"]
    count = "SELECT count(*) FROM lake.footfall"
    connections = []
    for number in (1, 2):
        store(tmp_path, {"footfall": write(tmp_path, table, some_rows(table, 5, number))})
        publish(config_of(tmp_path))
        connections.append(warehouse.connect(tmp_path))
    assert [db.sql(count).fetchall() for db in connections] == [[(5,)], [(10,)]]
    for db in connections:
        db.close()


def test_the_catalogue_cannot_be_written_and_limits_hold(root: Path) -> None:
    with warehouse.connect(root, memory="123MiB", threads=1) as db:
        settings = db.execute("SELECT current_setting('memory_limit'), current_setting('threads')").fetchall()
        assert settings == [("123.0 MiB", 1)]
        for statement in ("CREATE TABLE main.t (a INT)", "DELETE FROM state", "DROP VIEW windows.wind"):
            with pytest.raises(duckdb.Error):
                db.execute(statement)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no catalogue"):
        warehouse.connect(tmp_path)
    with pytest.raises(SettingError, match="LAMPLIGHT_QUERY_MEMORY"):
        warehouse.connect(tmp_path, memory="much")


def test_plain_duckdb_reads_the_file_with_schemas_written_out(root: Path) -> None:
    with duckdb.connect(str(Layout(root).catalogue), read_only=True) as plain, warehouse.connect(root) as ours:
        for name in COUNTED:
            count = f"SELECT count(*) FROM {name}"
            assert plain.execute(count).fetchall() == ours.execute(count).fetchall(), name


@pytest.mark.parametrize("name", TABLES)
def test_polars_reads_the_same_tables(root: Path, name: str) -> None:
    scanned = whole(pl.scan_delta(str(Layout(root).table(name))).collect(), TABLES[name])
    with warehouse.connect(root) as db:
        assert same(db.sql(f"FROM lake.{name}").pl(), scanned)


OTHER = """
import json, sys, duckdb
with duckdb.connect(sys.argv[1], read_only=True) as db:
    for name in json.loads(sys.argv[3]):
        db.execute(f"EXPLAIN FROM {name}")
    print(json.dumps([duckdb.__version__] + [
        [str(value) for value in db.execute(query).fetchone()] for query in json.loads(sys.argv[2])
    ]))
"""


@pytest.mark.skipif(
    not DUCKDB15.exists() and not os.environ.get("LAMPLIGHT_CI"),
    reason="DuckDB 1.5 is not installed: make duckdb15-env",
)
def test_duckdb_1_5_reads_the_same_with_its_own_reader(root: Path) -> None:
    with warehouse.connect(root) as db:
        queries = []
        for name in sorted(set(COUNTED) - LOGARITHMS):
            sums = [
                f"sum({column}::HUGEINT)"
                for column, kind, *_ in db.execute(f"DESCRIBE {name}").fetchall()
                if kind in ("BIGINT", "INTEGER", "SMALLINT", "TINYINT")
            ]
            queries.append(f"SELECT {', '.join(['count(*)', *sums])} FROM {name}")
        wanted = [[str(value) for value in (db.execute(query).fetchone() or ())] for query in queries]
    views = [view.full_name for view in sql_views()]  # what it can bind, it can ask
    command = [str(DUCKDB15), "-c", OTHER, str(Layout(root).catalogue), json.dumps(queries), json.dumps(views)]
    version, *found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert version.startswith("1.5.")
    assert found == wanted
