"""The devices' own state: boots, sequence numbers, and what each still holds because no receipt covers it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from contracts.payloads import OldestHeld, PreviousBoot
from contracts.receipts import Receipt
from contracts.streams import STREAMS
from sensors_sim.boots import new_boot_id
from sensors_sim.city import City
from sensors_sim.hashing import Ints
from sensors_sim.reports import Reports

if TYPE_CHECKING:
    from sensors_sim.journal import Journal

_SAID_AT_ONCE = 100  # ranges of one heartbeat


@dataclass(slots=True, eq=False)
class Message:
    """One message as bytes, made once; the same bytes go out at every sending.

    `payload` is empty while only the journal has it, at `file` and `at`. `copies` is how often it is to be sent at
    first (2 for an injected duplicate, 0 when it is lost in the device), `release_us` when (0: at once), `is_lost`
    that the first sending comes to nothing. `sends` counts sendings, `vain` those that the platform has passed over.
    `is_gone`: held no more, because of a receipt or because it was dropped.
    """

    post: int
    post_id: str
    topic: str
    payload: bytes
    stream: str
    seq: int
    is_stored: bool
    boot_id: str = ""
    is_retained: bool = False
    copies: int = 1
    swaps: bool = False
    release_us: int = 0
    is_lost: bool = False
    file: int = 0
    at: int = 0
    order: int = 0
    sends: int = 0
    vain: int = 0
    first_sent_s: float = 0.0
    sent_s: float = 0.0
    is_acknowledged: bool = False
    is_waiting: bool = False  # in a queue or in flight
    is_gone: bool = False


@dataclass(slots=True, eq=False)
class Shelf:
    """One boot and stream of a post: the held messages by seq, stored readings (the lower seqs) apart from live ones,
    and the seqs that come next. `receipted` is the seq that its receipt stands at (-1: none), since `moved_s`."""

    next_stored: int = 0
    end_stored: int = 0
    next_live: int = 0
    stored: dict[int, Message] = field(default_factory=dict)
    live: dict[int, Message] = field(default_factory=dict)
    receipted: int = -1
    moved_s: float = 0.0

    @property
    def is_empty(self) -> bool:
        return not (self.stored or self.live) and self.next_stored >= self.end_stored

    def lowest(self) -> int | None:
        """The lowest held seq, stored readings that are not yet made included."""
        if self.stored:
            return next(iter(self.stored))
        if self.next_stored < self.end_stored:
            return self.next_stored
        return next(iter(self.live), None)

    def head(self) -> Message | None:
        """The held message of the lowest seq; None when that one is not yet made."""
        if self.stored:
            return next(iter(self.stored.values()))
        if self.next_stored < self.end_stored:
            return None
        return next(iter(self.live.values()), None)

    def take(self, upto: int) -> list[Message]:
        """Remove and return what is held up to a seq."""
        taken: list[Message] = []
        for held in (self.stored, self.live):
            found = []
            for seq, message in held.items():
                if seq > upto:
                    break
                found.append(message)
            for message in found:
                del held[message.seq]
            taken += found
        return taken


@dataclass(slots=True, eq=False)
class Device:
    """One post. `boots` are the shelves by boot and stream, oldest boot first; `covered_sent_s` is when the latest sent
    of the receipted messages was sent, `heard_s` when the last receipt came (monotonic seconds)."""

    post_id: str
    boot_id: str
    stored_boot_id: str
    boots: dict[str, dict[str, Shelf]] = field(default_factory=dict)
    held: int = 0
    dropped_count: int = 0
    heard_s: float = float("-inf")
    covered_sent_s: float = float("-inf")

    def shelf(self, boot_id: str, stream: str) -> Shelf:
        shelves = self.boots.setdefault(boot_id, {})
        found = shelves.get(stream)
        if found is None:
            found = shelves[stream] = Shelf()
        return found


class Devices:
    """Every post: its numbering, what it holds (at most `bound` messages, the oldest go first) and what it reports.

    `stored` is how many stored messages each post begins with, per stream; the birth is seq 0 of `status`. `boot_ids`
    is kept up to date, so that wills can be made from it. `old` are the shelves of earlier runs by post id; those of
    posts that are not in the city stay untouched in the journal. Without a journal the devices have no disk.
    `overflown` collects what a full buffer dropped; whoever writes the ground truth empties it.
    """

    def __init__(
        self,
        city: City,
        stored: dict[str, Ints],
        boot_ids: list[str],
        bound: int = 2**62,
        journal: "Journal | None" = None,
        old: dict[str, dict[str, dict[str, Shelf]]] | None = None,
        reports: Reports | None = None,
    ):
        self.boot_ids = boot_ids
        self.overflown: list[Message] = []
        self.reports = reports if reports is not None else Reports()
        self.held = 0
        self._bound = bound
        self._journal = journal
        self._made = 0
        self.all: list[Device] = []
        for number, (post, boot_id) in enumerate(zip(city.posts, boot_ids, strict=True)):
            device = Device(post.post_id, boot_id, boot_id)
            self.all.append(device)
            for earlier, shelves in (old or {}).get(post.post_id, {}).items():
                device.boots[earlier] = shelves
                for shelf in shelves.values():
                    for message in (*shelf.stored.values(), *shelf.live.values()):
                        message.post = number
                    device.held += len(shelf.stored) + len(shelf.live)
            self.held += device.held
            for stream in STREAMS:
                count = int(stored[stream][number])
                if not count and stream not in post.streams:
                    continue
                born = int(stream == "status")
                shelf = device.shelf(boot_id, stream)
                shelf.next_stored, shelf.end_stored = born, born + count
                shelf.next_live = shelf.end_stored
                if journal is not None and count:
                    journal.plan(post.post_id, boot_id, stream, born, born + count - 1)

    def birth(self, post: int) -> tuple[str, int, int]:
        """(boot_id, seq, first_seq) of the boot's first status message."""
        device = self.all[post]
        if device.boot_id != device.stored_boot_id:
            return self.live("status", post)
        return device.boot_id, 0, 0

    def stored(self, stream: str, post: int) -> tuple[str, int, int]:
        """The head of a post's next stored message."""
        device = self.all[post]
        shelf = device.boots[device.stored_boot_id][stream]
        seq, shelf.next_stored = shelf.next_stored, shelf.next_stored + 1
        return device.stored_boot_id, seq, next(iter(shelf.stored), seq)

    def live(self, stream: str, post: int) -> tuple[str, int, int]:
        """The head of a post's next live message; its first_seq looks at the stored ones too."""
        device = self.all[post]
        shelf = device.shelf(device.boot_id, stream)
        seq, shelf.next_live = shelf.next_live, shelf.next_live + 1
        lowest = shelf.lowest()
        return device.boot_id, seq, seq if lowest is None else lowest

    def hold(self, message: Message, is_reporting: bool = False) -> None:
        """Keep a message until a receipt covers it; the oldest of the post goes when its buffer is full."""
        device = self.all[message.post]
        shelf = device.shelf(message.boot_id, message.stream)
        is_low = message.is_stored or message.seq < shelf.end_stored  # the first birth comes before what is stored
        (shelf.stored if is_low else shelf.live)[message.seq] = message
        self._made += 1
        message.order = self._made
        device.held += 1
        self.held += 1
        if self._journal is not None:
            self._journal.append(message, is_reporting)
        while device.held > self._bound:
            oldest = self._oldest(device)
            self.drop(oldest)
            self.overflown.append(oldest)

    def give(self, message: Message) -> None:
        """A seq was given to a message that the post does not hold."""
        if self._journal is not None:
            self._journal.give(message)

    def drop(self, message: Message) -> None:
        """Hold a message no more although no receipt covers it; a heartbeat will say so."""
        device = self.all[message.post]
        shelf = device.boots[message.boot_id][message.stream]
        (shelf.stored if message.seq in shelf.stored else shelf.live).pop(message.seq)
        self._gone(device, message)
        device.dropped_count += 1
        if self._journal is not None:
            self._journal.drop(message.post_id, message.boot_id, message.stream, message.seq, message.seq)
        self.reports.dropped(message)

    def settle(self, post: int, receipt: Receipt, now_s: float) -> Iterator[tuple[str, str, list[Message]]]:
        """(boot_id, stream, messages in order of seq) that a receipt covers; they are held no more."""
        device = self.all[post]
        for boot_id, streams in receipt.boots.items():
            shelves = device.boots.get(boot_id)
            if shelves is None:
                continue
            for stream, upto in streams.items():
                shelf = shelves.get(stream)
                if shelf is None or upto <= shelf.receipted:
                    continue
                shelf.receipted, shelf.moved_s = upto, now_s
                covered = shelf.take(upto)
                if not covered:
                    continue
                for message in covered:
                    self._gone(device, message)
                    if stream == "status":
                        self.reports.settled(message.post_id, message.boot_id, message.seq)
                    device.covered_sent_s = max(device.covered_sent_s, message.sent_s)
                if self._journal is not None:
                    self._journal.settle(device.post_id, boot_id, stream, upto)
                yield boot_id, stream, covered
            if boot_id not in (device.boot_id, device.stored_boot_id) and all(s.is_empty for s in shelves.values()):
                del device.boots[boot_id]

    def shelf_of(self, message: Message) -> Shelf:
        """Where a held message stands."""
        return self.all[message.post].boots[message.boot_id][message.stream]

    def oldest_held(self, post: int) -> list[OldestHeld]:
        """Where the platform waits for a seq that the post does not hold. A boot that is over and of which the
        platform has said nothing counts as waiting from the start."""
        device = self.all[post]
        found = []
        for boot_id, shelves in device.boots.items():
            for stream, shelf in shelves.items():
                if shelf.receipted < 0 and (boot_id == device.boot_id or device.heard_s < 0):
                    continue
                lowest = shelf.lowest()
                if lowest is not None and lowest > shelf.receipted + 1:
                    found.append(OldestHeld(boot_id=boot_id, stream=stream, seq=lowest))  # type: ignore[arg-type]
        return found[:_SAID_AT_ONCE]

    def has_news(self, post: int) -> bool:
        """Whether a heartbeat of the post would help its receipts on: it tells something, or shows that the platform
        passes over a message that was sent again."""
        device = self.all[post]
        heads = (shelf.head() for shelves in device.boots.values() for shelf in shelves.values())
        is_stuck = any(head is not None and head.sends > 1 for head in heads)
        return is_stuck or self.reports.has_untold(device.post_id) or bool(self.oldest_held(post))

    def reboot(self, post: int) -> PreviousBoot:
        """A new boot: seqs from 0. What the old boot still holds is sent as it is."""
        device = self.all[post]
        previous = self.memory(post)
        status = device.boots[device.boot_id]["status"]
        birth = status.stored.get(0) or status.live.get(0)
        if birth is not None:
            birth.is_retained = False  # sent again, it would take the place of the new one
        device.boot_id = self.boot_ids[post] = new_boot_id()
        device.boots[device.boot_id] = {}
        device.dropped_count = 0
        return previous

    def memory(self, post: int) -> PreviousBoot:
        """What the post would find on its disk if it booted now."""
        device = self.all[post]
        shelves = device.boots[device.boot_id]
        highest = {stream: shelf.next_live - 1 for stream, shelf in shelves.items() if shelf.next_live}
        return PreviousBoot(boot_id=device.boot_id, highest_seq=highest)  # type: ignore[arg-type]

    def memories(self) -> dict[str, PreviousBoot]:
        """Every post's memory by its id."""
        return {device.post_id: self.memory(post) for post, device in enumerate(self.all)}

    def _oldest(self, device: Device) -> Message:
        for shelves in device.boots.values():
            heads = [next(iter(shelf.stored.values())) for shelf in shelves.values() if shelf.stored]
            heads = heads or [next(iter(shelf.live.values())) for shelf in shelves.values() if shelf.live]
            if heads:
                return min(heads, key=lambda message: message.order)
        raise LookupError(f"{device.post_id} holds nothing")

    def _gone(self, device: Device, message: Message) -> None:
        message.is_gone = True
        message.payload = b""
        device.held -= 1
        self.held -= 1
        if self._journal is not None:
            self._journal.forget(message)
