"""The two halves of the graph by themselves, ours and the element-wise one's: up to the rows, and from them on.

Rows that are given lie in this process's memory, where FnApiRunner's worker runs too, so nobody pays for their way into
the runner; rows that are decoded are handed to the runner's next stage, as any pipeline's are, and counted there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from bench import elementwise
from contracts.layout import Segment
from contracts.schemas import FOOTFALL, READING_TABLES
from pipelines import coders, graph
from pipelines.graph import Decode, MakeHours, MakeMinutes, RollUp, Unite
from pipelines.log import chunks
from pipelines.stages import Setup

# a reading is one value; a lane's summary counts once
READINGS_PER_ROW = {table.name: 2 if table is FOOTFALL else 1 for table in READING_TABLES}
_GIVEN: list[Any] = []
_COUNTS: list[int] = []


class GivenFn(beam.DoFn):
    """Whatever -> the elements that are given."""

    def process(self, _: None) -> Iterator[Any]:
        yield from _GIVEN


class KeepFn(beam.DoFn):
    """Elements into memory, in place of what follows."""

    def process(self, element: Any) -> None:
        _GIVEN.append(element)


class CountFn(beam.DoFn):
    """(key, elements) -> nothing; the readings in them are counted."""

    def process(self, group: tuple[Any, Iterable[Any]]) -> None:
        _COUNTS.append(sum(map(_readings, group[1])))


def _readings(element: Any) -> int:
    if isinstance(element, tuple) and isinstance(element[-1], pa.RecordBatch):
        return READINGS_PER_ROW.get(element[0].table, 0) * int(element[1].num_rows)
    return 1


def _run(build: Callable[[beam.Pipeline], Any]) -> None:
    coders.register()
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = build(pipeline)
    pipeline.run().wait_until_finish()


def _ours(pipeline: beam.Pipeline, setup: Setup, segments: list[Segment]) -> Any:
    return pipeline | beam.Create(chunks(segments)) | Decode(setup=setup)


def decode_ours(setup: Setup, segments: list[Segment]) -> int:
    """Segments -> record batches by table, handed on; the readings in them."""
    _COUNTS.clear()
    _run(lambda pipeline: _ours(pipeline, setup, segments) | beam.GroupByKey() | beam.ParDo(CountFn()))
    return sum(_COUNTS)


def decode_theirs(setup: Setup, segments: list[Segment]) -> int:
    """Segments -> readings by message, handed on; their number."""
    _COUNTS.clear()
    raw, registry = setup.layout.raw, setup.registry
    _run(
        lambda pipeline: (
            elementwise.decode_segments(pipeline, raw, registry, segments) | beam.GroupByKey() | beam.ParDo(CountFn())
        )
    )
    return sum(_COUNTS)


def keep_ours(setup: Setup, segments: list[Segment]) -> list[Any]:
    """What our decoding hands on."""
    _GIVEN.clear()
    _run(lambda pipeline: _ours(pipeline, setup, segments) | beam.ParDo(KeepFn()))
    return list(_GIVEN)


def keep_theirs(setup: Setup, segments: list[Segment]) -> list[Any]:
    """What their decoding hands on."""
    _GIVEN.clear()
    raw, registry = setup.layout.raw, setup.registry
    _run(lambda pipeline: elementwise.decode_segments(pipeline, raw, registry, segments) | beam.ParDo(KeepFn()))
    return list(_GIVEN)


def after_ours(setup: Setup, given: Sequence[Any]) -> None:
    """Record batches -> the lake."""
    _GIVEN[:] = given
    _run(
        lambda pipeline: (
            pipeline
            | beam.Create([None])
            | beam.ParDo(GivenFn()).with_output_types(tuple[str, graph.Rows])
            | Unite(setup=setup)
            | MakeMinutes(setup=setup)
            | RollUp(setup=setup)
            | MakeHours(setup=setup)
        )
    )


def after_theirs(lake: Path, given: Sequence[Any]) -> None:
    """Readings by message -> Delta tables."""
    _GIVEN[:] = given
    _run(
        lambda pipeline: elementwise.clean_and_aggregate(
            pipeline | beam.Create([None]) | beam.ParDo(GivenFn()).with_output_types(elementwise.Pair), lake
        )
    )
