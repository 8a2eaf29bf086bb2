"""The Beam graph: segments to readings and rejects, united into blocks, to minutes, to rollups.

Elements are references, record batches or block numbers, never rows: 1.6-11 M rows/s against 0.03-0.14 M rows/s
element by element on the same runner.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.metrics.metric import MetricResults
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.transforms.environments import EmbeddedPythonEnvironment
from apache_beam.transforms.trigger import AccumulationMode, TriggerFn
from apache_beam.transforms.window import GlobalWindows

from contracts.layout import Segment
from contracts.schemas import QUARANTINE, TABLES
from pipelines import coders, counts, lake, stages
from pipelines.came import Came, came_in
from pipelines.log import Span, spans
from pipelines.stages import Setup

Chunk = tuple[Segment, ...]
NAMESPACE = "lamplight"
SAMPLE_MS = 5  # at most, between two looks of Beam's sampler


@dataclass(frozen=True)
class Part:
    """What a chunk has for one table, of so many tables. It travels beside the rows and then the blocks, so that the
    end of the graph can tell which offsets are in all tables."""

    spans: tuple[Span, ...]
    table: str
    tables: int


Rows = tuple[Part, pa.RecordBatch]
Dirty = tuple[tuple[Part, ...], set[int]]


@dataclass(frozen=True)
class United:
    """A table of readings whose rows are in their blocks: these, and where they came in."""

    table: str
    parts: tuple[Part, ...]
    blocks: frozenset[int]
    came: Came


@contextmanager
def _counted(stage: str) -> Iterator[None]:
    """Tell the runner the time that a stage takes, and what it replaces."""
    began = time.perf_counter()
    yield
    found = lake.take_counts() | {counts.STAGE_US + stage: int((time.perf_counter() - began) * 1e6)}
    for name, amount in found.items():
        Metrics.counter(NAMESPACE, name).inc(amount)


class DecodeFn(beam.DoFn):
    def __init__(self, setup: Setup):
        self.setup_ = setup

    def process(self, chunk: Chunk) -> Iterator[tuple[str, Rows]]:
        with _counted("decode"):
            raw = stages.read(self.setup_, chunk)
            batches = stages.decode_raw(self.setup_, raw)
        for name, amount in counts.of_chunk(raw, batches):
            Metrics.counter(NAMESPACE, name).inc(amount)
        for name, moment in counts.newest(batches):
            Metrics.distribution(NAMESPACE, name).update(moment)
        batches, left = stages.arrived(self.setup_, batches)
        if left:
            Metrics.counter(NAMESPACE, counts.LEFT).inc(left)
        # messages without a row must be told of too
        batches = batches or {QUARANTINE.name: pa.RecordBatch.from_pylist([], schema=QUARANTINE.schema)}
        for name, batch in batches.items():
            yield name, (Part(spans(chunk), name, len(batches)), batch)


class UniteFn(beam.DoFn):
    def __init__(self, setup: Setup):
        self.setup_ = setup

    def process(self, rows: tuple[str, Iterable[Rows]]) -> Iterator[tuple[str, United]]:
        name, found = rows[0], list(rows[1])
        batches, parts = [batch for _, batch in found], tuple(part for part, _ in found)
        with _counted("unite"):
            blocks = frozenset(stages.unite_blocks(self.setup_, name, batches))
        if name not in stages.MINUTES_OF:
            yield name, United(name, parts, frozenset(), None)
            return
        # others may have changed what came before
        came = came_in(TABLES[name], batches) if self.setup_.is_sole_owner else None
        yield stages.MINUTES_OF[name].name, United(name, parts, blocks, came)


class MinutesFn(beam.DoFn):
    def __init__(self, setup: Setup):
        self.setup_ = setup

    def process(self, united: tuple[str, Iterable[United]]) -> Iterator[tuple[str, Dirty]]:
        name, found = united[0], list(united[1])
        blocks = set().union(*(one.blocks for one in found))
        came: dict[str, Came] = {}
        for one in found:
            # (a table comes more than once only where others may write too)
            came[one.table] = one.came if one.table not in came else None
        with _counted("minutes"):
            touched = stages.make_minutes(self.setup_, name, blocks, came) if blocks else blocks
        yield name, (tuple(part for one in found for part in one.parts), touched)


class RollUpFn(beam.DoFn):
    def __init__(self, setup: Setup):
        self.setup_ = setup

    def process(self, dirty: tuple[str, Dirty]) -> Iterator[tuple[str, Dirty]]:
        name, (parts, blocks) = dirty
        if not blocks:
            yield name, (parts, blocks)
            return
        with _counted("windows"):
            starts = stages.make_windows(self.setup_, name, blocks)
        yield stages.WINDOWS_OF[name].name, (parts, starts)


class HoursFn(beam.DoFn):
    def __init__(self, setup: Setup):
        self.setup_ = setup

    def process(self, dirty: tuple[str, Dirty]) -> Iterator[Part]:
        name, (parts, blocks) = dirty
        if blocks:
            with _counted("hours"):
                stages.make_hours(self.setup_, name, blocks)
        yield from parts


@dataclass(kw_only=True, eq=False)
class Decode(beam.PTransform):
    """Chunks of segments -> (table, part and its rows)."""

    setup: Setup

    def expand(self, chunks: beam.PCollection[Chunk]) -> beam.PCollection[tuple[str, Rows]]:
        return chunks | beam.ParDo(DecodeFn(self.setup)).with_output_types(tuple[str, Rows])


@dataclass(kw_only=True, eq=False)
class Unite(beam.PTransform):
    """(table, rows) -> (minutes table, dirty blocks, where rows came in), with the blocks of readings and quarantine
    replaced. Tables without minutes go on under their own name, with no blocks."""

    setup: Setup

    def expand(self, rows: beam.PCollection[tuple[str, Rows]]) -> beam.PCollection[tuple[str, United]]:
        return rows | beam.GroupByKey() | beam.ParDo(UniteFn(self.setup)).with_output_types(tuple[str, United])


@dataclass(kw_only=True, eq=False)
class MakeMinutes(beam.PTransform):
    """(minutes table, dirty blocks) -> the same, with its blocks replaced."""

    setup: Setup

    def expand(self, united: beam.PCollection[tuple[str, United]]) -> beam.PCollection[tuple[str, Dirty]]:
        return united | beam.GroupByKey() | beam.ParDo(MinutesFn(self.setup)).with_output_types(tuple[str, Dirty])


@dataclass(kw_only=True, eq=False)
class RollUp(beam.PTransform):
    """(minutes table, dirty blocks) -> (windows table, dirty blocks), with the windows replaced."""

    setup: Setup

    def expand(self, dirty: beam.PCollection[tuple[str, Dirty]]) -> beam.PCollection[tuple[str, Dirty]]:
        return dirty | beam.ParDo(RollUpFn(self.setup)).with_output_types(tuple[str, Dirty])


@dataclass(kw_only=True, eq=False)
class MakeHours(beam.PTransform):
    """(windows table, dirty blocks) -> the parts that are now in all their tables, with the hours replaced."""

    setup: Setup

    def expand(self, dirty: beam.PCollection[tuple[str, Dirty]]) -> beam.PCollection[Part]:
        return dirty | beam.ParDo(HoursFn(self.setup)).with_output_types(Part)


@dataclass(kw_only=True, eq=False)
class CleanAndAggregate(beam.PTransform):
    """Chunks of segments -> parts, the whole lake brought up to date on the way.

    `trigger` says when what has come of an unbounded log is handed on; a bounded one needs none (and FnApiRunner dies
    of triggers in processing time).
    """

    setup: Setup
    trigger: TriggerFn | None = None

    def expand(self, chunks: beam.PCollection[Chunk]) -> beam.PCollection[Part]:
        rows = chunks | Decode(setup=self.setup)
        if self.trigger is not None:
            rows |= beam.WindowInto(
                GlobalWindows(), trigger=self.trigger, accumulation_mode=AccumulationMode.DISCARDING
            )
        minutes = rows | Unite(setup=self.setup) | MakeMinutes(setup=self.setup)
        return minutes | RollUp(setup=self.setup) | MakeHours(setup=self.setup)


def new_pipeline() -> beam.Pipeline:
    """A pipeline for this machine."""
    coders.register()
    pipeline = beam.Pipeline(runner=FnApiRunner())
    # Beam's folder for what transforms of other languages bring: nobody would remove it of a pipeline that is only
    # described, or whose process is killed
    os.rmdir(pipeline.local_tempdir)
    return pipeline


class PendingFn(beam.DoFn):
    """The chunks that `run` was given in this process."""

    def process(self, _: None) -> Iterator[Chunk]:
        yield from _pending


_pending: list[Chunk] = []


@lru_cache(maxsize=4)
def _bounded(setup: Setup) -> beam_runner_api_pb2.Pipeline:
    """The graph over `_pending`, described once: that takes as long as a quiet tick's work."""
    graph = new_pipeline()
    chunks = graph | beam.Create([None]) | beam.ParDo(PendingFn()).with_output_types(Chunk)
    _ = chunks | CleanAndAggregate(setup=setup)
    return graph.to_runner_api(default_environment=EmbeddedPythonEnvironment.default())


def quick_samplers() -> None:
    """Beam looks at what a bundle is busy with, which nobody asks for, ever less often, up to each 200 ms, and a
    bundle's end waits until it has looked again: 35 ms for each of the three bundles of a tick of 1.2 s."""
    StateSampler.__init__.__defaults__ = (SAMPLE_MS,)


def run(setup: Setup, chunks: list[Chunk]) -> dict[str, int]:
    """Bring the lake up to date with the segments, on this machine; what was met, by the names of `counts`.

    Raises what a stage raised. One run at a time in a process.
    """
    _pending[:] = chunks
    quick_samplers()
    # always this runner by name: DirectRunner would try to download another at run time
    result = FnApiRunner().run_via_runner_api(_bounded(setup), PipelineOptions())
    result.wait_until_finish()
    return met(result.metrics())


def met(metrics: MetricResults) -> dict[str, int]:
    """What a job has met so far, by the names of `counts`."""
    found = metrics.query(MetricsFilter().with_namespace(NAMESPACE))
    counters = {one.key.metric.name: one.result for one in found["counters"]}
    return counters | {one.key.metric.name: one.result.max for one in found["distributions"]}
