"""What a query may take, what it may touch, and what becomes of it when the disk or the lake refuses."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from contracts.layout import Layout
from contracts.schemas import TABLES
from contracts.settings import SettingError
from tests.warehouse.lake_samples import ask, config_of, fill_lake, some_rows, store, write
from tests.warehouse.test_catalogue import follower, snapshot_version, step
from tests.warehouse.test_command import ROOT, call
from warehouse.catalogue import publish
from warehouse.config import Limits
from warehouse.query import Reader

SORTED = "SELECT * FROM (SELECT hash(range)::VARCHAR AS a, range AS b FROM range(600000)) ORDER BY a"
ONE_VALUE = "SELECT len(list(range)) AS n FROM range(10000000)"  # cannot be spilled


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    store(folder, fill_lake(folder))
    publish(config_of(folder))
    return folder


def refused(root: Path, *arguments: str, tmp: Path | None = None, file_limit: int | None = None) -> str:
    """The one line that a command ends with; `file_limit` lets no file grow beyond it, as a full disk would."""

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))

    command = [sys.executable, "-m", "warehouse", "--data", str(root), *arguments]
    environ = {**os.environ, "TMPDIR": str(tmp)} if tmp else None
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=False, preexec_fn=limit)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1), done.stderr
    return done.stderr.decode()


def test_a_query_ends_after_its_time(root: Path) -> None:
    for form in ("table", "csv"):
        said = refused(root, "sql", "SELECT count(*) FROM range(1000000000000)", "--timeout", "0.2", "--format", form)
        assert "0.2 s" in said
        assert "LAMPLIGHT_QUERY_TIMEOUT_S" in said


def test_what_does_not_fit_into_memory_is_spilled_and_gone_afterwards(root: Path, tmp_path: Path) -> None:
    out, tmp = tmp_path / "sorted.parquet", tmp_path / "tmp"
    tmp.mkdir()
    options = ("--out", str(out), "--threads", "2", "--memory", "30MB")
    assert "the disk is full" in refused(root, "sql", SORTED, *options, tmp=tmp, file_limit=1_000_000)
    assert "LAMPLIGHT_QUERY_MEMORY" in refused(root, "sql", ONE_VALUE, *options, tmp=tmp)
    assert list(tmp.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"tmp"}
    assert call(root, "sql", SORTED, *options).returncode == 0
    assert pl.read_parquet(out)["a"].is_sorted()


def test_a_full_disk_leaves_the_last_answer(root: Path, tmp_path: Path) -> None:
    for form in ("table", "csv", "parquet"):
        out = tmp_path / f"answer.{form}"
        out.write_text("the last")
        rows = 200 if form == "table" else 100_000
        query = f"SELECT repeat(hash(range)::VARCHAR, 20) AS a FROM range({rows})"
        said = refused(root, "sql", query, "--format", form, "--out", str(out), file_limit=10_000)
        assert "--out" in said
        assert out.read_text() == "the last"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_leaves_the_last_catalogue(tmp_path: Path) -> None:
    step(tmp_path, 0)
    publish(config_of(tmp_path))
    before = Layout(tmp_path).catalogue.read_bytes()
    step(tmp_path, 1)
    for limit in (100_000, len(before) - 5_000):
        assert "the last one stays" in refused(tmp_path, "publish", file_limit=limit)
        assert Layout(tmp_path).catalogue.read_bytes() == before
        assert not list(tmp_path.glob(".catalog.aside*"))


def test_following_waits_for_room(tmp_path: Path) -> None:
    step(tmp_path, 0)
    publish(config_of(tmp_path))
    process = follower(tmp_path)
    try:
        until(lambda: Layout(tmp_path).progress("warehouse").exists())
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        step(tmp_path, 1)
        assert process.stderr is not None
        assert b"the last one stays" in process.stderr.readline()
        assert snapshot_version(tmp_path) == 1
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        until(lambda: snapshot_version(tmp_path) == 2)
    finally:
        process.kill()
        process.communicate()


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_files_that_are_gone_say_whether_to_open_anew_or_to_publish(tmp_path: Path) -> None:
    table = TABLES["footfall"]
    store(tmp_path, {"footfall": write(tmp_path, table, some_rows(table, 5, 1))})
    publish(config_of(tmp_path))
    folder = Layout(tmp_path).table("footfall")
    with Reader(Layout(tmp_path).catalogue, Limits()) as reader:
        write_deltalake(str(folder), some_rows(table, 9, 2), mode="overwrite")
        DeltaTable(str(folder)).vacuum(0, dry_run=False, enforce_retention_duration=False)
        for said in ("publish it again", "published again since: open it anew"):
            with pytest.raises(SettingError, match=said), reader.asked():
                reader.connection.execute("SELECT sum(seq) FROM lake.footfall")
            store(tmp_path, {"footfall": DeltaTable(str(folder)).version()})
            publish(config_of(tmp_path))
    assert ask(tmp_path, "SELECT count(*) AS n FROM lake.footfall")["n"].item() == 9


def test_a_query_reads_the_lake_and_nothing_else(root: Path, tmp_path: Path) -> None:
    beside = tmp_path / "beside.parquet"
    call(root, "sql", "SELECT 1 AS a", "--out", str(beside))
    name = next(Layout(root).table("minutes").glob("*.parquet"))
    inside = f"SELECT count(*) AS n FROM read_parquet('{name}')"
    assert call(root, "sql", inside, "--format", "csv").stdout == b"n\n60\n"
    for path in (
        beside,
        f"{name.parent}/../../../{beside.name}",
        Layout(root).registry,
        "https://example.org/a.parquet",
    ):
        assert "disabled by configuration" in refused(root, "sql", f"FROM read_parquet('{path}')")


def test_a_query_comes_from_a_file_or_from_standard_input(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "q.sql"
    file.write_text("SELECT count(*) AS n\nFROM lake.minutes;\n")
    assert call(root, "sql", "-f", str(file), "--format", "csv").stdout == b"n\n120\n"
    command = [sys.executable, "-m", "warehouse", "--data", str(root), "sql", "-f", "-", "--format", "csv"]
    done = subprocess.run(command, cwd=ROOT, input=file.read_bytes(), capture_output=True, check=True)
    assert done.stdout == b"n\n120\n"
    for arguments in ((), ("SELECT 1", "-f", str(file)), ("-f", str(tmp_path / "nix.sql"))):
        assert "-f" in refused(root, "sql", *arguments)


@pytest.mark.parametrize("form", ["table", "csv"])
def test_parameters_are_cast_to_what_they_are_compared_with(root: Path, form: str) -> None:
    query = (
        "SELECT count(*) AS n, any_value($name) AS name, any_value($n::INTEGER + 1) AS more FROM lake.minutes "
        "WHERE window_start > $since AND value_count >= $n"
    )
    parameters = ("--param", "since=2026-11-21T08:00Z", "--param", "n=0", "--param", "name=it's = a")
    told = call(root, "sql", query, *parameters, "--format", form).stdout.decode()
    assert "it's = a" in told
    assert "120" in told
    for wrong in (("n=0",), ("n=0", "name=a", "since=a"), ("n",), ("n=0", "name=a", "since=2026-01-01", "x=1")):
        given = [part for text in wrong for part in ("--param", text)]
        refused(root, "sql", query, *given, "--format", form)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--timeout", "0", "--timeout"), ("--memory", "much", "500MB"), ("--threads", "0", "one thread")],
)
def test_a_wrong_limit_is_one_line(root: Path, option: str, value: str, said: str) -> None:
    assert said in refused(root, "sql", "SELECT 1", option, value)
