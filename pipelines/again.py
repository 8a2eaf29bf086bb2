"""The verbs `replay-quarantine` and `rebuild`: what to judge again, and what to say of it. The lake's lock is held."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import polars as pl
from rich.console import Console
from rich.progress import Progress

from contracts.layout import Layout, Positions
from contracts.logs import say
from contracts.schemas import QUARANTINE
from pipelines.judgement import Judgement
from pipelines.recovery import settle
from pipelines.revision import (
    Revision,
    quarantine_chunks,
    quarantined,
    raw_chunks,
    raw_segments,
)
from pipelines.stages import Setup


def replay_quarantine(setup: Setup, reasons: Sequence[str], since: datetime | None, is_dry: bool) -> int:
    """Judge quarantined messages of some reasons (none: all) again; the exit code."""
    revision = _begin(setup, is_dry)
    rows = quarantined(setup, reasons, since)
    passed, stay = 0, Counter[str]()
    lines: list[pl.DataFrame] = []
    for chunk in _shown("replay-quarantine", quarantine_chunks(rows), rows.height):
        judgement = revision.judge(chunk)
        told = _fates(chunk, judgement)
        lines.append(told)
        messages = told.group_by("topic", "digest").agg(is_left=pl.col("now").is_null().all(), now=pl.col("now").max())
        passed += int(messages["is_left"].sum())
        stay.update(messages.filter(~pl.col("is_left"))["now"].to_list())
        if not is_dry:
            revision.apply(judgement)
    if is_dry:
        _print_fates(lines)
    word = "would become" if is_dry else "became"
    kept = f" ({_counts(stay)})" if stay else ""
    say(
        "pipelines",
        f"replay-quarantine: {passed + stay.total()} messages ({rows.height} rows): {passed} {word} readings, "
        f"{stay.total()} stay in quarantine{kept}",
        messages=passed + stay.total(),
        passed=passed,
    )
    return 0


def rebuild(setup: Setup, since: datetime | None, is_dry: bool) -> int:
    """Judge the raw log, or what was received since a moment, again; the exit code."""
    revision = _begin(setup, is_dry)
    raw = Layout(setup.root).raw
    segments = raw_segments(raw, since)
    total, messages = sum(segment.last - segment.first + 1 for segment in segments), 0
    for chunk in _shown("rebuild", raw_chunks(raw, segments, since), total):
        judgement = revision.judge(chunk)
        messages += chunk.height
        if not is_dry:
            revision.apply(judgement)
    counts = revision.tally.counts
    if is_dry:
        for (table, kind, reason), rows in sorted(counts.items()):
            print(f"{table:16} {kind:8} {rows:>10,} {reason}")
    by_kind = Counter[str]()
    for (_, kind, _), rows in counts.items():
        by_kind[kind] += rows
    word = "would be " if is_dry else ""
    changed = ", ".join(f"{by_kind[kind]} {word}{kind}" for kind in ("added", "removed", "changed"))
    say("pipelines", f"rebuild: {messages} messages judged; rows: {changed}", messages=messages)
    return 0


def _begin(setup: Setup, is_dry: bool) -> Revision:
    if not is_dry:
        settle(setup, Positions.load(Layout(setup.root).positions))
    return Revision(setup)


def _shown(verb: str, chunks: Iterable[pl.DataFrame], total: int) -> Iterator[pl.DataFrame]:
    """The chunks, with a bar on a terminal."""
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task(verb, total=total)
        for chunk in chunks:
            yield chunk
            progress.advance(task, chunk.height)


def _fates(chunk: pl.DataFrame, judgement: Judgement) -> pl.DataFrame:
    """topic, digest, reason until now and reason `now` of each quarantined row; null when it passes."""
    key = list(QUARANTINE.key)
    now = judgement.new[QUARANTINE.name].select(*key, now=pl.col("reason"))
    return chunk.select(*key, "reason").join(now, on=key, how="left").select("topic", "digest", "reason", "now")


def _print_fates(lines: Sequence[pl.DataFrame]) -> None:
    if not lines:
        return
    for (reason,), rows in pl.concat(lines).sort("reason").group_by("reason", maintain_order=True):
        messages = rows.unique(["topic", "digest"])
        would = messages["now"].null_count()
        stay = Counter(messages["now"].drop_nulls().to_list())
        kept = f"; the rest: {_counts(stay)}" if stay else ""
        print(f"{reason:20} {rows.height:>9,} rows {messages.height:>9,} messages {would:>9,} would pass{kept}")


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(found.items()))
