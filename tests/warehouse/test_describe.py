"""`describe`: meaning, grain, key, columns with their units, an example that runs."""

from pathlib import Path

import pytest

from contracts.layout import Layout
from contracts.schemas import TABLES
from tests.warehouse.lake_samples import ask
from tests.warehouse.test_command import call, root
from warehouse.describe import about, described, overview
from warehouse.query import open_catalogue
from warehouse.views import SCHEMAS, parse_view, sql_views

__all__ = ["root"]  # the fixture


def test_all_views_are_listed_by_schema(root: Path) -> None:
    lines = call(root, "describe").stdout.decode().splitlines()
    listed = {line.split()[0]: line for line in lines if line.startswith("  ")}
    names = {view.full_name for view in sql_views()} | {f"lake.{name}" for name in TABLES}
    assert names | {"snapshot", "quality.ledger_since(since)", "lake.root()"} <= listed.keys()
    assert "Values of whole hours" in listed["windows.hourly"]
    for schema, purpose in SCHEMAS.items():
        shown = any(name.startswith(f"{schema}.") for name in listed)
        assert (f"{schema}: {purpose}" in lines) == shown


def test_a_view_says_what_a_row_is_and_what_its_columns_mean(root: Path) -> None:
    told = call(root, "describe", "hourly").stdout.decode()
    assert told == call(root, "describe", "windows.HOURLY").stdout.decode()
    assert told.startswith("windows.hourly\n")
    assert "Grain      one post, quantity and hour" in told
    assert "Key        post_id, quantity, window_start" in told
    lines = call(root, "describe", "lake.windows").stdout.decode().splitlines()
    columns = [line for line in lines if line.startswith("  ")][-len(TABLES["windows"].schema.names) :]
    assert [line.split()[0] for line in columns] == TABLES["windows"].schema.names
    for line, field in zip(columns, TABLES["windows"].schema, strict=True):
        assert line.endswith(field.metadata[b"description"].decode())
        assert field.metadata[b"unit"].decode() in line


def test_a_macro_says_what_it_takes_and_gives(root: Path) -> None:
    told = call(root, "describe", "hk_time").stdout.decode()
    assert told.startswith("hk_time(t)\n")
    assert "  Gives  " in told
    assert "  Parameters " in told


def test_every_name_is_described_and_its_example_runs(root: Path) -> None:
    with open_catalogue(Layout(root).catalogue) as connection:
        for one in described(connection):
            told = list(about(connection, one.full_name))
            assert told[0] == one.full_name
            assert len(told) >= 2
            for line in told:
                if line.startswith("  Example"):
                    connection.execute(line.removeprefix("  Example"))
        assert len(list(overview(connection))) > 40


@pytest.mark.parametrize(
    ("name", "nearest"), [("hourli", "windows.hourly"), ("observation", "readings.observations"), ("qqq", "describe")]
)
def test_a_misspelt_name_is_one_line_with_the_nearest(root: Path, name: str, nearest: str) -> None:
    done = call(root, "describe", name)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1)
    assert nearest in done.stderr.decode()


def test_an_example_stands_in_the_views_head() -> None:
    view = parse_view("city", "one", "-- Meaning.\n-- Grain: a\n-- Key: b\n-- Example: SELECT 1 AS a\nSELECT 1 AS b")
    assert view.comment == "Meaning. Grain: a. Key: b. Example: SELECT 1 AS a"


def test_comments_show_in_any_tool(root: Path) -> None:
    said = ask(root, "SELECT comment FROM duckdb_columns() WHERE table_name = 'wind' AND column_name = 'gust_ms'")
    assert said["comment"].item()
