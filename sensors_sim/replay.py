"""`replay FILE...`: recorded detectors speak again, over the same MQTT path as the posts."""

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

from contracts.payloads import SCHEMA_VERSION, Traffic, encode
from contracts.registry import Registry, load_registry
from contracts.streams import HALF_MINUTE_S
from contracts.times import US, from_us
from contracts.topics import device_topic
from sensors_sim.boots import new_boot_id
from sensors_sim.config import Config
from sensors_sim.devices import Message
from sensors_sim.links import Exchange, Link
from sensors_sim.recording import RecordedDetector, read, to_lane
from sensors_sim.sites import compass_code

_PERIOD_US = HALF_MINUTE_S * US
_REMEMBERED = 50_000  # detectors' half-minutes that may still come again: about 30 files
_AHEAD = 2_000  # encoded messages that wait for room


class Replay:
    """Makes the messages of recorded files and counts them.

    A detector's half-minute that comes again with the same lanes (the same file fetched twice) is the same message
    again, byte for byte.
    """

    def __init__(self, config: Config, registry: Registry, now_us: int):
        self._config = config
        self._registry = registry
        self._boot_id = new_boot_id()
        self._next: dict[str, int] = {}
        self._held: dict[str, dict[int, None]] = {}
        self._said: dict[tuple[str, int], tuple[RecordedDetector, Message]] = {}
        self._seen_periods: set[int] = set()
        self.shift_us = 0 if config.keep_times else self._shift(now_us)
        self.counts = dict.fromkeys(
            ("files", "periods", "detectors", "messages", "lane_readings", "repeated", "unknown_posts"), 0
        )

    def _shift(self, now_us: int) -> int:
        """Whole half-minutes from the last recorded period's end to now."""
        last_us = max((row.start_us for path in self._config.files for row in read(path)[0]), default=now_us)
        return (now_us - last_us - _PERIOD_US) // _PERIOD_US * _PERIOD_US

    def messages(self) -> Iterator[Message]:
        """Every message, file by file in the files' order."""
        for path in self._config.files:
            rows, warning = read(path)
            self.counts["files"] += 1
            if warning or not rows:
                print(f"replay: {warning or f'{path} has no detectors'}", file=sys.stderr)
            for row in rows:
                for _ in range(self._config.repeat):
                    yield self._message(row)

    def _message(self, row: RecordedDetector) -> Message:
        self._seen_periods.add(row.start_us)
        self.counts["periods"] = len(self._seen_periods)
        self.counts["messages"] += 1
        self.counts["lane_readings"] += len(row.lanes)
        said = self._said.get((row.detector_id, row.start_us))
        if said is not None and said[0] == row:
            self.counts["repeated"] += 1
            return said[1]
        message = self._new(row)
        self._said[row.detector_id, row.start_us] = (row, message)
        if len(self._said) > _REMEMBERED:
            self._said.pop(next(iter(self._said)))
        return message

    def _new(self, row: RecordedDetector) -> Message:
        # A wildcard may not stand in a topic that is published to; the id lands in quarantine as an unknown topic.
        post_id = re.sub(r"[+#\0]", "_", row.detector_id) or "_"
        time_us = row.start_us + self.shift_us
        if post_id not in self._next:
            self.counts["detectors"] += 1
            self.counts["unknown_posts"] += self._registry.at(post_id, time_us) is None
        seq = self._next[post_id] = self._next.get(post_id, -1) + 1
        held = self._held.setdefault(post_id, {})
        held[seq] = None
        direction = self._direction(post_id, row.direction, time_us)
        payload = encode(
            Traffic(
                schema_version=SCHEMA_VERSION,
                boot_id=self._boot_id,
                seq=seq,
                first_seq=next(iter(held)),
                time=from_us(time_us),
                lanes=[to_lane(lane, direction) for lane in row.lanes],
            )
        )
        return Message(
            post=0,
            post_id=post_id,
            topic=device_topic(post_id, "traffic"),
            payload=payload,
            stream="traffic",
            seq=seq,
            is_stored=False,
        )

    def settle(self, message: Message) -> None:
        """The broker has acknowledged a message."""
        self._held[message.post_id].pop(message.seq, None)

    def _direction(self, post_id: str, word: str | None, time_us: int) -> str:
        """The file's compass word as a code; without one, the registry's direction."""
        if word is not None:
            return compass_code(word) or word
        post = self._registry.at(post_id, time_us)
        return post.directions[0].direction_id if post and post.directions else "unknown"


def replay(config: Config) -> int:
    """Send everything and wait for the last acknowledgement; the exit code (1 when a signal came before it)."""
    plan = Replay(config, load_registry(config.registry), time.time_ns() // 1000)
    link = Link(f"replay-{new_boot_id()}", None, config.window, config.credentials)
    refused = 0

    def acknowledged(message: Message, was_refused: bool) -> None:
        nonlocal refused
        refused += was_refused
        plan.settle(message)

    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    exchange = Exchange(config.host, config.port, [link], acknowledged)
    exchange.start(time.monotonic)
    source = plan.messages()
    is_done, mended_s = False, 0.0
    while not stopped and not (is_done and not link.waiting):
        while not is_done and len(link.live) < _AHEAD:
            message = next(source, None)
            if message is None:
                is_done = True
            else:
                link.live.append(message)
        exchange.ready[link] = None
        exchange.pump(0)
        moment_s = time.monotonic()
        if moment_s - mended_s >= 1.0:
            mended_s = moment_s
            exchange.mend(moment_s)
        exchange.poll(0.05, moment_s)
    exchange.close()
    summary = plan.counts | {"refused": refused, "unsent": link.waiting, "shift_s": plan.shift_us // US}
    print(json.dumps(summary))
    return 1 if link.waiting or not is_done or refused else 0
