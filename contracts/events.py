"""What befell an ingest instance, in raw/{instance}/events.ndjson: one JSON line per event, for whoever asks later why
something is missing or late."""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from contracts.layout import fsync_folder

EventKind = Literal["joined", "session_lost", "disk_failed", "disk_back", "retired", "limited"]


class Event(msgspec.Struct, kw_only=True, frozen=True):
    """`joined`: a session of ours began where none was expected, at the first start or after `retired`;
    `session_lost`: the broker had no session of ours where we had left one, so what it held for us is gone;
    `disk_failed`, `disk_back`: a commit was refused, and commits went on; `retired`: the session was drained and
    given up; `limited`: the broker allows less than we asked for."""

    time: Annotated[datetime, msgspec.Meta(tz=True)]
    kind: EventKind
    detail: str


def events_path(raw: Path, instance: str) -> Path:
    return raw / instance / "events.ndjson"


def append_event(path: Path, event: Event) -> None:
    """Add a line durably. Raises OSError; a torn line that a crash left is closed first."""
    is_new = not path.exists()
    with path.open("ab+") as handle:
        if handle.tell() > 0:
            handle.seek(-1, os.SEEK_END)
            if handle.read(1) != b"\n":
                handle.write(b"\n")
        handle.write(msgspec.json.encode(event) + b"\n")
        handle.flush()
        os.fsync(handle.fileno())
    if is_new:
        fsync_folder(path.parent)


def read_events(path: Path) -> list[Event]:
    """Every whole event of an instance, oldest first; empty when there is no file."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=Event))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # torn by a crash: its event was never acted upon
    return found
