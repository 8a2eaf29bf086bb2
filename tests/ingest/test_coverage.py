"""What a receipt says depends on what landed and on nothing else; held against sets of numbers."""

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from contracts.payloads import Heartbeat, OldestHeld, SeqRange
from ingest import coverage
from ingest.coverage import MAX_BOOTS, Coverage, Seqs, cover

POST, BOOT = "KT1001", "00000000000000b1"
STREAM: Final = "air"
HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class Landed:
    seq: int
    first_seq: int


@dataclass(frozen=True)
class Dropped:
    first: int
    last: int


@dataclass(frozen=True)
class Held:
    seq: int


Fact = Landed | Dropped | Held
small = st.integers(0, 40)
facts = st.one_of(
    st.builds(Landed, small, small),
    st.builds(lambda first, more: Dropped(first, first + more), small, st.integers(0, 12)),
    st.builds(Held, small),
)


def heartbeat(dropped: list[SeqRange], held: list[OldestHeld]) -> Heartbeat:
    return Heartbeat(
        schema_version=1,
        boot_id=BOOT,
        seq=0,
        first_seq=0,
        time=datetime(2026, 11, 2, tzinfo=UTC),
        firmware="1",
        dropped=dropped,
        oldest_held=held,
    )


def hear(known: Coverage, fact: Fact, at_us: int = 0) -> None:
    match fact:
        case Landed(seq, first_seq):
            known.message(POST, STREAM, BOOT, seq, first_seq, at_us)
        case Dropped(first, last):
            lost = SeqRange(boot_id=BOOT, stream=STREAM, first_seq=first, last_seq=last)
            known.heartbeat(POST, heartbeat([lost], []), at_us)
        case Held(seq):
            known.heartbeat(POST, heartbeat([], [OldestHeld(boot_id=BOOT, stream=STREAM, seq=seq)]), at_us)


def said(known: Coverage) -> int:
    """What the receipt says of the stream; -1 for no news."""
    if POST not in known.posts:
        return -1
    return known.receipt(POST, 0).boots[BOOT].get(STREAM, -1)


def expected(given_facts: list[Fact]) -> int:
    """Contiguous from the highest floor, number by number."""
    floor, durable = 0, set()
    for fact in given_facts:
        match fact:
            case Landed(seq, first_seq):
                durable.add(seq)
                floor = max(floor, first_seq if first_seq <= seq else 0)
            case Dropped(first, last):
                durable |= set(range(first, last + 1))
            case Held(seq):
                floor = max(floor, seq)
    while floor in durable:
        floor += 1
    return floor - 1


@given(st.lists(facts, max_size=40), st.randoms(use_true_random=False))
def test_it_is_contiguous_from_first_seq_in_any_order_and_with_copies(given_facts: list[Fact], random: object) -> None:
    known, again = Coverage(), Coverage()
    before = -1
    for fact in given_facts:
        hear(known, fact)
        # it never goes down, and at each moment says what has landed by then
        assert said(known) >= before
        before = said(known)
    assert before == expected(given_facts)
    shuffled = [*given_facts, *given_facts[::2]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for fact in shuffled:
        hear(again, fact)
    assert said(again) == before


@given(st.lists(st.tuples(small, st.integers(0, 12)), max_size=40))
def test_ranges_are_the_set_of_their_numbers_in_the_fewest_ranges(ranges: list[tuple[int, int]]) -> None:
    seqs: Seqs = [0, 0]
    numbers: set[int] = set()
    for first, size in ranges:
        cover(seqs, first, first + size)
        numbers |= set(range(first, first + size))
        pairs = list(zip(seqs[::2], seqs[1::2], strict=True))
        assert {number for low, high in pairs for number in range(low, high)} == numbers
        assert all(after > before for before, after in itertools.pairwise(seqs[1:]))
        assert seqs[0] == 0


def test_ranges_are_bounded_and_those_nearest_to_the_receipt_stay() -> None:
    seqs: Seqs = [0, 0]
    for seq in range(1, 4 * coverage.MAX_RANGES, 2):
        cover(seqs, seq, seq + 1)
    assert len(seqs) == 2 * coverage.MAX_RANGES
    cover(seqs, 0, 1)
    assert seqs[:4] == [0, 2, 3, 4]


def test_a_broken_first_seq_frees_nothing() -> None:
    known = Coverage()
    known.message(POST, STREAM, BOOT, 3, 0, 0)
    known.message(POST, STREAM, BOOT, 4, 1_000_000, 0)
    assert known.receipt(POST, 0).boots == {BOOT: {}}


def test_each_boot_and_stream_counts_for_itself_and_old_boots_are_named_for_an_hour() -> None:
    known, other = Coverage(), "00000000000000b2"
    known.message(POST, "air", BOOT, 0, 0, 0)
    known.message(POST, "weather", BOOT, 5, 5, 0)
    known.message(POST, "air", other, 1, 0, HOUR_US)
    known.message(POST, "status", other, 0, 0, HOUR_US)
    known.message("KT1002", "air", BOOT, 9, 9, HOUR_US)
    first = {"air": 0, "weather": 5}
    assert known.receipt(POST, HOUR_US).boots == {BOOT: first, other: {"status": 0}}
    assert known.receipt(POST, HOUR_US + 1).boots == {other: {"status": 0}}
    assert known.receipt(POST, 9 * HOUR_US).boots == {other: {"status": 0}}
    assert known.receipt("KT1002", HOUR_US).boots == {BOOT: {"air": 9}}


def test_boots_are_bounded_and_one_that_waits_for_nothing_goes_first() -> None:
    known = Coverage()
    for number in range(MAX_BOOTS):
        # the oldest waits for its seq 0
        known.message(POST, "air", f"{number:016x}", 1 if number == 0 else 0, 0, number)
    known.message(POST, "air", f"{99:016x}", 0, 0, 99)
    assert set(known.posts[POST]) == {f"{number:016x}" for number in (0, *range(2, MAX_BOOTS), 99)}
    assert known.boots == MAX_BOOTS
