"""Record batches as bytes for their way between workers: Arrow IPC, because pickled slices would carry their parents'
buffers."""

from functools import lru_cache

import pyarrow as pa


def pack(batch: pa.RecordBatch) -> bytes:
    """One record batch as an Arrow IPC stream.

    Strings travel as dictionaries: posts, boots and quantities repeat, and a runner copies an element's bytes several
    times on its way.
    """
    columns = [column.dictionary_encode() if pa.types.is_string(column.type) else column for column in batch.columns]
    packed = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, packed.schema.with_metadata({"schema": _written(batch.schema)})) as writer:
        writer.write_batch(packed)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def unpack(content: bytes) -> pa.RecordBatch:
    """The record batch that `pack` made bytes of."""
    with pa.ipc.open_stream(content) as reader:
        packed = reader.read_next_batch()
        schema = _read(reader.schema.metadata[b"schema"])
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in packed.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@lru_cache(maxsize=64)
def _read(written: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(written))


def _written(schema: pa.Schema) -> bytes:
    content: bytes = schema.serialize().to_pybytes()
    return content
