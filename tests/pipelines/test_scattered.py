"""Old readings here and there: as many blocks as messages, in one commit."""

from datetime import timedelta
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from contracts import payloads
from contracts.schemas import OBSERVATIONS
from pipelines import stages
from pipelines.blocks import any_of
from pipelines.stages import Setup
from tests.pipelines.raw_log import BOOT, START, Landed, land, make_root

COUNT = 4_000


def test_a_message_in_every_other_minute_of_five_days_is_united(tmp_path: Path) -> None:
    layout = make_root(tmp_path)
    landed = []
    for seq in range(COUNT):
        message = payloads.Weather(
            schema_version=1,
            boot_id=BOOT,
            seq=seq,
            first_seq=0,
            time=START - timedelta(minutes=2 * seq),
            temperature_c=20.0,
        )
        landed.append(Landed("lamplight/v1/KT1001/weather", payloads.encode(message), START))
    setup = Setup(root=tmp_path, registry=layout.registry)
    rows = stages.decode(setup, [land(layout, landed)])
    assert len(stages.unite_blocks(setup, OBSERVATIONS.name, [rows[OBSERVATIONS.name]])) == COUNT
    table = DeltaTable(str(layout.table(OBSERVATIONS.name)))
    assert pl.scan_delta(table).select("seq").collect()["seq"].sort().to_list() == list(range(COUNT))
    assert table.version() == 1


def test_terms_are_joined_in_a_tree_that_is_not_deep() -> None:
    joined = any_of(f"t{number}" for number in range(1000))
    depth = deepest = 0
    for sign in joined:
        depth += (sign == "(") - (sign == ")")
        deepest = max(deepest, depth)
    assert deepest == 10
    assert joined.replace("(", "").replace(")", "") == " OR ".join(f"t{number}" for number in range(1000))
    assert any_of(["alone"]) == "alone"
