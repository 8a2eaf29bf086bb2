"""Merging: the same rows in fewer files, whatever happens in between."""

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from contracts import layout
from contracts.layout import Layout, Segment, parse_segment, sealed_segments
from contracts.segments import RAW_SCHEMA, read_segment
from ingest import merge
from ingest.arrival import Arrival
from ingest.landing import Landing
from ingest.merge import UnlikeError
from tests.ingest.raw_files import DAY, NOW, fill, readable, seal, small_shards


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    monkeypatch.setattr(merge, "LISTED_S", 0.0)


def merge_all(root: Path) -> list[merge.Merged]:
    raw = Layout(root).raw
    done = list(merge.merge_shards(raw, "a", NOW.timestamp()))
    merge.remove_parts(raw, "a")
    return done


def test_closed_shards_become_a_file_each_with_the_same_rows(tmp_path: Path) -> None:
    parts = fill(tmp_path, NOW - DAY)
    raw, before = Layout(tmp_path).raw, readable(tmp_path)
    assert before["offset"].to_pylist() == list(range(300))
    done = merge_all(tmp_path)
    assert [each.segment for each in done] == [Segment("a", 0, 99, True), Segment("a", 100, 199, True)]
    assert sealed_segments(raw, "a") == [*(each.segment for each in done), *parts[8:]]
    assert readable(tmp_path).equals(before)
    # a reader that listed before the merge finds its rows
    assert [read_segment(raw, part)["offset"][0].as_py() for part in parts] == [part.first for part in parts]
    for each in done:
        path = each.segment.path(raw)
        assert path.stat().st_mtime == (NOW - DAY).timestamp()
        assert pq.read_schema(path).equals(RAW_SCHEMA)
        assert pq.read_metadata(path).row_group(0).column(0).compression == "ZSTD"
        assert (each.parts, each.bytes_after) == (4, path.stat().st_size)
        assert sorted(os.listdir(path.parent)) == [path.name]
    assert merge_all(tmp_path) == []


def test_a_large_shard_has_row_groups_that_can_be_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "GROUP_ROWS", 30)
    fill(tmp_path, NOW - DAY)
    before = readable(tmp_path)
    (first, _) = merge_all(tmp_path)
    metadata = pq.read_metadata(first.segment.path(Layout(tmp_path).raw))
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [50, 50]
    assert readable(tmp_path).equals(before)


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    fill(tmp_path, NOW - DAY)
    left = Segment("a", 0, 49, True).path(Layout(tmp_path).raw)
    left.with_name(f".{left.name}.tmp").write_bytes(b"PAR1")
    merge_all(tmp_path)
    assert len(os.listdir(left.parent)) == 1


def test_a_gap_is_not_hidden(tmp_path: Path) -> None:
    parts = fill(tmp_path, NOW - DAY)
    parts[1].path(Layout(tmp_path).raw).unlink()
    before = readable(tmp_path)
    done = merge_all(tmp_path)
    assert [(each.segment.first, each.segment.last) for each in done] == [(0, 24), (50, 99), (100, 199)]
    assert readable(tmp_path).equals(before)


def test_young_open_and_newest_shards_are_left_alone(tmp_path: Path) -> None:
    raw = Layout(tmp_path).raw
    fill(tmp_path, NOW - DAY, segments=4)
    seal(tmp_path, 100, 25, NOW)
    fill(tmp_path, NOW - DAY, first=200, segments=4)
    layout.open_path(raw, "a", 275).touch()
    fill(tmp_path, NOW - DAY, first=300, segments=4)
    done = list(merge.merge_shards(raw, "a", NOW.timestamp()))
    assert [each.segment.first for each in done] == [0]


def test_ingest_goes_on_at_its_offset_after_a_merge(tmp_path: Path) -> None:
    fill(tmp_path, NOW - DAY)
    merge_all(tmp_path)
    with Landing(Layout(tmp_path), "a") as landing:
        assert landing.next_offset == 300
        landing.append([Arrival("lamplight/v1/KT1000/air", b"", 1)])
    assert readable(tmp_path)["offset"].to_pylist() == list(range(301))


def test_a_segment_that_is_not_what_its_name_says_is_not_merged(tmp_path: Path) -> None:
    parts = fill(tmp_path, NOW - DAY)
    raw = Layout(tmp_path).raw
    parts[2].path(raw).rename(Segment("a", 50, 75).path(raw))
    with pytest.raises(UnlikeError, match="000000000050-000000000075"):
        merge_all(tmp_path)
    assert len(list(raw.rglob("*.arrow"))) == 12
    assert not list(raw.rglob("*.parquet"))


def test_parts_stay_when_the_merged_file_does_not_hold_their_rows(tmp_path: Path) -> None:
    fill(tmp_path, NOW - DAY)
    raw = Layout(tmp_path).raw
    list(merge.merge_shards(raw, "a", NOW.timestamp()))
    path = Segment("a", 0, 99, True).path(raw)
    rows = pq.read_table(path)
    changed = rows.set_column(2, rows.schema.field("payload"), [[b"other"] * 100])
    for other in (changed, rows.slice(0, 60)):
        pq.write_table(other, path)
        with pytest.raises(UnlikeError):
            merge.remove_parts(raw, "a")
        assert len(list(path.parent.glob("*.arrow"))) == 4


# each call that changes a disk or makes it durable, in order of a merge
STEPS: list[tuple[Any, str]] = [
    (os, "fsync"),
    (os, "utime"),
    (os, "open"),
    (Path, "rename"),
    (Path, "unlink"),
    (pq, "ParquetWriter"),
    (pq, "ParquetFile"),
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a writer that is not closed complains
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_crash_at_any_step_leaves_every_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, is_done: bool
) -> None:
    fill(tmp_path, NOW - DAY)
    before = readable(tmp_path)
    original: Callable[..., Any] = getattr(owner, name)
    crashes = 0
    for at in range(1, 100):
        calls = 0

        def crash(*arguments: Any, _at: int = at, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == _at and not is_done:
                raise _CrashError
            answer = original(*arguments, **options)
            if calls == _at:
                raise _CrashError
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, crash)
            try:
                merge_all(tmp_path)
            except (_CrashError, UnlikeError):
                crashes += 1
            else:
                break
        assert readable(tmp_path).equals(before)
    assert crashes
    merge_all(tmp_path)
    assert readable(tmp_path).equals(before)
    raw = Layout(tmp_path).raw
    files = [path.name for path in (raw / "a").rglob("*.*")]
    assert all(parse_segment("a", file) for file in files)
    segments = sealed_segments(raw, "a")
    assert len(files) == len(segments) == 6
    assert all(earlier.last < later.first for earlier, later in pairwise(segments))


class _CrashError(BaseException):
    """kill -9, as far as this process can die of it."""
