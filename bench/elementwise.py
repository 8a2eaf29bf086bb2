"""The usual Beam pipeline, one element per reading, as the peer that ours is measured against.

The same work: decode, judge, flag, one reading per key with conflicts marked, minutes and windows of values and of
flows, hours of values, and Delta tables of all of them at the end. It is favoured in three ways: each table is written
once and nobody looks for earlier rows, no value is tested against its context (the flags of the hour before, about a
third of our time behind decoding), and nothing survives a crash.

Profiled: as dicts, rows spent four fifths of the time in Beam's coders, so elements are plain tuples, for which its
compiled coder is made, and none of them has a type hint that would choose a slower one; sums are combined by one
function each; a table is written from columns.
"""

import math
from collections.abc import Callable, Iterable, Iterator
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
from contracts.schemas import FLOW_WINDOW_S, HOUR_S, WINDOW_S
from contracts.segments import read_segment
from contracts.times import MINUTE_US
from pipelines.kernels.decode import Tolerance, judge

# key: (post_id, stream, boot_id, seq, event_time); rest: (part, flag, received_time, digest, first_seq, content), where
# content is a value, the fields of a lane, or None; a row is both and is_conflicting. Beam reads annotations, and would
# choose its coders by these
Pair = tuple[Any, Any]
Row = Any
_ROW = ("post_id", "stream", "boot_id", "seq", "event_time", "part", "flag", "received_time", "digest", "first_seq")
_LANE = (
    *("lane", "direction", "vehicle_count", "mean_speed_kmh", "speed_sd_kmh", "inverse_speed_sum_h_km"),
    *("occupancy_pct", "is_valid", "release_speed_sum"),
)
_VALUE_STATE = (
    *("value_count", "flagged_count", "value_sum", "value_sum_squares", "sin_sum", "cos_sum"),
    *("value_min", "value_max", "last_event_time"),
)
_FLOW_STATE = (
    *("lane_summaries", "flagged_count", "vehicle_count", "speed_sum_kmh", "inverse_speed_sum_h_km"),
    *("occupancy_sum_pct", "release_count", "release_speed_sum", "last_event_time"),
)
_STATE = dict.fromkeys(("minutes", "windows", "hours"), _VALUE_STATE) | dict.fromkeys(
    ("flow_minutes", "flow_windows"), _FLOW_STATE
)
_CIRCULAR = {name for name, row in QUANTITIES.items() if row.aggregation is Aggregation.CIRCULAR}
_RANGES = {name: (row.low, row.high) for name, row in QUANTITIES.items()}
_QUANTITIES = {stream: tuple(row.name for row in of_stream(stream)) for stream in ("weather", "air")}


class ReadFn(beam.DoFn):
    """Segment -> (topic, payload, received time)."""

    def __init__(self, raw: Path):
        self.raw = raw

    def process(self, segment: Segment) -> Iterator[Any]:
        rows = read_segment(self.raw, segment)
        received = rows["received_time"].cast("int64").to_pylist()
        yield from zip(rows["topic"].to_pylist(), rows["payload"].to_pylist(), received, strict=True)


class DecodeFn(beam.DoFn):
    """(topic, payload, received time) -> (key, rest) of each reading."""

    def __init__(self, registry: Path):
        self.path = registry
        self.tolerance = Tolerance()

    def setup(self) -> None:
        self.registry: Registry = load_registry(self.path)

    def process(self, message: tuple[str, bytes, int]) -> Iterator[Pair]:
        topic, payload, received = message
        reading = decode(topic, payload)
        if not isinstance(reading, Reading) or isinstance(reading.payload, Will) or reading.event_time_us is None:
            return
        if judge(reading, reading.event_time_us, received, self.registry, self.tolerance) is not None:
            return
        head = reading.payload
        key = reading.post_id, reading.stream, head.boot_id, head.seq, reading.event_time_us
        mark = digest(payload)
        for part, flag, content in _parts(reading):
            yield key, (part, flag, received, mark, head.first_seq, content)


def _parts(reading: Reading) -> Iterator[tuple[str, int, Any]]:
    message = reading.payload
    if isinstance(message, Traffic):
        for index, lane in enumerate(message.lanes):
            yield f"lane {index}", _lane_flag(lane), _lane(lane)
    elif isinstance(message, Pedestrian):
        for name in ("crossings_in_count", "crossings_out_count"):
            value = getattr(message, name)
            yield name, _flag(name, value), float(value)
    elif isinstance(message, (Weather, Air)):
        for name in _QUANTITIES[reading.stream]:
            value = getattr(message, name)
            if value is not None:
                yield name, _flag(name, value), value
    else:
        yield "status", 2, None


def _flag(name: str, value: float | str) -> int:
    if isinstance(value, str) or value == -999:
        return 9
    low, high = _RANGES[name]
    return 1 if low <= value <= high else 4


def _lane(lane: Lane) -> tuple[Any, ...]:
    return (
        lane.lane,
        lane.direction,
        lane.vehicle_count,
        lane.mean_speed_kmh,
        lane.speed_sd_kmh,
        lane.inverse_speed_sum_h_km,
        lane.occupancy_pct,
        lane.is_valid,
        lane.release_speed_sum,
    )


def _lane_flag(lane: Lane) -> int:
    if not lane.is_valid:
        return 9
    speed = lane.mean_speed_kmh
    return 4 if lane.vehicle_count and speed is not None and not 1 <= speed <= 130 else 1


def _unite(group: Pair) -> Iterator[Row]:
    key, rests = group
    copies: dict[tuple[str, int], Any] = {}
    for rest in rests:
        name = rest[0], rest[3]
        known = copies.get(name)
        if known is None or rest[2] < known[2]:
            copies[name] = rest
    least = min(mark for _, mark in copies)
    for rest in copies.values():
        yield (*key, *rest, rest[3] != least)


def _value_state(row: Row) -> Iterator[Pair]:
    post_id, _, _, _, event_time, part, flag, _, _, _, value, is_conflicting = row
    if not isinstance(value, tuple) and value is not None:
        group = post_id, part, event_time // MINUTE_US
        if flag > 2 or is_conflicting:
            yield group, (0, 1, 0.0, 0.0, 0.0, 0.0, math.inf, -math.inf, event_time)
        elif part in _CIRCULAR:
            angle = math.radians(value)
            squares = value * value
            yield group, (1, 0, value, squares, math.sin(angle), math.cos(angle), value, value, event_time)
        else:
            yield group, (1, 0, value, value * value, 0.0, 0.0, value, value, event_time)


def _add_values(a: Any, b: Any) -> Any:
    sums = (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5])
    return (*sums, min(a[6], b[6]), max(a[7], b[7]), max(a[8], b[8]))


def _flow_state(row: Row) -> Iterator[Pair]:
    post_id, _, _, _, event_time, _, flag, _, _, _, lane, is_conflicting = row
    if isinstance(lane, tuple):
        _, direction, vehicles, speed, _, inverse, share, is_valid, released = lane
        group = post_id, direction, event_time // MINUTE_US
        release = (min(vehicles, 75) if is_valid else 0, released or 0, event_time)
        if flag != 1 or is_conflicting:
            yield group, (0, 1, 0, 0.0, 0.0, 0.0, *release)
        else:
            yield group, (1, 0, vehicles, vehicles * (speed or 0.0), inverse or 0.0, share or 0.0, *release)


def _add_flows(a: Any, b: Any) -> Any:
    sums = (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5], a[6] + b[6], a[7] + b[7])
    return (*sums, max(a[8], b[8]))


class MergeFn(beam.CombineFn):
    """Adds states up by a function of two."""

    def __init__(self, add: Callable[[Any, Any], Any]):
        self.add = add

    def create_accumulator(self) -> Any:
        return None

    def add_input(self, accumulator: Any, state: Any) -> Any:
        return state if accumulator is None else self.add(accumulator, state)

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        merged = None
        for state in accumulators:
            if state is not None:
                merged = state if merged is None else self.add(merged, state)
        return merged

    def extract_output(self, accumulator: Any) -> Any:
        return accumulator


class WriteFn(beam.DoFn):
    """(table, rows) -> a Delta table."""

    def __init__(self, lake: Path):
        self.lake = lake

    def process(self, rows: tuple[str, Iterable[Any]]) -> Iterator[str]:
        name, found = rows
        columns: list[Any]
        names: tuple[str, ...]
        if name in _STATE:
            groups, states = zip(*found, strict=True)
            names = ("post_id", "name", "start", *_STATE[name])
            columns = [*zip(*groups, strict=True), *zip(*states, strict=True)]
        else:
            *head, contents, conflicts = zip(*found, strict=True)
            names, columns = (*_ROW, "is_conflicting"), [*head, conflicts]
            if name == "lane_flows":
                names, columns = (*names, *_LANE), [*columns, *zip(*contents, strict=True)]
            elif name == "observations":
                values = [None if isinstance(value, str) else value for value in contents]
                names, columns = (*names, "value"), [*columns, values]
        arrays = [pa.array(column) for column in columns]
        write_deltalake(str(self.lake / name), pa.table(dict(zip(names, arrays, strict=True))))
        yield name


def _to_longer(pair: Pair, part_s: int, period_s: int) -> Pair:
    (post_id, name, part), state = pair
    return (post_id, name, part * part_s // period_s), state


def _reading_row(row: Row) -> Pair:
    content = row[10]
    if isinstance(content, tuple):
        return "lane_flows", row
    return ("device_status" if content is None else "observations"), row


def decode_segments(pipeline: beam.Pipeline, raw: Path, registry: Path, segments: list[Segment]) -> Any:
    """Segments -> (key, rest) of each reading."""
    return pipeline | beam.Create(segments) | beam.ParDo(ReadFn(raw)) | beam.ParDo(DecodeFn(registry))


def clean_and_aggregate(readings: Any, lake: Path) -> None:
    """(key, rest) of each reading -> Delta tables in an empty folder."""
    rows = readings | beam.GroupByKey() | beam.FlatMap(_unite)
    minutes = rows | "ValueStates" >> beam.FlatMap(_value_state) | "Minutes" >> _merged(_add_values)
    windows = minutes | "ToWindow" >> beam.Map(_to_longer, 60, WINDOW_S) | "Windows" >> _merged(_add_values)
    hours = windows | "ToHour" >> beam.Map(_to_longer, WINDOW_S, HOUR_S) | "Hours" >> _merged(_add_values)
    flow_minutes = rows | "FlowStates" >> beam.FlatMap(_flow_state) | "FlowMinutes" >> _merged(_add_flows)
    flow_windows = (
        flow_minutes | "ToFlowWindow" >> beam.Map(_to_longer, 60, FLOW_WINDOW_S) | "FlowWindows" >> _merged(_add_flows)
    )
    values = {"minutes": minutes, "windows": windows, "hours": hours}
    states = values | {"flow_minutes": flow_minutes, "flow_windows": flow_windows}
    tables = [state | f"{name} rows" >> beam.Map(_named, name) for name, state in states.items()]
    named = rows | "Reading rows" >> beam.Map(_reading_row)
    _ = (named, *tables) | beam.Flatten() | "By table" >> beam.GroupByKey() | beam.ParDo(WriteFn(lake))


def _merged(add: Callable[[Any, Any], Any]) -> beam.PTransform:
    return beam.CombinePerKey(MergeFn(add))


def _named(pair: Pair, table: str) -> Pair:
    return table, pair


def run(raw: Path, registry: Path, segments: list[Segment], lake: Path) -> None:
    """Run the element-wise pipeline over segments on the same runner as ours, into an empty folder."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    clean_and_aggregate(decode_segments(pipeline, raw, registry, segments), lake)
    pipeline.run().wait_until_finish()
