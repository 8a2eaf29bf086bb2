"""A round of housekeeping: pins, vacuum, retention, compaction, planned as a whole and done piece by piece. The verb
`tidy` does one, or says what it would do; the live loop does one each minute beside its ticks."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contracts.layout import Layout, Positions, try_lock
from contracts.logs import say
from contracts.retention import defaults
from contracts.settings import SettingError
from pipelines import disk, durability, housekeeping, lake, pins, retention
from pipelines.commit import Conflict
from pipelines.piece import Piece
from pipelines.pins import Keep


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What housekeeping keeps: days by rule of contracts.retention, pins, and replaced files for `grace_s` seconds."""

    days: retention.Days = field(default_factory=defaults)
    pins: Keep = field(default_factory=Keep)
    grace_s: int = lake.QUERY_GRACE_S


def plan(root: Path, rules: Rules, now_us: int) -> list[Piece]:
    """What is to be done at a moment, of the tables that there are. Looks and changes nothing."""
    removals = list(retention.plan(root, rules.days, now_us))
    touched = {(piece.table, name) for piece in removals for name in piece.names}
    joins = [
        piece
        for piece in housekeeping.plan(root, now_us)
        if touched.isdisjoint((piece.table, name) for name in piece.names)
    ]
    vacuums = list(housekeeping.vacuum_plan(root, rules.grace_s))
    # a pin is of the state that was claimed when it was planned; where the grace is shorter than a round, the vacuum
    # may take that state's files
    return [*pins.plan(root, rules.pins, now_us), *vacuums, *removals, *joins]


def carry_out(root: Path, pieces: list[Piece]) -> Iterator[Piece]:
    """Do the pieces; each that was done. One whose files another worker changes meanwhile is left to the next round.
    Raises LinkError after all others are done, DiskError when there is no room."""
    refusal: pins.LinkError | None = None
    for piece in pieces:
        disk.check_room(Layout(root).lake)
        try:
            piece.work()
        except Conflict:
            continue
        except pins.LinkError as error:
            refusal = error
            continue
        yield piece
    if refusal is not None:
        raise refusal


def run(root: Path, rules: Rules, is_dry: bool) -> int:
    """The verb; what is done is told on standard output, a line a piece. Raises SettingError; the exit code."""
    layout, began = Layout(root), time.monotonic()
    if not lake.exists(root, "observations"):
        raise SettingError(f"there is no lake in {layout.lake}: change LAMPLIGHT_DATA")
    now_us = time.time_ns() // 1000
    if is_dry:
        pieces = [piece for piece in plan(root, rules, now_us) if piece.files]
        for piece in pieces:
            print(f"would {piece.line}")
        say("pipelines", f"tidy: {len(pieces)} pieces of work; nothing was changed")
        return 0
    lock = try_lock(layout.lake / "lock")
    if lock is None:
        raise SettingError(
            f"another process (`pipelines run`, which tidies by itself?) works on {layout.lake}: stop it"
        )
    with lock:
        _claim(root)
        done = 0
        try:
            for piece in filter(lambda one: one.files, carry_out(root, plan(root, rules, now_us))):
                done += 1
                print(f"did {piece.line}", flush=True)
        except pins.LinkError as error:
            say("pipelines", str(error), "warning")
        except OSError as error:
            say("pipelines", f"tidy: {disk.refusal(error) or error}: the same command does the rest", "error")
            return 1
        finally:
            _claim(root)
    say("pipelines", f"tidy: {done} pieces of work in {time.monotonic() - began:.1f} s")
    return 0


def _claim(root: Path) -> None:
    before = Positions.load(Layout(root).positions)
    durability.claim(root, before, before.offsets, before.covered_us)
