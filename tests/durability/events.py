"""What happened to the files below a folder, and what was said over sockets, one call after the other."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Opened:
    """A descriptor of a file, made when it was not there."""

    path: Path
    descriptor: int
    is_truncating: bool
    is_appending: bool


@dataclass(frozen=True, slots=True)
class Written:
    """`at` None: where the descriptor stands."""

    path: Path
    descriptor: int
    at: int | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Sought:
    path: Path
    descriptor: int
    at: int


@dataclass(frozen=True, slots=True)
class Truncated:
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Made:
    """A folder."""

    path: Path


@dataclass(frozen=True, slots=True)
class Removed:
    """A file's name or an empty folder."""

    path: Path


@dataclass(frozen=True, slots=True)
class Renamed:
    old: Path
    new: Path


@dataclass(frozen=True, slots=True)
class Linked:
    old: Path
    new: Path


@dataclass(frozen=True, slots=True)
class SyncBegan:
    """`call` is answered by the SyncEnded with the same number, if it ever returned well. `path` None: everything."""

    path: Path | None
    call: int


@dataclass(frozen=True, slots=True)
class SyncEnded:
    call: int


@dataclass(slots=True)
class Sent:
    """Bytes that a process gave to a socket, at the moment of the call."""

    connection: str
    data: bytes


@dataclass(slots=True)
class Received:
    connection: str
    data: bytes


Event = (
    Opened | Written | Sought | Truncated | Made | Removed | Renamed | Linked | SyncBegan | SyncEnded | Sent | Received
)
