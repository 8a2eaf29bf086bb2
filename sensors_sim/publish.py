"""`publish`: the fleet over real MQTT, live readings first; resends and stored readings in the spare room.

What the posts make is in the journal before it is in a queue, and stays there until a receipt covers it.
"""

import heapq
import signal
import time
from types import FrameType
from typing import Any

from contracts.layout import try_lock, write_progress
from contracts.logs import say
from contracts.payloads import PreviousBoot
from contracts.receipts import decode_receipt
from contracts.settings import SettingError, writable_folder
from contracts.times import US
from contracts.topics import receipt_topic
from sensors_sim import accounts, boots, faults
from sensors_sim.accounts import Lines
from sensors_sim.city import city_of
from sensors_sim.config import Config
from sensors_sim.devices import Devices, Message
from sensors_sim.gateways import choose_posts, make_links
from sensors_sim.journal import Journal
from sensors_sim.links import Exchange, Link
from sensors_sim.producer import Producer
from sensors_sim.recovery import Recovery, recover
from sensors_sim.resends import Resends
from sensors_sim.schedule import Schedule, natural_rate

_TICK_US = 100_000
_HELD_BY_ALL = 600_000  # messages of all posts: about 0.15 GB of memory and 0.5 GB on disk
_IN_MEMORY = 20_000  # payloads of queued live messages; more are read from the journal when they are sent
_STORED_AHEAD = 6_000  # encoded stored messages that wait for room
_STORED_STEP_US = 20 * US
_DRAIN_S = 60.0  # after --seconds, for what is not acknowledged yet
_GOODBYE_S = 2.0  # after SIGTERM or SIGINT
_RETAINED_S = 1.0  # retained receipts come within, before what an earlier run left is sent again
_REPORT_S = 3.0  # between a post's heartbeats out of turn


def now_us() -> int:
    """Microseconds UTC."""
    return time.time_ns() // 1000


class Fleet:
    """One run of `publish`: production, queues and accounts."""

    def __init__(self, config: Config):
        self._config = config
        self._folder = writable_folder(config.layout.devices)
        self._lock = try_lock(self._folder / "lock")
        if self._lock is None:
            raise SettingError(f"another fleet publishes from {config.layout.root}: stop it or change LAMPLIGHT_DATA")
        self._posts = choose_posts(config.registry, config.posts, now_us())
        self._post_of = {receipt_topic(post.post_id): number for number, post in enumerate(self._posts)}
        self._city = city_of(self._posts, config.seed)
        self._plan = faults.parse(config.faults)
        self._factor = config.rate / natural_rate(self._posts) if config.rate else 1.0
        self._boot_ids = [boots.new_boot_id() for _ in self._posts]
        self._journal = Journal(self._folder / "journal")
        self._devices: Devices | None = None
        self._others: dict[str, PreviousBoot] = {}  # boots of every post that was ever on
        self._truth: Lines | None = None
        self._receipted_file: Lines | None = None
        self._covered: list[dict[str, Any]] = []  # lines for that file
        self._early: list[tuple[str, bytes, bool]] = []  # heard before the devices were there
        self._late: list[tuple[int, int, Message]] = []
        self._stop = False
        self._is_history_made = False
        self._memory_at_s = 0.0
        self._refused = self._produced = self._published = self._dropped = self._stored_left = self._stored_put = 0
        self._receipted = self._resent = self._given_up = 0
        self._links = make_links(self._posts, config, self._boot_ids, self._journal.read)
        self._exchange = Exchange(config.host, config.port, dict.fromkeys(self._links), self._acknowledged, self._heard)
        self._in_memory = max(config.window, _IN_MEMORY // len(self._exchange.links))
        self._resends = Resends(config.resend_after_s, config.give_up_sends, self._send_again, self._give_up)

    def run(self) -> int:
        """Publish until --seconds or a signal; the exit code (1 when --seconds left something unsent, or --confirm
        something without a receipt)."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._exchange.start(time.monotonic)
        config = self._config
        self._truth = self._open_truth()
        if config.receipted is not None:
            self._receipted_file = Lines(config.receipted, "--receipted")
        found = recover(self._folder, self._journal)
        start_us = now_us()
        schedule = Schedule(self._city, start_us, self._factor, config.seconds or 3600.0)
        history_us = round(config.history_minutes * 60 * US)
        bound = max(1, min(config.buffer_per_post, _HELD_BY_ALL // len(self._posts)))
        producer = Producer(
            self._city,
            self._plan,
            start_us,
            history_us,
            schedule,
            lambda counts: Devices(self._city, counts, self._boot_ids, bound, self._journal, found.old, found.reports),
        )
        self._devices = producer.devices
        self._others = found.previous
        self._resume(producer, found)
        self._stored_left = producer.stored_count
        self._accept(producer, producer.births(found.previous))
        end_us = start_us + round(config.seconds * US) if config.seconds else None
        self._produce(producer, start_us, end_us)
        self._drain(producer, start_us)
        if config.confirm and not self._stop:
            self._confirm(producer, start_us)
        self._account(producer, start_us, True)
        self._exchange.close()
        unsent, held = self._live_waiting() + self._stored_left, producer.devices.held
        say(
            "fleet",
            f"{self._produced} produced, {self._published} acknowledged, {self._receipted} receipted, {self._resent} "
            f"sent again, {self._dropped} dropped by full buffers, {self._given_up} given up, {self._refused} refused, "
            f"{unsent} not sent, {held} held without a receipt",
        )
        return 1 if not self._stop and ((config.seconds and unsent) or (config.confirm and held)) else 0

    def _resume(self, producer: Producer, found: Recovery) -> None:
        """Take up what an earlier run left."""
        devices = producer.devices
        at_s = time.monotonic() + _RETAINED_S
        for device in devices.all:
            for shelves in device.boots.values():
                for shelf in shelves.values():
                    for message in (*shelf.stored.values(), *shelf.live.values()):
                        self._resends.recovered(message, at_s)
        if self._config.confirm:
            self._resends.is_patient = False
        for post_id, boot_id, stream, first, last in found.unmade:
            self._dropped += last + 1 - first
            head = {"fault": "overflow", "post_id": post_id, "stream": stream, "boot_id": boot_id}
            tail = {"sends": 0, "was_acknowledged": False, "was_made": False}
            producer.records += [head | {"seq": seq} | tail for seq in range(first, last + 1)]
        for heard in self._early:
            self._heard(*heard)
        self._early.clear()

    def _produce(self, producer: Producer, start_us: int, end_us: int | None) -> None:
        done_us, stored_us, second, room = start_us, producer.begin_us, 0.0, 0.0
        last_s = time.monotonic()
        while not self._stop:
            moment_us, moment_s = now_us(), time.monotonic()
            until_us = moment_us if end_us is None else min(moment_us, end_us)
            if until_us - done_us >= _TICK_US or (until_us == end_us and until_us > done_us):
                self._accept(producer, producer.live(done_us, until_us))
                done_us = until_us
                self._release(moment_us)
                if self._config.connections == "post":
                    for post in producer.rebooted:
                        self._exchange.break_off(self._links[post])
                producer.rebooted.clear()
            while stored_us < start_us and self._stored_queued() < _STORED_AHEAD:
                upto_us = min(start_us, stored_us + _STORED_STEP_US)
                self._accept(producer, producer.stored(stored_us, upto_us))
                stored_us = upto_us
            self._is_history_made = stored_us >= start_us
            room = min(self._config.flush_rate * 0.1, room + self._config.flush_rate * (moment_s - last_s))
            last_s = moment_s
            room -= self._exchange.pump(int(room))
            if moment_s - second >= 1.0:
                second = moment_s
                self._mend(producer, start_us, moment_s)
                self._resends.step(producer.devices, moment_s)
            if end_us is not None and done_us >= end_us and stored_us >= start_us:
                return
            self._exchange.poll(0.02 if self._exchange.ready else 0.05, moment_s)
            self._write_receipted()

    def _drain(self, producer: Producer, start_us: int) -> None:
        """Send what is left, the offline posts' too; a signal shortens it."""
        self._release(2**62)
        for link in self._links:
            if link.behind is not None:
                self._put(link, link.behind)
                link.behind = None
            self._exchange.ready[link] = None
        begin_s = mended_s = time.monotonic()
        while any(link.live or link.again or link.stored or link.in_flight for link in self._exchange.links):
            moment_s = time.monotonic()
            if moment_s - begin_s > (_GOODBYE_S if self._stop else _DRAIN_S):
                return
            self._exchange.pump(0 if self._stop else 10_000)
            if moment_s - mended_s >= 1.0:
                mended_s = moment_s
                self._mend(producer, start_us, moment_s)
            self._exchange.poll(0.05, moment_s)
            self._write_receipted()

    def _confirm(self, producer: Producer, start_us: int) -> None:
        """Wait until receipts cover everything, or until none has for a long time. Posts that have something to report,
        or whose receipts stay behind, go on with heartbeats: receipts may wait for that."""
        devices = producer.devices
        patience_s = 60.0 + 20 * self._config.resend_after_s
        moved_s = mended_s = time.monotonic()
        least, given_up = devices.held, 0
        reported_s = dict.fromkeys(range(len(self._posts)), moved_s)
        while not self._stop:
            moment_s = time.monotonic()
            if devices.held < least or self._given_up > given_up:
                moved_s = moment_s
                least, given_up = min(least, devices.held), self._given_up
            if moment_s - moved_s > patience_s:
                return
            self._exchange.pump(10_000)
            if moment_s - mended_s >= 1.0:
                mended_s = moment_s
                self._resends.step(devices, moment_s)
                waiting = [
                    post for post in reported_s if moment_s - reported_s[post] > _REPORT_S and devices.has_news(post)
                ]
                if not devices.held and not any(devices.reports.has_untold(post.post_id) for post in self._posts):
                    return
                reported_s |= dict.fromkeys(waiting, moment_s)
                self._accept(producer, producer.reports(waiting, now_us()))
                self._mend(producer, start_us, moment_s)
            self._exchange.poll(0.05, moment_s)
            self._write_receipted()

    def _accept(self, producer: Producer, messages: list[Message]) -> None:
        """Take new messages: durable first, then on record, then into their links' queues."""
        self._journal.commit()
        self._produced += len(messages)
        for message in producer.devices.overflown:
            self._dropped += 1
            self._end(message)
            producer.records.append(accounts.dropped("overflow", message))
        producer.devices.overflown.clear()
        if self._truth is not None:
            self._truth.write(producer.records)
        producer.records.clear()
        for message in messages:
            if message.copies == 0:
                self._stored_left -= message.is_stored
            elif message.release_us:
                heapq.heappush(self._late, (message.release_us, message.order, message))
            else:
                self._enqueue(message)

    def _enqueue(self, message: Message) -> None:
        if message.is_gone:
            return
        link = self._links[message.post]
        if message.is_lost:
            message.is_lost = False
            message.sends = 1
            message.first_sent_s = message.sent_s = time.monotonic()
            self._acknowledged(message, False)
            return
        if message.swaps and link.behind is None:
            link.behind = message
            return
        self._put(link, message)
        if link.behind is not None:
            self._put(link, link.behind)
            link.behind = None
        self._exchange.ready[link] = None

    def _put(self, link: Link, message: Message) -> None:
        message.is_waiting = True
        if len(link.live) > self._in_memory and not message.is_stored:
            message.payload = b""
        for _ in range(message.copies):
            (link.stored if message.is_stored else link.live).append(message)
            self._stored_put += message.is_stored

    def _send_again(self, message: Message) -> None:
        self._resent += 1
        link = self._links[message.post]
        link.again.append(message)
        self._exchange.ready[link] = None

    def _give_up(self, message: Message) -> None:
        assert self._devices is not None
        self._given_up += 1
        self._devices.drop(message)
        if self._truth is not None:
            self._truth.write([accounts.dropped("given_up", message)])

    def _end(self, message: Message) -> None:
        """A message is held no more; if it was not acknowledged, nobody waits for that any longer."""
        if message.is_acknowledged:
            return
        message.is_acknowledged = True
        self._published += message.sends > 0
        self._stored_left -= message.is_stored
        self._links[message.post].gone += message.is_waiting and not message.sends and not message.is_stored

    def _release(self, moment_us: int) -> None:
        while self._late and self._late[0][0] <= moment_us:
            self._enqueue(heapq.heappop(self._late)[2])

    def _stored_queued(self) -> int:
        return self._stored_put - sum(link.stored_sent for link in self._exchange.links)

    def _live_waiting(self) -> int:
        links = self._exchange.links
        in_flight = sum(
            not (message.is_stored or message.is_gone) for link in links for message in link.in_flight.values()
        )
        return in_flight + sum(len(link.live) - link.gone for link in links) + len(self._late)

    def _acknowledged(self, message: Message, was_refused: bool) -> None:
        if was_refused:
            if not self._refused:
                say("fleet", f"the broker refuses {message.topic}: look at its access rules", "warning")
            self._refused += 1
        if not message.is_acknowledged:
            self._published += 1
            if message.copies == 2:
                message.copies = 1
                return
            message.is_acknowledged = True
            self._stored_left -= message.is_stored
        message.is_waiting = False
        if not message.is_gone:
            message.payload = b""
            self._resends.acknowledged(message)

    def _heard(self, topic: str, payload: bytes, is_retained: bool) -> None:
        post, receipt = self._post_of.get(topic), decode_receipt(payload)
        if post is None or receipt is None:
            return
        if self._devices is None:
            self._early.append((topic, payload, is_retained))
            return
        moment_us, moment_s = now_us(), time.monotonic()
        self._resends.is_patient = False
        device = self._devices.all[post]
        if not is_retained:
            device.heard_s = moment_s
        for boot_id, stream, covered in self._devices.settle(post, receipt, moment_s):
            self._receipted += len(covered)
            for message in covered:
                self._end(message)
            if self._receipted_file is not None:
                self._covered += accounts.receipted(device.post_id, boot_id, stream, covered, moment_us, moment_s)

    def _write_receipted(self) -> None:
        if self._receipted_file is not None and self._covered:
            self._receipted_file.write(self._covered)
            self._covered.clear()

    def _mend(self, producer: Producer, start_us: int, moment_s: float) -> None:
        """Once a second: connections, queues and accounts."""
        self._exchange.mend(moment_s)
        for link in self._exchange.links:
            link.sweep()
        self._account(producer, start_us)

    def _account(self, producer: Producer, start_us: int, is_last: bool = False) -> None:
        """The devices' memory and journal, and progress."""
        self._accept(producer, [])
        self._write_receipted()
        if is_last or time.monotonic() >= self._memory_at_s:
            # Durable and of all devices at once: seldom when there are many.
            self._remember(producer.devices)
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
                "held": producer.devices.held,
                "receipted": self._receipted,
                "resent": self._resent,
                "given_up": self._given_up,
                "live_since_us": start_us,
                "time_us": now_us(),
            },
        )

    def _remember(self, devices: Devices) -> None:
        place = self._journal.place
        self._others |= devices.memories()
        boots.store(
            self._folder,
            boots.Memory(file=place.file, at=place.at, posts=self._others, dropped=devices.reports.unconfirmed()),
        )
        if self._is_history_made:
            self._journal.tidy(place)

    def _open_truth(self) -> Lines | None:
        if not self._plan.rates and self._config.truth is None:
            return None
        return Lines(self._config.truth or self._folder / "truth.ndjson", "--truth")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop = True
