"""Record batches across the runner as Arrow IPC: pickled slices would carry their parents' buffers."""

import pyarrow as pa
from apache_beam import coders


class RecordBatchCoder(coders.Coder):
    """One record batch as an Arrow IPC stream."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_batch(value)
        content: bytes = sink.getvalue().to_pybytes()
        return content

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        with pa.ipc.open_stream(encoded) as reader:
            return reader.read_next_batch()

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type:
        kind: type = pa.RecordBatch
        return kind


def register() -> None:
    """Make Beam use this coder for record batches."""
    coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)


register()
