"""Was anything that ingest acknowledged lost? Compares the raw log with the lake, message by message."""

from dataclasses import dataclass

import polars as pl
from deltalake import DeltaTable

from contracts.layout import Layout, instances, sealed_segments
from contracts.payloads import digest
from contracts.schemas import QUARANTINE, READING_TABLES
from contracts.segments import read_segment


@dataclass(frozen=True, kw_only=True)
class Account:
    """Distinct messages that landed before a moment = readings + quarantined + missing; rows that stand twice; and
    the copies that landed besides (duplicates, resends)."""

    landed: int
    readings: int
    quarantined: int
    missing: int
    copies: int
    doubled: int


def account(layout: Layout, before_us: int) -> Account:
    """Every message that was received before `before_us` (microseconds) by its digest, against readings and
    quarantine. The lake must cover that moment."""
    landed: set[int] = set()
    rows_landed = 0
    for instance in instances(layout.raw):
        for segment in sealed_segments(layout.raw, instance):
            rows = pl.DataFrame(read_segment(layout.raw, segment))
            for payload in rows.filter(pl.col("received_time").dt.epoch("us") < before_us)["payload"]:
                rows_landed += 1
                landed.add(digest(payload))
    held: dict[bool, set[int]] = {True: set(), False: set()}
    doubled = 0
    for table in (*READING_TABLES, QUARANTINE):
        stored = DeltaTable(str(layout.table(table.name))).to_pyarrow_table(columns=list(table.identity))
        frame = pl.DataFrame(stored)
        held[table.is_reading].update(frame["digest"].unique())
        doubled += frame.height - frame.n_unique()
    readings = landed & held[True]
    quarantined = (landed & held[False]) - readings
    return Account(
        landed=len(landed),
        readings=len(readings),
        quarantined=len(quarantined),
        missing=len(landed) - len(readings) - len(quarantined),
        copies=rows_landed - len(landed),
        doubled=doubled,
    )
