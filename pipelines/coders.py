"""Record batches across the runner as Arrow IPC: pickled slices would carry their parents' buffers."""

from functools import lru_cache

import pyarrow as pa
from apache_beam import coders


class RecordBatchCoder(coders.Coder):
    """One record batch as an Arrow IPC stream.

    Strings travel as dictionaries: posts, boots and quantities repeat, and the runner copies an element's bytes
    several times on its way.
    """

    def encode(self, value: pa.RecordBatch) -> bytes:
        columns = [
            column.dictionary_encode() if pa.types.is_string(column.type) else column for column in value.columns
        ]
        packed = pa.RecordBatch.from_arrays(columns, names=value.schema.names)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, packed.schema.with_metadata({"schema": _written(value.schema)})) as writer:
            writer.write_batch(packed)
        content: bytes = sink.getvalue().to_pybytes()
        return content

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        with pa.ipc.open_stream(encoded) as reader:
            packed = reader.read_next_batch()
            schema = _read(reader.schema.metadata[b"schema"])
        columns = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in packed.columns
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def estimate_size(self, value: pa.RecordBatch) -> int:
        size: int = value.nbytes  # the default would encode it once more to know
        return size

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type:
        kind: type = pa.RecordBatch
        return kind


@lru_cache(maxsize=64)
def _read(written: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(written))


def _written(schema: pa.Schema) -> bytes:
    content: bytes = schema.serialize().to_pybytes()
    return content


def register() -> None:
    """Make Beam use this coder for record batches."""
    coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)


register()
