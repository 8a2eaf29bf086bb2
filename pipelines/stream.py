"""The live loop as an unbounded Beam job (law 6): workers bring the tables up to date, this process supervises them,
stores the positions of what all tables contain, publishes and keeps house.

The graph is that of `run`, with a trigger. Nothing depends on the runner's watermark, state or checkpoints: a job that
dies begins anew at the stored positions, and what is read again changes nothing.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import IO, Any

from contracts.layout import read_progress
from pipelines import disk, live
from pipelines.config import Config
from pipelines.counts import NEWEST_US
from pipelines.live import Live, StopFlag
from pipelines.log import old_segments, passed
from pipelines.metrics import Metrics
from pipelines.stages import Arrival
from pipelines.supervision import COUNTS, Engine, Job, folder
from pipelines.told import Told

POLL_S = 0.1
TICK_S = 1.0
STUCK_S = 300.0  # a chunk takes seconds


class Stream(Live):
    """A live loop whose ticks hear from the job how far the tables are."""

    is_sole_owner = False  # the job's workers write too

    def __init__(self, engine: Engine, lock: IO[Any], config: Config, metrics: Metrics):
        super().__init__(config, metrics)
        self._told = Told(self.layout)
        self._job = Job(engine, self.layout, lock)
        self._counted: dict[str, int] = {}
        self._moved_at = time.monotonic()

    def tick(self) -> bool:
        """Wait for what is told, store it; True when more has landed than the tables contain."""
        until = time.monotonic() + TICK_S
        self._job.watch()
        self._recover()
        disk.check_room(self.layout.lake)
        is_reading_again = self._read_again()
        while not self._told.take() and time.monotonic() < until:
            time.sleep(POLL_S)
        began, listed_us = time.monotonic(), time.time_ns() // 1000
        offsets, is_all = self._told.passed(self.layout.raw, self.offsets)
        is_further = offsets != self.offsets
        if is_further:
            self.messages += sum(end - self.offsets.get(name, 0) for name, end in offsets.items())
            self._job.went_on()
        if is_further or is_all:
            self._moved_at = began
        elif began > self._moved_at + STUCK_S:
            self._moved_at = began
            self._job.begin_anew(f"nothing has come through for {STUCK_S:g} s")
        self.offsets = offsets
        self.covered_us = listed_us if is_all else self.covered_us
        self._count()
        is_more = not is_all or is_reading_again
        self._finish(began, int(is_further), is_further, is_all, is_more)
        return is_more

    def wait(self, began: float, is_stopped: Callable[[], bool]) -> None:
        """A tick waits by itself."""

    def _read_again(self) -> bool:
        """A part of the last minutes before the start, in this process: any worker may own any block."""
        again = old_segments(self.layout.raw, self._again, self._again_until)
        if again and (met := self._run_graph(Arrival.ANY, again)) is not None:
            self.metrics.met(met)
            self._again = passed(self._again, again)
        return bool(again)

    def _count(self) -> None:
        """Count on with what the job has met; a new job begins at nothing."""
        met: dict[str, int] = read_progress(folder(self.layout) / COUNTS)
        before = {} if any(met.get(name, 0) < amount for name, amount in self._counted.items()) else self._counted
        grown = {name: amount - before.get(name, 0) for name, amount in met.items() if not name.startswith(NEWEST_US)}
        self.metrics.met({**met, **grown})
        self._counted = met

    def close(self) -> None:
        """End the job and let go of the release store."""
        self._job.end()
        super().close()


def run(config: Config, engine: Engine, lock: IO[Any], is_stopped: StopFlag) -> int:
    """Supervise a job, under the lake's lock, until stopped, or until all that has landed is in the tables with
    `--once`; the exit code."""
    return live.run(config, is_stopped, partial(Stream, engine, lock))
