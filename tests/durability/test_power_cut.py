"""The power is cut: what was acknowledged, receipted, stored or public is there when the stages start again."""

from dataclasses import replace
from pathlib import Path
from random import Random

from contracts.layout import Layout
from contracts.schemas import TABLES
from tests.durability.cuts import Run, cut, moments
from tests.durability.disk import read
from tests.durability.events import Opened, Removed, Renamed, SyncBegan, SyncEnded
from tests.durability.verdict import Judge, judge

FOLDERS = ("raw/", "lake/", "receipts/", "release/", "open/")


def test_the_replayed_disk_is_the_real_one(busy: Run) -> None:
    """Byte for byte: the model has missed no call. (Folders that the devices, untraced, write in are left out.)"""
    replay = busy.replay()
    for event in busy.events:
        replay.step(event)
    real, replayed = (
        {path: data for path, data in tree.items() if path.startswith(FOLDERS)}
        for tree in (read(busy.root), replay.disk.live())
    )
    assert {path for path in real.keys() | replayed.keys() if real.get(path, b"?") != replayed.get(path, b"?")} == set()
    assert len(real) > 100


def test_the_run_has_what_a_power_cut_can_hurt(busy: Run) -> None:
    positions = Layout(busy.root).positions
    stored = [event for event in busy.events if isinstance(event, Renamed) and event.new == positions]
    removed = {event.path.suffix for event in busy.events if isinstance(event, Removed) and _is_of_a_table(busy, event)}
    assert len(stored) > 2
    assert ".json" in removed
    assert any(isinstance(event, Opened | Renamed) and "checkpoint" in str(event) for event in busy.events)


def test_nothing_promised_is_gone_and_every_table_is_what_the_raw_log_makes(busy: Run, tmp_path: Path) -> None:
    for each in cut(busy, moments(busy, 3, Random(7)), tmp_path / "cuts"):
        verdict = judge(each, tmp_path / "quiet")
        assert verdict.is_clean, (each.at, each.is_lucky, verdict)
    # positions had been stored, and more than once, so that there was something to hold them to
    assert each.stored is not None


def test_positions_that_outlive_their_tables_are_found_out(busy: Run, tmp_path: Path) -> None:
    """As it would be if nobody fsynced what delta-rs wrote: the positions are durable, the tables are not."""
    tables = {event.call for event in busy.events if isinstance(event, SyncBegan) and _is_of_a_table(busy, event)}
    asleep = replace(
        busy, events=[event for event in busy.events if not (isinstance(event, SyncEnded) and event.call in tables)]
    )
    (last,) = cut(asleep, [(len(asleep.events), None)], tmp_path / "cuts")
    found = Judge(last)
    found.positions()
    assert any("positions name version" in fault for fault in found.faults)


def _is_of_a_table(run: Run, event: SyncBegan | Removed) -> bool:
    path = event.path
    return path is not None and any(path.is_relative_to(Layout(run.root).table(name)) for name in TABLES)
