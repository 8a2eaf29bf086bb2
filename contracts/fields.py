"""Fields of Arrow schemas, each with its unit and its meaning, and those that make up mergeable state."""

import pyarrow as pa

from contracts.payloads import VEHICLE_CLASSES

TIMESTAMP = pa.timestamp("us", "UTC")


def field(name: str, kind: pa.DataType, unit: str, description: str, nullable: bool = False) -> pa.Field:
    """A field with unit and description; `unit` is a UCUM-like symbol, "" where a unit makes no sense."""
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "description": description})


# of the values of a quantity within a span
STATE = [
    field("value_count", pa.int64(), "1", "Values used: flags 1 and 2 of messages that do not conflict."),
    field("flagged_count", pa.int64(), "1", "Values left out: flags 3, 4 and 9, by their message or their context."),
    field("value_sum", pa.float64(), "as quantity", "Sum of the values used.", True),
    field("value_sum_squares", pa.float64(), "as quantity, squared", "Sum of squares of the values used.", True),
    field("energy_sum", pa.float64(), "1", "Sum of 10^(value/10) of the values used; levels in dB only.", True),
    field("sin_sum", pa.float64(), "1", "Sum of sines of what is not calm; circular quantities only.", True),
    field("cos_sum", pa.float64(), "1", "Sum of cosines of what is not calm; circular quantities only.", True),
    field("unit_count", pa.int64(), "1", "Values that sin_sum and cos_sum stand for: those that are not calm.", True),
    field("sin_speed_sum_ms", pa.float64(), "m/s", "Sum of wind speed times sine, of messages with both used.", True),
    field("cos_speed_sum_ms", pa.float64(), "m/s", "Sum of wind speed times cosine, of messages with both used.", True),
    field(
        "vector_count", pa.int64(), "1", "Messages that the sums with the wind speed stand for, calm ones too.", True
    ),
    field("value_min", pa.float64(), "as quantity", "Least value used.", True),
    field("value_max", pa.float64(), "as quantity", "Greatest value used.", True),
    field("first_value", pa.float64(), "as quantity", "First value used, by event time.", True),
    field("last_value", pa.float64(), "as quantity", "Last value used, by event time.", True),
    field("increase", pa.float64(), "as quantity", "Growth of a counter from first to last value; resets add.", True),
    field("last_event_time", TIMESTAMP, "UTC", "Event time of the newest value, used or not."),
    field(
        "last_used_time",
        TIMESTAMP,
        "UTC",
        "Event time of last_value; null where that is last_event_time, or no value was used.",
        True,
    ),
]

# the state before any test of context: the only context that those tests have
PLAIN = [
    field(
        "plain_count", pa.int64(), "1", "Plausible values: those that their message alone does not fail (flag 1, 2, 3)."
    ),
    field("plain_last", pa.float64(), "as quantity", "Last of these, by event time.", True),
    field("plain_min", pa.float64(), "as quantity", "Least of these.", True),
    field("plain_max", pa.float64(), "as quantity", "Greatest of these.", True),
]

# of a direction's traffic within a span
FLOW_STATE = [
    field("half_minutes", pa.int64(), "1", "Distinct half-minutes of which a summary landed."),
    field("lane_summaries", pa.int64(), "1", "Valid, unflagged lane summaries used for the figures below."),
    field("flagged_count", pa.int64(), "1", "Lane summaries left out: offline, conflicting excluded, or flag 3, 4."),
    field("vehicle_count", pa.int64(), "1", "Vehicles."),
    *[
        field(f"{name}_count", pa.int64(), "1", f"Vehicles of class {name}; null when not classified.", True)
        for name in VEHICLE_CLASSES
    ],
    field("speed_count", pa.int64(), "1", "Vehicles that the speed sums stand for."),
    field("speed_sum_kmh", pa.float64(), "km/h", "Sum of mean speed times vehicles."),
    field("inverse_speed_sum_h_km", pa.float64(), "h/km", "Sum of 1/v; n divided by it is the space-mean speed."),
    field("inverse_speed_count", pa.int64(), "1", "Vehicles that inverse_speed_sum_h_km stands for."),
    field("occupancy_sum_pct", pa.float64(), "%", "Sum of the lanes' occupancies."),
    field("occupancy_count", pa.int64(), "1", "Lane summaries that occupancy_sum_pct stands for."),
    field(
        "release_count",
        pa.int64(),
        "1",
        "Vehicles of every valid summary, clamped per summary, without any rule that looks at counts or speeds.",
    ),
    field("release_speed_sum", pa.int64(), "km/h", "Sum of release_speed_sum of every valid summary."),
    field("last_event_time", TIMESTAMP, "UTC", "Start of the newest half-minute that landed."),
]
