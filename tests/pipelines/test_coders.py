"""What crosses the runner arrives as it left."""

import pyarrow as pa
import pytest
from apache_beam import coders

from contracts.schemas import TABLES
from pipelines.coders import RecordBatchCoder
from pipelines.kernels.decode import Tolerance, decode_messages
from pipelines.stages import to_batch
from tests.pipelines.raw_log import messages, raw_batch, registry


@pytest.fixture(scope="module")
def batches() -> dict[str, pa.RecordBatch]:
    landed = messages(3, minutes=6)
    broken = [type(row)(row.topic, row.payload[:70], row.received) for row in landed[:9]]
    frames = decode_messages(pa.Table.from_batches([raw_batch(landed + broken)]), registry(), Tolerance())
    assert set(frames) == {name for name, table in TABLES.items() if table.is_reading} | {"quarantine"}
    return {name: to_batch(frame, TABLES[name]) for name, frame in frames.items()}


def test_round_trip_of_every_table(batches: dict[str, pa.RecordBatch]) -> None:
    coder = RecordBatchCoder()
    for batch in batches.values():
        for part in (batch, batch.slice(2, 3), batch.slice(0, 0)):
            back = coder.decode(coder.encode(part))
            assert back.equals(part)
            assert back.schema.equals(part.schema, check_metadata=True)


def test_a_slice_does_not_carry_its_parent(batches: dict[str, pa.RecordBatch]) -> None:
    whole = batches["lane_flows"]
    assert len(RecordBatchCoder().encode(whole.slice(0, 1))) < len(RecordBatchCoder().encode(whole)) / 2


def test_beam_uses_it() -> None:
    assert isinstance(coders.registry.get_coder(pa.RecordBatch), RecordBatchCoder)
