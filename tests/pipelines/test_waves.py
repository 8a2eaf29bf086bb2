"""A wave's rows and dirty blocks cross a cluster by table and shard: none is left out, none comes twice."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from contracts.schemas import TABLES
from pipelines import stages, waves
from pipelines.blocks import blocks_of
from pipelines.packing import unpack
from pipelines.waves import Wave
from tests.pipelines.raw_log import land, make_root
from tests.pipelines.test_lake import dirty_log, setup_of

WAVE = Wave(number=1, chunks=1, offsets={}, covered_us=0, messages=0)


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_a_chunk_is_split_by_table_and_shard(tmp_path: Path, shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "SHARD_MINUTES", 7)  # the log is half an hour long
    layout = make_root(tmp_path)
    batches = stages.decode(setup_of(layout), [land(layout, dirty_log(1))])
    parts = list(waves.split(WAVE, batches, shards))
    # whoever unites counts to one element of each chunk
    assert sorted((part.table, part.shard) for part in parts) == [
        (name, shard) for name in sorted(waves.LANDED) for shard in range(shards)
    ]
    assert set(batches) == set(waves.LANDED)
    for name, batch in batches.items():
        found = []
        for part in parts:
            if part.table == name and part.content is not None:
                rows: pl.DataFrame = pl.DataFrame(unpack(part.content))
                blocks = blocks_of(rows, TABLES[name])
                assert {waves.shard_of(name, block, shards) for block in blocks} == {part.shard}
                found.append(rows)
        whole: pl.DataFrame = pl.DataFrame(pa.Table.from_batches([batch]))
        order = whole.columns
        assert_frame_equal(pl.concat(found).sort(order), whole.sort(order))


def test_dirty_blocks_reach_the_shard_that_makes_their_minutes() -> None:
    blocks = set(range(29_000_000, 29_000_000 + 3 * waves.LONG_SHARD_MINUTES))
    for name in waves.LANDED:
        parts = list(waves.dirty(WAVE, name, blocks, 3))
        assert [part.shard for part in parts] == [0, 1, 2]
        assert sorted(block for part in parts for block in part.blocks) == sorted(blocks)
    assert waves.SOURCES == {
        "minutes": 2,
        "flow_minutes": 1,
        "dumping_events": 1,
        "device_status": 1,
        "quarantine": 1,
    }


def test_tables_of_one_hour_lie_side_by_side() -> None:
    """All that is live lies in one hour: two workers both have something of it."""
    heavy = [waves.Dirty(wave=WAVE, table=name, shard=1, blocks=frozenset()) for name in ("minutes", "flow_minutes")]
    assert len({waves.worker_of(part) % 2 for part in heavy}) == 2
    landed = [waves.Rows(wave=WAVE, table=name, shard=1, content=None) for name in ("observations", "lane_flows")]
    assert len({waves.worker_of(part) % 2 for part in landed}) == 2


def test_a_checkpoint_is_never_believed_beyond_the_claim() -> None:
    claimed = {"a": 40, "b": 7}
    assert waves.begin(claimed, {}) == claimed
    assert waves.begin(claimed, {"a": 90, "b": 9, "c": 5}) == claimed  # c: nothing of it is claimed, so from its start
    assert waves.begin(claimed, {"a": 10}) == {"a": 10, "b": 7}  # an old one only reads more again
