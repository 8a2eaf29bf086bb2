"""Arrow schemas of the lake's tables: every field with its unit and its meaning.

`Table.key` tells the rows of one table apart; `Table.time` is the column whose minute is the row's block.
"""

from dataclasses import dataclass

import pyarrow as pa

from contracts.fields import FLOW_STATE, PLAIN, STATE, TIMESTAMP, field
from contracts.payloads import VEHICLE_CLASSES


@dataclass(frozen=True, kw_only=True)
class Table:
    """A Delta table of the lake. Rows of tables with `is_reading` come from one message each and carry its key;
    `stream` is that message's, where the table has no column that says so. Rows of tables with `is_derived` are made
    of other rows, which may lie in other blocks."""

    name: str
    description: str
    key: tuple[str, ...]
    time: str
    schema: pa.Schema
    is_reading: bool = False
    is_derived: bool = False
    stream: str | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that tell all rows apart, the conflicting copies of readings included."""
        return (*self.key, "digest") if self.is_reading else self.key


MESSAGE_KEY = ("post_id", "boot_id", "seq", "event_time")

POST = field("post_id", pa.string(), "", "Lamppost, two letters and four digits (replayed detectors: their own id).")
WINDOW_START = field("window_start", TIMESTAMP, "UTC", "Start of the window [start, start + period).")
_DIGEST = field("digest", pa.int64(), "", "BLAKE2b with 8 bytes of the payload, as a signed integer.")
_HEAD = [
    POST,
    field("boot_id", pa.string(), "", "Boot of the device, 16 hexadecimal digits."),
    field("seq", pa.int64(), "1", "Number of the message in its post, boot and stream, from 0."),
    field("first_seq", pa.int64(), "1", "Lowest seq of this boot and stream that the device still held."),
    field("event_time", TIMESTAMP, "UTC", "Phenomenon time: the moment of a sample, or the start of a period."),
]
_TAIL = [
    field("flag", pa.int8(), "", "QARTOD flag: 1 good, 2 not evaluated, 3 suspect, 4 fail, 9 missing."),
    field("received_time", TIMESTAMP, "UTC", "Receipt of the message; the least among equal copies."),
    _DIGEST,
    field("is_conflicting", pa.bool_(), "", "Another message with this key and a lesser digest exists: do not use."),
]
_PERIOD = field("period_s", pa.int16(), "s", "Length of the period that starts at event_time.")
_CLASSES = [
    field(f"{name}_count", pa.int32(), "1", f"Vehicles of class {name}; null when the post sends no classes.", True)
    for name in VEHICLE_CLASSES
]
_STREAM = field("stream", pa.string(), "", "Stream of the message: weather or air.")
_QUANTITY = field("quantity", pa.string(), "", "Name in the table of quantities, unit included.")

OBSERVATIONS = Table(
    name="observations",
    description="One value of one quantity of a weather or air message.",
    key=("stream", *MESSAGE_KEY, "quantity"),
    time="event_time",
    is_reading=True,
    schema=pa.schema(
        [
            _HEAD[0],
            _STREAM,
            *_HEAD[1:],
            _QUANTITY,
            field("value", pa.float64(), "see quantity", "Measured value; null when the sensor sent a sentinel.", True),
            *_TAIL,
        ]
    ),
)

LANE_FLOWS = Table(
    name="lane_flows",
    description="One lane's summary of one half-minute.",
    key=(*MESSAGE_KEY, "lane_index"),
    time="event_time",
    is_reading=True,
    stream="traffic",
    schema=pa.schema(
        [
            *_HEAD,
            _PERIOD,
            field("lane_index", pa.int16(), "1", "Place of the lane in its message, from 0."),
            field("lane", pa.string(), "", "Lane name as the device sends it."),
            field("direction", pa.string(), "", "Direction of travel: direction_id of the registry."),
            field("vehicle_count", pa.int32(), "1", "Vehicles that passed."),
            *_CLASSES,
            field("speed_count", pa.int32(), "1", "Passages that the speeds stand for; null: all of them.", True),
            field("mean_speed_kmh", pa.float64(), "km/h", "Arithmetic mean of spot speeds.", True),
            field("speed_sd_kmh", pa.float64(), "km/h", "Standard deviation of spot speeds.", True),
            field("inverse_speed_sum_h_km", pa.float64(), "h/km", "Sum of 1/v over the passages with a speed.", True),
            field("occupancy_pct", pa.float64(), "%", "Share of the period in which the zone was covered.", True),
            field("is_valid", pa.bool_(), "", "The detector's own word: online."),
            field(
                "release_speed_sum",
                pa.int64(),
                "km/h",
                "Sum of (clamp(round(v), lo, hi) - centre) with the registry's public bounds, for releases.",
                True,
            ),
            *_TAIL,
        ]
    ),
)

FOOTFALL = Table(
    name="footfall",
    description="Line crossings of pedestrians in one half-minute.",
    key=MESSAGE_KEY,
    time="event_time",
    is_reading=True,
    stream="pedestrian",
    schema=pa.schema(
        [
            *_HEAD,
            _PERIOD,
            field("crossings_in_count", pa.int32(), "1", "Crossings inwards."),
            field("crossings_out_count", pa.int32(), "1", "Crossings outwards."),
            *_TAIL,
        ]
    ),
)

DUMPING_EVENTS = Table(
    name="dumping_events",
    description="Illegal dumping seen by a post. Internal; no picture exists.",
    key=MESSAGE_KEY,
    time="event_time",
    is_reading=True,
    stream="dumping",
    schema=pa.schema(
        [
            *_HEAD,
            field("kind", pa.string(), "", "household, construction, bulky or other."),
            field("confidence", pa.float64(), "1", "Detector's confidence, 0 to 1."),
            *_TAIL,
        ]
    ),
)

DEVICE_STATUS = Table(
    name="device_status",
    description="Births, heartbeats and wills. A will has no seq: its connection number stands there.",
    key=(*MESSAGE_KEY, "kind"),
    time="event_time",
    is_reading=True,
    stream="status",
    schema=pa.schema(
        [
            *_HEAD,
            field("kind", pa.string(), "", "birth, heartbeat or will."),
            field("firmware", pa.string(), "", "Firmware version.", True),
            field("clock_offset_s", pa.float64(), "s", "Device clock minus UTC, by the device's estimate.", True),
            field("dropped_count", pa.int64(), "1", "Messages that the post dropped in this boot.", True),
            field("dropped", pa.string(), "", "JSON: ranges of seqs that the post dropped, newly reported.", True),
            field("oldest_held", pa.string(), "", "JSON: lowest seq held where a receipt waits for a lower.", True),
            field("previous_boot_id", pa.string(), "", "Boot before this one, from the device's disk.", True),
            field("previous_highest_seq", pa.string(), "", "JSON: highest seq per stream of the boot before.", True),
            field("gateway_id", pa.string(), "", "Gateway whose connection died.", True),
            *_TAIL,
        ]
    ),
)

QUARANTINE = Table(
    name="quarantine",
    description="Messages that broke the contract, with their bytes. A set by topic and digest in the catalogue.",
    key=("topic", "digest", "received_time"),
    time="received_time",
    schema=pa.schema(
        [
            field("topic", pa.string(), "", "Topic of the message."),
            field("payload", pa.binary(), "", "The bytes as they arrived."),
            _DIGEST,
            field("received_time", TIMESTAMP, "UTC", "Receipt of the message."),
            field("reason", pa.string(), "", "Reason code of contracts.payloads.Reason."),
            field("detail", pa.string(), "", "What the decoder found."),
            field("decoder_version", pa.int16(), "1", "Version of the decoder that refused it."),
            field("post_id", pa.string(), "", "Post of the topic.", True),
            field("stream", pa.string(), "", "Stream of the topic.", True),
            field("boot_id", pa.string(), "", "Boot, where the bytes still tell it.", True),
            field("seq", pa.int64(), "1", "Number, where the bytes still tell it.", True),
            field("first_seq", pa.int64(), "1", "Lowest held number, where the bytes still tell it.", True),
            field("event_time", TIMESTAMP, "UTC", "Phenomenon time, where the bytes still tell it.", True),
        ]
    ),
)

DUPLICATES = Table(
    name="duplicates",
    description="Copies of readings that landed besides the one that stayed: one row per message and further receipt.",
    key=("stream", *MESSAGE_KEY, "digest", "received_time"),
    time="event_time",
    schema=pa.schema(
        [
            _HEAD[0],
            field("stream", pa.string(), "", "Stream of the message."),
            *_HEAD[1:3],
            _HEAD[4],
            field("received_time", TIMESTAMP, "UTC", "Receipt of the copy; an earlier one stayed."),
            _DIGEST,
        ]
    ),
)

MINUTES = Table(
    name="minutes",
    is_derived=True,
    description="Mergeable state of each post, quantity and minute: weather, air and pedestrians.",
    key=("post_id", "quantity", "window_start"),
    time="window_start",
    schema=pa.schema([WINDOW_START, POST, _QUANTITY, *STATE, *PLAIN]),
)

FLAGS = Table(
    name="flags",
    is_derived=True,
    description="What the hour before says of a minute: its values outside the limits have the flag; of a consistency "
    "test, suspect values within the limits are good.",
    key=("post_id", "quantity", "window_start", "test"),
    time="window_start",
    schema=pa.schema(
        [
            WINDOW_START,
            POST,
            _QUANTITY,
            field("test", pa.string(), "", "Test of contracts.quality: step, spike, persistence or consistency."),
            field(
                "flag",
                pa.int8(),
                "",
                "QARTOD flag of values outside the limits: 3 suspect, 4 fail; consistency: 1.",
            ),
            field("accepted_low", pa.float64(), "as quantity", "Least value accepted; null: none is.", True),
            field("accepted_high", pa.float64(), "as quantity", "Greatest value accepted; null: none is.", True),
        ]
    ),
)

_REVISION = field("revision", pa.int32(), "1", "Times that the row changed after its window was announced final.")

_LENGTH = field("period_s", pa.int32(), "s", "Length of the window.")
_MERGED = [
    field("value", pa.float64(), "as quantity", "Value by the quantity's aggregation method.", True),
    field("expected_count", pa.int64(), "1", "Values that the cadence promises for the whole window."),
    field("completeness", pa.float64(), "1", "value_count / expected_count, at most 1."),
]

WINDOWS = Table(
    name="windows",
    is_derived=True,
    description="Values of each post, quantity and five minutes: minutes merged.",
    key=("post_id", "quantity", "window_start"),
    time="window_start",
    schema=pa.schema([WINDOW_START, _LENGTH, POST, _QUANTITY, *_MERGED, _REVISION, *STATE]),
)

HOURS = Table(
    name="hours",
    is_derived=True,
    description="Values of each post, quantity and hour: windows merged.",
    key=("post_id", "quantity", "window_start"),
    time="window_start",
    schema=pa.schema(
        [
            WINDOW_START,
            _LENGTH,
            POST,
            _QUANTITY,
            *_MERGED,
            field("revision", pa.int32(), "1", "Times that its windows changed after they were announced final."),
            *STATE,
        ]
    ),
)

_DIRECTION = field("direction", pa.string(), "", "Direction of travel: direction_id of the registry.")

FLOW_MINUTES = Table(
    name="flow_minutes",
    is_derived=True,
    description="Mergeable traffic state of each post, direction and minute, over its lanes.",
    key=("post_id", "direction", "window_start"),
    time="window_start",
    schema=pa.schema([WINDOW_START, POST, _DIRECTION, *FLOW_STATE]),
)

FLOW_WINDOWS = Table(
    name="flow_windows",
    is_derived=True,
    description="Traffic of each post, direction and fifteen minutes: flow minutes merged.",
    key=("post_id", "direction", "window_start"),
    time="window_start",
    schema=pa.schema(
        [
            WINDOW_START,
            _LENGTH,
            POST,
            _DIRECTION,
            field("flow_veh_h", pa.float64(), "veh/h", "Vehicles per hour over the half-minutes heard.", True),
            field("mean_speed_kmh", pa.float64(), "km/h", "Arithmetic mean speed, weighted by vehicles.", True),
            field("space_mean_speed_kmh", pa.float64(), "km/h", "Harmonic mean speed.", True),
            field("occupancy_pct", pa.float64(), "%", "Mean occupancy of the lanes.", True),
            field("expected_count", pa.int64(), "1", "Half-minutes in the window."),
            field("completeness", pa.float64(), "1", "half_minutes / expected_count."),
            _REVISION,
            *FLOW_STATE,
        ]
    ),
)

ANNOUNCEMENTS = Table(
    name="announcements",
    description="When windows became final, stream by stream: those that end until final_through.",
    key=("stream", "final_through"),
    time="final_through",
    schema=pa.schema(
        [
            field("stream", pa.string(), "", "Stream whose windows are final."),
            field("final_through", TIMESTAMP, "UTC", "Every window that ends until then is final."),
            field("announced_time", TIMESTAMP, "UTC", "When it was announced."),
            field("reason", pa.string(), "", "contiguous: every living post was heard past it; grace: it ran out."),
        ]
    ),
)

READING_TABLES = (OBSERVATIONS, LANE_FLOWS, FOOTFALL, DUMPING_EVENTS, DEVICE_STATUS)
TABLES = {
    table.name: table
    for table in (
        *READING_TABLES,
        QUARANTINE,
        DUPLICATES,
        MINUTES,
        FLAGS,
        FLOW_MINUTES,
        WINDOWS,
        HOURS,
        FLOW_WINDOWS,
        ANNOUNCEMENTS,
    )
}

# what depends on the way the data came and not on the set of it: left out where tables are compared
BY_ARRIVAL = frozenset({"announcements", "revision"})

WINDOW_S = 300
FLOW_WINDOW_S = 900
HOUR_S = 3600  # the windows' period divides it
