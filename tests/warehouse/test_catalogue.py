"""The catalogue is one vector of versions, and nothing in between is ever seen."""

import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable, write_deltalake

from contracts.events import Event, append_event, events_path
from contracts.layout import Layout, read_progress
from contracts.registry import save_registry
from contracts.schemas import TABLES
from contracts.settings import SettingError
from tests.feed_samples import registry
from tests.warehouse.lake_samples import (
    START,
    ask,
    config_of,
    fill_lake,
    oracle,
    same,
    some_rows,
    store,
    write,
)
from warehouse.catalogue import publish
from warehouse.query import open_catalogue

ROOT = Path(__file__).parents[2]
PATIENCE = 2_000  # looks at what another process does


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
    with open_catalogue(Layout(tmp_path).catalogue) as reader:
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


def test_it_is_written_for_duckdb_1_5(tmp_path: Path) -> None:
    store(tmp_path, fill_lake(tmp_path))
    publish(config_of(tmp_path))
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH '{Layout(tmp_path).catalogue}' AS other (READ_ONLY)")
        found = connection.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'other'").fetchone()
        # and it reads the same under another name than its own
        assert connection.execute("SELECT count(*) FROM other.lake.minutes").fetchone() == (120,)
        assert connection.execute("SELECT count(*) FROM other.windows.hourly").fetchone() is not None
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


def test_what_befell_ingest_is_a_table(tmp_path: Path) -> None:
    raw = Layout(tmp_path).raw
    for instance, minute in (("b", 1), ("a", 2), ("b", 3)):
        (raw / instance).mkdir(parents=True, exist_ok=True)
        event = Event(time=START + timedelta(minutes=minute), kind="disk_failed", detail=f"no room, {instance}")
        append_event(events_path(raw, instance), event)
    (raw / "c").mkdir()
    publish(config_of(tmp_path))
    found = ask(tmp_path, "SELECT instance, event_time, kind, detail FROM ingest_events")
    assert found.rows() == [
        (name, START + timedelta(minutes=minute), "disk_failed", f"no room, {name}")
        for name, minute in (("b", 1), ("a", 2), ("b", 3))
    ]


def follower(root: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "warehouse", "--data", str(root), "publish", "--follow"]
    environ = {**os.environ, "LAMPLIGHT_CATALOGUE_POLL_S": "0.02"}
    return subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE)


def snapshot_version(root: Path) -> int | None:
    """The footfall version that the catalogue reads; the rows must be that version's."""
    if not Layout(root).catalogue.exists():
        return None
    with open_catalogue(Layout(root).catalogue) as connection:
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
    for _ in range(PATIENCE):
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
        for _ in range(PATIENCE):
            if ask(tmp_path, "SELECT count(*) AS n FROM lampposts")["n"].item():
                break
            time.sleep(0.03)
        assert ask(tmp_path, "SELECT count(*) AS n FROM lampposts")["n"].item() == 4
        for _ in range(PATIENCE):
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
