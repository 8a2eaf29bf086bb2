"""`python -m warehouse`: answers in four formats, writes nothing, and says in one line what is wrong."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from contracts.layout import Layout
from contracts.quantities import QUANTITIES
from contracts.registry import save_registry
from tests.feed_samples import registry
from warehouse.catalogue import publish
from warehouse.config import Config

ROOT = Path(__file__).parents[2]


def call(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "warehouse", "--data", str(root), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    save_registry(Layout(folder).registry, registry(3).file)
    publish(Config.build({}, folder))
    return folder


QUERY = "SELECT quantity, plausible_low, is_open, cadence_s FROM quantities ORDER BY quantity -- by name"


def test_the_same_answer_in_every_format(root: Path, tmp_path: Path) -> None:
    names = sorted(QUANTITIES)
    table = call(root, "sql", QUERY).stdout.decode()
    assert [line.split("│")[1].strip() for line in table.splitlines() if line.startswith("│")][2:] == names
    lines = list(csv.DictReader(io.StringIO(call(root, "sql", QUERY, "--format", "csv").stdout.decode())))
    objects = json.loads(call(root, "sql", QUERY, "--format", "json").stdout)
    (tmp_path / "q.parquet").write_bytes(call(root, "sql", QUERY, "--format", "parquet").stdout)
    frame = pl.read_parquet(tmp_path / "q.parquet")
    for found in (lines, objects, frame.to_dicts()):
        assert [row["quantity"] for row in found] == names
        assert [float(row["plausible_low"]) for row in found] == [QUANTITIES[name].low for name in names]


def test_a_file_is_written_as_its_name_ends(root: Path, tmp_path: Path) -> None:
    for ending in ("csv", "json", "parquet"):
        out = tmp_path / f"answer.{ending}"
        call(root, "sql", QUERY, "--out", str(out))
        assert out.read_bytes() == call(root, "sql", QUERY, "--format", ending).stdout


def test_times_are_utc_with_a_z(root: Path) -> None:
    query = "SELECT valid_from FROM lamppost_entries LIMIT 1"
    assert b"\n2026-01-01T00:00:00.000000Z\n" in call(root, "sql", query, "--format", "csv").stdout
    assert json.loads(call(root, "sql", query, "--format", "json").stdout) == [
        {"valid_from": "2026-01-01T00:00:00.000000Z"}
    ]


def test_an_answer_to_a_file_is_whole_or_absent(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "answer.csv"
    done = call(root, "sql", QUERY, "--format", "csv", "--out", str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    before = out.read_bytes()
    assert before.startswith(b"quantity,")
    failed = call(root, "sql", "SELECT error('late') FROM range(3)", "--format", "csv", "--out", str(out))
    assert failed.returncode == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"answer.csv": before}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nix FROM minutes", "nix"),
        ("SELECT * FROM nix", "nix"),
        ("", "the query is empty"),
        ("SELECT 1; SELECT 2", "exactly one"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'stolen.csv'", "read-only"),
        ("-- EXPLAIN\nEXPLAIN ANALYZE COPY (SELECT 1) TO 'stolen.csv'", "read-only"),
        ("SET threads = 64", "read-only"),
        ("SELECT * FROM read_csv('/etc/passwd')", "file system operations are disabled"),
        ("SELECT * FROM '/etc/passwd.csv'", "file system operations are disabled"),
        ("SELECT * FROM glob('/etc/*')", "file system operations are disabled"),
        ("SELECT * FROM text", "text does not exist"),  # a variable of ours is no table
        ("SELECT 1 WHERE now() > $since", "since"),
        ("PIVOT quantities ON unit USING count(*)", "IN ("),
        ("DROP VIEW minutes", "read-only"),
        ("CREATE TABLE t AS SELECT 1", "read-only"),
        ("COPY (SELECT 1) TO 'stolen.csv'", "read-only"),
        ("ATTACH 'other.duckdb'", "read-only"),
        ("INSTALL httpfs", "read-only"),
    ],
)
def test_a_wrong_query_is_one_line_and_exit_code_2(root: Path, query: str, said: str) -> None:
    done = call(root, "sql", query, "--format", "csv" if "nix" in query else "table")
    assert (done.returncode, done.stdout) == (2, b"")
    assert len(done.stderr.decode().splitlines()) == 1
    assert said in done.stderr.decode()


@pytest.mark.parametrize("arguments", [("sql", "SELECT 1"), ("describe",), ("describe", "minutes"), ("ledger",)])
def test_a_missing_catalogue_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = call(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert len(done.stderr.decode().splitlines()) == 1
    assert "python -m warehouse publish" in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_catalogue_is_one_line(tmp_path: Path) -> None:
    Layout(tmp_path).catalogue.write_bytes(b"no database" * 1000)
    done = call(tmp_path, "sql", "SELECT 1")
    assert (done.returncode, len(done.stderr.decode().splitlines())) == (2, 1)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = call(tmp_path / "file" / "data", "publish")
    assert (done.returncode, len(done.stderr.decode().splitlines())) == (2, 1)
    assert "LAMPLIGHT_DATA" in done.stderr.decode()
