"""Whatever arrives is exactly one reading or one row of quarantine, and nothing that arrives ends a stage."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fuzz import through
from bench.held import held, landed
from contracts.schemas import OBSERVATIONS
from contracts.topics import device_topic
from pipelines import graph
from pipelines.kernels import decode as kernel
from pipelines.kernels import rows
from pipelines.kernels.frames import empty
from pipelines.stages import Setup
from tests.broker import need_mosquitto
from tests.fuzz import laws
from tests.fuzz.laws import examine
from tests.fuzz.mutants import mutants
from tests.pipelines.raw_log import POSTS, Landed, land, make_root

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
ANYTHING = st.tuples(
    st.one_of(
        st.text(max_size=80).filter(lambda topic: topic.isprintable() or topic == ""),
        st.builds(device_topic, st.sampled_from(POSTS), st.sampled_from(["air", "status", "traffic", "x"])),
    ),
    st.one_of(
        st.binary(max_size=200),
        st.sampled_from([payload for _, payload, _ in mutants(7, 300)]),
    ),
    MOMENTS,
)


@pytest.mark.parametrize("seed", [1, 2])
def test_mutants_are_one_reading_or_one_reject(seed: int) -> None:
    found = examine(list(mutants(seed, 15_000)))
    assert (found.crashes, found.unaccounted) == ([], [])
    assert found.readings > 1000


@settings(max_examples=12, deadline=None)
@given(st.lists(ANYTHING, min_size=1, max_size=40))
def test_anything_that_landed_is_held_once(arrivals: list[tuple[str, bytes, datetime]]) -> None:
    with TemporaryDirectory() as folder:
        layout = make_root(Path(folder))
        messages = [Landed(topic, payload, received) for topic, payload, received in arrivals]
        graph.run(Setup(root=layout.root, registry=layout.registry), [(land(layout, messages),)])
        there, lake = landed(layout), held(layout)
        places = pl.concat([lake.readings.select("topic", "digest"), lake.quarantine.select("topic", "digest")])
        # equal copies may be judged by their receipts: a reading today, too old next month
        assert set(places.rows()) == set(there.select("topic", "digest").rows())
        assert not lake.readings.is_duplicated().any()
        assert lake.doubled == 0


def test_mutants_go_the_whole_way(tmp_path: Path) -> None:
    need_mosquitto()
    found = through(3, 2_000, tmp_path)
    assert (found.crashes, found.unaccounted) == ([], [])
    assert found.readings > 100


def test_a_decoder_that_raises_is_found_and_named() -> None:
    with mock.patch.object(kernel, "digests", side_effect=OverflowError("too far")):
        found = examine(list(mutants(1, 200)))
    assert found.crashes
    assert all(line.startswith("decode_messages: OverflowError: too far: '") for line in found.crashes)
    with mock.patch.object(laws, "decode", side_effect=ValueError):
        assert len(examine(list(mutants(1, 200))).crashes) == 200


def test_a_message_without_a_row_or_with_two_is_found() -> None:
    batch = list(mutants(1, 400))
    lost_rows = OBSERVATIONS, lambda *_: empty(OBSERVATIONS)
    with mock.patch.dict(rows.FRAME_OF, {"air": lost_rows}):
        lost = examine(batch).unaccounted
    assert lost
    assert all("in 0 places" in line for line in lost)

    real = rows.quarantine
    with mock.patch.object(kernel, "quarantine", lambda rejects: real([*rejects, rejects[0]])):
        doubled = examine(batch).unaccounted
    assert any("in 2 places" in line for line in doubled)
