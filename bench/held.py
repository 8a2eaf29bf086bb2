"""Where every message that landed is held: as a reading, in quarantine, in both, twice, or nowhere."""

from dataclasses import dataclass

import polars as pl

from contracts.layout import Layout, instances, sealed_segments
from contracts.payloads import digest, head
from contracts.schemas import DEVICE_STATUS, QUARANTINE, READING_TABLES, Table
from contracts.segments import read_segment
from contracts.topics import device_topic, parse_device_topic

NAME = ["topic", "boot_id", "stream", "seq"]


@dataclass(frozen=True, kw_only=True)
class Held:
    """`readings`: one row per message of the reading tables (NAME, digest, is_conflicting), wills included,
    without a seq; `quarantine`: one row per topic and digest (NAME, null where the bytes do not tell, and digest);
    `doubled`: rows whose like stands in the same table."""

    readings: pl.DataFrame
    quarantine: pl.DataFrame
    doubled: int


def landed(layout: Layout) -> pl.DataFrame:
    """Distinct messages of all sealed segments: NAME (null where topic or bytes do not tell), digest, count."""
    rows = []
    for instance in instances(layout.raw):
        for segment in sealed_segments(layout.raw, instance):
            table = read_segment(layout.raw, segment)
            for topic, payload in zip(table["topic"].to_pylist(), table["payload"].to_pylist(), strict=True):
                place, name = parse_device_topic(topic), head(payload)
                boot_id, seq, _ = name or (None, None, None)
                rows.append((topic, boot_id, place[1] if place else None, seq, digest(payload)))
    schema = {"topic": pl.String, "boot_id": pl.String, "stream": pl.String, "seq": pl.Int64, "digest": pl.Int64}
    return pl.DataFrame(rows, schema, orient="row").group_by(*schema).len("count")


def held(layout: Layout) -> Held:
    """What the lake holds, from its tables alone."""
    doubled, parts = 0, []
    for table in READING_TABLES:
        frame = _scan(layout, table)
        doubled += frame.height - frame.select(table.identity).n_unique()
        stream = pl.col("stream") if "stream" in frame.columns else pl.lit(table.stream).alias("stream")
        if table is DEVICE_STATUS:
            # a will has no seq, and its event time is its receipt: its copies are one message
            has_key = pl.when(pl.col("kind") != "will")
            frame = frame.with_columns(has_key.then("event_time").alias("event_time"), has_key.then("seq").alias("seq"))
        names = frame.select("post_id", stream, "boot_id", "seq", "event_time", "digest", "is_conflicting").unique()
        topic = pl.format(device_topic("{}", "{}"), "post_id", "stream").alias("topic")
        parts.append(names.select(topic, "boot_id", "stream", "seq", "digest", "is_conflicting"))
    rejects = _scan(layout, QUARANTINE)
    doubled += rejects.height - rejects.select(QUARANTINE.identity).n_unique()
    return Held(
        readings=pl.concat(parts),
        quarantine=rejects.select(*NAME, "digest").unique(["topic", "digest"]),
        doubled=doubled,
    )


def _scan(layout: Layout, table: Table) -> pl.DataFrame:
    path = layout.table(table.name)
    # a table is made with its first row
    return pl.read_delta(str(path)) if path.exists() else pl.DataFrame(table.schema.empty_table())
