"""The streams that a post sends and how often: what a device maker builds to and a loss count expects."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stream:
    """`cadence_s` is the seconds between messages of one post; None for events.

    `is_period` streams summarise the aligned period [time, time + cadence_s) and are sent after it ends.
    """

    name: str
    cadence_s: int | None
    is_period: bool
    description: str


STREAMS: dict[str, Stream] = {
    row.name: row
    for row in (
        Stream(
            name="traffic",
            cadence_s=30,
            is_period=True,
            description="Lane summaries of every aligned half-minute, zero ones included.",
        ),
        Stream(
            name="pedestrian",
            cadence_s=30,
            is_period=True,
            description="Line crossings in and out of every aligned half-minute; never people present.",
        ),
        Stream(name="weather", cadence_s=60, is_period=False, description="Weather at the post."),
        Stream(name="air", cadence_s=60, is_period=False, description="Air quality and noise at the post."),
        Stream(name="dumping", cadence_s=None, is_period=False, description="Illegal dumping events; no picture."),
        Stream(
            name="status",
            cadence_s=60,
            is_period=False,
            description="Retained birth, heartbeat each minute, last will.",
        ),
    )
}

HALF_MINUTE_S = 30
