"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from contracts.logs import is_json, say

LINE_S = 30.0


class Bar:
    """Rows and segments of `backfill`, and the time left, on standard error."""

    def __init__(self, rows: int, segments: int):
        self._total, self._rows, self._of, self._segments = rows, 0, segments, 0
        self._began = self._said = time.monotonic()
        self._progress: Progress | None = None
        if sys.stderr.isatty() and not is_json():
            self._progress = Progress(
                TextColumn("backfill"),
                BarColumn(),
                TextColumn("{task.completed:,.0f} of {task.total:,.0f} messages"),
                TextColumn("{task.fields[segments]:,} of " + f"{segments:,} segments"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                speed_estimate_period=600,
            )
            self._task = self._progress.add_task("", total=rows, segments=0)

    def __enter__(self) -> "Bar":
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, rows: int, segments: int) -> None:
        """So many more are done."""
        self._rows += rows
        self._segments += segments
        if self._progress is not None:
            self._progress.update(self._task, completed=self._rows, segments=self._segments)

    def look(self) -> None:
        """Say a line when one is due."""
        now = time.monotonic()
        if self._progress is None and self._rows and now - self._said >= LINE_S:
            self._said = now
            left_s = round((now - self._began) * (self._total - self._rows) / self._rows)
            say(
                "pipelines",
                f"backfill: {self._rows:,} of {self._total:,} messages, {self._segments:,} of {self._of:,} segments, "
                f"about {left_s // 60} min {left_s % 60} s left",
                messages=self._rows,
                segments=self._segments,
                left_s=left_s,
            )
