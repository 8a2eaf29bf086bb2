"""The latest value is a function of the files of a version, whatever became of files before; and of the readings."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.layout import Layout, Positions
from contracts.quantities import QUANTITIES
from contracts.registry import save_registry
from contracts.schemas import HOURS
from contracts.times import to_us
from pipelines import graph, housekeeping, lake
from pipelines.stages import Setup
from tests.feed_samples import registry
from tests.pipelines.raw_log import POSTS, land, make_root, messages
from tests.warehouse.lake_samples import START, ask, config_of, store, write
from warehouse.catalogue import Kept, publish
from warehouse.latest import Latest

CELL = ["post_id", "quantity"]
CELLS = [(post, quantity) for post in ("KT1001", "KT1002") for quantity in ("rain_mm", "noise_dba")]


def hour(cell: tuple[str, str], minute: int, value: float | None, behind: int) -> dict[str, Any]:
    """A row of HOURS: a newest value at a minute, and one that was used so many minutes before it."""
    newest = START + timedelta(minutes=minute)
    row: dict[str, Any] = {field.name: None if field.nullable else 0 for field in HOURS.schema}
    row |= dict(zip(CELL, cell, strict=True))
    row |= {"window_start": newest.replace(minute=0), "last_value": value, "last_event_time": newest}
    row["last_used_time"] = newest - timedelta(minutes=behind) if behind and value is not None else None
    return row


ROWS = st.builds(
    hour, st.sampled_from(CELLS), st.integers(0, 3000), st.one_of(st.none(), st.floats(-9, 9)), st.integers(0, 9)
)
FILES = st.lists(st.lists(ROWS, max_size=6), min_size=1, max_size=4)


def by_hand(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], tuple[float | None, Any, datetime]]:
    found: dict[tuple[str, str], tuple[float | None, Any, datetime]] = {}
    for row in rows:
        cell, newest = (row["post_id"], row["quantity"]), row["last_event_time"]
        used = None if row["last_value"] is None else row["last_used_time"] or newest
        before = found.get(cell, (None, None, newest))
        is_later = used is not None and (before[1] is None or used > before[1])
        value, time = (row["last_value"], used) if is_later else before[:2]
        found[cell] = (value, time, max(before[2], newest))
    return found


@settings(max_examples=40, deadline=None)
@given(FILES, st.lists(st.sets(st.integers(0, 3)), min_size=1, max_size=4))
def test_it_is_that_of_the_files_asked_for_whatever_was_asked_before(
    contents: list[list[dict[str, Any]]], lists: list[set[int]]
) -> None:
    # of a cell's values that were used at one moment any could be the latest: the pipeline gives a moment one value
    seen: set[tuple[str, str, Any]] = set()
    for rows in contents:
        for row in list(rows):
            moment = (row["post_id"], row["quantity"], row["last_used_time"] or row["last_event_time"])
            if moment in seen:
                rows.remove(row)
            seen.add(moment)
    with TemporaryDirectory() as folder:
        paths = [f"{folder}/{number}.parquet" for number in range(len(contents))]
        for path, rows in zip(paths, contents, strict=True):
            pq.write_table(pa.Table.from_pylist(rows, HOURS.schema), path)
        latest = Latest()
        for chosen in lists:
            here = [number for number in chosen if number < len(paths)]
            found = latest.of([paths[number] for number in here]).rows.to_pylist()
            wanted = by_hand([row for number in here for row in contents[number]])
            assert {
                (row["post_id"], row["quantity"]): (row["value"], row["event_time"], row["newest_time"])
                for row in found
            } == wanted
            assert [row["unit"] for row in found] == [QUANTITIES[row["quantity"]].unit for row in found]


def of_readings(root: Path) -> pl.DataFrame:
    """The latest values by the readings themselves."""
    columns = "post_id, quantity, value, flag, event_time, digest"
    rows = ask(
        root,
        f"SELECT {columns} FROM observations UNION ALL SELECT {columns} FROM (UNPIVOT footfall "
        "ON crossings_in_count, crossings_out_count INTO NAME quantity VALUE value)",
    ).sort("event_time", "digest")
    used = rows.filter(pl.col("flag").is_in([1, 2]) & pl.col("value").is_not_null())
    return (
        rows.group_by(CELL)
        .agg(newest_time=pl.col("event_time").max())
        .join(used.group_by(CELL).agg(pl.col("value", "event_time").last()), on=CELL, how="left")
        .select(*CELL, "value", "event_time", "newest_time")
        .sort(CELL)
    )


def test_it_is_that_of_the_readings_after_late_data_and_compaction(tmp_path: Path) -> None:
    layout, random, kept = make_root(tmp_path), Random(4), Kept()
    setup = Setup(root=layout.root, registry=layout.registry)
    # one post is silent soon, the other sends on; what was held back comes last
    landed = [
        row for row in messages(3, minutes=62, posts=POSTS[:2]) if POSTS[0] not in row.topic or row.received < cut(5)
    ]
    late = [row for row in landed if random.random() < 0.3]
    early = [row for row in landed if row not in late]
    random.shuffle(early)
    first = unused = 0
    for part in (early[: len(early) // 2], early[len(early) // 2 :], late, []):
        if part:
            graph.run(setup, [(land(layout, part, first=first),)])
            first += len(part)
        else:
            housekeeping.compact_all(layout.root, to_us(START + timedelta(days=2)))
        Positions(offsets={"a": first}, versions=lake.versions(layout.root), covered_us=0).store(layout.positions)
        publish(config_of(tmp_path), kept)
        wanted = of_readings(tmp_path)
        found = ask(tmp_path, "SELECT * FROM latest").select(wanted.columns).sort(CELL)
        assert found.equals(wanted)
        assert found.height == 16
        unused += found.filter(pl.col("newest_time") > pl.col("event_time")).height
        publish(config_of(tmp_path))
        assert ask(tmp_path, "SELECT * FROM latest").select(wanted.columns).sort(CELL).equals(wanted)
    assert unused > 0
    assert max(found.filter(pl.col("post_id") == POSTS[0])["newest_time"].to_list()) < cut(5)


def cut(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def test_every_post_is_in_the_wide_form(tmp_path: Path) -> None:
    posts = registry(4)
    rows = [hour((posts.file.lampposts[0].post_id, "rain_mm"), 7, 0.4, 2), hour(("XX0001", "noise_dba"), 9, None, 0)]
    store(tmp_path, {"hours": write(tmp_path, HOURS, pa.Table.from_pylist(rows, HOURS.schema))})
    save_registry(Layout(tmp_path).registry, posts.file)
    publish(config_of(tmp_path))
    found = {row["post_id"]: row for row in ask(tmp_path, "SELECT * FROM latest_wide").iter_rows(named=True)}
    assert set(found) == {*(post.post_id for post in posts.valid(to_us(datetime.now(UTC)))), "XX0001"}
    heard = found[posts.file.lampposts[0].post_id]
    assert (heard["rain_mm"], heard["noise_dba"], heard["newest_time"]) == (0.4, None, cut(7))
    assert (found["XX0001"]["noise_dba"], found["XX0001"]["newest_time"]) == (None, cut(9))
