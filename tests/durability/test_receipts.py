"""A trace shows it: a receipt leaves when what it covers is durable, and not before."""

from collections import defaultdict
from dataclasses import replace

from tests.durability.cuts import Run
from tests.durability.events import SyncEnded
from tests.durability.replay import RawLog
from tests.durability.verdict import seqs

STREAM = tuple[str, str, str]
SOME = 1_000  # how many a run of seconds has receipted is the machine's affair


def promised(run: Run, endings: tuple[str, ...]) -> tuple[int, int]:
    """Messages that came to ingest and were receipted, and how many of them no durable segment with such an ending
    held at that moment."""
    replay = run.replay()
    raw = RawLog(replay.disk, endings)
    durable: set[tuple[str, str, str, int]] = set()
    waiting: defaultdict[STREAM, set[int]] = defaultdict(set)
    known = covered = lies = 0
    for event in run.events:
        for post, receipt in replay.step(event)[1]:
            for *stream, seq in seqs(replay.received[known:]):
                waiting[stream[0], stream[1], stream[2]].add(seq)
            known = len(replay.received)
            raw.update()
            durable |= seqs(raw.added)
            for boot, streams in receipt.boots.items():
                for name, upto in streams.items():
                    done = {seq for seq in waiting[post, boot, name] if seq <= upto}
                    waiting[post, boot, name] -= done
                    covered += len(done)
                    lies += sum((post, boot, name, seq) not in durable for seq in done)
    return covered, lies


def test_what_a_receipt_covers_is_durable_when_it_leaves(busy: Run) -> None:
    covered, lies = promised(busy, (".open", ".arrow", ".parquet"))
    assert lies == 0
    assert covered > SOME


def test_without_fsync_every_receipt_would_be_a_lie(busy: Run) -> None:
    asleep = replace(busy, events=[event for event in busy.events if not isinstance(event, SyncEnded)])
    covered, lies = promised(asleep, (".open", ".arrow", ".parquet"))
    assert lies == covered > SOME
