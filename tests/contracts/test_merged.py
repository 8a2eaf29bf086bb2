"""A merged segment stands for the ones that it was made of, and a reader that is behind still finds its rows."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts import layout
from contracts.layout import Segment, sealed_segments
from contracts.segments import RAW_SCHEMA, batch_metadata, read_segment
from tests.contracts.test_segments import batch


def sealed(raw: Path, first: int, size: int) -> Segment:
    segment = Segment("a", first, first + size - 1)
    path = segment.path(raw)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = batch(first, size)
    with pa.ipc.new_stream(str(path), RAW_SCHEMA) as writer:
        writer.write_batch(rows, custom_metadata=batch_metadata(rows))
    return segment


def test_a_merged_segment_hides_its_parts_and_answers_for_them(tmp_path: Path) -> None:
    parts = [sealed(tmp_path, 0, 3), sealed(tmp_path, 3, 4), sealed(tmp_path, 7, 2)]
    rows = [read_segment(tmp_path, part) for part in parts]
    whole = Segment("a", 0, 6, is_merged=True)
    pq.write_table(pa.concat_tables(rows[:2]), whole.path(tmp_path))
    assert sealed_segments(tmp_path, "a") == [whole, parts[2]]
    assert sealed_segments(tmp_path, "a", since=7) == [parts[2]]
    assert sealed_segments(tmp_path, "a", since=5) == [whole, parts[2]]
    assert read_segment(tmp_path, whole).equals(pa.concat_tables(rows[:2]))
    for part in parts[:2]:
        part.path(tmp_path).unlink()
    assert sealed_segments(tmp_path, "a") == [whole, parts[2]]
    for part, before in zip(parts, rows, strict=True):
        again = read_segment(tmp_path, part)
        assert again.equals(before)
        assert again.schema.equals(RAW_SCHEMA)


def test_a_listing_that_races_a_merge_misses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts go while the folder is read, and the merged file's name came too late to be seen."""
    parts = [sealed(tmp_path, 0, 3), sealed(tmp_path, 3, 4), sealed(tmp_path, 7, 2)]
    whole = Segment("a", 0, 6, is_merged=True)
    reading = layout._names

    def racing(folder: Path) -> Iterator[os.DirEntry[str]]:
        names = list(reading(folder))
        if folder == parts[0].path(tmp_path).parent and not whole.path(tmp_path).exists():
            pq.write_table(pa.concat_tables([read_segment(tmp_path, part) for part in parts[:2]]), whole.path(tmp_path))
            names = [entry for entry in names if entry.name not in {part.path(tmp_path).name for part in parts[:2]}]
        yield from names

    monkeypatch.setattr(layout, "_names", racing)
    assert sealed_segments(tmp_path, "a") == [whole, parts[2]]
    parts[2].path(tmp_path).unlink()
    sealed(tmp_path, 9, 2)
    assert sealed_segments(tmp_path, "a") == [whole, Segment("a", 9, 10)]


def test_a_segment_that_is_gone_is_gone(tmp_path: Path) -> None:
    part = sealed(tmp_path, 0, 3)
    part.path(tmp_path).unlink()
    with pytest.raises(FileNotFoundError):
        read_segment(tmp_path, part)
