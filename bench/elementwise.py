"""The usual Beam pipeline, one element per reading, as the peer that ours is measured against.

The same work: decode, judge, flag, one reading per key with conflicts marked, minutes and windows of values and of
flows, and Delta tables of all of them at the end, each written once and without looking for earlier rows, which favours
it.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from deltalake import write_deltalake

from contracts.layout import Segment
from contracts.payloads import Air, Lane, Pedestrian, Reading, Traffic, Weather, Will, decode, digest
from contracts.quantities import QUANTITIES, Aggregation, of_stream
from contracts.registry import Registry, load_registry
from contracts.schemas import FLOW_WINDOW_S, WINDOW_S
from contracts.segments import read_segment
from contracts.times import MINUTE_US, US
from pipelines.kernels.decode import Tolerance, judge

Row = dict[str, Any]
Pair = tuple[tuple[Any, ...], Row]
_MESSAGE = ("post_id", "stream", "boot_id", "seq", "event_time")


class ReadFn(beam.DoFn):
    """Segment -> (topic, payload, received time)."""

    def __init__(self, raw: Path):
        self.raw = raw

    def process(self, segment: Segment) -> Iterator[tuple[str, bytes, int]]:
        rows = read_segment(self.raw, segment)
        received = rows["received_time"].cast("int64").to_pylist()
        yield from zip(rows["topic"].to_pylist(), rows["payload"].to_pylist(), received, strict=True)


class DecodeFn(beam.DoFn):
    """(topic, payload, received time) -> one row per reading."""

    def __init__(self, registry: Path):
        self.path = registry
        self.tolerance = Tolerance()

    def setup(self) -> None:
        self.registry: Registry = load_registry(self.path)

    def process(self, message: tuple[str, bytes, int]) -> Iterator[Row]:
        topic, payload, received = message
        reading = decode(topic, payload)
        if not isinstance(reading, Reading) or isinstance(reading.payload, Will) or reading.event_time_us is None:
            return
        if judge(reading, reading.event_time_us, received, self.registry, self.tolerance) is not None:
            return
        head = {
            "post_id": reading.post_id,
            "stream": reading.stream,
            "boot_id": reading.payload.boot_id,
            "seq": reading.payload.seq,
            "first_seq": reading.payload.first_seq,
            "event_time": reading.event_time_us,
            "received_time": received,
            "digest": digest(payload),
        }
        for part in _parts(reading):
            yield {**head, **part}


def _parts(reading: Reading) -> Iterator[Row]:
    message = reading.payload
    if isinstance(message, Weather | Air):
        for quantity in of_stream(reading.stream):
            value = getattr(message, quantity.name)
            if value is not None:
                yield {"part": quantity.name, "value": value, "flag": _flag(quantity.name, value)}
    elif isinstance(message, Pedestrian):
        for name in ("crossings_in_count", "crossings_out_count"):
            value = getattr(message, name)
            yield {"part": name, "value": float(value), "flag": _flag(name, value)}
    elif isinstance(message, Traffic):
        for index, lane in enumerate(message.lanes):
            yield {"part": f"lane {index}", "flag": _lane_flag(lane), **_lane(lane)}
    else:
        yield {"part": "status", "flag": 2}


def _flag(name: str, value: float | str) -> int:
    if isinstance(value, str) or value == -999:
        return 9
    rule = QUANTITIES[name]
    return 1 if rule.low <= value <= rule.high else 4


def _lane(lane: Lane) -> Row:
    return {
        "lane": lane.lane,
        "direction": lane.direction,
        "vehicle_count": lane.vehicle_count,
        "mean_speed_kmh": lane.mean_speed_kmh,
        "speed_sd_kmh": lane.speed_sd_kmh,
        "inverse_speed_sum_h_km": lane.inverse_speed_sum_h_km,
        "occupancy_pct": lane.occupancy_pct,
        "is_valid": lane.is_valid,
        "release_speed_sum": lane.release_speed_sum,
    }


def _lane_flag(lane: Lane) -> int:
    if not lane.is_valid:
        return 9
    speed = lane.mean_speed_kmh
    return 4 if lane.vehicle_count and speed is not None and not 1 <= speed <= 130 else 1


def _by_message(row: Row) -> Pair:
    return tuple(row[name] for name in _MESSAGE), row


def _unite(group: tuple[tuple[Any, ...], Iterable[Row]]) -> Iterator[Row]:
    copies: dict[tuple[str, int], Row] = {}
    for row in group[1]:
        known = copies.get((row["part"], row["digest"]))
        if known is None or row["received_time"] < known["received_time"]:
            copies[row["part"], row["digest"]] = row
    least = min(row["digest"] for row in copies.values())
    for row in copies.values():
        yield {**row, "is_conflicting": row["digest"] != least}


def _value_state(row: Row) -> Pair:
    is_used = row["flag"] in {1, 2} and not row["is_conflicting"]
    value = row["value"] if is_used else 0.0
    angle = math.radians(value)
    is_circular = QUANTITIES[row["part"]].aggregation is Aggregation.CIRCULAR
    state = {
        "value_count": int(is_used),
        "flagged_count": int(not is_used),
        "value_sum": value,
        "value_sum_squares": value * value,
        "sin_sum": math.sin(angle) if is_used and is_circular else 0.0,
        "cos_sum": math.cos(angle) if is_used and is_circular else 0.0,
        "value_min": value if is_used else math.inf,
        "value_max": value if is_used else -math.inf,
        "last_event_time": row["event_time"],
    }
    return (row["post_id"], row["part"], row["event_time"] // MINUTE_US), state


def _flow_state(row: Row) -> Pair:
    is_used = row["flag"] == 1 and not row["is_conflicting"]
    count = row["vehicle_count"] if is_used else 0
    state = {
        "lane_summaries": int(is_used),
        "flagged_count": int(not is_used),
        "vehicle_count": count,
        "speed_sum_kmh": count * (row["mean_speed_kmh"] or 0.0),
        "inverse_speed_sum_h_km": (row["inverse_speed_sum_h_km"] or 0.0) if is_used else 0.0,
        "occupancy_sum_pct": (row["occupancy_pct"] or 0.0) if is_used else 0.0,
        "release_count": min(row["vehicle_count"], 75) if row["is_valid"] else 0,
        "release_speed_sum": row["release_speed_sum"] or 0,
        "last_event_time": row["event_time"],
    }
    return (row["post_id"], row["direction"], row["event_time"] // MINUTE_US), state


def _merge(states: Iterable[Row]) -> Row:
    merged: Row = {}
    for state in states:
        for name, value in state.items():
            if name not in merged:
                merged[name] = value
            elif name == "value_min":
                merged[name] = min(merged[name], value)
            elif name in {"value_max", "last_event_time"}:
                merged[name] = max(merged[name], value)
            else:
                merged[name] += value
    return merged


def _to_row(pair: Pair, table: str) -> tuple[str, Row]:
    (post_id, name, start), state = pair
    return table, {"post_id": post_id, "name": name, "start": start, **state}


class WriteFn(beam.DoFn):
    """(table, rows) -> a Delta table."""

    def __init__(self, lake: Path):
        self.lake = lake

    def process(self, rows: tuple[str, Iterable[Row]]) -> Iterator[str]:
        name, found = rows
        write_deltalake(str(self.lake / name), pa.Table.from_pylist(list(found)))
        yield name


def _to_window(pair: Pair, period_s: int) -> Pair:
    (post_id, name, minute), state = pair
    return (post_id, name, minute * MINUTE_US // (period_s * US)), state


def run(raw: Path, registry: Path, segments: list[Segment], lake: Path) -> None:
    """Run the element-wise pipeline over segments on the same runner as ours, into an empty folder."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    rows = (
        pipeline
        | beam.Create(segments)
        | beam.ParDo(ReadFn(raw))
        | beam.ParDo(DecodeFn(registry))
        | beam.Map(_by_message)
        | beam.GroupByKey()
        | beam.FlatMap(_unite)
    )
    minutes = (
        rows
        | "Values" >> beam.Filter(lambda row: "value" in row)
        | "ValueStates" >> beam.Map(_value_state)
        | "Minutes" >> beam.CombinePerKey(_merge)
    )
    windows = minutes | "ToWindow" >> beam.Map(_to_window, WINDOW_S) | "Windows" >> beam.CombinePerKey(_merge)
    flow_minutes = (
        rows
        | "Lanes" >> beam.Filter(lambda row: "lane" in row)
        | "FlowStates" >> beam.Map(_flow_state)
        | "FlowMinutes" >> beam.CombinePerKey(_merge)
    )
    flow_windows = (
        flow_minutes
        | "ToFlowWindow" >> beam.Map(_to_window, FLOW_WINDOW_S)
        | "FlowWindows" >> beam.CombinePerKey(_merge)
    )
    states = {"minutes": minutes, "windows": windows, "flow_minutes": flow_minutes, "flow_windows": flow_windows}
    tables = [state | f"{name} rows" >> beam.Map(_to_row, name) for name, state in states.items()]
    readings = rows | "Reading rows" >> beam.Map(_reading_row)
    _ = (readings, *tables) | beam.Flatten() | "By table" >> beam.GroupByKey() | beam.ParDo(WriteFn(lake))
    pipeline.run().wait_until_finish()


def _reading_row(row: Row) -> tuple[str, Row]:
    if "lane" in row:
        return "lane_flows", row
    return ("observations" if "value" in row else "device_status"), row
