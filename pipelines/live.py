"""The live loop of one machine: every tick runs the Beam graph over the segments that are new (law 6)."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from contracts.health import Health
from contracts.layout import Positions, Segment, make_folder, write_progress
from contracts.logs import say
from contracts.segments import read_segment, recover_abandoned
from contracts.settings import SettingError
from contracts.times import US
from pipelines import counts, disk, durability, graph, lake
from pipelines.chores import Chores
from pipelines.config import HEALTH, Config
from pipelines.finality import ANNOUNCE_S, Finality
from pipelines.log import RECOVER_S, REREAD_S, chunks, new_segments, old_segments, passed, rewound, rows_new, seals
from pipelines.metrics import Metrics
from pipelines.recovery import settle
from pipelines.release.door import Door
from pipelines.stages import Arrival

IDLE_TICK_S = 1.0  # open data is looked after and moments are covered even when nothing lands
LOOK_S = 0.02
LATE_ROWS = 6_000  # messages among which late ones are looked for in one tick


class Live:
    """State of one running loop: positions, what the tick found, when the next chores are due.

    All of it can be found again from the files: after a refusal of the disk the loop begins with a new one.
    """

    # the lake's lock is held by this process, and one thread of it writes
    is_sole_owner = True

    def __init__(self, config: Config, metrics: Metrics):
        make_folder(config.layout.lake)
        disk.check_room(config.layout.lake)
        self.config = config
        self.layout = config.layout
        self.metrics = metrics
        self.positions, taken_back = settle(config.setup, Positions.load(self.layout.positions))
        if taken_back:
            say("pipelines", f"torn table versions were taken back, to be made again: {', '.join(taken_back)}")
        self.offsets = self.positions.offsets
        # tables may hold more than the positions tell, never less; the last minutes are read again all the same, but
        # beside what is new: whoever waits for that need not wait for them (measured after a kill at 300 messages a
        # second: 13 s until live again, when they came first)
        since_s = self.positions.covered_us / US - REREAD_S
        self._again = rewound(self.layout.raw, self.offsets, since_s)
        self._again_until = self.offsets
        self.covered_us = self.positions.covered_us
        self.finality = Finality(config.setup, config.final_grace_s)
        self._announce_at = 0.0
        self.door = Door(config) if config.is_releasing else None
        self.messages = 0
        self.ticks: deque[float] = deque(maxlen=60)
        self._late: list[Segment] = []  # read, but for the readings that came late
        self._is_claimed = False
        self._chores = Chores(config.root, config.rules, metrics.tidied)
        self._recover_at = 0.0
        self._quarantined_before = self._quarantined()
        self._seals: list[tuple[int, ...] | None] = []

    def tick(self) -> bool:
        """Take up what has landed; True when more is waiting."""
        began = time.monotonic()
        self._recover()
        listed_us = time.time_ns() // 1000
        self._seals = seals(self.layout.raw, self.offsets)
        segments, is_all = new_segments(self.layout.raw, self.offsets)
        again = old_segments(self.layout.raw, self._again, self._again_until)
        had_late = bool(self._late)
        if segments or again:
            disk.check_room(self.layout.lake)
            met = self._run_graph(Arrival.PROMPT, again + segments)
            if met is None:
                return True
            self.messages += rows_new(self.offsets, segments)
            self.offsets = passed(self.offsets, segments)
            self._again = passed(self._again, again)
            if met.pop(counts.LEFT, 0):
                self._late += again + segments
                had_late = True
            self.metrics.met(met)
        if self._late:
            if segments:
                self._claim(self.covered_us)
            self._take_late()
        self.covered_us = listed_us if is_all and not self._late else self.covered_us
        is_more = not is_all or bool(again) or bool(self._late)
        is_whole = is_all and not self._late
        self._finish(began, len(segments), bool(segments or again or had_late), is_whole, is_more)
        return is_more

    def _recover(self) -> None:
        """Seal what a killed ingest left open, when due."""
        if time.monotonic() >= self._recover_at:
            recover_abandoned(self.layout.raw)
            self._recover_at = time.monotonic() + RECOVER_S

    def _finish(self, began: float, segments: int, is_further: bool, is_whole: bool, is_more: bool) -> None:
        """Store the positions when the tables went further, announce and release what is due, say how it went.
        `is_whole`: the tables contain all that has landed."""
        if is_further or not self._is_claimed:
            self._claim(self.covered_us)
        # a later message tells that earlier ones need not come any more, but not that the tables contain them
        if is_whole and not (self.config.is_once and is_more) and began >= self._announce_at:
            self._announce(began)
        if self.door is not None:
            self.door.open(self.covered_us)
        self.ticks.append(time.monotonic() - began)
        released = self.door.released_windows if self.door else 0
        self.metrics.ticked(self.ticks[-1], self.covered_us, self.positions.offsets, released)
        self._say(segments)

    def _run_graph(self, arrival: Arrival, segments: list[Segment]) -> dict[str, int] | None:
        """What a run of the graph has met; None when a segment is gone: list them again."""
        try:
            setup = replace(self.config.setup, is_sole_owner=self.is_sole_owner, arrival=arrival)
            return graph.run(setup, chunks(segments))
        except Exception as error:
            if not _is_gone(error) or all(one.path(self.layout.raw).exists() for one in segments):
                raise
            # removed since it was listed, with nothing in its place: the next tick lists again
            say("pipelines", "a segment was removed while it was about to be read", "warning")
            return None

    def _take_late(self) -> None:
        """Take up some of what devices had stored: as much as the newest messages may wait for."""
        rows, taken = 0, 0
        while taken < len(self._late) and rows < LATE_ROWS:
            rows += self._late[taken].last - self._late[taken].first + 1
            taken += 1
        met = self._run_graph(Arrival.LATE, self._late[:taken])
        if met is not None:
            del self._late[:taken]
            # what was decoded was counted when the prompt rows of it were taken
            self.metrics.met({name: amount for name, amount in met.items() if name.startswith(counts.OF_STAGES)})
        else:
            self._late = [one for one in self._late if _is_readable(self.layout.raw, one)]

    @property
    def _settled(self) -> dict[str, int]:
        """Next offsets below which everything is in the tables."""
        found = dict(self.offsets)
        for segment in self._late:
            found[segment.instance] = min(found[segment.instance], segment.first)
        return found

    def has_sealed(self) -> bool:
        """Whether a segment may have been sealed since the tick listed them."""
        found = seals(self.layout.raw, self.offsets)
        return len(found) != len(self._seals) or any(
            mark is not None and mark != before for mark, before in zip(found, self._seals, strict=True)
        )

    def wait(self, began: float, is_stopped: Callable[[], bool]) -> None:
        """Wait, after a tick that began at a moment, until the next one is due."""
        _sleep(began + self.config.tick_s, is_stopped)
        idle_until = max(began + IDLE_TICK_S, time.monotonic())
        while not is_stopped() and time.monotonic() < idle_until and not self.has_sealed():
            _sleep(time.monotonic() + LOOK_S, is_stopped)

    def chores(self) -> None:
        """Housekeeping, when due; it goes on beside the ticks."""
        if self._chores.is_due:
            self._claim(self.positions.covered_us)
            self._chores.begin()

    def close(self) -> None:
        """End the chores and let go of the release store."""
        self._chores.close()
        if self.door is not None:
            self.door.store.db.close()

    def _claim(self, covered_us: int) -> None:
        self.positions = durability.claim(self.config.root, self.positions, self._settled, covered_us)
        self._is_claimed = True
        if self.config.health is not None:
            self.metrics.claimed(self.positions.versions, lambda name: lake.file_sizes(self.config.root, name))

    def _announce(self, now_s: float) -> None:
        """Say what has become final, durably before anybody sees it."""
        while True:
            if self.finality.look(self.covered_us):
                self._claim(self.covered_us)
            if self.finality.is_caught_up:
                self._announce_at = now_s + ANNOUNCE_S
            if self.finality.is_caught_up or not self.config.is_once:
                break
        self.metrics.final(self.finality.final_through)

    def _quarantined(self) -> int:
        return lake.count_rows(self.config.root, "quarantine")

    def _say(self, segments: int) -> None:
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
                "covered_us": self.covered_us,
                "time_us": time.time_ns() // 1000,
            },
        )


def _is_gone(error: BaseException | None) -> bool:
    """Whether a file that was not there made a run of the graph fail; a runner wraps what a stage raised."""
    while error is not None and not isinstance(error, FileNotFoundError):
        error = error.__cause__ or error.__context__
    return error is not None


def _is_readable(raw: Path, segment: Segment) -> bool:
    try:
        read_segment(raw, segment)
    except FileNotFoundError:
        return False
    return True


def run(config: Config, is_stopped: "StopFlag", make: Callable[[Config, Metrics], Live] = Live) -> int:
    """Tick until stopped, or until all is drained with `--once`; the exit code."""
    metrics = Metrics(config.layout.raw)
    health = Health(config.health, metrics.registry, metrics.check, HEALTH) if config.health else None
    try:
        return _run(config, metrics, is_stopped, make)
    finally:
        if health is not None:
            health.close()


def _run(
    config: Config, metrics: Metrics, is_stopped: "StopFlag", make: Callable[[Config, Metrics], Live] = Live
) -> int:
    patience = disk.Patience(config.disk_grace_s)
    live: Live | None = None
    try:
        while not is_stopped():
            began = time.monotonic()
            try:
                live = live or make(config, metrics)
                is_more = live.tick()
                patience.went_on()
                if config.is_once and not is_more:
                    say("pipelines", f"{live.messages} messages cleaned or quarantined", messages=live.messages)
                    break
                live.chores()
            except Exception as error:
                words = disk.refusal(error)
                # at the very start a wrong setting is what a person must change
                if words is None or (isinstance(error, SettingError) and patience.since is None and live is None):
                    raise
                metrics.disk_failures.inc()
                pause_s = patience.refused(words)
                if patience.is_over:
                    say("pipelines", f"the disk has refused for {config.disk_grace_s:g} s: giving up", "error")
                    return 1
                if live is not None:
                    live.close()
                live = None
                _sleep(time.monotonic() + pause_s, is_stopped)
                continue
            if not is_more:
                live.wait(began, is_stopped)
    finally:
        if live is not None:
            live.close()
    return 0


class StopFlag:
    """Becomes true with the first SIGTERM or SIGINT, so that a tick ends before the process does."""

    def __init__(self) -> None:
        self.is_set = False

    def __call__(self) -> bool:
        return self.is_set

    def set(self, *_: object) -> None:
        self.is_set = True


def _sleep(until: float, is_stopped: Callable[[], bool]) -> None:
    while not is_stopped() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
