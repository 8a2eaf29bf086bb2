"""A platform in one class: hears devices on a real broker and gives receipts as `ingest` does, but obeys the test."""

import threading
from datetime import UTC, datetime
from typing import Any

from contracts.payloads import Heartbeat, Reading, decode, head
from contracts.receipts import Receipt, encode_receipt
from contracts.topics import parse_device_topic, receipt_topic
from tests.sensors_sim.listener import Listener

Key = tuple[str, str, str]  # post, boot, stream


class Platform(Listener):
    """Gives receipts each 0.2 s. `ignored` are (post_id, stream, seq) that never land."""

    def __init__(self, port: int, ignored: set[tuple[str, str, int]] | None = None):
        self.ignored = ignored or set()
        self.is_silent = False
        self._floors: dict[Key, int] = {}
        self._landed: dict[Key, set[int]] = {}
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._stop = threading.Event()
        super().__init__(port)
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Platform":
        super().__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        super().__exit__()

    def covered(self) -> dict[Key, int]:
        """What receipts stand at."""
        found = {}
        for key, seqs in self._landed.items():
            seq = self._floors[key]
            while seq in seqs:
                seq += 1
            if seq > 0:
                found[key] = seq - 1
        return found

    def _hear(self, client: Any, userdata: Any, message: Any) -> None:
        super()._hear(client, userdata, message)
        place, first_bytes = parse_device_topic(message.topic), head(message.payload)
        if place is None or first_bytes is None:
            return
        (post_id, stream), (boot_id, seq, first_seq) = place, first_bytes
        if (post_id, stream, seq) in self.ignored:
            return
        with self._lock:
            self._changed.add(post_id)
            self._land((post_id, boot_id, stream), first_seq, {seq})
            reading = decode(message.topic, message.payload)
            if isinstance(reading, Reading) and isinstance(reading.payload, Heartbeat):
                for span in reading.payload.dropped:
                    self._land((post_id, span.boot_id, span.stream), 0, set(range(span.first_seq, span.last_seq + 1)))
                for oldest in reading.payload.oldest_held:
                    self._land((post_id, oldest.boot_id, oldest.stream), oldest.seq, set())

    def _land(self, key: Key, floor: int, seqs: set[int]) -> None:
        self._floors[key] = max(floor, self._floors.get(key, 0))
        self._landed.setdefault(key, set()).update(seqs)

    def _tell(self) -> None:
        while not self._stop.wait(0.2):
            if self.is_silent:
                continue
            with self._lock:
                changed, self._changed = self._changed, set()
                boots: dict[str, dict[str, dict[Any, int]]] = {}
                for (post_id, boot_id, stream), upto in self.covered().items():
                    if post_id in changed:
                        boots.setdefault(post_id, {}).setdefault(boot_id, {})[stream] = upto
            for post_id, streams in boots.items():
                receipt = Receipt(time=datetime.now(UTC), boots=streams)
                self._client.publish(receipt_topic(post_id), encode_receipt(receipt), qos=1, retain=True)
