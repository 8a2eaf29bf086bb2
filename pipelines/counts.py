"""What a run of the graph has met, as counters that every engine adds up: by name, in the order of a chunk."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from contracts.schemas import OBSERVATIONS, QUARANTINE, TABLES

MESSAGES, BYTES = "messages", "bytes"
LEFT = "left"  # rows that another run takes up
READINGS, QUARANTINED, NEWEST_US = "readings/", "quarantined/", "newest_us/"
# of the stages that replace blocks, by table
REPLACED_BLOCKS, WRITTEN_ROWS, CONFLICTS, REPEATS = "replaced_blocks/", "written_rows/", "conflicts/", "repeats/"
STAGE_US = "stage_us/"  # time spent, by stage
OF_STAGES = (REPLACED_BLOCKS, WRITTEN_ROWS, CONFLICTS, REPEATS, STAGE_US)


def of_chunk(raw: pa.Table, batches: Mapping[str, pa.RecordBatch]) -> Iterator[tuple[str, int]]:
    """(name, amount) of decoded messages: messages, payload bytes, rows by table, refused ones by reason."""
    yield MESSAGES, raw.num_rows
    yield BYTES, int(pc.sum(pc.binary_length(raw["payload"])).as_py() or 0)
    for name, batch in batches.items():
        if name == QUARANTINE.name:
            for pair in pc.value_counts(batch["reason"]).to_pylist():
                yield QUARANTINED + pair["values"], pair["counts"]
        else:
            yield READINGS + name, batch.num_rows


def newest(batches: Mapping[str, pa.RecordBatch]) -> Iterator[tuple[str, int]]:
    """(name, newest event time in microseconds) by stream."""
    for name, batch in batches.items():
        table = TABLES[name]
        if table.stream is not None:
            yield NEWEST_US + table.stream, pc.max(batch["event_time"]).cast(pa.int64()).as_py()
        elif name == OBSERVATIONS.name:
            grouped = pa.table([batch["stream"], batch["event_time"]], ["stream", "time"]).group_by("stream")
            for row in grouped.aggregate([("time", "max")]).to_pylist():
                yield NEWEST_US + row["stream"], pa.scalar(row["time_max"], pa.timestamp("us", "UTC")).value
