"""What crosses a Flink cluster: the log in waves, each wave's rows by table and time shard. Engine-free.

A wave is taken up, united, aggregated and claimed before the next one is: so the versions that positions claim hold
whole waves, as they hold whole ticks on one machine (law 4). Within a wave every step knows how many elements to wait
for, because each says what it has for every table and shard, be it nothing; no timer guesses.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from contracts.layout import Segment
from contracts.quality import CONTEXT_MINUTES
from contracts.schemas import MINUTES, QUARANTINE, READING_TABLES, TABLES
from contracts.times import MINUTE_US
from pipelines.packing import pack
from pipelines.stages import MINUTES_OF

# Tables that decoding makes rows of, and how many of them each later table is made of.
LANDED = (*(table.name for table in READING_TABLES), QUARANTINE.name)
_MADE = {name: MINUTES_OF[name].name if name in MINUTES_OF else name for name in LANDED}
AGGREGATED = tuple(dict.fromkeys(_MADE.values()))
SOURCES = {name: list(_MADE.values()).count(name) for name in AGGREGATED}
SHARD_MINUTES = 60
# A minute's flags reach an hour on: shorter shards of that table would work on each other's blocks all the time.
LONG_SHARD_MINUTES = 6 * CONTEXT_MINUTES


@dataclass(frozen=True, kw_only=True)
class Wave:
    """So many chunks of the log. `number` is unique across restarts; `offsets` are the positions after the wave;
    `covered_us` is 0 when more was waiting."""

    number: int
    chunks: int
    offsets: dict[str, int]
    covered_us: int
    messages: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Segments that one worker decodes; the `index`-th of its wave."""

    wave: Wave
    index: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A chunk's rows of one table and shard as Arrow IPC; None when it has none."""

    wave: Wave
    table: str
    shard: int
    content: bytes | None


@dataclass(frozen=True, kw_only=True)
class Dirty:
    """Blocks of one table and shard that a wave has made dirty, as one of its sources knows them."""

    wave: Wave
    table: str
    shard: int
    blocks: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Done:
    """A table's shard is as the wave makes it."""

    wave: Wave
    table: str
    shard: int


def begin(claimed: Mapping[str, int], emitted: Mapping[str, int]) -> dict[str, int]:
    """Positions to begin at behind a checkpoint that knows how far the tail had come. Never beyond what is claimed:
    what was under way between the two is gone, and a power cut may have taken back what a checkpoint saw done."""
    return {name: min(offset, emitted.get(name, offset)) for name, offset in claimed.items()}


def shard_of(table: str, block: int, shards: int) -> int:
    """The shard of a table that a block lies in: hours take turns."""
    return block // (LONG_SHARD_MINUTES if table == MINUTES.name else SHARD_MINUTES) % shards


def worker_of(part: Rows | Dirty) -> int:
    """Which worker is to have a table's shard, counted round the workers: tables of one hour lie side by side."""
    names = LANDED if isinstance(part, Rows) else AGGREGATED
    return names.index(part.table) + part.shard


def split(wave: Wave, batches: Mapping[str, pa.RecordBatch], shards: int) -> Iterator[Rows]:
    """A decoded chunk's rows by table and shard; every table and shard once."""
    for name in LANDED:
        batch = batches.get(name)
        parts = {} if batch is None else _by_shard(name, batch, shards)
        for shard in range(shards):
            content = pack(parts[shard]) if shard in parts else None
            yield Rows(wave=wave, table=name, shard=shard, content=content)


def _by_shard(name: str, batch: pa.RecordBatch, shards: int) -> dict[int, pa.RecordBatch]:
    times: pl.Series = pl.Series(batch[TABLES[name].time]).dt.epoch("us")
    parts = times // (MINUTE_US * SHARD_MINUTES) % shards
    found = parts.unique().to_list()
    if len(found) == 1:
        return {found[0]: batch}
    return {shard: batch.filter((parts == shard).to_arrow()) for shard in found}


def dirty(wave: Wave, name: str, blocks: set[int], shards: int) -> Iterator[Dirty]:
    """A landed table's dirty blocks by shard of the table that is made of them; every shard once."""
    made = _MADE[name]
    for shard in range(shards):
        inside = frozenset(block for block in blocks if shard_of(made, block, shards) == shard)
        yield Dirty(wave=wave, table=made, shard=shard, blocks=inside)
