"""Catalogues of earlier states of the lake, and of a lake that lies elsewhere."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable

from contracts.events import Event, append_event, events_path
from contracts.layout import Layout, Positions
from contracts.schemas import TABLES
from contracts.times import to_us
from pipelines.pins import NAME, write
from pipelines.sparse import whole
from tests.warehouse.lake_samples import START, ask, config_of, fill_lake, oracle, same, store
from tests.warehouse.test_command import call
from warehouse.catalogue import publish
from warehouse.query import open_catalogue
from warehouse.snapshots import MOMENT, pin_at, pins


def pin(root: Path, versions: dict[str, int], moment: datetime) -> None:
    """Keep these versions, as the housekeeping of the pipelines does."""
    write(root, Positions(offsets={"one": 7}, versions=versions, covered_us=to_us(moment)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pins, of START and an hour later, and a lake that went on; what it replaced is vacuumed."""
    root = tmp_path / "data"
    versions = fill_lake(root, seed=1, count=10)
    pin(root, versions, START)
    (root / "raw" / "a").mkdir(parents=True)
    for hours in (-1, 3):
        event = Event(time=START + timedelta(hours=hours), kind="retired", detail=str(hours))
        append_event(events_path(root / "raw", "a"), event)
    later = fill_lake(root, seed=2, count=10)
    pin(root, later, START + timedelta(hours=1))
    for name in TABLES:
        DeltaTable(str(Layout(root).table(name))).delete()
        DeltaTable(str(Layout(root).table(name))).vacuum(0, dry_run=False, enforce_retention_duration=False)
    store(root, {name: DeltaTable(str(Layout(root).table(name))).version() for name in TABLES})
    publish(config_of(root))
    return root


def test_as_of_is_the_newest_pin_that_is_old_enough(root: Path) -> None:
    first, second = pins(Layout(root))
    for moment, wanted in (
        (first.moment, first),
        (second.moment - timedelta(microseconds=1), first),
        (second.moment, second),
        (second.moment + timedelta(days=9), second),
    ):
        assert pin_at(Layout(root), moment) == wanted


def test_yesterday_lies_beside_today(root: Path) -> None:
    done = call(root, "publish", "--as-of", "2026-11-21T08:59")
    assert done.returncode == 0
    assert b"pin 20261121T080000Z" in done.stdout
    old = root / "catalog.20261121T080000Z.duckdb"
    with open_catalogue(old) as connection:
        for name in TABLES:
            found = connection.sql(f"SELECT * FROM lake.{name}").pl()
            folder = Layout(root).pins / "20261121T080000Z" / name
            stored = whole(pl.read_parquet(f"{folder}/*.parquet"), TABLES[name])
            assert stored.height == 20
            assert same(found, stored), name
        assert connection.execute("SELECT data_through FROM state").fetchall() == [(START,)]
        assert connection.execute("SELECT detail FROM ingest_events").fetchall() == [("-1",)]
    assert ask(root, "SELECT count(*) AS n FROM lake.minutes")["n"].item() == 0
    counted = call(root, "--catalogue", str(old), "sql", "SELECT count(*) AS n FROM lake.minutes", "--format", "csv")
    assert counted.stdout == b"n\n20\n"


def test_no_pin_that_is_old_enough_is_one_line_that_lists_them(root: Path, tmp_path: Path) -> None:
    for where, wanted in ((root, "20261121T080000Z, 20261121T090000Z"), (tmp_path / "new", "none")):
        done = call(where, "publish", "--as-of", "2026-11-21T07:59:59Z")
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1)
        assert wanted in done.stderr.decode()
        assert not list(where.glob("catalog.2*"))


def test_what_is_no_pin_is_left_alone(root: Path) -> None:
    for name in (".20261121T070000Z", "20261121T0800", "old"):
        (Layout(root).pins / name).mkdir()
    assert [pin.name for pin in pins(Layout(root))] == ["20261121T080000Z", "20261121T090000Z"]


def test_a_catalogue_goes_with_its_pin(root: Path) -> None:
    call(root, "publish", "--as-of", "2026-11-21T08:30")
    old = root / "catalog.20261121T080000Z.duckdb"
    shutil.rmtree(Layout(root).pins / "20261121T080000Z")
    done = call(root, "--catalogue", str(old), "sql", "FROM lake.minutes")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert b"are gone: publish it again" in done.stderr
    call(root, "publish")
    assert not old.exists()
    assert Layout(root).catalogue.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--as-of", "yesterday"), "--as-of"),
        (("--root", "/mnt/city"), "--out"),
        (("--follow", "--as-of", "1h"), "--follow"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = call(tmp_path, "publish", *arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr.decode()


def test_a_lake_that_was_copied_is_read_where_it_lies_now(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "the other's"
    versions = fill_lake(here)
    store(here, versions)
    wanted = {name: oracle(here, name, version) for name, version in versions.items()}
    out = tmp_path / "city.duckdb"
    done = call(here, "publish", "--root", f"{there}/", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert not Layout(here).catalogue.exists()
    early = call(there, "--catalogue", str(out), "sql", "FROM lake.minutes")
    assert (early.returncode, len(early.stderr.splitlines())) == (2, 1)
    shutil.copytree(here / "lake", there / "lake")
    shutil.rmtree(here)
    with open_catalogue(out) as connection:
        for name, rows in wanted.items():
            assert same(connection.sql(f"SELECT * FROM lake.{name}").pl(), rows), name
    # the command is confined to where the files are, and other tools need nothing of ours
    done = call(there, "--catalogue", str(out), "sql", "SELECT count(*) AS n FROM lake.minutes", "--format", "csv")
    assert done.stdout == b"n\n120\n"
    with duckdb.connect(str(out), read_only=True) as plain:
        assert plain.execute("SELECT count(*) FROM lake.minutes").fetchall() == [(120,)]


def test_both_sides_name_pins_alike() -> None:
    assert MOMENT == NAME
    assert datetime.strptime("20261121T080000Z", MOMENT).replace(tzinfo=UTC) == START
