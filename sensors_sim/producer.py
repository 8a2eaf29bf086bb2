"""Messages as the devices make them: content, faults, heads and bytes, for a span of time at once."""

from collections.abc import Callable
from typing import Any

import numpy as np

from contracts.payloads import (
    SCHEMA_VERSION,
    Air,
    Birth,
    Dumping,
    Heartbeat,
    Pedestrian,
    PreviousBoot,
    Traffic,
    Weather,
    encode,
)
from contracts.streams import STREAMS
from contracts.times import from_us
from contracts.topics import device_topic
from sensors_sim.city import City
from sensors_sim.content import FIRMWARE, Fields, measured
from sensors_sim.devices import Devices, Message
from sensors_sim.faults import FaultPlan, draw
from sensors_sim.hashing import Ints
from sensors_sim.schedule import Schedule, Slots
from sensors_sim.tampering import Notes, tamper_bytes, tamper_times, tamper_topic, tamper_values

_STRUCTS: dict[str, type[Traffic | Pedestrian | Weather | Air | Dumping | Heartbeat]] = {
    "traffic": Traffic,
    "pedestrian": Pedestrian,
    "weather": Weather,
    "air": Air,
    "dumping": Dumping,
    "status": Heartbeat,
}
Record = dict[str, Any]
# what a heartbeat says under one of these may not be understood, so such a one reports nothing
_UNHEARD = {"drop", "malformed", "truncated", "unknown_post", "wrong_topic", "future", "skew"}


class Producer:
    """Makes every message once. Call `births`, then `stored` and `live` with spans that follow each other. `devices` is
    made from how many stored messages each post begins with, per stream.

    `records` collects what was injected; whoever writes the ground truth empties it. `rebooted` likewise collects
    posts (indices) that have rebooted.
    """

    def __init__(
        self,
        city: City,
        plan: FaultPlan,
        start_us: int,
        history_us: int,
        live: Schedule,
        devices: Callable[[dict[str, Ints]], Devices],
    ):
        self._city = city
        self._plan = plan
        self._live_schedule = live
        self._stored_schedule = Schedule(city, start_us)
        self.start_us = start_us
        self.begin_us = start_us - history_us
        counts = {name: self._stored_schedule.counts(name, self.begin_us, start_us) for name in STREAMS}
        self.stored_count = int(sum(count.sum() for count in counts.values()))
        self.devices = devices(counts)
        self.records: list[Record] = []
        self.rebooted: list[int] = []

    def births(self, previous: dict[str, PreviousBoot]) -> list[Message]:
        """The first message of every post; `previous` is what the devices found on their disks."""
        ids = (post.post_id for post in self._city.posts)
        return [self._birth(post, self.begin_us, previous.get(post_id)) for post, post_id in enumerate(ids)]

    def stored(self, from_us: int, to_us: int) -> list[Message]:
        """Stored readings of (from, to], in time order."""
        return self._make(self._stored_schedule.due(from_us, to_us), [], True)

    def live(self, from_us: int, to_us: int) -> list[Message]:
        """Readings that are due in (from, to], in order of sending; posts may reboot in between."""
        return self._make(
            self._live_schedule.due(from_us, to_us), self._plan.reboots(self._city, from_us, to_us), False
        )

    def reports(self, posts: list[int], time_us: int) -> list[Message]:
        """Heartbeats out of turn, of posts that have something to report."""
        return [self._beat(post, time_us) for post in posts]

    def _beat(self, post: int, time_us: int) -> Message:
        boot_id, seq, first_seq = self.devices.live("status", post)
        beat = Heartbeat(
            schema_version=SCHEMA_VERSION,
            boot_id=boot_id,
            seq=seq,
            first_seq=first_seq,
            time=from_us(time_us),
            firmware=FIRMWARE,
            **self._report(post, boot_id, seq),
        )
        message = self._message(post, "status", boot_id, seq, encode(beat), False)
        self.devices.hold(message, bool(beat.dropped))
        return message

    def _report(self, post: int, boot_id: str, seq: int) -> Fields:
        """What a heartbeat says about what the post does not hold."""
        device = self.devices.all[post]
        return {
            "dropped_count": device.dropped_count,
            "dropped": self.devices.reports.tell(device.post_id, boot_id, seq),
            "oldest_held": self.devices.oldest_held(post),
        }

    def _birth(self, post: int, time_us: int, previous: PreviousBoot | None) -> Message:
        boot_id, seq, first_seq = self.devices.birth(post)
        birth = Birth(
            schema_version=SCHEMA_VERSION,
            boot_id=boot_id,
            seq=seq,
            first_seq=first_seq,
            time=from_us(time_us),
            firmware=FIRMWARE,
            previous=previous,
        )
        message = self._message(post, "status", boot_id, seq, encode(birth), False)
        message.is_retained = True
        self.devices.hold(message)
        return message

    def _message(self, post: int, stream: str, boot_id: str, seq: int, payload: bytes, is_stored: bool) -> Message:
        post_id = self._city.posts[post].post_id
        return Message(
            post=post,
            post_id=post_id,
            topic=device_topic(post_id, stream),
            payload=payload,
            stream=stream,
            seq=seq,
            is_stored=is_stored,
            boot_id=boot_id,
        )

    def _make(self, due: list[Slots], reboots: list[tuple[int, int]], is_stored: bool) -> list[Message]:
        rows: list[tuple[int, int, int, int]] = []  # due, batch, row, post
        batches = []
        for number, slots in enumerate(due):
            batches.append(_Batch(self._city, self._plan, slots, is_stored))
            rows += zip(
                slots.due_us.tolist(),
                [number] * len(slots.posts),
                range(len(slots.posts)),
                slots.posts.tolist(),
                strict=True,
            )
        rows.sort()
        made: list[Message] = []
        waiting = list(reversed(reboots))
        for due_us, number, row, post in rows:
            while waiting and waiting[-1][1] <= due_us:
                made.append(self._reboot(*waiting.pop()))
            made.append(self._one(batches[number], row, post, is_stored))
        while waiting:
            made.append(self._reboot(*waiting.pop()))
        return made

    def _reboot(self, post: int, time_us: int) -> Message:
        previous = self.devices.reboot(post)
        self.rebooted.append(post)
        message = self._birth(post, time_us, previous)
        self._record("reboot", message, self.devices.boot_ids[post], time_us, {"previous_boot_id": previous.boot_id})
        return message

    def _one(self, batch: "_Batch", row: int, post: int, is_stored: bool) -> Message:
        stream, fields = batch.stream, batch.fields[row]
        boot_id, seq, first_seq = (self.devices.stored if is_stored else self.devices.live)(stream, post)
        notes = batch.notes.get(row, ())
        is_reporting = False
        if stream == "status" and not is_stored and not any(note["fault"] in _UNHEARD for note in notes):
            fields |= self._report(post, boot_id, seq)
            is_reporting = bool(fields["dropped"])
        time_us = batch.times[row]
        payload = encode(
            _STRUCTS[stream](
                schema_version=SCHEMA_VERSION,
                boot_id=boot_id,
                seq=seq,
                first_seq=first_seq,
                time=from_us(time_us),
                **fields,
            )
        )
        message = self._message(post, stream, boot_id, seq, payload, is_stored)
        for note in notes:
            self._apply(message, note, post, time_us)
            self._record(note["fault"], message, boot_id, time_us, note)
        if message.copies:
            self.devices.hold(message, is_reporting)
        else:
            self.devices.give(message)
        return message

    def _apply(self, message: Message, note: Record, post: int, time_us: int) -> None:
        fault = note["fault"]
        if fault in ("malformed", "truncated"):
            message.payload = tamper_bytes(fault, message.payload, draw(self._city, post, time_us, fault))
        elif fault in ("unknown_post", "wrong_topic"):
            message.topic = tamper_topic(fault, message.topic)
        elif fault == "drop":
            message.copies = 0
        elif fault == "wire":
            message.is_lost = True
        elif fault == "duplicate":
            message.copies = 2
        elif fault == "reorder":
            message.swaps = True
        elif fault == "late":
            message.release_us = note["until_us"]

    def _record(self, fault: str, message: Message, boot_id: str, time_us: int, detail: Record) -> None:
        head: Record = {
            "fault": fault,
            "post_id": message.post_id,
            "stream": message.stream,
            "boot_id": boot_id,
            "seq": message.seq,
            "time_us": time_us,
            "topic": message.topic,
        }
        self.records.append(head | detail)


class _Batch:
    """The fields, times and faults of one stream's slots."""

    def __init__(self, city: City, plan: FaultPlan, slots: Slots, is_stored: bool):
        self.stream = slots.stream
        self.fields: list[Fields] = measured(city, slots)
        self.notes: Notes = {}
        self.times: list[int] = slots.time_us.tolist()
        if not plan.rates:
            return
        self.notes = tamper_values(city, plan, slots, self.fields)
        self.times = tamper_times(city, plan, slots, self.fields, self.notes)
        gone: set[int] = set()  # rows that no further fault can reach: lost in the device
        broken: set[int] = set()
        lost: set[int] = set()
        for name in ("drop", "wire", "malformed", "truncated", "unknown_post", "wrong_topic", "duplicate", "reorder"):
            for row in plan.strikes(city, name, slots.stream, slots.posts, slots.time_us).tolist():
                if row in gone or (name == "truncated" and row in broken) or (name == "duplicate" and row in lost):
                    continue
                if name == "drop":
                    gone.add(row)
                elif name == "wire":
                    lost.add(row)
                elif name == "malformed":
                    broken.add(row)
                self.notes.setdefault(row, []).append({"fault": name})
        if not is_stored:
            found = plan.episodes(city, "late", slots.posts, slots.due_us)
            for row in set(np.flatnonzero(found.is_on).tolist()) - gone:
                self.notes.setdefault(row, []).append({"fault": "late", "until_us": int(found.end_us[row])})
