"""The devices' own state: boots, sequence numbers, and what each still holds because nobody has acknowledged it."""

from dataclasses import dataclass

from contracts.payloads import PreviousBoot
from contracts.streams import STREAMS
from sensors_sim.boots import new_boot_id
from sensors_sim.city import City
from sensors_sim.hashing import Ints

Held = dict[int, None]


@dataclass(slots=True, eq=False)
class Message:
    """One message as bytes, made once; the same bytes go out again after a lost connection.

    `held` is the device's list of unacknowledged seqs that the message stands in; `copies` is how often it is to be
    sent (2 for an injected duplicate, 0 when it is lost in the device), `release_us` when (0: at once).
    """

    post: int
    post_id: str
    topic: str
    payload: bytes
    stream: str
    seq: int
    is_stored: bool
    held: Held
    is_retained: bool = False
    copies: int = 1
    swaps: bool = False
    release_us: int = 0

    def settle(self) -> None:
        """The device no longer holds it: acknowledged, or dropped."""
        self.held.pop(self.seq, None)


class Devices:
    """Per post: boot id, next seq and held seqs per stream; stored readings (the lower seqs) apart from live ones.

    `stored` is how many stored messages each post begins with, per stream; the birth is seq 0 of `status`. `boot_ids`
    is kept up to date, so that wills can be made from it.
    """

    def __init__(self, city: City, stored: dict[str, Ints], boot_ids: list[str]):
        count = len(city.posts)
        self.boot_ids = boot_ids
        self.stored_boot_ids = list(self.boot_ids)
        self.has_rebooted = [False] * count
        self.dropped = [0] * count
        self._post_ids = [post.post_id for post in city.posts]
        births = {stream: int(stream == "status") for stream in STREAMS}
        self._stored_next = {stream: [births[stream]] * count for stream in STREAMS}
        self._stored_end = {stream: (stored[stream] + births[stream]).tolist() for stream in STREAMS}
        self._live_next: dict[str, list[int]] = {stream: list(self._stored_end[stream]) for stream in STREAMS}
        self._stored_held: dict[str, list[Held]] = {stream: [{} for _ in range(count)] for stream in STREAMS}
        self._live_held: dict[str, list[Held]] = {stream: [{} for _ in range(count)] for stream in STREAMS}

    def birth(self, post: int) -> tuple[str, int, int, Held]:
        """(boot_id, seq, first_seq, held) of the boot's first status message."""
        if self.has_rebooted[post]:
            return self.live("status", post)
        held = self._stored_held["status"][post]
        held[0] = None
        return self.boot_ids[post], 0, 0, held

    def stored(self, stream: str, post: int) -> tuple[str, int, int, Held]:
        """The head of a post's next stored message."""
        seq = self._stored_next[stream][post]
        self._stored_next[stream][post] = seq + 1
        held = self._stored_held[stream][post]
        held[seq] = None
        return self.stored_boot_ids[post], seq, next(iter(held)), held

    def live(self, stream: str, post: int) -> tuple[str, int, int, Held]:
        """The head of a post's next live message; its first_seq looks at the stored ones too."""
        seq = self._live_next[stream][post]
        self._live_next[stream][post] = seq + 1
        held = self._live_held[stream][post]
        held[seq] = None
        first = next(iter(held))
        if not self.has_rebooted[post]:
            older = self._stored_held[stream][post]
            if older:
                first = next(iter(older))
            elif self._stored_next[stream][post] < self._stored_end[stream][post]:
                first = self._stored_next[stream][post]
        return self.boot_ids[post], seq, first, held

    def reboot(self, post: int) -> PreviousBoot:
        """A new boot: seqs from 0. What the old boot still holds stays in its messages and is sent as it is."""
        previous = self.memory(post)
        self.boot_ids[post] = new_boot_id()
        self.has_rebooted[post] = True
        self.dropped[post] = 0
        for stream in STREAMS:
            self._live_next[stream][post] = 0
            self._live_held[stream][post] = {}
        return previous

    def memory(self, post: int) -> PreviousBoot:
        """What the post would find on its disk if it booted now."""
        highest = {stream: self._live_next[stream][post] - 1 for stream in STREAMS if self._live_next[stream][post]}
        return PreviousBoot(boot_id=self.boot_ids[post], highest_seq=highest)  # type: ignore[arg-type]

    def memories(self) -> dict[str, PreviousBoot]:
        """Every post's memory by its id."""
        return {post_id: self.memory(post) for post, post_id in enumerate(self._post_ids)}
