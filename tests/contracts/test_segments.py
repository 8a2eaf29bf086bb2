"""What a crash or a bad disk leaves of an open segment: its whole batches, and never a wrong row."""

from pathlib import Path

import pyarrow as pa
import pytest

from contracts.layout import Layout, Segment, instances, open_path, open_segments, sealed_segments, try_lock
from contracts.segments import RAW_SCHEMA, batch_metadata, read_segment, recover, recover_abandoned

SIZES = (3, 1, 4)
END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def batch(first: int, size: int) -> pa.RecordBatch:
    rows = range(first, first + size)
    return pa.record_batch(
        [
            pa.array(rows, pa.int64()),
            pa.array([f"lamplight/v1/KT{row:04d}/air" for row in rows]),
            pa.array([bytes(5 * row) for row in rows], pa.binary()),
            pa.array([1000 + row for row in rows], pa.int64()).cast(pa.timestamp("us", "UTC")),
            pa.array([row % 2 == 0 for row in rows]),
        ],
        schema=RAW_SCHEMA,
    )


BATCHES = [batch(sum(SIZES[:index]), size) for index, size in enumerate(SIZES)]
ALL = pa.Table.from_batches(BATCHES)


def stream(batches: list[pa.RecordBatch]) -> bytes:
    """An Arrow IPC stream as ingest leaves it while it is open: without its end mark."""
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, RAW_SCHEMA)
    for each in batches:
        writer.write_batch(each, custom_metadata=batch_metadata(each))
    content: bytes = sink.getvalue().to_pybytes()
    return content


CONTENT = stream(BATCHES)
# where the schema ends and where each batch ends; how many rows are whole by then
ENDS = [len(RAW_SCHEMA.serialize()), *(len(stream(BATCHES[: index + 1])) for index in range(len(SIZES)))]
ROWS = [0, *(sum(SIZES[: index + 1]) for index in range(len(SIZES)))]


def whole_rows(length: int) -> int:
    """Rows of the batches that lie before a position in the file."""
    return max((rows for end, rows in zip(ENDS, ROWS, strict=True) if end <= length), default=0)


def recovered(raw: Path, content: bytes) -> list[pa.Table]:
    """What `recover` makes of an open segment with this content, in order; the folder is empty again afterwards."""
    path = open_path(raw, "a", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    segments = recover(path)
    assert sealed_segments(raw, "a") == segments
    tables = [read_segment(raw, segment) for segment in segments]
    for segment, table in zip(segments, tables, strict=True):
        assert table["offset"].to_pylist() == list(range(segment.first, segment.last + 1))
        segment.path(raw).unlink()
    assert list(path.parent.iterdir()) == []
    return tables


def rows_of(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables([RAW_SCHEMA.empty_table(), *tables])


def test_a_tail_cut_anywhere_loses_only_the_batch_that_it_cuts(tmp_path: Path) -> None:
    for length in range(len(CONTENT) + 1):
        tables, rows = recovered(tmp_path, CONTENT[:length]), whole_rows(length)
        assert len(tables) == (1 if rows else 0), length
        assert rows_of(tables).equals(ALL.slice(0, rows)), length


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\xff" * 64, END[:4], END, CONTENT[ENDS[0] : ENDS[1]][:40]])
def test_a_torn_tail_of_any_bytes_after_whole_batches_is_left_out(tmp_path: Path, tail: bytes) -> None:
    (table,) = recovered(tmp_path, CONTENT + tail)
    assert table.equals(ALL)


def without(index: int) -> pa.Table:
    """All batches but this one."""
    return rows_of([pa.Table.from_batches([each]) for number, each in enumerate(BATCHES) if number != index])


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_loses_its_own_batch_and_never_yields_a_wrong_row(tmp_path: Path, mask: int) -> None:
    """Its own batch goes, or is equal all the same (padding carries nothing); those after it were acknowledged too."""
    # the three masks take every position between them
    for position in range(mask % 3, len(CONTENT), 3):
        flipped = bytearray(CONTENT)
        flipped[position] ^= mask
        rows = rows_of(recovered(tmp_path, bytes(flipped)))
        damaged = sum(end <= position for end in ENDS) - 1
        assert rows.equals(ALL) or (damaged >= 0 and rows.equals(without(damaged))), position


@pytest.mark.parametrize("damage", [b"\0", b"\xff", b"\xff\xff\xff\xff\0\1\0\0"])
def test_what_follows_a_damaged_batch_is_a_segment_of_its_own(tmp_path: Path, damage: bytes) -> None:
    start, end = ENDS[1], ENDS[2]
    content = CONTENT[:start] + (damage * (end - start))[: end - start] + CONTENT[end:]
    before, after = recovered(tmp_path, content)
    assert before.equals(ALL.slice(0, SIZES[0]))
    assert after.equals(ALL.slice(SIZES[0] + SIZES[1]))


def test_a_crash_during_the_recovery_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = CONTENT[: ENDS[1]] + bytes(ENDS[2] - ENDS[1]) + CONTENT[ENDS[2] :]
    path = open_path(tmp_path, "a", 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _crash)
        with pytest.raises(KeyboardInterrupt):
            recover(path)
    assert len(recovered(tmp_path, content)) == 2


def _crash(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_disk_that_cannot_be_read_is_no_torn_tail(tmp_path: Path) -> None:
    path = open_path(tmp_path, "a", 0)
    path.mkdir(parents=True)  # reading a folder fails as a bad sector does: with an OSError
    with pytest.raises(OSError, match="directory"):
        recover(path)
    assert path.exists()


def test_anyone_seals_what_a_dead_instance_left_and_no_one_what_a_living_one_writes(tmp_path: Path) -> None:
    raw = Layout(tmp_path).raw
    for instance in ("dead", "living"):
        path = open_path(raw, instance, 0)
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT[:-1])
    lock = try_lock(raw / "living" / "lock")
    assert lock is not None
    with lock:
        assert recover_abandoned(raw) == [Segment("dead", 0, 3)]
        assert instances(raw) == ["dead", "living"]
        assert open_segments(raw, "dead") == []
        assert open_segments(raw, "living") == [open_path(raw, "living", 0)]
        assert recover_abandoned(raw) == []
    assert recover_abandoned(raw) == [Segment("living", 0, 3)]
