"""The power is cut while old segments are merged: no row is gone at any moment, with luck or without."""

import os
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

from contracts.layout import SHARD, sealed_segments
from contracts.segments import read_segment
from tests.durability.cuts import Run
from tests.durability.disk import lay, read
from tests.durability.trace import Traced, need_strace, parse
from tests.end_to_end.city import ROOT
from tests.pipelines.raw_log import land, make_root, messages

PARTS = 5


def test_merging_loses_no_row_whenever_the_power_is_cut(tmp_path: Path) -> None:
    need_strace()
    layout, out = make_root(tmp_path / "data"), tmp_path / "trace"
    landed = messages(3)
    size = len(landed) // (PARTS + 1)
    for part in range(PARTS):
        land(layout, landed[part * size : (part + 1) * size], first=part * size)
    land(layout, landed[PARTS * size :], first=SHARD)
    for path in layout.raw.rglob("*.arrow"):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    before = read(layout.root)
    environment = {**os.environ, "LAMPLIGHT_DATA": str(layout.root), "PYTHONPATH": str(ROOT)}
    assert Traced([[sys.executable, "-m", "ingest", "tidy"]], out, environment, ROOT).wait() == 0
    with out.open() as lines:
        run = Run(layout.root, before, parse(lines, layout.root))
    assert [segment.is_merged for segment in sealed_segments(layout.raw, "a")] == [True, False]
    wanted = Counter((message.topic, message.payload) for message in landed)
    random, replay, shapes = Random(2), run.replay(), set()
    for number, event in enumerate(run.events):
        replay.step(event)
        for luck in (None, random, random):
            tree = replay.disk.kept(luck)
            names = frozenset(Path(path).suffix for path in tree if path.startswith("raw/a/00000000/"))
            if luck is None and names in shapes:
                continue
            shapes.add(names)
            root = lay(tree, tmp_path / f"{number}-{len(shapes)}-{random.random()}")
            found: Counter[tuple[str, bytes]] = Counter()
            for segment in sealed_segments(root / "raw", "a"):
                rows = read_segment(root / "raw", segment)
                found.update(zip(rows["topic"].to_pylist(), rows["payload"].to_pylist(), strict=True))
            assert found == wanted, (number, event, names)
    assert {frozenset({".arrow"}), frozenset({".arrow", ".parquet"}), frozenset({".parquet"})} <= shapes
