"""The live loop of one machine: every tick runs the Beam graph over the segments that are new (law 6)."""

import sys
import time
from collections import deque
from statistics import median

from contracts.layout import Positions, write_progress
from contracts.segments import recover_abandoned
from contracts.times import US
from pipelines import graph, housekeeping, lake
from pipelines.config import Config
from pipelines.log import chunks, new_segments, passed, rewound
from pipelines.release.door import Door

REREAD_S = 600
TIDY_S = 300
RECOVER_S = 5


class Live:
    """State of one running loop: positions, what the tick found, when the next chores are due."""

    def __init__(self, config: Config):
        self.config = config
        self.layout = config.layout
        self.positions = Positions.load(self.layout.positions)
        # tables may hold more than the positions tell, never less; the last minutes are read again all the same
        since_s = self.positions.covered_us / US - REREAD_S
        self.offsets = rewound(self.layout.raw, self.positions.offsets, since_s)
        self.door = Door(config) if config.is_releasing else None
        self.messages = 0
        self.ticks: deque[float] = deque(maxlen=60)
        self._tidy_at = time.monotonic() + TIDY_S
        self._recover_at = 0.0
        self._quarantined_before = self._quarantined()

    def tick(self) -> bool:
        """Take up what has landed; True when more is waiting."""
        began = time.monotonic()
        if began >= self._recover_at:
            recover_abandoned(self.layout.raw)
            self._recover_at = began + RECOVER_S
        listed_us = time.time_ns() // 1000
        segments, is_all = new_segments(self.layout.raw, self.offsets)
        covered_us = listed_us if is_all else self.positions.covered_us
        if segments:
            graph.run(self.config.setup, chunks(segments))
            self.offsets = passed(self.offsets, segments)
            self.messages += sum(segment.last - segment.first + 1 for segment in segments)
        if segments or not self.layout.positions.exists():
            self._store(covered_us)
        if self.door is not None:
            self.door.open(covered_us)
        self.ticks.append(time.monotonic() - began)
        self._say(covered_us, len(segments))
        return not is_all

    def chores(self) -> None:
        """Compaction and vacuum, when due."""
        if time.monotonic() >= self._tidy_at:
            housekeeping.tidy(self.config.root, time.time_ns() // 1000)
            # a catalogue must not go on reading versions whose files will be vacuumed
            self._store(self.positions.covered_us)
            self._tidy_at = time.monotonic() + TIDY_S

    def _store(self, covered_us: int) -> None:
        versions = lake.versions(self.config.root)
        self.positions = Positions(offsets=self.offsets, versions=versions, covered_us=covered_us)
        self.positions.store(self.layout.positions)

    def _quarantined(self) -> int:
        return lake.count_rows(self.config.root, "quarantine")

    def _say(self, covered_us: int, segments: int) -> None:
        quarantined = self._quarantined() - self._quarantined_before
        write_progress(
            self.layout.progress("pipelines"),
            {
                "cleaned": max(0, self.messages - quarantined),
                "quarantined": quarantined,
                "released": self.door.released if self.door else 0,
                "noised_windows": self.door.noised_windows if self.door else 0,
                "tick_p50_s": round(median(self.ticks), 3),
                "tick_max_s": round(max(self.ticks), 3),
                "segments": segments,
                "covered_us": covered_us,
                "time_us": time.time_ns() // 1000,
            },
        )


def run(config: Config, is_stopped: "StopFlag") -> int:
    """Tick until stopped, or until all is drained with `--once`; the exit code."""
    live = Live(config)
    while not is_stopped():
        began = time.monotonic()
        is_more = live.tick()
        if config.is_once and not is_more:
            print(f"pipelines: {live.messages} messages cleaned or quarantined", file=sys.stderr)
            break
        live.chores()
        if not is_more:
            _sleep(began + config.tick_s, is_stopped)
    return 0


class StopFlag:
    """Becomes true with the first SIGTERM or SIGINT, so that a tick ends before the process does."""

    def __init__(self) -> None:
        self.is_set = False

    def __call__(self) -> bool:
        return self.is_set

    def set(self, *_: object) -> None:
        self.is_set = True


def _sleep(until: float, is_stopped: StopFlag) -> None:
    while not is_stopped() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
