"""What a fleet finds on its disk when it starts: messages that no receipt covers, and the boots before this one."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from contracts.payloads import DECODERS, Heartbeat, PreviousBoot
from sensors_sim import boots
from sensors_sim.devices import Message, Shelf
from sensors_sim.journal import REPORTING, REWRITTEN, STORED, Journal, Kind, Record
from sensors_sim.reports import Reports


@dataclass(kw_only=True)
class Recovery:
    """`old` are shelves by post, boot and stream; `unmade` (post_id, boot_id, stream, first, last) stored readings that
    a killed fleet had numbered and never made."""

    previous: dict[str, PreviousBoot]
    old: dict[str, dict[str, dict[str, Shelf]]] = field(default_factory=dict)
    reports: Reports = field(default_factory=Reports)
    unmade: list[tuple[str, str, str, int, int]] = field(default_factory=list)


def recover(folder: Path, journal: Journal) -> Recovery:
    """Read the memory and the journal, and open the journal for this run. Raises SettingError when one is broken."""
    memory = boots.load(folder)
    reading = _Reading(memory)
    for record in journal.load():
        reading.add(record)
    found = reading.found
    for post_id in list(found.old):
        for boot_id in list(found.old[post_id]):
            shelves = found.old[post_id][boot_id]
            for stream in list(shelves):
                if shelves[stream].is_empty:
                    del shelves[stream]
                else:
                    _adopt(shelves[stream], journal)
            if not shelves:
                del found.old[post_id][boot_id]
    found.unmade = [(*key, first, last) for key, (first, last) in reading.planned.items() if first <= last]
    journal.begin(memory.file)
    for post_id, boot_id, stream, first, last in found.unmade:
        found.reports.add(post_id, boot_id, stream, first, last)
        journal.drop(post_id, boot_id, stream, first, last)
    journal.commit()
    return found


def _adopt(shelf: Shelf, journal: Journal) -> None:
    """Order a shelf by seq, which rewriting may have mixed."""
    shelf.stored = dict(sorted(shelf.stored.items()))
    shelf.live = dict(sorted(shelf.live.items()))
    for message in (*shelf.stored.values(), *shelf.live.values()):
        journal.adopt(message, message.file, message.at)


class _Reading:
    """The journal's records, one by one; those before the memory's place are known to it."""

    def __init__(self, memory: boots.Memory):
        self._memory = memory
        self._count = 0
        self.planned: dict[tuple[str, str, str], tuple[int, int]] = {}
        self.found = Recovery(previous=dict(memory.posts))
        for post_id, spans in memory.dropped.items():
            for span in spans:
                self.found.reports.add(post_id, span.boot_id, span.stream, span.first_seq, span.last_seq)

    def add(self, record: Record) -> None:
        key = record.post_id, record.boot_id, record.stream
        is_new = (record.file, record.at) >= (self._memory.file, self._memory.at)
        match record.kind:
            case Kind.MESSAGE:
                self._number(record, is_new)
                self._hold(record)
            case Kind.GIVEN:
                self._number(record, is_new)
            case Kind.SETTLED:
                for message in self._shelf(record).take(record.seq):
                    self.found.reports.settled(message.post_id, message.boot_id, message.seq)
            case Kind.DROPPED:
                self._drop(record, is_new)
            case Kind.STORED:
                self.planned[key] = (record.seq, record.last)
                self._number(record, is_new)
            case _:
                raise AssertionError(record.kind)

    def _shelf(self, record: Record) -> Shelf:
        boots_ = self.found.old.setdefault(record.post_id, {})
        return boots_.setdefault(record.boot_id, {}).setdefault(record.stream, Shelf())

    def _number(self, record: Record, is_new: bool) -> None:
        """Note that the seqs up to the record's last were given."""
        key = record.post_id, record.boot_id, record.stream
        if record.flags & STORED and key in self.planned:
            self.planned[key] = (max(record.seq + 1, self.planned[key][0]), self.planned[key][1])
        if not is_new or record.flags & REWRITTEN:
            return
        previous = self.found.previous.get(record.post_id)
        if previous is None or (previous.boot_id != record.boot_id and record.stream == "status" and record.seq == 0):
            previous = PreviousBoot(boot_id=record.boot_id, highest_seq={})
            self.found.previous[record.post_id] = previous
        if previous.boot_id == record.boot_id:
            highest = previous.highest_seq
            highest[record.stream] = max(record.last, highest.get(record.stream, 0))  # type: ignore[index,call-overload]

    def _hold(self, record: Record) -> None:
        shelf = self._shelf(record)
        self._count += 1
        message = Message(
            post=-1,
            post_id=record.post_id,
            topic=record.topic,
            payload=b"",
            stream=record.stream,
            seq=record.seq,
            is_stored=bool(record.flags & STORED),
            boot_id=record.boot_id,
            file=record.file,
            at=record.at,
            order=self._count - 2**62,
            is_acknowledged=True,
        )
        (shelf.stored if message.is_stored else shelf.live)[message.seq] = message
        if record.flags & REPORTING:
            try:
                beat = DECODERS["status"].decode(record.payload)
            except msgspec.DecodeError:
                return
            if isinstance(beat, Heartbeat):
                self.found.reports.was_told(record.post_id, record.boot_id, record.seq, beat.dropped)

    def _drop(self, record: Record, is_new: bool) -> None:
        shelf, key = self._shelf(record), (record.post_id, record.boot_id, record.stream)
        if key in self.planned and self.planned[key][0] == record.seq:
            self.planned[key] = (record.last + 1, self.planned[key][1])
        if is_new:
            self.found.reports.add(record.post_id, record.boot_id, record.stream, record.seq, record.last)
        for seq in range(record.seq, record.last + 1):
            message = shelf.stored.pop(seq, None) or shelf.live.pop(seq, None)
            if message is not None and message.stream == "status":
                self.found.reports.untell(message.post_id, message.boot_id, message.seq)
