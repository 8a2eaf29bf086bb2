"""The door: noise once, only when the posts were heard, and nothing but the products' columns."""

import ast
import math
import sqlite3
import threading
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from contracts.feeds import ARCHIVE, archive_day
from contracts.layout import Layout
from contracts.products import PRODUCTS
from contracts.registry import RegistryFile, save_registry
from contracts.times import US, from_us, to_us
from pipelines import graph
from pipelines.config import Config
from pipelines.kernels.decode import Tolerance
from pipelines.release import noise, traffic
from pipelines.release.door import Door, LostLedger
from pipelines.release.store import Cell, Release, Store
from pipelines.stages import Setup
from tests.pipelines.raw_log import POSTS, START, Landed, land, make_root, messages, registry_file

TRAFFIC = PRODUCTS["traffic"]
END = START + timedelta(minutes=15)


def config(root: Path, window_s: int = 300) -> Config:
    return Config(
        root=root,
        registry=Layout(root).registry,
        tick_s=1,
        window_s=window_s,
        tolerance=Tolerance(),
        is_once=False,
        is_releasing=True,
    )


def caught_up(landed: list[Landed]) -> list[Landed]:
    """The same messages from devices that hold nothing back: first_seq rises with seq."""
    import re

    return [
        Landed(row.topic, re.sub(rb'"seq":(\d+),"first_seq":0', rb'"seq":\1,"first_seq":\1', row.payload), row.received)
        for row in landed
    ]


def fill(layout: Layout, landed: list[Landed], first: int = 0) -> None:
    graph.run(Setup(root=layout.root, registry=layout.registry), [(land(layout, landed, first=first),)])


def at(moment: datetime) -> int:
    return to_us(moment)


@pytest.fixture
def city(tmp_path: Path) -> Layout:
    """Seventeen minutes of three posts that hold nothing back."""
    layout = make_root(tmp_path)
    fill(layout, caught_up(messages(21, minutes=17)))
    return layout


DUE = END + timedelta(seconds=traffic.GRACE_S + 1)


def drawn(layout: Layout) -> set[datetime]:
    return {from_us(start) for start in Store(layout.releases).windows("traffic")}


def test_a_window_is_drawn_after_its_grace_and_not_before(city: Layout) -> None:
    Door(config(city.root)).open(at(DUE - timedelta(seconds=2)))
    assert drawn(city) == set()
    Door(config(city.root)).open(at(DUE))
    assert drawn(city) == {START}


def test_every_cell_of_the_public_domain_is_present_and_small_ones_are_null(city: Layout) -> None:
    Door(config(city.root)).open(at(DUE))
    rows = pl.read_parquet(city.open / "latest" / "traffic.parquet")
    assert rows.select("post_id", "direction").rows() == [(post, way) for post in POSTS for way in ("N", "S")]
    release = Store(city.releases).read("traffic", at(START))
    for row, cell in zip(rows.iter_rows(named=True), release.cells, strict=True):
        assert row["is_suppressed"] == (cell.noised < noise.THRESHOLD)
        assert row["vehicle_count"] == (None if row["is_suppressed"] else cell.noised)
    assert rows["completeness"].to_list() == [1.0] * rows.height


def test_noise_is_near_the_truth_and_is_not_the_truth(city: Layout) -> None:
    Door(config(city.root)).open(at(DUE))
    flows = pl.scan_delta(str(city.table("flow_windows"))).filter(pl.col("window_start") == START).collect()
    truth = {(row["post_id"], row["direction"]): row["release_count"] for row in flows.iter_rows(named=True)}
    cells = Store(city.releases).read("traffic", at(START)).cells
    errors = [cell.noised - truth[cell.post_id, cell.direction] for cell in cells]
    assert any(errors)
    assert max(map(abs, errors)) < 8 * noise.SIGMA


def test_late_data_and_restarts_change_no_release(city: Layout) -> None:
    Door(config(city.root)).open(at(DUE))
    before = Store(city.releases).read("traffic", at(START))
    late = [row for row in messages(99, minutes=17) if "traffic" in row.topic]
    fill(city, [Landed(row.topic, row.payload.replace(b"a1", b"b2"), row.received) for row in late], first=10_000)
    for hours in range(3):
        Door(config(city.root)).open(at(DUE + timedelta(hours=hours)))
    assert Store(city.releases).read("traffic", at(START)) == before
    assert len(list((city.open / archive_day("traffic", START)).glob("*.parquet"))) == 1


def test_no_release_while_posts_hold_stored_readings(tmp_path: Path) -> None:
    """Every half-minute of the window is durable, but the devices say that they still hold older ones."""
    layout = make_root(tmp_path)
    fill(layout, messages(21, minutes=17))
    Door(config(tmp_path)).open(at(DUE))
    assert drawn(layout) == set()


@pytest.mark.parametrize("missing", ["heartbeats", "summaries"])
def test_no_release_of_a_window_that_was_not_heard(tmp_path: Path, missing: str) -> None:
    """An outage must never freeze near-zero counts: one post of three missing is under 90 %."""
    layout = make_root(tmp_path)
    stream = "status" if missing == "heartbeats" else "traffic"
    inside = at(END)
    landed = [
        row
        for row in caught_up(messages(21, minutes=17))
        if not (row.topic == f"lamplight/v1/KT1001/{stream}" and at(row.received) <= inside)
    ]
    fill(layout, landed)
    door = Door(config(tmp_path))
    door.open(at(DUE))
    assert drawn(layout) == set()
    fill(layout, caught_up(messages(21, minutes=17)), first=50_000)
    door.open(at(DUE + timedelta(minutes=2)))
    assert drawn(layout) == {START}
    assert pl.read_parquet(layout.open / "latest" / "traffic.parquet")["is_late_release"].all()


def test_a_crash_before_the_archive_publishes_the_same_figures(city: Layout) -> None:
    Door(config(city.root)).open(at(DUE))
    (path,) = (city.open / archive_day("traffic", START)).glob("*.parquet")
    rows = pl.read_parquet(path, hive_partitioning=False)
    path.unlink()
    (path.parent / "manifest.json").unlink()
    Door(config(city.root))
    assert_frame_equal(pl.read_parquet(path, hive_partitioning=False), rows)


def test_a_lost_store_stops_the_door(city: Layout) -> None:
    Door(config(city.root)).open(at(DUE))
    city.releases.unlink()
    with pytest.raises(LostLedger):
        Door(config(city.root)).open(at(DUE))


def test_a_corrected_registry_changes_no_release(city: Layout) -> None:
    Door(config(city.root)).open(at(DUE))
    before = (city.open / "latest" / "traffic.csv").read_bytes()
    file = registry_file()
    moved = tuple(msgspec.structs.replace(post, latitude=22.0) for post in file.lampposts)
    save_registry(city.registry, RegistryFile(version=2, lampposts=moved))
    Door(config(city.root)).open(at(DUE + timedelta(hours=1)))
    assert (city.open / "latest" / "traffic.csv").read_bytes() == before


def release(noised: int = 60) -> Release:
    return Release(
        product="traffic",
        window_start_us=at(START),
        period_s=900,
        released_at_us=1,
        sigma=14.15,
        threshold=57,
        rho=0.0025,
        is_late=False,
        coverage=1.0,
        registry_version=1,
        cells=(Cell(post_id="KT1001", direction="N", noised=noised, completeness=1.0),),
    )


def test_the_store_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "releases.sqlite"
    store = Store(path)
    assert store.write(release(60))
    assert not store.write(release(61))
    for statement in ("UPDATE release_cell SET noised = 1", "DELETE FROM release", "DELETE FROM ledger"):
        with pytest.raises(sqlite3.IntegrityError, match="written once"):
            store.db.execute(statement)
    assert Store(path).read("traffic", at(START)) == release(60)
    assert store.db.execute("SELECT count(*), sum(rho) FROM ledger").fetchone() == (1, 0.0025)


def test_concurrent_writers_make_one_noise(tmp_path: Path) -> None:
    path, won = tmp_path / "releases.sqlite", []
    Store(path)

    def writer(value: int) -> None:
        if Store(path).write(release(value)):
            won.append(value)

    threads = [threading.Thread(target=writer, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert Store(path).read("traffic", at(START)).cells[0].noised == won[0]


def test_noise_is_the_discrete_gaussian_that_the_ledger_charges() -> None:
    noised, rho = noise.draw([0] * 40_000)
    assert rho == pytest.approx(1 / (2 * noise.SIGMA**2), rel=1e-9)
    assert math.ceil(4 * noise.SIGMA) == noise.THRESHOLD
    weights = {k: math.exp(-(k**2) / (2 * noise.SIGMA**2)) for k in range(-200, 201)}
    total = sum(weights.values())
    seen = Counter(noised)
    # ten bins of the distribution; a chi-square over 9 degrees of freedom exceeds 60 with a probability of 1e-9
    chi, bins = 0.0, [(-200, -20), *((low, low + 4) for low in range(-20, 20, 5)), (20, 200)]
    for low, high in bins:
        expected = 40_000 * sum(weights[k] for k in range(low + (low == -200), high + 1) if k in weights) / total
        if (low, high) == (-200, -20):
            expected = 40_000 * sum(weights[k] for k in range(-200, -20)) / total
            got = sum(count for k, count in seen.items() if k < -20)
        else:
            got = sum(count for k, count in seen.items() if low <= k <= high)
        chi += (got - expected) ** 2 / expected
    assert chi < 60


def test_release_sources_use_no_other_randomness() -> None:
    for path in (Path(__file__).parents[2] / "pipelines" / "release").glob("*.py"):
        names = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
        }
        assert not names & {"random", "numpy", "secrets"}, path


def test_a_closed_window_is_archived_once_and_a_late_reading_makes_a_revision(city: Layout) -> None:
    door, folder = Door(config(city.root)), city.open / archive_day("weather", START)
    door.open(at(START + timedelta(seconds=299)))
    assert not list(folder.glob("*.parquet"))
    door.open(at(START + timedelta(seconds=303)))
    (first,) = folder.glob("20261121T080000Z-*.parquet")
    assert not pl.read_parquet(first, hive_partitioning=False)["is_provisional"].any()
    late = [
        Landed(row.topic, row.payload.replace(b"a1", b"b2"), row.received)
        for row in messages(77, minutes=2)
        if "weather" in row.topic
    ]
    fill(city, late, first=10_000)
    door.open(at(START + timedelta(seconds=400)))
    door.open(at(START + timedelta(seconds=440)))
    assert len(list(folder.glob("20261121T080000Z-*.parquet"))) == 2
    assert first.exists()


def test_the_open_window_is_provisional_and_the_closed_one_is_not(city: Layout) -> None:
    door = Door(config(city.root))
    for seconds, provisional in ((1021, True), (1203, False)):
        door.open(at(START + timedelta(seconds=seconds)))
        rows = pl.read_parquet(city.open / "latest" / "weather.parquet")
        assert rows["post_id"].to_list() == sorted(POSTS)
        assert rows["window_start"].to_list() == [START + timedelta(minutes=15)] * 3
        assert rows["is_provisional"].to_list() == [provisional] * 3


def test_exact_products_equal_an_oracle_of_the_readings(city: Layout) -> None:
    Door(config(city.root)).open(at(START + timedelta(seconds=303)))
    (path,) = (city.open / archive_day("air", START)).glob("20261121T080000Z-*.parquet")
    got = pl.read_parquet(path, hive_partitioning=False)
    readings = pl.scan_delta(str(city.table("observations"))).collect()
    want = (
        readings.filter((pl.col("quantity") == "no2_ug_m3") & (pl.col("event_time") < START + timedelta(minutes=5)))
        .group_by("post_id")
        .agg(no2_ug_m3=pl.col("value").mean())
        .sort("post_id")
    )
    assert_frame_equal(got.select("post_id", "no2_ug_m3"), want, abs_tol=0.005001, rel_tol=0)
    assert got["no2_ug_m3"].to_list() == got["no2_ug_m3"].round(2).to_list()
    assert "noise_dba" not in got.columns


def test_waiting_windows() -> None:
    first = at(START + timedelta(minutes=1))
    assert traffic.waiting_windows(set(), None, first) == []
    two_hours = at(START + timedelta(hours=2, seconds=traffic.GRACE_S))
    assert len(traffic.waiting_windows(set(), first, two_hours)) == 8
    assert len(traffic.waiting_windows({at(START)}, first, two_hours)) == 7
    assert len(traffic.waiting_windows(set(), first, first + 10 * traffic.MAXIMUM_WAIT_S * US)) <= 97


def test_the_archive_lies_in_open_only(city: Layout) -> None:
    Door(config(city.root)).open(at(DUE))
    assert (city.open / ARCHIVE / "manifest.json").exists()
    assert not any("sqlite" in path.name for path in city.open.rglob("*"))
