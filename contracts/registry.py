"""The lamppost registry: what stands where, since when, and what it may say.

Data, changed without a release: one JSON file, replaced as a whole, in which every post has one entry per time
span [valid_from, valid_to). The pipeline reads it again when the file changes.
"""

from datetime import date, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from contracts.layout import write_durably
from contracts.settings import SettingError
from contracts.times import to_us


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name in English, traditional and simplified Chinese."""

    en: str
    tc: str
    sc: str


class Sensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A device on the post that feeds one stream. `quantities` are names of the table of quantities."""

    stream: str
    model: str
    height_m: float
    calibrated_on: date | None
    quantities: tuple[str, ...]


class ReleaseClamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Public bounds of a speed in `release_speed_sum`, km/h, fixed per post by the road's speed limit."""

    lo_kmh: int
    hi_kmh: int
    centre_kmh: int


class Direction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One direction of travel that a post's detector sees; `direction_id` is unique in the post."""

    direction_id: str
    bearing_deg: int
    road: Names
    lanes: tuple[str, ...]
    speed_limit_kmh: int


class Lamppost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One post during [valid_from, valid_to). `detector` entries are recorded Transport Department detectors that
    may be replayed; they are not part of the city's public release."""

    post_id: str
    kind: Literal["lamppost", "detector"]
    area: str
    district: str
    name: Names
    latitude: float
    longitude: float
    easting_m: float
    northing_m: float
    sensors: tuple[Sensor, ...]
    directions: tuple[Direction, ...]
    sends_classes: bool
    release_clamp: ReleaseClamp | None
    gateway_id: str | None
    valid_from: datetime
    valid_to: datetime | None = None

    @property
    def streams(self) -> frozenset[str]:
        """Streams that the post may send: its sensors' and its own status."""
        return frozenset(sensor.stream for sensor in self.sensors) | {"status"}

    def quantities(self, stream: str) -> tuple[str, ...]:
        """Names of the quantities that the post measures on a stream."""
        return tuple(name for sensor in self.sensors if sensor.stream == stream for name in sensor.quantities)


class RegistryFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file's shape; `version` grows with every change."""

    version: int
    lampposts: tuple[Lamppost, ...]


class Entry(NamedTuple):
    """One registry entry with what every message is judged by, made once."""

    post: Lamppost
    start_us: int
    end_us: int | None
    streams: frozenset[str]
    directions: frozenset[str]


class Registry:
    """Look-up by post and time over the entries of one registry file."""

    def __init__(self, file: RegistryFile):
        self.file = file
        self.version = file.version
        self.areas = {post.post_id: post.area for post in file.lampposts}
        self.gateways = frozenset(post.gateway_id for post in file.lampposts if post.gateway_id)
        self._entries: dict[str, list[Entry]] = {}
        for post in sorted(file.lampposts, key=lambda post: (post.post_id, post.valid_from)):
            self._entries.setdefault(post.post_id, []).append(
                Entry(
                    post,
                    to_us(post.valid_from),
                    None if post.valid_to is None else to_us(post.valid_to),
                    post.streams,
                    frozenset(direction.direction_id for direction in post.directions),
                )
            )

    def entry(self, post_id: str, time_us: int) -> Entry | None:
        """What is known of a post at a moment (microseconds, UTC), or None."""
        for entry in reversed(self._entries.get(post_id, ())):
            if time_us >= entry.start_us:
                return entry if entry.end_us is None or time_us < entry.end_us else None
        return None

    def at(self, post_id: str, time_us: int) -> Lamppost | None:
        """The entry of a post that is valid at a moment (microseconds, UTC), or None."""
        entry = self.entry(post_id, time_us)
        return None if entry is None else entry.post

    def valid(self, time_us: int) -> list[Lamppost]:
        """Every entry that is valid at a moment, by post id."""
        found = (self.at(post_id, time_us) for post_id in sorted(self._entries))
        return [post for post in found if post is not None]


def load_registry(path: Path) -> Registry:
    """Read a registry file. Raises SettingError that says what to change when it is missing or broken."""
    try:
        return Registry(msgspec.json.decode(path.read_bytes(), type=RegistryFile))
    except FileNotFoundError:
        raise SettingError(f"no lamppost registry at {path}: make one with `python -m sensors_sim fleet`") from None
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise SettingError(f"lamppost registry {path} cannot be read: {error}") from error


def save_registry(path: Path, file: RegistryFile) -> None:
    """Replace the registry file as a whole, durably."""
    write_durably(path, msgspec.json.format(msgspec.json.encode(file), indent=1))
