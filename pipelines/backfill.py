"""`backfill`: a bounded span of the raw log, brought into the lake by as many processes as there are cores.

The log is taken in stripes from the oldest on. In a stripe each process has a lane, a contiguous span of the log, and
goes through it in shares: memory is that of a share, and two processes meet in the blocks of few borders. After each
stripe, when all of them rest, tables are compacted and positions claim what is there, so that work which stopped is
taken up where the last stripe ended.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import IO, Any, TypeVar

from contracts.layout import Positions, Segment, instances, sealed_segments
from contracts.logs import say
from contracts.segments import recover_abandoned
from contracts.times import from_us, isoformat, to_us
from pipelines import counts, disk, durability, housekeeping, lake, tidy
from pipelines.bar import Bar
from pipelines.log import in_order, received_between, rows_of
from pipelines.pins import LinkError
from pipelines.processes import Processes, Share, WorkerError
from pipelines.recovery import settle
from pipelines.stages import Setup

T = TypeVar("T")
SHARE_ROWS = 200_000
LANE_SHARES = 6


class Backfill:
    """What is to be read, and what has been. The caller holds the lake's lock.

    `since`, `until`: only segments that hold messages received in [since, until), each as a whole; None: from where
    the positions stop, to the end of the log.
    """

    def __init__(self, setup: Setup, since: datetime | None, until: datetime | None):
        self.setup = setup
        self.root, raw = setup.root, setup.layout.raw
        recover_abandoned(raw)
        self.positions, taken_back = settle(setup, Positions.load(setup.layout.positions))
        if taken_back:
            say("pipelines", f"torn table versions were taken back, to be made again: {', '.join(taken_back)}")
        self._until_us = time.time_ns() // 1000
        if until is not None:
            self._until_us = min(self._until_us, to_us(until))
        found: list[list[Segment]] = []
        self._ends: dict[str, int] = {}
        self._waiting: dict[str, deque[Segment]] = {}
        for name in instances(raw):
            offset = self.positions.offsets.get(name, 0)
            listed = sealed_segments(raw, name, offset if since is None else 0)
            first, end = received_between(raw, listed, since, until)
            found.append(listed[first:end])
            self._ends[name] = listed[end - 1].last + 1 if end else offset
            self._waiting[name] = deque(one for one in listed if one.last >= offset)
        self.segments = in_order(raw, found)
        self.rows = rows_of(self.segments)
        self._done: set[Segment] = set()
        self.met: Counter[str] = Counter()

    def stripes(self, processes: int) -> list[list[list[Share]]]:
        """Stripes of lanes of shares."""
        stripes = _in_groups(shares_of(self.segments, processes), processes * LANE_SHARES)
        return [_in_groups(stripe, -(-len(stripe) // processes)) for stripe in stripes]

    def did(self, share: Share, met: Mapping[str, int]) -> None:
        """A share is in the tables."""
        self._done.update(share)
        self.met.update({name: amount for name, amount in met.items() if not name.startswith(counts.NEWEST_US)})

    def claim(self) -> None:
        """Say durably what the tables contain. Nobody works on them meanwhile."""
        offsets = dict(self.positions.offsets)
        for name, waiting in self._waiting.items():
            while waiting and waiting[0] in self._done:
                offsets[name] = waiting.popleft().last + 1
        is_covered = all(offsets.get(name, 0) >= end for name, end in self._ends.items())
        covered_us = max(self.positions.covered_us, self._until_us if is_covered else 0)
        self.positions = durability.claim(self.root, self.positions, offsets, covered_us)

    @property
    def is_all(self) -> bool:
        """Whether the lake contains the whole log up to the end of the span."""
        return self.positions.covered_us >= self._until_us


def shares_of(segments: Sequence[Segment], processes: int) -> list[Share]:
    """Segments in shares of at most about SHARE_ROWS, even ones and as many for each process, so that none is left
    with a last one alone."""
    rows = rows_of(segments)
    count = -(-rows // (SHARE_ROWS * processes)) * processes
    shares: list[list[Segment]] = [[] for _ in range(count)]
    begun = 0
    for segment in segments:
        shares[begun * count // rows].append(segment)
        begun += rows_of([segment])
    return [tuple(share) for share in shares if share]


def _in_groups(items: list[T], size: int) -> list[list[T]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def backfill(
    setup: Setup,
    rules: tidy.Rules,
    since: datetime | None,
    until: datetime | None,
    processes: int,
    lock: IO[Any],
    is_stopped: Callable[[], bool],
) -> int:
    """Bring the lake up to date with a span of the raw log; the exit code."""
    began = time.monotonic()
    work = Backfill(setup, since, until)
    lake.versions(setup.root)  # made here, before several would make them
    stripes = work.stripes(processes)
    if not stripes:
        say("pipelines", "backfill: nothing was received in that span that the raw log still holds")
        return 0
    try:
        with Bar(work.rows, len(work.segments)) as bar, Processes(len(stripes[0]), work.setup, lock) as workers:
            for stripe in stripes:
                disk.check_room(setup.layout.lake)
                for done in workers.run(stripe, is_stopped):
                    if done is not None:
                        work.did(*done)
                        bar.advance(rows_of(done[0]), len(done[0]))
                    bar.look()
                # the stripe that comes next goes on in the last day
                housekeeping.compact_all(setup.root, time.time_ns() // 1000, housekeeping.SPANS_S[:-1])
                work.claim()
                housekeeping.vacuum(setup.root, rules.grace_s)
                if is_stopped():
                    break
        _tidy(work, rules, is_stopped)
    except Exception as error:
        words = str(error) if isinstance(error, WorkerError) else disk.refusal(error)
        if words is None:
            raise
        say("pipelines", f"backfill: {words}: the same command heals the lake and does the rest", "error")
        return 1
    _tell(work, time.monotonic() - began, is_stopped())
    return 1 if is_stopped() else 0


def _tidy(work: Backfill, rules: tidy.Rules, is_stopped: Callable[[], bool]) -> None:
    """Bring whole days together, and let go of what is older than its retention."""
    try:
        for piece in tidy.carry_out(work.root, tidy.plan(work.root, rules, time.time_ns() // 1000)):
            if piece.kind == "remove":
                say("pipelines", f"backfill: {piece.line}")
            if is_stopped():
                break
    except LinkError as error:
        say("pipelines", str(error), "warning")
    work.claim()


def _tell(work: Backfill, spent_s: float, is_stopped: bool) -> None:
    met = work.met
    read = met[counts.MESSAGES]

    def of(kind: str) -> int:
        return sum(amount for name, amount in met.items() if name.startswith(kind))

    if is_stopped:
        left = "stopped: the same command does the rest"
    elif work.is_all:
        left = f"the lake contains the raw log until {isoformat(from_us(work.positions.covered_us))}"
    else:
        left = "older messages are not in the lake yet: `run` reads on from its own place"
    say(
        "pipelines",
        f"backfill: {read:,} messages in {spent_s:.0f} s ({read / spent_s:,.0f}/s): {of(counts.READINGS):,} readings, "
        f"{of(counts.QUARANTINED):,} refused; {of(counts.REPLACED_BLOCKS):,} blocks replaced, "
        f"{of(counts.CONFLICTS):,} conflicts; {left}",
        messages=read,
        seconds=round(spent_s, 1),
        readings=of(counts.READINGS),
        quarantined=of(counts.QUARANTINED),
        replaced_blocks=of(counts.REPLACED_BLOCKS),
        conflicts=of(counts.CONFLICTS),
    )
