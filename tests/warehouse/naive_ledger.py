"""The loss ledger once more, seq by seq in plain Python: what the SQL is held to. For small numbers only."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from contracts.payloads import OldestHeld, PreviousBoot, SeqRange, digest

Slot = tuple[str, str, str, int]  # post, stream, boot, seq
Boot = tuple[str, str, str]  # post, stream, boot
COUNTS = ("expected", "accepted", "quarantined", "dropped", "missing", "awaited", "keyless", "duplicate", "conflicting")
LATE = ("late_minutes", "late_hours", "late_days")


@dataclass(frozen=True, kw_only=True)
class Landed:
    """One message as it landed, and what it is known to be. `seq` None: its bytes or topic do not tell its key.

    `reason` None: accepted. `previous`, `dropped`, `oldest_held` are what the platform may believe of a status message.
    """

    topic: str
    payload: bytes
    received: datetime
    time: datetime | None
    post: str | None
    stream: str | None
    boot: str
    seq: int | None
    first_seq: int
    reason: str | None
    kind: str = ""
    previous: PreviousBoot | None = None
    dropped: tuple[SeqRange, ...] = ()
    oldest_held: tuple[OldestHeld, ...] = ()

    @property
    def mark(self) -> int:
        return digest(self.payload)


@dataclass
class Account:
    """`rows` by (post, stream, hour, is_keyless); seqs by (post, stream, boot); awaited ones are missing as well."""

    rows: dict[tuple[Any, ...], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    reasons: dict[tuple[Any, ...], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    missing: dict[Boot, set[int]] = field(default_factory=lambda: defaultdict(set))
    dropped: dict[Boot, set[int]] = field(default_factory=lambda: defaultdict(set))
    awaited: dict[Boot, set[int]] = field(default_factory=lambda: defaultdict(set))


def hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def account(landed: list[Landed]) -> Account:
    """The ledger of everything that landed, in any order."""
    done = Account()
    accepted: dict[Slot, list[Landed]] = defaultdict(list)
    posts: dict[str, set[str]] = defaultdict(set)
    for one in landed:
        if one.reason is None and one.kind != "will":
            accepted[_slot(one, one.post)].append(one)
            posts[one.boot].add(str(one.post))
    refused: dict[Slot, list[tuple[Landed, int]]] = defaultdict(list)
    spoken: list[tuple[str, datetime, Landed]] = []
    for first, extra in _sets(landed):
        if first.seq is None or first.post is None:
            key = (first.post, first.stream, hour(min(first.received, first.time or first.received)), True)
            done.rows[key].update(keyless=1, duplicate=extra)
            done.reasons[key][str(first.reason)] += 1
            continue
        post = next(iter(posts[first.boot])) if len(posts[first.boot]) == 1 else first.post
        refused[_slot(first, post)].append((first, extra))
        if first.reason in ("future", "too_old", "unknown_post", "unknown_sensor"):
            spoken.append((post, min(first.received, first.time or first.received), first))
    slots: dict[Boot, dict[int, tuple[datetime, int]]] = defaultdict(dict)
    for slot in {**accepted, **refused}:
        if slot in accepted:
            when, first_seq = _accepted(done, slot, accepted[slot])
        else:
            when, first_seq = _quarantined(done, slot, [one for one, _ in refused[slot]])
        versions = Counter(one.mark for one in accepted.get(slot, []))
        copies = sum(versions.values()) - len(versions) + sum(extra for _, extra in refused.get(slot, []))
        others = {*versions, *(one.mark for one, _ in refused.get(slot, []))}
        done.rows[slot[0], slot[1], when, False].update(duplicate=copies, conflicting=len(others) - 1)
        slots[slot[:3]][slot[3]] = (when, first_seq)
    _unlanded(done, slots, [*spoken, *_statements(accepted)])
    return done


def _slot(one: Landed, post: str | None) -> Slot:
    assert post is not None
    assert one.stream is not None
    assert one.seq is not None
    return post, one.stream, one.boot, one.seq


def _sets(landed: list[Landed]) -> list[tuple[Landed, int]]:
    """(first copy, further ones) of each refused topic and payload."""
    sets: dict[tuple[str, int], list[Landed]] = defaultdict(list)
    for one in sorted(landed, key=lambda one: one.received):
        if one.reason is not None:
            sets[one.topic, one.mark].append(one)
    return [(copies[0], len(copies) - 1) for copies in sets.values()]


def _accepted(done: Account, slot: Slot, copies: list[Landed]) -> tuple[datetime, int]:
    """Hour and first_seq of an accepted message, which is counted."""
    time = min(one.time for one in copies if one.time)
    late = min(one.received for one in copies) - time
    row = done.rows[slot[0], slot[1], hour(time), False]
    row["accepted"] += 1
    for name, least in (("days", timedelta(days=1)), ("hours", timedelta(hours=1)), ("minutes", timedelta(minutes=2))):
        if late >= least:
            row[f"late_{name}"] += 1
            break
    return hour(time), min(one.first_seq for one in copies)


def _quarantined(done: Account, slot: Slot, rejects: list[Landed]) -> tuple[datetime, int]:
    """The same of a refused one."""
    first = min(rejects, key=lambda one: (one.received, one.mark))
    when = hour(min(first.time or first.received, first.received))
    done.rows[slot[0], slot[1], when, False]["quarantined"] += 1
    done.reasons[slot[0], slot[1], when, False][str(first.reason)] += 1
    return when, min(one.first_seq for one in rejects)


def _statements(accepted: dict[Slot, list[Landed]]) -> list[tuple[str, datetime, Landed]]:
    """Accepted status messages; of copies that differ under one key and time the least digest."""
    outranking: dict[tuple[Any, ...], Landed] = {}
    for slot, copies in accepted.items():
        for one in copies if slot[1] == "status" else ():
            key = (*slot, one.time, one.kind)
            if key not in outranking or one.mark < outranking[key].mark:
                outranking[key] = one
    return [(slot[0], one.time, one) for slot, one in outranking.items() if one.time is not None]


def _unlanded(
    done: Account, slots: dict[Boot, dict[int, tuple[datetime, int]]], spoken: list[tuple[str, datetime, Landed]]
) -> None:
    named: dict[Boot, list[tuple[int, datetime]]] = defaultdict(list)
    gone: dict[Boot, list[tuple[int, int, datetime]]] = defaultdict(list)
    held: dict[Boot, list[int]] = defaultdict(list)
    for post, time, one in spoken:
        if one.previous is not None:
            for stream, highest in one.previous.highest_seq.items():
                named[post, stream, one.previous.boot_id].append((highest, hour(time)))
        for span in one.dropped:
            if span.first_seq <= span.last_seq:
                gone[post, span.stream, span.boot_id].append((span.first_seq, span.last_seq, hour(time)))
        for oldest in one.oldest_held:
            held[post, oldest.stream, oldest.boot_id].append(oldest.seq)

    for boot in {*slots, *named, *gone}:
        found = slots.get(boot, {})
        birth = slots.get((boot[0], "status", boot[2]), {}).get(0)
        spans = gone[boot]
        end = max([*found, *(highest for highest, _ in named[boot]), *(last for _, last, _ in spans)])
        if birth or (not found and named[boot]):
            start = 0
        else:
            start = min([*found, *(first_seq for _, first_seq in found.values()), *(first for first, _, _ in spans)])
        if birth:
            before = birth[0]
        elif found:
            before = found[min(found)][0]
        else:
            before = min(when for _, when in named[boot]) if named[boot] else min(when for _, _, when in spans)
        floor = max([first_seq for _, first_seq in found.values()] + held[boot], default=None)
        for seq in range(start, end + 1):
            if seq in found:
                before = found[seq][0]
            row = done.rows[boot[0], boot[1], before, False]
            row["expected"] += 1
            if seq in found:
                continue
            if any(first <= seq <= last for first, last, _ in spans):
                row["dropped"] += 1
                done.dropped[boot].add(seq)
                continue
            row["missing"] += 1
            done.missing[boot].add(seq)
            if floor is not None and seq >= floor:
                row["awaited"] += 1
                done.awaited[boot].add(seq)
