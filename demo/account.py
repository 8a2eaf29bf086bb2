"""Was anything that ingest acknowledged lost? Compares the raw log with the lake, message by message."""

from dataclasses import dataclass
from hashlib import blake2b

import polars as pl

from contracts.layout import Layout, instances, sealed_segments
from contracts.schemas import QUARANTINE, READING_TABLES
from contracts.segments import read_segment


@dataclass(frozen=True, kw_only=True)
class Account:
    """Distinct messages that landed before a moment; of them those that no table holds, and rows that stand twice."""

    landed: int
    missing: int
    doubled: int


def account(layout: Layout, before_us: int) -> Account:
    """Every message that was received before `before_us` (microseconds) by its digest, against readings and
    quarantine. The lake must cover that moment."""
    landed: set[int] = set()
    for instance in instances(layout.raw):
        for segment in sealed_segments(layout.raw, instance):
            rows = pl.DataFrame(read_segment(segment.path(layout.raw)))
            for payload in rows.filter(pl.col("received_time").dt.epoch("us") < before_us)["payload"]:
                landed.add(int.from_bytes(blake2b(payload, digest_size=8).digest(), "big", signed=True))
    held: set[int] = set()
    doubled = 0
    for table in (*READING_TABLES, QUARANTINE):
        identity = list(dict.fromkeys([*table.key, "digest"]))
        frame = pl.scan_delta(str(layout.table(table.name))).select(identity).collect()
        held.update(frame["digest"].unique())
        doubled += frame.height - frame.n_unique()
    return Account(landed=len(landed), missing=len(landed - held), doubled=doubled)
