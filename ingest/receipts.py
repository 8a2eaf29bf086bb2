"""`python -m ingest receipts`: what is in sealed segments, of all instances, is told to the posts that sent it."""

import contextlib
import time
from typing import cast

import pyarrow as pa

from contracts import settings
from contracts.health import Health
from contracts.layout import try_lock, write_progress
from contracts.logs import say
from contracts.payloads import Heartbeat, Reading, StreamName, decode, head
from contracts.receipts import encode_receipt
from contracts.segments import recover_abandoned
from contracts.settings import SettingError
from contracts.times import US
from contracts.topics import parse_device_topic, receipt_topic
from ingest import memory
from ingest.config import Config
from ingest.coverage import Coverage
from ingest.memory import Memory
from ingest.sender import Sender
from ingest.stop import Stop
from ingest.tail import Tail
from ingest.tally import Tally
from ingest.tidy import Tidier
from ingest.turns import Turns

LOOK_S = 0.1
TURN_S = 0.3  # at most so long is read before posts are told
HURRY_S = 0.01
RECOVER_S = 5.0
STORE_S = 20.0
PROGRESS_S = 1.0
REFUSED_S = 60.0


class Receipts:
    """One turn: read what is new, tell the posts whose turn it is, and the chores that are due."""

    def __init__(self, config: Config, sender: Sender, tally: Tally):
        self.config = config
        self.layout = config.layout
        self.sender = sender
        self.tally = tally
        self._recover()
        kept = memory.load(self.layout)
        self.coverage = Coverage(kept.posts)
        self.tail = Tail(self.layout.raw, kept.offsets)
        self.turns = Turns()
        self._read_us = 0
        self._live_us = time.time_ns() // 1000
        now = time.monotonic()
        self._recover_at = now + RECOVER_S
        self._store_at = now + STORE_S
        self._progress_at = 0.0
        self._complain_at = 0.0

    def catch_up(self, stop: Stop) -> None:
        """Read to the end before anybody is told: a receipt never says less than one before the restart did."""
        while not stop.is_set:
            is_cut = self.read(stop)
            self.chores()
            if not is_cut and (not self.tail.behind or stop.wait(LOOK_S)):
                return

    def read(self, stop: Stop) -> bool:
        """Take up what is sealed, for about TURN_S; True when there may be more."""
        until = time.monotonic() + TURN_S
        for rows in self.tail.read():
            self._take(rows)
            if time.monotonic() >= until or stop.is_set:
                return True
        return False

    def tell(self) -> bool:
        """Settle what was answered and send what is due; True when the window held some back."""
        for topic, refusal in self.sender.answers():
            self.turns.answered(topic.rpartition("/")[2])
            if refusal is None:
                self.tally.published += 1
                self.tally.last_published_seconds = time.time()
            else:
                self._refused(topic, refusal)
        now_us = time.time_ns() // 1000
        due = self.turns.take(time.monotonic(), self.sender.room)
        for post_id, since_us in due:
            self.sender.send(receipt_topic(post_id), encode_receipt(self.coverage.receipt(post_id, now_us)))
            if since_us >= self._live_us:
                self.tally.delays.observe(max(0, now_us - since_us) / US)
        return bool(due) and self.sender.room == 0

    def chores(self) -> None:
        """What is due of recovering, storing and saying how far we are."""
        now = time.monotonic()
        self.tally.turned_at = now
        if now >= self._recover_at:
            self._recover()
            self._recover_at = now + RECOVER_S
        if now >= self._store_at:
            self.store()
            self.turns.forget(now)
            # a large memory takes its time, and is stored the less often
            self._store_at = time.monotonic() + max(STORE_S, 20 * (time.monotonic() - now))
        if now >= self._progress_at:
            self._progress()
            self._progress_at = now + PROGRESS_S

    def store(self) -> None:
        """Keep what is known. A disk that refuses costs the next start some reading, nothing else."""
        try:
            memory.store(self.layout, Memory(offsets=self.tail.offsets, posts=self.coverage.posts))
        except OSError as error:
            say("receipts", f"{self.layout.receipts} cannot be written ({error.strerror})", "warning")

    def _take(self, rows: pa.Table) -> None:
        times = rows["received_time"].cast(pa.int64()).to_pylist()
        topics, payloads = rows["topic"].to_pylist(), rows["payload"].to_pylist()
        message, landed = self.coverage.message, self.turns.landed
        for topic, payload, received_us in zip(topics, payloads, times, strict=True):
            place = parse_device_topic(topic)
            found = head(payload) if place else None
            if place is None or found is None:
                continue
            post_id, stream = place
            message(post_id, cast(StreamName, stream), *found, received_us)
            if stream == "status" and (b'"dropped":' in payload or b'"oldest_held":' in payload):
                self._hear(topic, payload, received_us)
            landed(post_id, received_us)
        if times:
            self._read_us = times[-1]
            self.tally.messages += len(times)

    def _hear(self, topic: str, payload: bytes, received_us: int) -> None:
        reading = decode(topic, payload)
        if isinstance(reading, Reading) and isinstance(reading.payload, Heartbeat):
            self.coverage.heartbeat(reading.post_id, reading.payload, received_us)

    def _refused(self, topic: str, reason: str) -> None:
        self.tally.refused += 1
        now = time.monotonic()
        if now >= self._complain_at:
            self._complain_at = now + REFUSED_S
            say("receipts", f"the broker refuses {topic} ({reason}): change its access rules", "error")

    def _recover(self) -> None:
        with contextlib.suppress(OSError):
            recover_abandoned(self.layout.raw)

    def _progress(self) -> None:
        tally, behind = self.tally, self.tail.behind
        tally.posts, tally.boots = len(self.coverage.posts), self.coverage.boots
        tally.waiting = len(self.turns.waiting)
        tally.reconnects, tally.is_connected = self.sender.reconnects, int(self.sender.is_connected)
        tally.skipped = self.tail.skipped
        tally.lag_offsets = behind
        tally.lag_seconds = round(max(0.0, time.time() - self._read_us / US), 3) if behind and self._read_us else 0.0
        with contextlib.suppress(OSError):
            path = self.layout.progress("receipts")
            write_progress(path, tally.figures() | {"time_us": time.time_ns() // 1000})


def run(config: Config, stop: Stop) -> int:
    """Tell posts until stopped; the exit code. Raises SettingError when another process does so already, the folder
    cannot be written or the broker cannot be used at the start."""
    settings.writable_folder(config.layout.receipts)
    lock = try_lock(config.layout.receipts / "lock")
    if lock is None:
        raise SettingError(
            f"a receipts process already runs on {config.layout.receipts}: stop it, or change LAMPLIGHT_DATA"
        )
    tally = Tally()
    with lock, contextlib.ExitStack() as closing:
        if config.receipts_health is not None:
            health = Health(config.receipts_health, tally.registry, tally.check, "LAMPLIGHT_RECEIPTS_HEALTH")
            closing.callback(health.close)
        sender = Sender(config)
        sender.open()
        closing.callback(sender.close)
        receipts = Receipts(config, sender, tally)
        receipts.catch_up(stop)
        say(
            "receipts",
            f"telling posts over {config.address}; {len(receipts.coverage.posts):,} are known, "
            f"{tally.messages:,} messages were read",
        )
        closing.callback(Tidier(config, tally.tidied).close)
        pause_s = 0.0
        while not stop.wait(pause_s):
            began = time.monotonic()
            is_more = receipts.read(stop)
            is_held_back = receipts.tell()
            receipts.chores()
            pause_s = 0.0 if is_more else HURRY_S if is_held_back else LOOK_S - (time.monotonic() - began)
        receipts.store()
    return 0
