"""Compaction changes no row, leaves few files, sorted and in ranges of posts, and a late row rewrites few of them."""

from datetime import timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.layout import Layout
from contracts.schemas import OBSERVATIONS, TABLES
from contracts.times import US, to_us
from pipelines import commit, exchange, files, housekeeping, lake, stages
from pipelines.blocks import changed_posts
from pipelines.files import File
from pipelines.parquet import order
from tests.pipelines.crashes import dying_after
from tests.pipelines.days import days, moved, setup_of, take_up
from tests.pipelines.raw_log import START, Landed, land
from tests.pipelines.test_lake import assert_same, race, tables

LONG_AFTER_US = to_us(START + timedelta(days=30))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of a few posts is compacted as one of many: in parts, each a file, which counts as large."""
    monkeypatch.setattr(housekeeping, "ROWS_AT_ONCE", 40)
    monkeypatch.setattr(housekeeping, "FILE_RANGES", 1)
    monkeypatch.setattr(files, "KEPT_ROWS", 10)


def filled(root: Path) -> tuple[stages.Setup, list[Landed]]:
    """A lake of three days in many files, each of a day and of all posts, and what landed."""
    setup = setup_of(root)
    landed: list[Landed] = []
    for day in days(3):
        Random(1).shuffle(day)
        for at in range(0, len(day), 20):
            part = [moved(row, timedelta(hours=6)) for row in day[at : at + 20]]
            take_up(setup, part, len(landed))
            landed += part
    return setup, landed


def compacted(root: Path) -> None:
    """Compact until nothing is left to do: a file of several days is divided at the first."""
    while True:
        before = lake.versions(root)
        housekeeping.compact_all(root, LONG_AFTER_US)
        if lake.versions(root) == before:
            return


def test_days_become_sorted_ranges_of_posts(tmp_path: Path, small: None) -> None:
    setup, _ = filled(tmp_path)
    before = tables(tmp_path)
    compacted(tmp_path)
    assert_same(tables(tmp_path), before)
    for name, table in TABLES.items():
        pinned = lake.newest_version(tmp_path, name)
        listed = files.listed(pinned, table)
        assert sorted(listed) == sorted(files._asked(pinned, table))
        assert housekeeping.spans(listed, table, LONG_AFTER_US) == []
        parts: dict[int, list[pl.DataFrame]] = {}
        for file in sorted(listed, key=lambda one: (one.first_post, one.low_us)):
            day = file.low_us // (86_400 * US)
            assert file.high_us // (86_400 * US) == day
            parts.setdefault(day, []).append(pl.read_parquet(setup.layout.table(name) / file.name))
        if name == "observations":
            assert len(parts) == 3
            assert min(map(len, parts.values())) > 1
            for found in parts.values():
                rows = pl.concat(found)
                assert rows.equals(rows.sort(order(table)))


def test_what_is_young_or_lies_in_few_files_is_left(tmp_path: Path) -> None:
    filled(tmp_path)
    listed = files.listed(lake.newest_version(tmp_path, "observations"), OBSERVATIONS)
    newest_us = max(file.high_us for file in listed)
    assert all(span.end_us <= newest_us - 300 * US for span in _spans(listed, newest_us))
    assert _spans(listed[:3], LONG_AFTER_US) == []
    assert {span.end_us - span.start_us for span in _spans(listed, LONG_AFTER_US)} == {86_400 * US}
    large = [file._replace(size=housekeeping.WHOLE_BYTES) for file in listed]
    assert _spans(large[:1] + listed[:3], LONG_AFTER_US) == []
    assert len(_spans(large[:2], LONG_AFTER_US)) == 1  # as a backfill leaves a day: by time, all posts in each
    apart = [file._replace(first_post=f"AA{at}", last_post=f"AA{at}") for at, file in enumerate(large)]
    assert _spans(apart, LONG_AFTER_US) == []
    without_posts = [file._replace(first_post="", last_post=files.LAST_POST) for file in large]
    assert _spans(without_posts, LONG_AFTER_US) == []


def _spans(listed: list[File], now_us: int) -> list[housekeeping.Span]:
    return housekeeping.spans(listed, OBSERVATIONS, now_us)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")).map(sorted), max_size=12))
def test_depth_is_the_most_files_that_a_post_lies_in(ranges: list[list[str]]) -> None:
    listed = [File("", 0, 0, 1, 1, first, last) for first, last in ranges]
    want = max((sum(first <= post <= last for first, last in ranges) for post in "abcdef"), default=0)
    assert housekeeping.depth(listed) == want


@pytest.mark.parametrize("survives", range(4))
def test_a_crash_between_two_exchanges_loses_nothing(tmp_path: Path, survives: int) -> None:
    filled(tmp_path)
    before = tables(tmp_path)
    with dying_after(survives), pytest.raises(KeyboardInterrupt):
        housekeeping.compact_all(tmp_path, LONG_AFTER_US)
    assert_same(tables(tmp_path), before)
    lake.forget()
    compacted(tmp_path)
    assert_same(tables(tmp_path), before)
    assert lake.count_files(tmp_path, "observations") <= 4


def test_a_late_row_rewrites_the_files_of_its_post_only(tmp_path: Path, small: None) -> None:
    setup, landed = filled(tmp_path)
    compacted(tmp_path)
    before, was = tables(tmp_path), _names(setup.layout)
    post, row = next((one.topic.split("/")[2], one) for one in landed if one.topic.endswith("TS1001/weather"))
    # the same message, received earlier: its copy gives way, and a row that is there changes
    earlier = Landed(row.topic, row.payload, row.received - timedelta(seconds=5))
    take_up(setup, [earlier], 50_000)
    after = tables(tmp_path)
    changed = changed_posts(before["observations"], after["observations"], OBSERVATIONS)
    assert changed == [post]
    keys = list(OBSERVATIONS.identity)
    assert after["observations"].select(keys).equals(before["observations"].select(keys))
    gone = {file.name for file in was} - {file.name for file in _names(setup.layout)}
    assert gone
    assert all(file.first_post <= post <= file.last_post for file in was if file.name in gone)
    assert any(not file.first_post <= post <= file.last_post for file in was)


def _names(layout: Layout) -> list[File]:
    return files.listed(lake.newest_version(layout.root, "observations"), OBSERVATIONS)


@pytest.mark.parametrize("theirs", ["KT1001", "TS1001"])
def test_two_writers_on_one_block_of_a_compacted_day(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    """Another worker changes the same post or another one of the same minute between our reading and our writing."""
    _, landed = filled(tmp_path)
    workers = setup_of(tmp_path, is_sole_owner=False)
    compacted(tmp_path)
    before = tables(tmp_path)["observations"]
    rows = {post: next(one for one in landed if one.topic.endswith(f"{post}/weather")) for post in ("TS1001", "KT1001")}

    def decoded(post: str, at: int) -> list[object]:
        row = rows[post]
        earlier = Landed(row.topic, row.payload, row.received - timedelta(seconds=at))
        return [stages.decode(workers, [land(workers.layout, [earlier], first=60_000 + 10 * at)])["observations"]]

    put = lake.put

    def act() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(lake, "put", put)
            stages.unite_blocks(workers, "observations", decoded(theirs, 9))

    race(workers.layout, act, monkeypatch)
    stages.unite_blocks(workers, "observations", decoded("TS1001", 5))
    got = tables(tmp_path)["observations"]
    want = {"TS1001": rows["TS1001"].received - timedelta(seconds=5)}
    want[theirs] = rows[theirs].received - timedelta(seconds=9)
    keys = list(OBSERVATIONS.identity)
    assert got.select(keys).equals(before.select(keys))
    changed = got.join(before, on=got.columns, how="anti", nulls_equal=True)
    assert set(changed.select("post_id", "received_time").rows()) == set(want.items())


def test_an_exchange_gives_way_to_who_changed_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, landed = filled(tmp_path)
    before = tables(tmp_path)
    named = commit.commit

    def late(*arguments: object) -> None:
        row = next(one for one in landed if one.topic.endswith("TS1001/weather"))
        with monkeypatch.context() as patch:
            patch.setattr(exchange, "commit", named)
            take_up(setup, [Landed(row.topic, row.payload, row.received - timedelta(seconds=5))], 70_000)
        named(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exchange, "commit", late)
    with pytest.raises(commit.Conflict):
        housekeeping.compact(tmp_path, OBSERVATIONS, LONG_AFTER_US)
    after = tables(tmp_path)
    assert changed_posts(before["observations"], after["observations"], OBSERVATIONS) == ["TS1001"]
    monkeypatch.setattr(exchange, "commit", named)
    compacted(tmp_path)
    assert_same(tables(tmp_path), after)
