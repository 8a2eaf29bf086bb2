"""The Beam graph: segments to readings and rejects, united into blocks, to minutes, to rollups.

Elements are references, record batches or block numbers, never rows: 1.6-11 M rows/s against 0.03-0.14 M rows/s
element by element on the same runner.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from contracts.layout import Segment
from pipelines import coders, counts, stages
from pipelines.stages import Setup

Chunk = tuple[Segment, ...]
NAMESPACE = "lamplight"


class DecodeFn(beam.DoFn):
    def __init__(self, setup: Setup):
        self.setup_ = setup

    def process(self, chunk: Chunk) -> Iterator[tuple[str, pa.RecordBatch]]:
        raw = stages.read(self.setup_, chunk)
        batches = stages.decode_raw(self.setup_, raw)
        for name, amount in counts.of_chunk(raw, batches):
            Metrics.counter(NAMESPACE, name).inc(amount)
        for name, moment in counts.newest(batches):
            Metrics.distribution(NAMESPACE, name).update(moment)
        yield from batches.items()


class UniteFn(beam.DoFn):
    def __init__(self, setup: Setup):
        self.setup_ = setup

    def process(self, rows: tuple[str, Iterable[pa.RecordBatch]]) -> Iterator[tuple[str, set[int]]]:
        name, batches = rows
        blocks = stages.unite_blocks(self.setup_, name, list(batches))
        if name in stages.MINUTES_OF:
            yield stages.MINUTES_OF[name].name, blocks


class MinutesFn(beam.DoFn):
    def __init__(self, setup: Setup):
        self.setup_ = setup

    def process(self, dirty: tuple[str, Iterable[set[int]]]) -> Iterator[tuple[str, set[int]]]:
        name, blocks = dirty
        yield name, stages.make_minutes(self.setup_, name, set().union(*blocks))


class RollUpFn(beam.DoFn):
    def __init__(self, setup: Setup):
        self.setup_ = setup

    def process(self, dirty: tuple[str, set[int]]) -> Iterator[tuple[str, set[int]]]:
        name, blocks = dirty
        yield stages.WINDOWS_OF[name].name, stages.make_windows(self.setup_, name, blocks)


@dataclass(kw_only=True, eq=False)
class Decode(beam.PTransform):
    """Chunks of segments -> (table, rows)."""

    setup: Setup

    def expand(self, chunks: beam.PCollection[Chunk]) -> beam.PCollection[tuple[str, pa.RecordBatch]]:
        return chunks | beam.ParDo(DecodeFn(self.setup)).with_output_types(tuple[str, pa.RecordBatch])


@dataclass(kw_only=True, eq=False)
class Unite(beam.PTransform):
    """(table, rows) -> (minutes table, dirty blocks), with the readings' and quarantine's blocks replaced."""

    setup: Setup

    def expand(self, rows: beam.PCollection[tuple[str, pa.RecordBatch]]) -> beam.PCollection[tuple[str, set[int]]]:
        return rows | beam.GroupByKey() | beam.ParDo(UniteFn(self.setup)).with_output_types(tuple[str, set[int]])


@dataclass(kw_only=True, eq=False)
class MakeMinutes(beam.PTransform):
    """(minutes table, dirty blocks) -> the same, with its blocks replaced."""

    setup: Setup

    def expand(self, dirty: beam.PCollection[tuple[str, set[int]]]) -> beam.PCollection[tuple[str, set[int]]]:
        return dirty | beam.GroupByKey() | beam.ParDo(MinutesFn(self.setup)).with_output_types(tuple[str, set[int]])


@dataclass(kw_only=True, eq=False)
class RollUp(beam.PTransform):
    """(minutes table, dirty blocks) -> (windows table, first minutes of the windows), with them replaced."""

    setup: Setup

    def expand(self, dirty: beam.PCollection[tuple[str, set[int]]]) -> beam.PCollection[tuple[str, set[int]]]:
        return dirty | beam.ParDo(RollUpFn(self.setup)).with_output_types(tuple[str, set[int]])


@dataclass(kw_only=True, eq=False)
class CleanAndAggregate(beam.PTransform):
    """Chunks of segments -> (windows table, windows), the whole lake brought up to date on the way."""

    setup: Setup

    def expand(self, chunks: beam.PCollection[Chunk]) -> beam.PCollection[tuple[str, set[int]]]:
        return (
            chunks
            | Decode(setup=self.setup)
            | Unite(setup=self.setup)
            | MakeMinutes(setup=self.setup)
            | RollUp(setup=self.setup)
        )


def run(setup: Setup, chunks: list[Chunk]) -> dict[str, int]:
    """Bring the lake up to date with the segments, on this machine; what was met, by the names of `counts`.

    Raises what a stage raised.
    """
    coders.register()
    # always this runner by name: DirectRunner would try to download another at run time
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = pipeline | beam.Create(chunks) | CleanAndAggregate(setup=setup)
    result = pipeline.run()
    result.wait_until_finish()
    met = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    found = {counter.key.metric.name: counter.committed for counter in met["counters"]}
    return found | {one.key.metric.name: one.committed.max for one in met["distributions"]}
