"""`publish`: the fleet over real MQTT, live readings first and stored ones in the spare room."""

import heapq
import json
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO

from contracts.layout import try_lock, write_progress
from contracts.payloads import SCHEMA_VERSION, Will, encode
from contracts.registry import Lamppost, load_registry
from contracts.settings import SettingError, writable_folder
from contracts.times import US
from contracts.topics import device_topic
from sensors_sim import boots, faults
from sensors_sim.city import city_of
from sensors_sim.config import Config
from sensors_sim.devices import Message
from sensors_sim.links import Exchange, Link
from sensors_sim.producer import Producer
from sensors_sim.schedule import Schedule, natural_rate

_TICK_US = 100_000
_HELD_BY_ALL = 600_000  # live messages in memory, about 0.5 GB
_STORED_AHEAD = 6_000  # encoded stored messages that wait for room
_STORED_STEP_US = 20 * US
_DRAIN_S = 60.0  # after --seconds, for what is not acknowledged yet
_GOODBYE_S = 2.0  # after SIGTERM or SIGINT


def now_us() -> int:
    """Microseconds UTC."""
    return time.time_ns() // 1000


def choose_posts(path: Path, count: int | None, moment_us: int) -> tuple[Lamppost, ...]:
    """The first lampposts that are valid now, the areas in turn. Raises SettingError when there are too few."""
    found = [post for post in load_registry(path).valid(moment_us) if post.kind == "lamppost"]
    found.sort(key=lambda post: (post.post_id[2:], post.post_id))
    if not found or (count or 0) > len(found):
        raise SettingError(
            f"{path} has {len(found)} lampposts: make more with `python -m sensors_sim fleet --posts {count or 400}`"
        )
    return tuple(found[:count])


class Fleet:
    """One run of `publish`: production, queues and accounts."""

    def __init__(self, config: Config):
        self._config = config
        self._folder = writable_folder(config.layout.root / "devices")
        self._lock = try_lock(self._folder / "lock")
        if self._lock is None:
            raise SettingError(f"another fleet publishes from {config.layout.root}: stop it or change LAMPLIGHT_DATA")
        posts = choose_posts(config.registry, config.posts, now_us())
        self._city = city_of(posts, config.seed)
        self._previous = boots.load(self._folder)
        self._plan = faults.parse(config.faults)
        self._truth: IO[str] | None = None
        self._factor = config.rate / natural_rate(posts) if config.rate else 1.0
        self._boot_ids = [boots.new_boot_id() for _ in posts]
        self._producer: Producer | None = None
        self._late: list[tuple[int, int, Message]] = []
        self._stop = False
        self._memory_at_s = 0.0
        self._refused = self._produced = self._published = self._dropped = self._stored_left = self._stored_queued = 0
        links = self._make_links(posts)
        self._exchange = Exchange(config.host, config.port, dict.fromkeys(links), self._acknowledged)
        self._links = links
        self._bound = {id(link): 0 for link in links}
        for link in links:
            self._bound[id(link)] += max(1, min(config.buffer_per_post, _HELD_BY_ALL // len(posts)))

    def run(self) -> int:
        """Publish until --seconds or a signal; the exit code (1 when --seconds left something unsent)."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._exchange.start(time.monotonic)
        self._truth = self._open_truth()
        start_us = now_us()
        config = self._config
        seconds = config.seconds or 3600.0
        schedule = Schedule(self._city, start_us, self._factor, seconds)
        history_us = round(config.history_minutes * 60 * US)
        producer = self._producer = Producer(self._city, self._plan, start_us, history_us, schedule, self._boot_ids)
        self._stored_left = producer.stored_count
        self._accept(producer.births(self._previous))
        end_us = start_us + round(config.seconds * US) if config.seconds else None
        self._produce(producer, start_us, end_us)
        self._drain(producer, start_us)
        self._account(producer, start_us, True)
        self._exchange.close()
        unsent = self._live_waiting() + self._stored_left
        print(
            f"fleet: {self._produced} produced, {self._published} acknowledged, {self._dropped} dropped by full "
            f"buffers, {self._refused} refused, {unsent} not sent",
            file=sys.stderr,
        )
        return 1 if config.seconds and not self._stop and unsent else 0

    def _produce(self, producer: Producer, start_us: int, end_us: int | None) -> None:
        done_us, stored_us, second, room = start_us, producer.begin_us, 0.0, 0.0
        last_s = time.monotonic()
        while not self._stop:
            moment_us, moment_s = now_us(), time.monotonic()
            until_us = moment_us if end_us is None else min(moment_us, end_us)
            if until_us - done_us >= _TICK_US or (until_us == end_us and until_us > done_us):
                self._accept(producer.live(done_us, until_us))
                done_us = until_us
                self._release(moment_us)
                if self._config.connections == "post":
                    for post in producer.rebooted:
                        self._exchange.break_off(self._links[post])
                producer.rebooted.clear()
            while stored_us < start_us and self._stored_queued < _STORED_AHEAD:
                upto_us = min(start_us, stored_us + _STORED_STEP_US)
                self._accept(producer.stored(stored_us, upto_us))
                stored_us = upto_us
            room = min(self._config.flush_rate * 0.1, room + self._config.flush_rate * (moment_s - last_s))
            last_s = moment_s
            sent = self._exchange.pump(int(room))
            room -= sent
            self._stored_queued -= sent
            if moment_s - second >= 1.0:
                second = moment_s
                self._exchange.mend(moment_s)
                self._account(producer, start_us)
            if end_us is not None and done_us >= end_us and stored_us >= start_us:
                return
            self._exchange.poll(0.02 if self._exchange.ready else 0.05, moment_s)

    def _drain(self, producer: Producer, start_us: int) -> None:
        """Send what is left, the offline posts' too; a signal shortens it."""
        self._release(2**62)
        for link in self._links:
            if link.behind is not None:
                self._put(link, link.behind)
                link.behind = None
            self._exchange.ready[link] = None
        begin_s = mended_s = time.monotonic()
        while any(link.live or link.stored or link.in_flight for link in self._exchange.links):
            moment_s = time.monotonic()
            if moment_s - begin_s > (_GOODBYE_S if self._stop else _DRAIN_S):
                return
            self._exchange.pump(0 if self._stop else 10_000)
            if moment_s - mended_s >= 1.0:
                mended_s = moment_s
                self._exchange.mend(moment_s)
                self._account(producer, start_us)
            self._exchange.poll(0.05, moment_s)

    def _accept(self, messages: list[Message]) -> None:
        """Take new messages into their links' queues, oldest out when a live queue is full."""
        self._produced += len(messages)
        for message in messages:
            if message.copies == 0:
                self._stored_left -= message.is_stored
            elif message.release_us:
                heapq.heappush(self._late, (message.release_us, len(self._late) + self._produced, message))
            else:
                self._enqueue(message)

    def _enqueue(self, message: Message) -> None:
        link = self._links[message.post]
        if message.swaps and link.behind is None:
            link.behind = message
            return
        self._put(link, message)
        if link.behind is not None:
            self._put(link, link.behind)
            link.behind = None
        while len(link.live) > self._bound[id(link)]:
            oldest = link.live.popleft()
            oldest.settle()
            self._dropped += 1
            if self._producer is not None:
                self._producer.devices.dropped[oldest.post] += 1
        self._exchange.ready[link] = None

    def _put(self, link: Link, message: Message) -> None:
        for _ in range(message.copies):
            (link.stored if message.is_stored else link.live).append(message)
            self._stored_queued += message.is_stored

    def _release(self, moment_us: int) -> None:
        while self._late and self._late[0][0] <= moment_us:
            self._enqueue(heapq.heappop(self._late)[2])

    def _live_waiting(self) -> int:
        links = self._exchange.links
        in_flight = sum(not message.is_stored for link in links for message in link.in_flight.values())
        return in_flight + sum(len(link.live) for link in links) + len(self._late)

    def _acknowledged(self, message: Message, was_refused: bool) -> None:
        self._published += 1
        if was_refused:
            if not self._refused:
                print(f"fleet: the broker refuses {message.topic}: look at its access rules", file=sys.stderr)
            self._refused += 1
        if message.copies == 2:
            message.copies = 1
            return
        message.settle()
        self._stored_left -= message.is_stored

    def _account(self, producer: Producer, start_us: int, is_last: bool = False) -> None:
        """Progress, the devices' memory and the ground truth."""
        if self._truth is not None:
            self._truth.writelines(json.dumps(record) + "\n" for record in producer.records)
            self._truth.flush()
        producer.records.clear()
        if is_last or time.monotonic() >= self._memory_at_s:
            # Durable and of all devices at once: seldom when there are many.
            boots.store(self._folder, self._previous | producer.devices.memories())
            self._memory_at_s = time.monotonic() + max(2.0, len(self._boot_ids) / 2000)
        write_progress(
            self._config.layout.progress("fleet"),
            {
                "published": self._published,
                "produced": self._produced,
                "stored_left": self._stored_left,
                "dropped": self._dropped,
                "refused": self._refused,
                "waiting": self._live_waiting(),
                "live_since_us": start_us,
                "time_us": now_us(),
            },
        )

    def _make_links(self, posts: tuple[Lamppost, ...]) -> list[Link]:
        """The link of each post, in order of the posts; posts of a gateway share one."""
        names = [
            post.gateway_id if self._config.connections == "gateway" and post.gateway_id else post.post_id
            for post in posts
        ]
        wanted = len(set(names)) + 64
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if wanted > soft:
            if wanted > hard:
                raise SettingError(f"{wanted} open files are needed, {hard} are allowed: use --connections gateway")
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        made: dict[str, Link] = {}
        for number, name in enumerate(names):
            if name not in made:
                made[name] = Link(name, self._will(name, number), self._config.window, self._config.credentials)
        return [made[name] for name in names]

    def _will(self, name: str, post: int) -> Callable[[int], tuple[str, bytes]]:
        """A gateway's will names the gateway and has its own boot; a post's carries the post's boot."""
        gateway_boot_id = boots.new_boot_id()
        is_gateway = name != self._city.posts[post].post_id

        def will(connection: int) -> tuple[str, bytes]:
            message = Will(
                schema_version=SCHEMA_VERSION,
                boot_id=gateway_boot_id if is_gateway else self._boot_ids[post],
                connection=connection,
                gateway_id=name if is_gateway else None,
            )
            return device_topic(name, "status"), encode(message)

        return will

    def _open_truth(self) -> IO[str] | None:
        if not self._plan.rates:
            return None
        path = self._config.truth or self._folder / "truth.ndjson"
        try:
            return path.open("w", encoding="utf-8")
        except OSError as error:
            raise SettingError(f"--truth {path} cannot be written: {error.strerror}") from error

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop = True
