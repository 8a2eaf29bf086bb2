"""`explain`: the graph in words, from Beam's own tree of it and the docstrings of its steps."""

import textwrap

import apache_beam as beam
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor

from contracts.schemas import (
    ANNOUNCEMENTS,
    DUPLICATES,
    FLAGS,
    FLOW_MINUTES,
    FLOW_WINDOWS,
    FOOTFALL,
    HOURS,
    LANE_FLOWS,
    MINUTES,
    OBSERVATIONS,
    QUARANTINE,
    READING_TABLES,
    WINDOWS,
    Table,
)
from pipelines import graph
from pipelines.log import CHUNK_ROWS
from pipelines.stages import Setup

# step -> (tables that it reads, tables whose blocks it replaces); a test holds this to what the stages do
TABLES_OF: dict[str, tuple[tuple[Table, ...], tuple[Table, ...]]] = {
    "Decode": ((), ()),
    "Unite": ((), (*READING_TABLES, DUPLICATES, QUARANTINE)),
    "MakeMinutes": ((OBSERVATIONS, FOOTFALL, LANE_FLOWS, MINUTES), (MINUTES, FLAGS, FLOW_MINUTES)),
    "RollUp": ((MINUTES, FLOW_MINUTES, ANNOUNCEMENTS), (WINDOWS, FLOW_WINDOWS)),
    "MakeHours": ((WINDOWS,), (HOURS,)),
}
_HEAD = f"""\
The graph that `run` builds each tick and `backfill` for each share of the log, on an explicit FnApiRunner; `stream`
runs the same over a log without end.
Elements are references to segments, Arrow record batches, numbers of blocks and names of posts, never rows. A block is
a minute of a table's time; all blocks of a table that change are replaced in one Delta commit, and who loses against
another writer makes them again (pipelines/lake.py). The work of each step is in pipelines/stages.py, its arithmetic in
pipelines/kernels. `run` stores lake/positions.json after the tables, and the release door opens after that.

segments of raw/, in groups of about {CHUNK_ROWS:,} messages"""


class _Steps(PipelineVisitor):
    """Composite steps with their depth, and the primitives inside them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def enter_composite_transform(self, node: AppliedPTransform) -> None:
        if type(node.transform).__module__ == graph.__name__:
            self._step(node)

    def visit_transform(self, node: AppliedPTransform) -> None:
        work = getattr(node.transform, "fn", None)
        if type(work).__module__ == graph.__name__:
            self._line(node, f"{type(work).__name__}")
        elif isinstance(node.transform, beam.GroupByKey):
            self._line(node, "GroupByKey: all that is there of one table, together")

    def leave_composite_transform(self, node: AppliedPTransform) -> None:
        name = type(node.transform).__name__
        if name in TABLES_OF and type(node.transform).__module__ == graph.__name__:
            reads, replaces = (", ".join(table.name for table in tables) for tables in TABLES_OF[name])
            if reads:
                self._line(node, f"reads      {reads}", 1)
            if replaces:
                self._line(node, f"replaces   {replaces}", 1)
            (output,) = node.outputs.values()
            self.lines.append(f"{'  ' * _depth(node)}  | {_type_name(output.element_type)}")

    def _step(self, node: AppliedPTransform) -> None:
        words = (type(node.transform).__doc__ or "").split("\n\n", maxsplit=1)[0]
        self._line(node, f"{type(node.transform).__name__}: {' '.join(words.split())}")

    def _line(self, node: AppliedPTransform, words: str, deeper: int = 0) -> None:
        indent = "  " * (_depth(node) + deeper)
        self.lines += textwrap.wrap(words, 110, initial_indent=indent, subsequent_indent=indent + "    ")


def _depth(node: AppliedPTransform) -> int:
    return node.full_label.count("/") if node.full_label else 0


def _type_name(kind: object) -> str:
    return str(kind).replace("<class '", "").replace("'>", "")


def graph_text(setup: Setup) -> str:
    """What `explain` prints."""
    pipeline = graph.new_pipeline()
    _ = pipeline | beam.Create([], reshuffle=False) | graph.CleanAndAggregate(setup=setup)
    steps = _Steps()
    pipeline.visit(steps)
    return "\n".join([_HEAD, *steps.lines])
