"""From messages to the rows of their table: whole columns at a time, because a call for each message is what costs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from contracts.payloads import (
    SENTINEL,
    VEHICLE_CLASSES,
    Birth,
    Dumping,
    Heartbeat,
    Lane,
    Message,
    Pedestrian,
    Traffic,
    Will,
)
from contracts.quantities import of_stream
from contracts.schemas import DEVICE_STATUS, DUMPING_EVENTS, FOOTFALL, LANE_FLOWS, OBSERVATIONS, QUARANTINE, Table
from contracts.streams import HALF_MINUTE_S
from pipelines.kernels.flags import contradictions, flag_footfall, flag_lanes, flag_values, without_sentinel
from pipelines.kernels.frames import conform

Frames = dict[str, pl.DataFrame]
Row = tuple[Any, ...]

_HEAD_FIELDS = len(Message.__struct_fields__)
_TAIL = ("kind", "firmware", "clock_offset_s", "dropped_count", "dropped", "oldest_held")
_STATUS_TAIL = (*_TAIL, "previous_boot_id", "previous_highest_seq", "gateway_id")


def lanes_of(messages: Sequence[Traffic]) -> tuple[list[Lane], NDArray[np.int64]]:
    """All lanes of messages one after the other, and the place of each one's message."""
    lists = [message.lanes for message in messages]
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    return list(chain.from_iterable(lists)), np.repeat(np.arange(len(lists)), counts)


def _lane_flows(origin: pl.DataFrame, messages: Sequence[Traffic]) -> pl.DataFrame:
    lanes, message = lanes_of(messages)
    # a lane's own fields stand in the order of its payload
    columns = _columns(Lane.__struct_fields__, map(msgspec.structs.astuple, lanes))
    classes = columns.pop("class_counts")
    if classes.count(None) < len(classes):
        none = (None,) * len(VEHICLE_CLASSES)
        counts = (none if found is None else msgspec.structs.astuple(found) for found in classes)
        columns |= _columns([f"{name}_count" for name in VEHICLE_CLASSES], counts)
    first_lanes = np.searchsorted(message, message)
    place = ["message", "direction", "lane"]
    frame = (
        origin[message]
        .with_columns(_series(LANE_FLOWS, columns))
        .with_columns(
            message=pl.Series(message),
            lane_index=pl.Series(np.arange(len(lanes)) - first_lanes),
            period_s=pl.lit(HALF_MINUTE_S),
        )
        .with_columns(is_repeated=~pl.struct(place).is_first_distinct())
    )
    return conform(flag_lanes(frame), LANE_FLOWS)


def _footfall(origin: pl.DataFrame, messages: Sequence[Pedestrian]) -> pl.DataFrame:
    columns = {
        name: [getattr(message, name) for message in messages] for name in ("crossings_in_count", "crossings_out_count")
    }
    frame = origin.with_columns(_series(FOOTFALL, columns)).with_columns(period_s=pl.lit(HALF_MINUTE_S))
    return conform(flag_footfall(frame), FOOTFALL)


def _dumping_events(origin: pl.DataFrame, messages: Sequence[Dumping]) -> pl.DataFrame:
    columns = {name: [getattr(message, name) for message in messages] for name in ("kind", "confidence")}
    return conform(origin.with_columns(_series(DUMPING_EVENTS, columns), flag=pl.lit(2)), DUMPING_EVENTS)


def _device_status(origin: pl.DataFrame, messages: Sequence[Birth | Heartbeat | Will]) -> pl.DataFrame:
    columns = _columns(_STATUS_TAIL, map(_status, messages))
    return conform(origin.with_columns(_series(DEVICE_STATUS, columns), flag=pl.lit(2)), DEVICE_STATUS)


def _status(payload: Birth | Heartbeat | Will) -> Row:
    if isinstance(payload, Heartbeat):
        lists = (_json(payload.dropped), _json(payload.oldest_held))
        return ("heartbeat", payload.firmware, payload.clock_offset_s, payload.dropped_count, *lists, None, None, None)
    if isinstance(payload, Will):
        return ("will", None, None, None, None, None, None, None, payload.gateway_id)
    previous = payload.previous
    highest = None if previous is None else _json(previous.highest_seq)
    boot = None if previous is None else previous.boot_id
    return ("birth", payload.firmware, payload.clock_offset_s, None, None, None, boot, highest, None)


def _json(content: Any) -> str | None:
    """Text of a list or an object, None when it is empty; equal content is equal text."""
    return msgspec.json.encode(content, order="sorted").decode() if content else None


def _observations(stream: str) -> Callable[[pl.DataFrame, Sequence[Message]], pl.DataFrame]:
    """Wide messages of one stream to one row per value; "////" becomes the numeric sentinel."""
    quantities = of_stream(stream)

    def observations(origin: pl.DataFrame, messages: Sequence[Message]) -> pl.DataFrame:
        columns = list(zip(*map(msgspec.structs.astuple, messages), strict=True))[_HEAD_FIELDS:]
        values = {row.name: _values(column) for row, column in zip(quantities, columns, strict=True)}
        against = contradictions(values)
        never = pl.lit(value=False)
        parts = [
            origin.lazy()
            .with_columns(values[row.name], is_contradicted=against.get(row.name, never))
            .filter(pl.col("value").is_not_null())
            .with_columns(
                flag_values(row, pl.col("is_contradicted")),
                without_sentinel(),
                quantity=pl.lit(row.name),
                stream=pl.lit(stream),
            )
            for row in quantities
        ]
        return conform(pl.concat(parts).collect(), OBSERVATIONS)

    return observations


def _values(values: Sequence[float | str | None]) -> pl.Series:
    try:
        return pl.Series("value", values, dtype=pl.Float64)
    except TypeError:
        return pl.Series("value", [SENTINEL if type(value) is str else value for value in values], dtype=pl.Float64)


# Per stream: its table, and (origin, messages) -> rows of it. `origin` holds post_id, boot_id, seq, first_seq,
# event_time, received_time and digest of each message.
FRAME_OF: dict[str, tuple[Table, Callable[[pl.DataFrame, Any], pl.DataFrame]]] = {
    "weather": (OBSERVATIONS, _observations("weather")),
    "air": (OBSERVATIONS, _observations("air")),
    "traffic": (LANE_FLOWS, _lane_flows),
    "pedestrian": (FOOTFALL, _footfall),
    "dumping": (DUMPING_EVENTS, _dumping_events),
    "status": (DEVICE_STATUS, _device_status),
}


def quarantine(rejects: Sequence[Row]) -> pl.DataFrame:
    """Rows of QUARANTINE."""
    return conform(pl.DataFrame(_series(QUARANTINE, _columns(QUARANTINE.schema.names, rejects))), QUARANTINE)


def _columns(names: Iterable[str], rows: Iterable[Row]) -> dict[str, Sequence[Any]]:
    return dict(zip(names, zip(*rows, strict=True), strict=True))


_KINDS: dict[Any, Any] = {
    pa.int64(): pl.Int64,
    pa.int32(): pl.Int64,
    pa.int16(): pl.Int64,
    pa.float64(): pl.Float64,
    pa.string(): pl.String,
    pa.binary(): pl.Binary,
    pa.bool_(): pl.Boolean,
}


def _series(table: Table, columns: Mapping[str, Sequence[Any]]) -> list[pl.Series]:
    """Columns of a table, with the types that nulls alone would not tell; times arrive as integers."""
    kinds = {name: table.schema.field(name).type for name in columns}
    return [pl.Series(name, values, dtype=_KINDS.get(kinds[name], pl.Int64)) for name, values in columns.items()]
