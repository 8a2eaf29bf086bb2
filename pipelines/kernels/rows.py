"""From a message to the rows of its table, and from rows to frames in the tables' schemas."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa

from contracts.payloads import (
    SENTINEL,
    VEHICLE_CLASSES,
    Birth,
    ClassCounts,
    Dumping,
    Heartbeat,
    Lane,
    Message,
    Pedestrian,
    Traffic,
    Will,
)
from contracts.quantities import of_stream
from contracts.schemas import DEVICE_STATUS, DUMPING_EVENTS, FOOTFALL, LANE_FLOWS, OBSERVATIONS, QUARANTINE
from contracts.streams import HALF_MINUTE_S
from pipelines.kernels.flags import flag_footfall, flag_lanes, flag_values, without_sentinel
from pipelines.kernels.frames import conform

Frames = dict[str, pl.DataFrame]
Row = tuple[Any, ...]

_HEAD_FIELDS = len(Message.__struct_fields__)
_NO_CLASSES = (None,) * len(VEHICLE_CLASSES)
_ORIGIN = ("post_id", "boot_id", "seq", "first_seq", "event_time", "received_time", "digest")
# a lane's own fields stand in the order of its payload
_LANE_COLUMNS = (*_ORIGIN, "lane_index", "is_repeated", *Lane.__struct_fields__)
_STATUS_COLUMNS = (
    *_ORIGIN,
    "kind",
    "firmware",
    "clock_offset_s",
    "dropped_count",
    "dropped",
    "oldest_held",
    "previous_boot_id",
    "previous_highest_seq",
    "gateway_id",
)


def _append_values(stream: str) -> Callable[[dict[str, list[Row]], Row, Any], None]:
    def append(rows: dict[str, list[Row]], origin: Row, payload: Message) -> None:
        rows.setdefault(stream, []).append(origin + msgspec.structs.astuple(payload)[_HEAD_FIELDS:])

    return append


def _append_lanes(rows: dict[str, list[Row]], origin: Row, payload: Traffic) -> None:
    out = rows.setdefault("lane_flows", [])
    named: set[tuple[str, str]] = set()
    for index, lane in enumerate(payload.lanes):
        place = (lane.direction, lane.lane)
        out.append((*origin, index, place in named, *msgspec.structs.astuple(lane)))
        named.add(place)


def _append_footfall(rows: dict[str, list[Row]], origin: Row, payload: Pedestrian) -> None:
    rows.setdefault("footfall", []).append((*origin, payload.crossings_in_count, payload.crossings_out_count))


def _append_dumping(rows: dict[str, list[Row]], origin: Row, payload: Dumping) -> None:
    rows.setdefault("dumping_events", []).append((*origin, payload.kind, payload.confidence))


def _append_status(rows: dict[str, list[Row]], origin: Row, payload: Birth | Heartbeat | Will) -> None:
    if isinstance(payload, Will):
        tail: Row = ("will", None, None, None, None, None, None, None, payload.gateway_id)
    elif isinstance(payload, Heartbeat):
        lists = (_json(payload.dropped), _json(payload.oldest_held))
        tail = ("heartbeat", payload.firmware, payload.clock_offset_s, payload.dropped_count, *lists, None, None, None)
    else:
        previous = payload.previous
        highest = None if previous is None else _json(previous.highest_seq)
        boot = None if previous is None else previous.boot_id
        tail = ("birth", payload.firmware, payload.clock_offset_s, None, None, None, boot, highest, None)
    rows.setdefault("device_status", []).append(origin + tail)


def _json(content: Any) -> str | None:
    """Text of a list or an object, None when it is empty; equal content is equal text."""
    return msgspec.json.encode(content, order="sorted").decode() if content else None


# Per stream: (rows by stream or table, origin as _ORIGIN, payload) -> None.
APPEND: dict[str, Callable[[dict[str, list[Row]], Row, Any], None]] = {
    "weather": _append_values("weather"),
    "air": _append_values("air"),
    "traffic": _append_lanes,
    "pedestrian": _append_footfall,
    "dumping": _append_dumping,
    "status": _append_status,
}


def _class_counts(counts: ClassCounts) -> Row:
    return tuple(msgspec.structs.astuple(counts))


def _columns(names: Iterable[str], rows: list[Row]) -> dict[str, list[Any]]:
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def to_frames(rows: dict[str, list[Row]]) -> Frames:
    """Rows per stream or table to flagged frames per table; tables without rows are left out."""
    frames: Frames = {}
    values = [_observations(stream, rows[stream]) for stream in ("weather", "air") if stream in rows]
    if values:
        frames[OBSERVATIONS.name] = conform(pl.concat(values), OBSERVATIONS)
    if lanes := rows.get("lane_flows"):
        columns = _columns(_LANE_COLUMNS, lanes)
        counts = [_NO_CLASSES if found is None else _class_counts(found) for found in columns.pop("class_counts")]
        columns |= _columns([f"{name}_count" for name in VEHICLE_CLASSES], counts)
        frame = pl.DataFrame(columns, schema_overrides=_overrides(LANE_FLOWS, columns))
        frame = frame.with_columns(period_s=pl.lit(HALF_MINUTE_S))
        frames[LANE_FLOWS.name] = conform(flag_lanes(frame), LANE_FLOWS)
    if crossings := rows.get("footfall"):
        names = (*_ORIGIN, "crossings_in_count", "crossings_out_count")
        frame = pl.DataFrame(_columns(names, crossings)).with_columns(period_s=pl.lit(HALF_MINUTE_S))
        frames[FOOTFALL.name] = conform(flag_footfall(frame), FOOTFALL)
    if events := rows.get("dumping_events"):
        frame = pl.DataFrame(_columns((*_ORIGIN, "kind", "confidence"), events)).with_columns(flag=pl.lit(2))
        frames[DUMPING_EVENTS.name] = conform(frame, DUMPING_EVENTS)
    if states := rows.get("device_status"):
        overrides = _overrides(DEVICE_STATUS, _STATUS_COLUMNS)
        frame = pl.DataFrame(_columns(_STATUS_COLUMNS, states), schema_overrides=overrides)
        frames[DEVICE_STATUS.name] = conform(frame.with_columns(flag=pl.lit(2)), DEVICE_STATUS)
    if rejects := rows.get("quarantine"):
        names = tuple(QUARANTINE.schema.names)
        frame = pl.DataFrame(_columns(names, rejects), schema_overrides=_overrides(QUARANTINE, names))
        frames[QUARANTINE.name] = conform(frame, QUARANTINE)
    return frames


def _overrides(table: Any, names: Iterable[str]) -> dict[str, Any]:
    """Types of nullable columns, which a frame of nulls only could not infer; times arrive as integers."""
    kinds = {pa.int64(): pl.Int64, pa.int32(): pl.Int64, pa.float64(): pl.Float64, pa.string(): pl.String}
    found = {}
    for name in names:
        column = table.schema.field(name) if name in table.schema.names else None
        if column is not None and column.nullable:
            found[name] = pl.Int64 if pa.types.is_timestamp(column.type) else kinds[column.type]
    return found


def _observations(stream: str, rows: list[Row]) -> pl.DataFrame:
    """Wide rows of one stream to one row per value; "////" becomes the numeric sentinel."""
    quantities = of_stream(stream)
    columns = _columns((*_ORIGIN, *(quantity.name for quantity in quantities)), rows)
    origin = pl.DataFrame({name: columns[name] for name in _ORIGIN})
    parts = []
    for quantity in quantities:
        values = [SENTINEL if type(value) is str else value for value in columns[quantity.name]]
        part = origin.with_columns(pl.Series("value", values, dtype=pl.Float64)).filter(pl.col("value").is_not_null())
        parts.append(
            part.with_columns(
                flag_values(quantity),
                without_sentinel(),
                quantity=pl.lit(quantity.name),
                stream=pl.lit(stream),
            )
        )
    return pl.concat(parts)
