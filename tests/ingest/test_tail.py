"""Each sealed row is given once and in order, whatever becomes of the files meanwhile."""

import os
import time
from pathlib import Path

import pytest

from contracts.layout import Layout, open_path
from ingest import merge, tail
from ingest.tail import Tail
from tests.ingest.raw_files import DAY, NOW, fill, seal, small_shards


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    monkeypatch.setattr(merge, "LISTED_S", 0.0)


def look(reader: Tail) -> list[int]:
    return [offset for rows in reader.read() for offset in rows["offset"].to_pylist()]


def merge_all(root: Path) -> None:
    list(merge.merge_shards(Layout(root).raw, "a", NOW.timestamp()))
    merge.remove_parts(Layout(root).raw, "a")


def test_it_follows_from_segment_to_segment_and_shard_to_shard(tmp_path: Path) -> None:
    reader = Tail(Layout(tmp_path).raw, {})
    assert look(reader) == []
    given: list[int] = []
    for first in range(0, 400, 20):
        seal(tmp_path, first, 20, NOW)
        open_path(Layout(tmp_path).raw, "a", first + 20).parent.mkdir(exist_ok=True)
        open_path(Layout(tmp_path).raw, "a", first + 20).touch()
        given += look(reader)
        assert reader.offsets == {"a": first + 20}
    assert given == list(range(400))
    assert reader.behind == 0


def test_two_changes_within_one_tick_of_the_clock_are_both_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "SETTLED_NS", 600_000_000_000)
    reader = Tail(Layout(tmp_path).raw, {})
    tick_ns = time.time_ns()
    for first in (0, 20, 40):
        folder = seal(tmp_path, first, 20, NOW).path(Layout(tmp_path).raw).parent
        os.utime(folder, ns=(tick_ns, tick_ns))
        assert look(reader) == list(range(first, first + 20))


def test_a_look_that_is_broken_off_goes_on_where_it_was(tmp_path: Path) -> None:
    fill(tmp_path, NOW, segments=2)
    reader = Tail(Layout(tmp_path).raw, {})
    assert next(iter(reader.read()))["offset"].to_pylist() == list(range(25))
    assert reader.behind == 25
    assert look(reader) == list(range(25, 50))


def test_it_goes_on_within_a_merged_segment(tmp_path: Path) -> None:
    fill(tmp_path, NOW - DAY)
    merge_all(tmp_path)
    assert look(Tail(Layout(tmp_path).raw, {"a": 30})) == list(range(30, 300))


def test_segments_that_are_merged_between_listing_and_reading_are_found(tmp_path: Path) -> None:
    fill(tmp_path, NOW - DAY)
    reading = Tail(Layout(tmp_path).raw, {}).read()
    given = next(reading)["offset"].to_pylist()
    merge_all(tmp_path)
    for rows in reading:
        given += rows["offset"].to_pylist()
    assert given == list(range(300))


def test_a_gap_is_passed_and_instances_that_appear_later_are_read(tmp_path: Path) -> None:
    segments = fill(tmp_path, NOW)
    for gone in segments[1:10]:
        gone.path(Layout(tmp_path).raw).unlink()
    reader = Tail(Layout(tmp_path).raw, {})
    assert look(reader) == [*range(25), *range(250, 300)]
    seal(tmp_path, 0, 5, NOW, instance="b")
    assert look(reader) == list(range(5))
    # a whole shard is missing: the next look at everything finds what comes after it
    reader = Tail(Layout(tmp_path).raw, {"a": 300, "b": 5})
    assert look(reader) == []
    seal(tmp_path, 500, 5, NOW)
    for instance in reader._instances.values():
        instance._relist_at = 0.0
    assert look(reader) == list(range(500, 505))


def test_a_segment_that_stays_unreadable_is_passed_over_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segments = fill(tmp_path, NOW, segments=3)
    path = segments[1].path(Layout(tmp_path).raw)
    whole = path.read_bytes()
    path.write_bytes(b"broken")
    seal(tmp_path, 0, 5, NOW, instance="b")
    reader = Tail(Layout(tmp_path).raw, {})
    assert look(reader) == [*range(25), *range(5)]
    assert look(reader) == []
    assert reader.behind == 50
    path.write_bytes(whole)
    assert look(reader) == list(range(25, 75))
    path.write_bytes(b"broken")
    monkeypatch.setattr(tail, "PATIENCE_S", 0.0)
    reader = Tail(Layout(tmp_path).raw, {"b": 5})
    assert look(reader) == [*range(25), *range(50, 75)]
    assert reader.skipped == 1
    assert str(path) in capsys.readouterr().err
