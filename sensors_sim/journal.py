"""The simulated fleet's disk: one append-only journal of every message that a post still holds.

Many small devices share one disk here, so they share one fsync per production step. A file is MAGIC and records; a
record is a head of 40 bytes (little-endian; CRC-32 first, over all that follows it), post id, topic and payload.
Each commit begins with a STEP record, which is only written after the commit before it was fsynced: a broken record
with a later STEP behind it is a broken disk, one without is the torn tail of a commit that nobody was told of.

Files are removed in order, oldest first, when nothing of them is held. When few messages keep many files, the oldest
file's are written once more at the end.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from contracts.layout import fsync_folder, make_folder
from contracts.settings import SettingError
from contracts.streams import STREAMS
from sensors_sim.devices import Message

MAGIC = b"LLDEV001"
FILE_BYTES = 16 * 1024 * 1024
# CRC, bytes that follow, kind, flags, stream, bytes of the post id and the topic, boot, seq, last
_HEAD = struct.Struct("<IIBBBBI8sQQ")
_CHECKED = struct.Struct("<IBBBBI8sQQ")  # the same without the CRC
_STREAMS = tuple(STREAMS)
_NUMBERS = {stream: number for number, stream in enumerate(_STREAMS)}
_NOBODY = b"\0" * 8
_READ_BYTES = 4096


class Kind(IntEnum):
    """What a record says."""

    STEP = 1  # a commit begins; seq is this record's place in the file
    MESSAGE = 2  # a post holds a message
    GIVEN = 3  # a seq was given to a message that was never held (an injected drop)
    SETTLED = 4  # a receipt covers everything up to seq
    DROPPED = 5  # seq to last are held no more, without a receipt
    STORED = 6  # seq to last are to be made from stored readings


STORED, REPORTING, REWRITTEN = 1, 2, 4  # flags


@dataclass(frozen=True, slots=True)
class Place:
    """A moment of the journal: everything before it was written earlier."""

    file: int = 0
    at: int = 0

    def is_before(self, file: int, at: int) -> bool:
        return (self.file, self.at) <= (file, at)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was read. `last` is seq where the kind has no range."""

    kind: Kind
    flags: int
    post_id: str
    boot_id: str
    stream: str
    seq: int
    last: int
    topic: str
    payload: bytes
    file: int
    at: int


@dataclass(slots=True, eq=False)
class _File:
    path: Path
    number: int
    descriptor: int
    size: int
    messages: list[Message] = field(default_factory=list)
    held: int = 0


class Journal:
    """Call `load` to its end, then `begin`. What is appended is durable when `commit` returns, and not before."""

    def __init__(self, folder: Path, file_bytes: int = FILE_BYTES):
        self._folder = folder
        self._file_bytes = file_bytes
        self._files: dict[int, _File] = {}
        self._current: _File | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    @property
    def place(self) -> Place:
        """Where the next commit begins."""
        return Place(self._current.number, self._current.size) if self._current else Place()

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self._files.values())

    def load(self) -> Iterator[Record]:
        """Every record in order. Cuts a torn tail; raises SettingError that names a file which is broken before it."""
        try:
            paths = sorted(self._folder.glob("[0-9]*.journal"))
            for path in paths:
                yield from self._load(path, path is paths[-1])
        except OSError as error:
            raise SettingError(
                f"the devices' journal {self._folder} cannot be read ({error.strerror}): mend or remove it"
            ) from error

    def _load(self, path: Path, is_last: bool) -> Iterator[Record]:
        content = path.read_bytes()
        number = int(path.stem)
        at = len(MAGIC) if content[: len(MAGIC)] == MAGIC else 0
        file = self._files[number] = _File(path, number, os.open(path, os.O_RDWR), len(content))
        while at < len(content):
            record = _parse(content, at, number) if at else None
            if record is None:
                if not is_last or _has_step(content, at):
                    raise SettingError(
                        f"the devices' journal {path} is broken at byte {at}: restore it, or remove the folder "
                        f"{path.parent} and with it what no receipt covers"
                    )
                os.ftruncate(file.descriptor, at)
                os.fsync(file.descriptor)
                file.size = at
                return
            if record.kind is not Kind.STEP:
                yield record
            at += _HEAD.size + _HEAD.unpack_from(content, at)[1]

    def adopt(self, message: Message, file: int, at: int) -> None:
        """Note that a message of an earlier run is held and where it lies."""
        message.file, message.at = file, at
        self._files[file].messages.append(message)
        self._files[file].held += 1

    def begin(self, after: int) -> None:
        """Open a new file; its number is above `after` and above every other."""
        self._rotate(max([after, *self._files]) + 1)

    def append(self, message: Message, is_reporting: bool = False, is_rewritten: bool = False) -> None:
        """Hold a message."""
        file = self._open_step()
        message.file, message.at = file.number, file.size + self._pending_bytes
        file.messages.append(message)
        file.held += 1
        flags = STORED * message.is_stored + REPORTING * is_reporting + REWRITTEN * is_rewritten
        topic = message.topic.encode()
        self._add(
            Kind.MESSAGE,
            flags,
            message.post_id,
            message.boot_id,
            message.stream,
            message.seq,
            0,
            topic,
            message.payload,
        )

    def give(self, message: Message) -> None:
        """A message has a seq and is not held."""
        self.note(
            Kind.GIVEN, message.post_id, message.boot_id, message.stream, message.seq, flags=STORED * message.is_stored
        )

    def plan(self, post_id: str, boot_id: str, stream: str, first: int, last: int) -> None:
        """These seqs are to be made from stored readings."""
        self.note(Kind.STORED, post_id, boot_id, stream, first, last)

    def drop(self, post_id: str, boot_id: str, stream: str, first: int, last: int) -> None:
        """These seqs are held no more, without a receipt."""
        self.note(Kind.DROPPED, post_id, boot_id, stream, first, last)

    def settle(self, post_id: str, boot_id: str, stream: str, upto: int) -> None:
        """A receipt covers everything up to a seq."""
        self.note(Kind.SETTLED, post_id, boot_id, stream, upto)

    def note(
        self, kind: Kind, post_id: str, boot_id: str, stream: str, seq: int, last: int = 0, flags: int = 0
    ) -> None:
        """Say something else of a boot and stream."""
        self._open_step()
        self._add(kind, flags, post_id, boot_id, stream, seq, last, b"", b"")

    def forget(self, message: Message) -> None:
        """A message is held no more. What says so (SETTLED, DROPPED) is noted apart, once for many."""
        self._files[message.file].held -= 1

    def commit(self) -> None:
        """Make everything appended durable. Raises SettingError when the disk refuses; then nothing of it counts."""
        if not self._pending:
            return
        file = self._current
        assert file is not None
        content = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(file.descriptor, content[written:], file.size + written)
            os.fsync(file.descriptor)
            file.size += len(content)
            if file.size >= self._file_bytes:
                self._rotate(file.number + 1)
        except OSError as error:
            raise SettingError(
                f"the devices' journal {file.path} cannot be written ({error.strerror}): make room or change "
                "LAMPLIGHT_DATA"
            ) from error

    def read(self, message: Message) -> bytes:
        """The payload of a committed message. Raises SettingError when its bytes are broken."""
        file = self._files[message.file]
        content = os.pread(file.descriptor, _READ_BYTES, message.at)
        if len(content) >= _HEAD.size and len(content) < (size := _HEAD.size + _HEAD.unpack_from(content)[1]):
            content = os.pread(file.descriptor, size, message.at)
        record = _parse(content, 0, message.file)
        if record is None or record.seq != message.seq:
            raise SettingError(f"the devices' journal {file.path} is broken at byte {message.at}: restore or remove it")
        return record.payload

    def tidy(self, before: Place) -> None:
        """Remove the oldest files of which nothing is held; only such as end before `before`, because later ones may
        say what nothing else says yet."""
        removed = 0
        for file in list(self._files.values()):
            if file is self._current or file.number >= before.file:
                break
            if file.held:
                if removed or not self._is_sparse():
                    break
                self._rewrite(file)
            os.close(file.descriptor)
            file.path.unlink()
            del self._files[file.number]
            removed += 1
        if removed:
            fsync_folder(self._folder)

    def _is_sparse(self) -> bool:
        """Whether most of the journal is held no more."""
        live = sum(file.size * file.held / len(file.messages) for file in self._files.values() if file.messages)
        return self.total_bytes > 2 * live + 4 * self._file_bytes

    def _rewrite(self, file: _File) -> None:
        for message in file.messages:
            if not message.is_gone:
                payload = message.payload
                message.payload = self.read(message)
                self.append(message, is_rewritten=True)
                message.payload = payload
        self.commit()

    def _rotate(self, number: int) -> None:
        path = self._folder / f"{number:08d}.journal"
        try:
            make_folder(self._folder)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            os.write(descriptor, MAGIC)
            os.fsync(descriptor)
            fsync_folder(self._folder)
        except OSError as error:
            raise SettingError(
                f"the devices' journal {path} cannot be written ({error.strerror}): make room or change LAMPLIGHT_DATA"
            ) from error
        self._current = self._files[number] = _File(path, number, descriptor, len(MAGIC))

    def _open_step(self) -> _File:
        file = self._current
        assert file is not None
        if not self._pending:
            self._add(Kind.STEP, 0, "", "", _STREAMS[0], file.size, 0, b"", b"")
        return file

    def _add(
        self, kind: Kind, flags: int, post_id: str, boot_id: str, stream: str, seq: int, last: int, topic: bytes,
        payload: bytes,
    ) -> None:  # fmt: skip
        post = post_id.encode()
        rest = post + topic + payload
        head = _CHECKED.pack(
            len(rest),
            kind,
            flags,
            _NUMBERS[stream],
            len(post),
            len(topic),
            bytes.fromhex(boot_id) or _NOBODY,
            seq,
            max(seq, last),
        )
        crc = zlib.crc32(rest, zlib.crc32(head))
        record = crc.to_bytes(4, "little") + head + rest
        self._pending.append(record)
        self._pending_bytes += len(record)


def _parse(content: bytes, at: int, file: int) -> Record | None:
    """The record at a place, or None when there is no whole one."""
    if at + _HEAD.size > len(content):
        return None
    crc, size, kind, flags, stream, post, topic, boot, seq, last = _HEAD.unpack_from(content, at)
    end = at + _HEAD.size + size
    if end > len(content) or zlib.crc32(content[at + 4 : end]) != crc:
        return None
    start = at + _HEAD.size
    named = start + post
    return Record(
        Kind(kind),
        flags,
        content[start:named].decode(),
        boot.hex(),
        _STREAMS[stream],
        seq,
        last,
        content[named : named + topic].decode(),
        content[named + topic : end],
        file,
        at,
    )


def _has_step(content: bytes, after: int) -> bool:
    """Whether a later commit began behind a place: then what lies before it had been fsynced."""
    mark = bytes([Kind.STEP, 0, 0, 0]) + b"\0\0\0\0" + _NOBODY
    found = content.find(mark, after)
    while found >= 0:
        at = found - 8
        record = _parse(content, at, 0) if at > after else None
        if record is not None and record.seq == at:
            return True
        found = content.find(mark, found + 1)
    return False
