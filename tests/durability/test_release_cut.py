"""The power is cut while windows are drawn and archived: whatever the public has seen stays as it was (law 7)."""

import io
import os
import sys
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from random import Random

import msgspec
import polars as pl
import pytest

from contracts.feeds import ARCHIVE, MANIFEST, latest_path
from contracts.layout import Layout
from contracts.times import to_us
from pipelines.release import traffic
from pipelines.release.archive import Day
from pipelines.release.door import Door
from pipelines.release.store import Store
from tests.durability.cuts import Run
from tests.durability.disk import Tree, lay, read
from tests.durability.events import Received, Sent
from tests.durability.trace import Traced, need_strace, parse
from tests.end_to_end.city import ROOT
from tests.pipelines.raw_log import START, make_root, messages
from tests.pipelines.test_release import caught_up, config, fill

MINUTES = 33
CITY = Path("data")
_NAME = str(latest_path(traffic.PRODUCT.name, "parquet"))
_DRAWS = f"open/{ARCHIVE}/product={traffic.PRODUCT.name}/"
# the door as the live loop opens it, once a minute of the city
SCRIPT = f"""
import sys
from datetime import timedelta
from pathlib import Path
from contracts.times import to_us
from pipelines.release.door import Door
from tests.pipelines.raw_log import START
from tests.pipelines.test_release import config
door = Door(config(Path(sys.argv[1])))
for minute in range(13, {MINUTES}):
    door.open(to_us(START + timedelta(minutes=minute, seconds=1)))
"""


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two noised windows drawn and half an hour of exact ones archived, over a durable lake."""
    need_strace()
    folder = tmp_path_factory.mktemp("releases")
    layout, out = make_root(folder / "data"), folder / "trace"
    fill(layout, caught_up(messages(21, minutes=MINUTES)))
    before = read(layout.root)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert Traced([[sys.executable, "-c", SCRIPT, str(layout.root)]], out, environment, ROOT).wait() == 0
    with out.open() as lines:
        return Run(layout.root, before, parse(lines, layout.root))


Figures = dict[int, dict[tuple[str, str], int | None]]
"""Window start (microseconds) -> (post, direction) -> count, null as published."""


def figures(tree: Tree) -> Figures:
    """What is public of traffic."""
    found: Figures = {}
    for path, data in tree.items():
        is_archived = path.startswith(_DRAWS) and path.endswith(".parquet")
        if data and (is_archived or path == f"open/{_NAME}"):
            for start, post, direction, count in _rows(data):
                found.setdefault(to_us(start), {})[post, direction] = count
    return found


@lru_cache
def _rows(data: bytes) -> list[tuple[datetime, str, str, int | None]]:
    columns = ("window_start", "post_id", "direction", "vehicle_count")
    return pl.read_parquet(io.BytesIO(data)).select(columns).rows()


def stored(root: Path) -> Figures:
    """The same figures as the release store tells them."""
    store = Store(Layout(root).releases)
    found: Figures = {}
    for start in store.windows(traffic.PRODUCT.name):
        release = store.read(traffic.PRODUCT.name, start)
        found[start] = {
            (cell.post_id, cell.direction): None if cell.noised < release.threshold else cell.noised
            for cell in release.cells
        }
    store.db.close()
    return found


def named(tree: Tree) -> set[str]:
    """Archive files that manifests of a tree name."""
    return {
        f"open/{ARCHIVE}/{entry.path}"
        for path, data in tree.items()
        if data and path.endswith(f"date={START:%Y-%m-%d}/{MANIFEST}")
        for entry in msgspec.json.decode(data, type=Day).files
    }


def test_what_was_public_is_in_the_store_and_the_archive_after_any_cut(releases: Run, tmp_path: Path) -> None:
    replay = releases.replay()
    seen: set[tuple[int, int]] = set()
    store: Tree = {}
    after: Figures = {}
    for number, event in enumerate(releases.events):
        replay.step(event)
        if isinstance(event, Sent | Received):
            continue
        live, kept = replay.disk.live(), replay.disk.kept()
        public = figures(live)
        before, store = store, {path: data for path, data in kept.items() if path.startswith("release/")}
        if store != before:
            after = stored(lay(store, tmp_path / str(number)))
        assert {start: after.get(start) for start in public} == public, f"after {number} events: {event!r:.200}"
        assert {path for path in named(live) if kept.get(path) != live[path]} == set(), f"{number}: {event!r:.200}"
        assert named(kept) <= kept.keys()
        seen.add((len(public), len(named(live))))
    assert {windows for windows, _ in seen} == {0, 1, 2}
    assert max(files for _, files in seen) >= 12


def test_the_door_opens_again_after_a_cut_and_draws_nothing_twice(releases: Run, tmp_path: Path) -> None:
    random = Random(11)
    chosen = set(random.sample(range(len(releases.events)), 6))
    replay = releases.replay()
    for number, event in enumerate(releases.events):
        replay.step(event)
        if number not in chosen:
            continue
        public = figures(replay.disk.live())
        root = lay(replay.disk.kept(random if number % 2 else None), tmp_path / str(number))
        Door(config(root)).open(to_us(START + timedelta(minutes=MINUTES)))
        again = figures(read(root))
        assert {start: again.get(start) for start in public} == public
        assert again == stored(root)
        assert len(again) == 2
