"""What today's decoder, registry and tolerance make of messages, beside what the lake holds of them.

A message is its topic and its bytes; all its copies that the chunk or the lake knows are judged together, so that it
does not matter in which chunk which copy comes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from contracts.fields import TIMESTAMP
from contracts.payloads import digest
from contracts.registry import Registry
from contracts.schemas import DUPLICATES, QUARANTINE, READING_TABLES, TABLES, Table
from contracts.times import MINUTE_US
from contracts.topics import parse_device_topic
from pipelines import removed
from pipelines.blocks import ranges
from pipelines.kernels.decode import Tolerance, decode_messages
from pipelines.kernels.frames import empty
from pipelines.kernels.rows import Frames
from pipelines.kernels.unite import extra_copies, unite
from pipelines.lake import scan
from pipelines.stages import Setup

# what a chunk of landed messages is: one row per copy
LANDED = {"topic": pl.String(), "payload": pl.Binary(), "received_time": pl.Datetime("us", "UTC")}
_NAME = ["post_id", "stream", "digest"]
_MESSAGE_TABLES = (*READING_TABLES, DUPLICATES, QUARANTINE)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Per table of messages: the rows that they make today (`new`) and the rows of theirs that the lake holds
    (`gone`), most of which are the same."""

    new: Frames
    gone: Frames


def judge(setup: Setup, entries: Registry, landed: pl.DataFrame, elsewhere: pl.DataFrame) -> Judgement:
    """Judge a chunk of LANDED; `elsewhere` are copies in quarantine (topic, digest, received_time) that may lie in
    other chunks. Reads the lake and changes nothing."""
    messages = _messages(landed)
    frames = _decode(landed, entries, setup.tolerance)
    blocks = _event_blocks(frames)
    least, greatest = landed["received_time"].min(), landed["received_time"].max()
    is_received = pl.col("received_time").is_between(least, greatest)
    gone = {
        table.name: _rows_of(setup, table, messages, _any(blocks, table.time) | is_received)
        for table in (*READING_TABLES, DUPLICATES)
    }
    known = [_copies(gone[table.name], table) for table in (*READING_TABLES, DUPLICATES)]
    more = pl.concat(
        [
            pl.concat(known).unique().join(messages, on=_NAME).select(list(LANDED)),
            elsewhere.join(messages, on=["topic", "digest"]).select(list(LANDED)),
        ]
    ).join(landed, on=list(LANDED), how="anti")
    if not more.is_empty():
        landed = pl.concat([landed, more.unique()])
        frames = _decode(landed, entries, setup.tolerance)
    new = {table.name: unite(empty(table), frames[table.name], table) for table in (*READING_TABLES, QUARANTINE)}
    extra = [extra_copies(empty(table), frames[table.name], table) for table in READING_TABLES]
    new[DUPLICATES.name] = pl.concat(extra)
    new = {name: removed.without(setup.root, rows, TABLES[name]) for name, rows in new.items()}
    gone[QUARANTINE.name] = _refused_before(setup, landed.join(messages, on=["topic", "payload"]))
    return Judgement(new=new, gone=gone)


def _messages(landed: pl.DataFrame) -> pl.DataFrame:
    """Distinct messages with their digest, post and stream; null where the topic names none."""
    distinct = landed.select("topic", "payload").unique()
    places = [parse_device_topic(topic) or (None, None) for topic in distinct["topic"].to_list()]
    return distinct.with_columns(
        pl.Series("digest", [digest(payload) for payload in distinct["payload"].to_list()], dtype=pl.Int64),
        pl.Series("post_id", [place[0] for place in places], dtype=pl.String),
        pl.Series("stream", [place[1] for place in places], dtype=pl.String),
    )


def _decode(landed: pl.DataFrame, entries: Registry, tolerance: Tolerance) -> Frames:
    raw = pa.table(
        {
            "topic": landed["topic"].to_arrow(),
            "payload": landed["payload"].to_arrow(),
            "received_time": landed["received_time"].to_arrow().cast(TIMESTAMP),
        }
    )
    frames = decode_messages(raw, entries, tolerance)
    return {table.name: frames.get(table.name, empty(table)) for table in (*READING_TABLES, QUARANTINE)}


def _event_blocks(frames: Frames) -> set[int]:
    """Minutes of the messages' event times, where they tell one."""
    times = pl.concat([frame["event_time"].drop_nulls() for frame in frames.values()])
    return set((times.dt.epoch("us") // MINUTE_US).unique().to_list())


def _any(blocks: set[int], time: str) -> pl.Expr:
    spans = [(pl.col(time) >= start) & (pl.col(time) < end) for start, end in ranges(blocks)]
    return pl.any_horizontal(spans) if spans else pl.lit(value=False)


def _rows_of(setup: Setup, table: Table, messages: pl.DataFrame, where: pl.Expr) -> pl.DataFrame:
    """Rows of a table that messages made."""
    named = messages.select(_NAME).drop_nulls()
    on = _NAME
    if table.stream is not None:
        named, on = named.filter(pl.col("stream") == table.stream), ["post_id", "digest"]
    if named.is_empty():
        return empty(table)
    rows = scan(setup.root, table).filter(where).select(table.schema.names)
    return rows.join(named.lazy(), on=on, how="semi").collect()


def _copies(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    """The receipts that rows stand for."""
    if table.stream is not None:
        rows = rows.with_columns(stream=pl.lit(table.stream))
    return rows.select(*_NAME, "received_time").unique()


def _refused_before(setup: Setup, copies: pl.DataFrame) -> pl.DataFrame:
    key = list(QUARANTINE.key)
    blocks = set((copies["received_time"].dt.epoch("us") // MINUTE_US).unique().to_list())
    rows = scan(setup.root, QUARANTINE).filter(_any(blocks, QUARANTINE.time))
    return rows.select(QUARANTINE.schema.names).join(copies.lazy().select(key), on=key, how="semi").collect()


def quarantined_copies(setup: Setup) -> pl.DataFrame:
    """(topic, digest, received_time) of messages that quarantine holds more than once."""
    key = list(QUARANTINE.key)
    rows = scan(setup.root, QUARANTINE).select(key)
    return rows.filter(pl.len().over("topic", "digest") > 1).collect()


def changes(judgement: Judgement) -> Iterator[tuple[str, str, str, pl.Series]]:
    """(table, what happens to rows, reason of quarantine or "", a hash of each such row's name)."""
    for table in _MESSAGE_TABLES:
        new, gone = judgement.new[table.name], judgement.gone[table.name]
        name = list(table.identity)
        # whether a message conflicts is decided among all rows of its block, of which these are some
        content = [column for column in table.schema.names if column != "is_conflicting"]
        yield from _by_reason(table, "added", new.join(gone, on=name, how="anti"))
        yield from _by_reason(table, "removed", gone.join(new, on=name, how="anti"))
        differing = new.join(gone, on=content, how="anti", nulls_equal=True)
        yield from _by_reason(table, "changed", differing.join(gone, on=name, how="semi"))


def _by_reason(table: Table, kind: str, rows: pl.DataFrame) -> Iterator[tuple[str, str, str, pl.Series]]:
    hashed = rows.select(
        reason=pl.col("reason") if table is QUARANTINE else pl.lit(""), row=pl.struct(table.identity).hash()
    )
    for (reason,), part in hashed.group_by("reason"):
        yield table.name, kind, str(reason), part["row"]
