"""The raw log as the pipelines read it: what is new since the stored positions."""

from pathlib import Path

from contracts.layout import SHARD, Segment, instances, sealed_segments

CHUNK_ROWS = 20_000
TICK_ROWS = 60_000


def new_segments(raw: Path, offsets: dict[str, int], limit_rows: int = TICK_ROWS) -> tuple[list[Segment], bool]:
    """Sealed segments that hold offsets not yet passed, oldest first, and whether that is all of them.

    Instances take turns in proportion, so that one that is far behind cannot hide the others.
    """
    waiting = {name: sealed_segments(raw, name, offsets.get(name, 0)) for name in instances(raw)}
    total = sum(segment.last - segment.first + 1 for found in waiting.values() for segment in found)
    if total <= limit_rows:
        return [segment for found in waiting.values() for segment in found], True
    taken = []
    for found in waiting.values():
        rows = 0
        for segment in found:
            if rows and rows >= limit_rows / len(waiting):
                break
            taken.append(segment)
            rows += segment.last - segment.first + 1
    return taken, False


def chunks(segments: list[Segment]) -> list[tuple[Segment, ...]]:
    """Segments in groups of about CHUNK_ROWS: the elements of the Beam graph."""
    groups: list[tuple[Segment, ...]] = []
    group: list[Segment] = []
    rows = 0
    for segment in segments:
        group.append(segment)
        rows += segment.last - segment.first + 1
        if rows >= CHUNK_ROWS:
            groups.append(tuple(group))
            group, rows = [], 0
    return [*groups, tuple(group)] if group else groups


def passed(offsets: dict[str, int], segments: list[Segment]) -> dict[str, int]:
    """Positions after these segments."""
    after = dict(offsets)
    for segment in segments:
        after[segment.instance] = max(after.get(segment.instance, 0), segment.last + 1)
    return after


def rewound(raw: Path, offsets: dict[str, int], since_s: float) -> dict[str, int]:
    """Positions set back to the first segment that was sealed at or after a moment (seconds since 1970)."""
    before = dict(offsets)
    for name, offset in offsets.items():
        for segment in sealed_segments(raw, name, max(0, offset - SHARD)):
            if segment.first < offset and segment.path(raw).stat().st_mtime >= since_s:
                before[name] = min(before[name], segment.first)
                break
    return before
