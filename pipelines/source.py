"""The raw log as an unbounded Beam source. Its elements are chunks of segments: references, never rows.

The runner's checkpoints only spare work: whoever begins anew begins where the stored positions say, because a runner
may call a checkpoint final before the tables hold what lies before it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import apache_beam as beam
from apache_beam import coders
from apache_beam.io.unbounded_source import CheckpointMark, ReadFromUnboundedSource, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp

from contracts.layout import Layout, Positions
from pipelines.graph import Chunk
from pipelines.log import CHUNK_ROWS, chunks, new_segments, passed
from pipelines.stages import Setup

POLL_S = 0.2
# what the runner holds at once: while so many chunks are not in the tables, what lands joins the next one
CHUNKS_AHEAD = 4


class Mark(CheckpointMark):
    """How far a reader was."""

    def __init__(self, offsets: Mapping[str, int]):
        self.offsets = dict(offsets)


class MarkCoder(coders.Coder):
    """Marks as JSON."""

    def encode(self, value: Mark) -> bytes:
        return json.dumps(value.offsets, sort_keys=True).encode()

    def decode(self, encoded: bytes) -> Mark:
        return Mark(json.loads(encoded))

    def is_deterministic(self) -> bool:
        return True


class SegmentReader(UnboundedReader):
    """Hands out what has landed behind its offsets, no further ahead of the stored positions than CHUNKS_AHEAD."""

    def __init__(self, layout: Layout, offsets: Mapping[str, int]):
        self.layout = layout
        self.offsets = dict(offsets)
        self.chunk: Chunk = ()
        self._ahead: list[dict[str, int]] = []

    def start(self) -> bool:
        return self.advance()

    def advance(self) -> bool:
        claimed = Positions.load(self.layout.positions).offsets
        self._ahead = [ends for ends in self._ahead if any(claimed.get(name, 0) < end for name, end in ends.items())]
        if len(self._ahead) >= CHUNKS_AHEAD:
            return False
        segments, _ = new_segments(self.layout.raw, self.offsets, limit_rows=CHUNK_ROWS)
        if not segments:
            return False
        self.chunk = chunks(segments)[0]
        self._ahead.append(passed({}, list(self.chunk)))
        self.offsets = passed(self.offsets, list(self.chunk))
        return True

    def get_current(self) -> Chunk:
        return self.chunk

    def get_current_timestamp(self) -> Timestamp:
        return Timestamp.now()

    def get_watermark(self) -> Timestamp:
        return MIN_TIMESTAMP  # nothing waits for it

    def get_checkpoint_mark(self) -> Mark:
        return Mark(self.offsets)


class SegmentSource(UnboundedSource):
    """Segments of every instance from these offsets on, as they land."""

    def __init__(self, layout: Layout, offsets: Mapping[str, int]):
        self.layout = layout
        self.offsets = dict(offsets)

    def split(self, desired_num_splits: int, options: object = None) -> list["SegmentSource"]:
        return [self]  # references are few, and instances may come while it runs

    def create_reader(self, options: object, checkpoint_mark: Mark | None) -> SegmentReader:
        return SegmentReader(self.layout, checkpoint_mark.offsets if checkpoint_mark else self.offsets)

    def get_checkpoint_mark_coder(self) -> MarkCoder:
        return MarkCoder()


@dataclass(kw_only=True, eq=False)
class ReadSegments(beam.PTransform):
    """The raw log from these offsets on -> chunks of segments, without end."""

    setup: Setup
    offsets: Mapping[str, int]

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Chunk]:
        source = SegmentSource(self.setup.layout, self.offsets)
        return (
            begin
            | ReadFromUnboundedSource(source, poll_interval=POLL_S, max_records_per_bundle=1)
            # decoding must not share a stage with the source: Prism would split it there, and die (2.77)
            | beam.Reshuffle()
        )
