"""Which offsets are in all tables, as the last step of the unbounded graph tells it.

Told in files below `run/stream/told`, because workers may be other processes or machines. They need not be durable:
what nobody was told of is read again.
"""

import contextlib
import json
import uuid
from pathlib import Path

import apache_beam as beam

from contracts.layout import Layout, instances, sealed_segments
from pipelines.graph import Part
from pipelines.log import Span


def folder(layout: Layout) -> Path:
    """Where it is told."""
    return layout.root / "run" / "stream" / "told"


class TellFn(beam.DoFn):
    """Parts that are in their tables -> one file a bundle."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.parts: list[Part] = []

    def start_bundle(self) -> None:
        self.parts = []

    def process(self, part: Part) -> None:
        self.parts.append(part)

    def finish_bundle(self) -> None:
        if self.parts:
            aside = folder(self.layout) / f".{uuid.uuid4().hex}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps([(part.spans, part.table, part.tables) for part in self.parts]))
            aside.rename(aside.with_name(f"{aside.name[1:]}.json"))


class Told:
    """What this process was told since it began; what was told before is forgotten."""

    def __init__(self, layout: Layout):
        self._folder = folder(layout)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tables: dict[tuple[Span, ...], set[str]] = {}
        self._ranges: dict[str, list[tuple[int, int]]] = {}
        for path in self._folder.iterdir():
            path.unlink()

    def take(self) -> bool:
        """Hear what was told since; whether anything was."""
        found = sorted(self._folder.glob("*.json"))
        for path in found:
            for spans, table, tables in json.loads(path.read_bytes()):
                self._add(tuple((name, first, end) for name, first, end in spans), table, tables)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        return bool(found)

    def _add(self, spans: tuple[Span, ...], table: str, tables: int) -> None:
        having = self._tables.setdefault(spans, set())
        having.add(table)
        if len(having) < tables:
            return
        del self._tables[spans]
        for name, first, end in spans:
            self._ranges[name] = _joined([*self._ranges.get(name, []), (first, end)])

    def passed(self, raw: Path, offsets: dict[str, int]) -> tuple[dict[str, int], bool]:
        """Offsets up to which everything that has landed is in all tables, counted on from `offsets`, and whether that
        is all that has landed. Where the log has a gap, they go on behind it."""
        after, is_all = dict(offsets), True
        for name in instances(raw):
            at = offsets.get(name, 0)
            for segment in sealed_segments(raw, name, at):
                begin = max(at, segment.first)
                end = next((end for first, end in self._ranges.get(name, []) if first <= begin < end), begin)
                if end > begin:
                    at = min(end, segment.last + 1)
                if end <= segment.last:
                    is_all = False
                    break
            if at:
                after[name] = at
            self._ranges[name] = [(first, end) for first, end in self._ranges.get(name, []) if end > at]
        return after, is_all


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((first, end))
    return joined
