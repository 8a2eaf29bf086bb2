"""After a power cut the tables open, at a version that is whole, and reading again brings back what was cut off."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import polars as pl
import pytest
from deltalake import DeltaTable

from contracts.layout import Layout, Positions, fsync_folder
from contracts.schemas import OBSERVATIONS, TABLES
from pipelines import durability, graph, housekeeping, lake
from pipelines.log import chunks, new_segments, passed
from pipelines.recovery import settle, take_back_torn
from tests.pipelines.raw_log import land, make_root, messages
from tests.pipelines.test_lake import assert_same, dirty_log, setup_of, tables


class Disk:
    """What os.fsync has made durable below a root: contents of files and names in folders, by inode. Inodes are held
    open, so that none comes to stand for another file."""

    def __init__(self, root: Path):
        self.root = root
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.held: list[int] = []

    def sync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(self.root):
            return
        self.held.append(os.dup(descriptor))
        inode = os.fstat(descriptor).st_ino
        if path.is_dir():
            self.names[inode] = {}
            for entry in os.scandir(path):
                self.held.append(os.open(entry.path, os.O_PATH))
                self.names[inode][entry.name] = entry.inode()
        else:
            self.contents[inode] = path.read_bytes()

    @contextmanager
    def watched(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        fsync = os.fsync

        def watching(descriptor: int) -> None:
            fsync(descriptor)
            self.sync(descriptor)

        try:
            with patch.context() as inner:
                inner.setattr(os, "fsync", watching)
                yield
        finally:
            for descriptor in self.held:
                os.close(descriptor)

    def begin(self) -> None:
        """What is there now is durable."""
        for folder, _, files in os.walk(self.root):
            fsync_folder(Path(folder))
            for name in files:
                with open(f"{folder}/{name}", "rb") as handle:
                    os.fsync(handle.fileno())

    def cut(self, into: Path, random: Random | None) -> None:
        """Lay out what a power cut leaves: what was fsynced, and of the rest nothing (None) or what chance keeps."""
        self._lay(self.root, self.root.stat().st_ino, into, random)

    def _lay(self, path: Path, inode: int, into: Path, random: Random | None) -> None:
        into.mkdir()
        durable = self.names.get(inode, {})
        alive = {entry.name: entry.inode() for entry in os.scandir(path)} if path.is_dir() else {}
        for name in durable | alive:
            kept, now = durable.get(name), alive.get(name)
            found = kept if kept == now or random is None or random.random() < 0.5 else now
            if found is None:
                continue
            if found in self.names or (found == now and (path / name).is_dir()):
                self._lay(path / name, found, into / name, random)
                continue
            content = self.contents.get(found, b"")
            if random is not None and found == now and (choice := random.random()) < 0.7:
                whole = (path / name).read_bytes()
                cut_off = whole[: random.randrange(min(len(content), len(whole)), len(whole) + 1)]
                content = whole if choice < 0.4 else cut_off
            (into / name).write_bytes(content)


def drain(layout: Layout, patch: pytest.MonkeyPatch | None = None) -> None:
    """What a start of the loop does with what has landed, in small ticks."""
    setup = setup_of(layout)
    positions, _ = settle(setup, Positions.load(layout.positions))
    while True:
        segments, is_all = new_segments(layout.raw, positions.offsets, limit_rows=1)
        graph.run(setup, chunks(segments))
        positions = durability.claim(layout.root, positions, passed(positions.offsets, segments), 1)
        if is_all:
            return


@pytest.mark.parametrize("seed", [None, 1])
def test_a_power_cut_between_any_two_steps_loses_and_doubles_nothing(
    tmp_path: Path, seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    landed = dirty_log(1)[:500]
    layout = make_root(tmp_path / "root")
    for at in range(0, len(landed), 125):
        land(layout, landed[at : at + 125], first=at)
    monkeypatch.setattr(lake, "CHECKPOINT_EVERY", 3)
    random = None if seed is None else Random(seed)
    disk = Disk(layout.root)
    states: list[Path] = []

    def cut() -> None:
        states.append(tmp_path / f"cut{len(states)}")
        disk.cut(states[-1], random)

    steps = 0

    def after(work: Callable[..., object]) -> Callable[..., object]:
        def stepping(*arguments: object, **named: object) -> object:
            nonlocal steps
            done = work(*arguments, **named)
            steps += 1
            if steps % 10 == (seed or 0):
                cut()
            return done

        return stepping

    with disk.watched(monkeypatch):
        disk.begin()
        with monkeypatch.context() as patch:
            patch.setattr(lake, "put", after(lake.put))
            patch.setattr(durability, "make_durable", after(durability.make_durable))
            drain(layout)
        cut()
    want = tables(layout.root)
    assert len(states) >= 4
    for state in states:
        after_cut = Layout(state)
        shutil.copytree(layout.raw, after_cut.raw, dirs_exist_ok=True)
        for name, version in Positions.load(after_cut.positions).versions.items():
            assert DeltaTable(str(after_cut.table(name)), version=version).version() == version
        drain(after_cut)
        assert_same(tables(state), want)


def entry(layout: Layout, version: int) -> Path:
    return layout.table("observations") / "_delta_log" / f"{version:020}.json"


@pytest.fixture
def three(tmp_path: Path) -> tuple[Layout, list[pl.DataFrame]]:
    """Observations in three versions after the first, empty one; rows of each version."""
    layout, landed, found = make_root(tmp_path), messages(3, minutes=12), []
    for at in range(0, 240, 80):
        graph.run(setup_of(layout), [(land(layout, landed[at : at + 80], first=at),)])
        found.append(observations(layout))
    lake.versions(tmp_path)
    return layout, found


def observations(layout: Layout) -> pl.DataFrame:
    rows = pl.scan_delta(DeltaTable(str(layout.table("observations")))).collect()
    return rows.sort(OBSERVATIONS.identity)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_at_a_line(path: Path) -> None:
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[:-1]))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("harm", [cut_in_half, cut_at_a_line, empty, zeros, Path.unlink])
def test_a_torn_entry_and_those_above_it_are_taken_back(
    three: tuple[Layout, list[pl.DataFrame]], harm: Callable[[Path], None]
) -> None:
    layout, found = three
    harm(entry(layout, 2))
    assert take_back_torn(layout.root, {"observations": 1})[-1] == "observations 3"
    assert observations(layout).equals(found[0])
    assert lake.open_table(layout.root, "observations").version() == 1


@pytest.mark.parametrize("harm", [cut_in_half, empty, zeros, Path.unlink])
def test_an_entry_whose_file_is_torn_is_taken_back(
    three: tuple[Layout, list[pl.DataFrame]], harm: Callable[[Path], None]
) -> None:
    layout, found = three
    added = [json.loads(line) for line in entry(layout, 3).read_bytes().splitlines() if b'"add"' in line[:9]]
    harm(layout.table("observations") / added[0]["add"]["path"])
    assert take_back_torn(layout.root, {"observations": 1}) == ["observations 3"]
    assert observations(layout).equals(found[1])


def test_what_is_whole_stays(three: tuple[Layout, list[pl.DataFrame]]) -> None:
    """So does a version whose files a later one replaced and a vacuum took, and a lake without positions."""
    layout, found = three
    added = [json.loads(line) for line in entry(layout, 2).read_bytes().splitlines() if b'"add"' in line[:9]]
    (layout.table("observations") / added[0]["add"]["path"]).unlink()
    assert take_back_torn(layout.root, {}) == []
    assert observations(layout).equals(found[2])


def test_a_torn_checkpoint_is_forgotten(three: tuple[Layout, list[pl.DataFrame]]) -> None:
    layout, found = three
    lake.open_table(layout.root, "observations").create_checkpoint()
    log = layout.table("observations") / "_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    cut_in_half(checkpoint)
    assert take_back_torn(layout.root, {"observations": 2}) == []
    assert sorted(path.suffix for path in log.iterdir()) == [".json"] * 4
    assert observations(layout).equals(found[2])


def test_a_checkpoint_whose_pointer_is_gone_hinders_no_claim(three: tuple[Layout, list[pl.DataFrame]]) -> None:
    layout, found = three
    lake.open_table(layout.root, "observations").create_checkpoint()
    (layout.table("observations") / "_delta_log" / durability.LAST_CHECKPOINT).unlink()
    lake.forget()
    claimed = durability.claim(layout.root, Positions(offsets={}, versions={}, covered_us=0), {}, 0)
    assert claimed.versions["observations"] == 3
    assert observations(layout).equals(found[2])


def test_a_vacuum_finds_what_checkpoints_have_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint does not name files whose grace is over when it is made, and nothing names a killed writer's."""
    monkeypatch.setattr(lake, "QUERY_GRACE_S", 1)
    layout, landed = make_root(tmp_path), messages(3, minutes=24)
    positions = Positions(offsets={}, versions={}, covered_us=0)
    for at in range(0, 400, 40):
        graph.run(setup_of(layout), [(land(layout, landed[at : at + 40], first=at),)])
    folder = layout.table("minutes")
    live = {Path(uri).name for uri in DeltaTable(str(folder)).file_uris()}
    shutil.copy(folder / min(live), folder / "part-00000-killed-c000.snappy.parquet")
    time.sleep(1.5)
    lake.open_table(tmp_path, "minutes").create_checkpoint()
    positions = durability.claim(tmp_path, positions, {"a": 400}, 0)
    assert {path.name for path in folder.glob("*.parquet")} > live
    # what is not claimed, and what is young, stays
    graph.run(setup_of(layout), [(land(layout, landed[400:], first=400),)])
    now = tables(tmp_path)
    housekeeping.vacuum(tmp_path, 1)
    assert_same(tables(tmp_path), now)
    newer = {Path(uri).name for uri in DeltaTable(str(folder)).file_uris()}
    assert {path.name for path in folder.glob("*.parquet")} == newer | live


def test_checkpoints_and_old_entries_have_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim writes the checkpoint; entries go by housekeeping only, after it."""
    monkeypatch.setattr(lake, "CHECKPOINT_EVERY", 4)
    layout, landed = make_root(tmp_path), messages(3, minutes=24)
    positions = Positions(offsets={}, versions={}, covered_us=0)
    log = layout.table("observations") / "_delta_log"
    for at in range(0, 400, 40):
        graph.run(setup_of(layout), [(land(layout, landed[at : at + 40], first=at),)])
        positions = durability.claim(tmp_path, positions, {"a": at + 40}, 0)
    assert len(list(log.glob("*.checkpoint.parquet"))) == 2
    assert len(list(log.glob("0*.json"))) == positions.versions["observations"] + 1
    before = tables(tmp_path)
    housekeeping.vacuum(tmp_path)
    lake.forget()
    assert_same(tables(tmp_path), before)
    assert set(positions.versions) == set(TABLES)
