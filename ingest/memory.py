"""What the receipts process keeps on disk, so that a restart reads only the end of the raw log.

It may be older than the log, never ahead of it: what it says was in sealed segments before it was written.
"""

from pathlib import Path

import msgspec

from contracts.layout import Layout, instances, sealed_segments, write_durably
from contracts.logs import say
from ingest.coverage import Posts

VERSION = 1


class Memory(msgspec.Struct, kw_only=True):
    """`offsets`: next offset per instance; `posts` is the coverage of all rows before them."""

    version: int = VERSION
    offsets: dict[str, int] = {}
    posts: Posts = {}


class _Offsets(msgspec.Struct, kw_only=True):
    version: int
    offsets: dict[str, int]


def path(layout: Layout) -> Path:
    return layout.receipts / "coverage.msgpack"


def store(layout: Layout, memory: Memory) -> None:
    """Replace the memory durably. Raises OSError."""
    write_durably(path(layout), msgspec.msgpack.encode(memory))


def load(layout: Layout) -> Memory:
    """The memory; where there is none to go by, an empty one, which means to read the whole raw log again.

    An instance whose log ends before its offset was begun anew, and is read from its beginning.
    """
    try:
        memory = msgspec.msgpack.decode(path(layout).read_bytes(), type=Memory)
        if memory.version != VERSION:
            raise msgspec.ValidationError(f"version {memory.version}")
    except FileNotFoundError:
        if sealed := [name for name in instances(layout.raw) if sealed_segments(layout.raw, name)]:
            say("receipts", f"no memory in {layout.receipts}: reading all of the raw log of {', '.join(sealed)}")
        return Memory()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        say("receipts", f"{path(layout)} cannot be used ({error}): reading all of the raw log again", "warning")
        return Memory()
    for name, offset in list(memory.offsets.items()):
        end = max((segment.last + 1 for segment in sealed_segments(layout.raw, name, offset - 1)), default=0)
        if end < offset:
            say("receipts", f"the raw log of {name} ends before what was read of it: reading it again", "warning")
            del memory.offsets[name]
    return memory


def offsets(layout: Layout) -> dict[str, int]:
    """Next offset per instance as it lies on disk; empty when there is none to go by."""
    try:
        found = msgspec.msgpack.decode(path(layout).read_bytes(), type=_Offsets)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found.offsets if found.version == VERSION else {}
