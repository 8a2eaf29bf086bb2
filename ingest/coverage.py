"""Which messages of each post are durable: a set of seqs per boot and stream, kept as few ranges. Pure.

Everything below a message's first_seq counts as covered (the device no longer holds it), and so does what a heartbeat
says was dropped or is not held. So a set only grows, and what a receipt says depends on which messages landed and on
nothing else: not on their order, their copies or how they were split among instances.
"""

from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta

import msgspec

from contracts.payloads import Heartbeat, StreamName
from contracts.receipts import Receipt

MAX_BOOTS = 16
MAX_RANGES = 4_096  # of one boot and stream; those above are forgotten, and their messages come again
NAMED_FOR_US = 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# [0, end, first, end, ...]: ascending half-open ranges that do not touch; the first begins at 0 and may be empty
Seqs = list[int]


def cover(seqs: Seqs, first: int, end: int) -> None:
    """Add [first, end)."""
    if first >= end:
        return
    if len(seqs) == 2 and first == seqs[1]:
        seqs[1] = end
        return
    left, right = bisect_left(seqs, first), bisect_right(seqs, end)
    # an even place lies outside every range
    seqs[left:right] = ([] if left % 2 else [first]) + ([] if right % 2 else [end])
    del seqs[2 * MAX_RANGES :]


class Boot(msgspec.Struct, gc=False):
    """`landed_us`: received_time of the newest message that told of this boot, microseconds UTC."""

    landed_us: int
    streams: dict[StreamName, Seqs]

    def stream(self, name: StreamName, received_us: int) -> Seqs:
        self.landed_us = max(self.landed_us, received_us)
        seqs = self.streams.get(name)
        if seqs is None:
            seqs = self.streams[name] = [0, 0]
        return seqs

    @property
    def is_complete(self) -> bool:
        """No message is waited for that a later one has overtaken."""
        return all(len(seqs) == 2 for seqs in self.streams.values())

    @property
    def through(self) -> dict[StreamName, int]:
        """Per stream the seq up to which everything is durable; without the streams of which nothing is."""
        return {name: seqs[1] - 1 for name, seqs in self.streams.items() if seqs[1]}


Posts = dict[str, dict[str, Boot]]


class Coverage:
    """All posts: {post_id: {boot_id: Boot}}. What it keeps of a post is bounded."""

    def __init__(self, posts: Posts | None = None):
        self.posts: Posts = {} if posts is None else posts

    @property
    def boots(self) -> int:
        return sum(map(len, self.posts.values()))

    def message(
        self, post_id: str, stream: StreamName, boot_id: str, seq: int, first_seq: int, received_us: int
    ) -> None:
        """A message landed. A first_seq above its seq is none: that head is broken."""
        boots = self.posts.get(post_id)
        boot = boots.get(boot_id) if boots else None
        seqs = (boot or self._boot(post_id, boot_id, received_us)).stream(stream, received_us)
        if first_seq <= seq:
            cover(seqs, 0, first_seq)
        cover(seqs, seq, seq + 1)

    def heartbeat(self, post_id: str, heartbeat: Heartbeat, received_us: int) -> None:
        """What a heartbeat says of messages that will not come."""
        for lost in heartbeat.dropped:
            seqs = self._boot(post_id, lost.boot_id, received_us).stream(lost.stream, received_us)
            cover(seqs, lost.first_seq, lost.last_seq + 1)
        for held in heartbeat.oldest_held:
            cover(self._boot(post_id, held.boot_id, received_us).stream(held.stream, received_us), 0, held.seq)

    def receipt(self, post_id: str, now_us: int) -> Receipt:
        """What the post is to be told: its newest boot, and those of which something landed in the last hour."""
        boots = self.posts[post_id]
        newest = max(boots, key=lambda boot_id: boots[boot_id].landed_us)
        named = {
            boot_id: boot.through
            for boot_id, boot in boots.items()
            if boot_id == newest or boot.landed_us >= now_us - NAMED_FOR_US
        }
        return Receipt(time=_EPOCH + timedelta(microseconds=now_us), boots=named)

    def _boot(self, post_id: str, boot_id: str, received_us: int) -> Boot:
        boots = self.posts.setdefault(post_id, {})
        boot = boots.get(boot_id)
        if boot is None:
            boot = boots[boot_id] = Boot(received_us, {})
            if len(boots) > MAX_BOOTS:
                self._evict(boots, boot_id)
        return boot

    def _evict(self, boots: dict[str, Boot], kept: str) -> None:
        """Forget a boot: a complete one where there is one, of these the one that has been silent longest."""
        others = [boot_id for boot_id in boots if boot_id != kept]
        del boots[min(others, key=lambda boot_id: (not boots[boot_id].is_complete, boots[boot_id].landed_us))]
