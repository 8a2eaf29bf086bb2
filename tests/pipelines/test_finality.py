"""When windows are final, held to devices whose whole history is known; and what a revision counts."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

import msgspec
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pipelines.kernels import finality as kernel
from pipelines.kernels.finality import COVER, MESSAGES, STATEMENTS
from tests.pipelines.raw_log import START

PERIODS = {"traffic": timedelta(seconds=30), "weather": timedelta(0), "status": timedelta(0)}
POST = "KT1001"


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


@dataclass
class Device:
    """One post's whole history, and what of it has landed. Every boot names the one before."""

    dice: Random
    rows: list[tuple[str, str, int, datetime]] = field(default_factory=list)  # stream, boot, seq, time
    gone: set[tuple[str, str, int]] = field(default_factory=set)
    landed: set[tuple[str, str, int]] = field(default_factory=set)
    ends: list[tuple[str, dict[str, int], datetime]] = field(default_factory=list)  # boot, highest seqs, next birth

    def live(self, minutes: int, loss: float) -> None:
        """Some boots, one message of each stream a half-minute (a status message first)."""
        seqs: dict[str, int] = {}
        boot = "a0"
        for half in range(minutes * 2):
            if seqs and self.dice.random() < 0.1:
                self.ends.append((boot, dict(seqs), at(half / 2)))
                boot, seqs = f"a{len(self.ends)}", {}
            for stream in ("status", "traffic", "weather"):
                seq = seqs[stream] = seqs.get(stream, -1) + 1
                self.rows.append((stream, boot, seq, at(half / 2)))
                if self.dice.random() < loss / 3:
                    self.gone.add((stream, boot, seq))
        self.landed = {row[:3] for row in self.rows if self.dice.random() > loss and row[:3] not in self.gone}

    def messages(self) -> pl.DataFrame:
        rows = [
            (POST, stream, boot, seq, self._first_seq(stream, boot, seq), time, time + timedelta(seconds=31))
            for stream, boot, seq, time in self.rows
            if (stream, boot, seq) in self.landed
        ]
        return pl.DataFrame(rows, schema=MESSAGES, orient="row")

    def _first_seq(self, stream: str, boot: str, seq: int) -> int:
        """The lowest that is held: what landed or was dropped is not, as far as the device knows."""
        held = (n for n in range(seq) if (stream, boot, n) not in self.landed | self.gone)
        return self.dice.choice([0, next(held, seq)])

    def statements(self) -> pl.DataFrame:
        """What the births that landed say, and all that was dropped."""
        rows: list[tuple[object, ...]] = []
        for boot, highest, birth in self.ends:
            if ("status", f"a{int(boot[1:]) + 1}", 0) in self.landed:
                rows.append((POST, birth, birth, boot, msgspec.json.encode(highest).decode(), None, None))
        for stream, boot, seq in sorted(self.gone):
            span = [{"boot_id": boot, "stream": stream, "first_seq": seq, "last_seq": seq}]
            rows.append((POST, START, START, None, None, msgspec.json.encode(span).decode(), None))
        return pl.DataFrame(rows, schema=STATEMENTS, orient="row")


def cover_of(device: Device) -> pl.DataFrame:
    return kernel.unite_covers(kernel.landed(device.messages()), kernel.stated(device.statements()))


def through(cover: pl.DataFrame, since: datetime) -> dict[str, datetime]:
    posts = pl.DataFrame({"post_id": [POST] * 2, "stream": ["traffic", "weather"]})
    return kernel.contiguous_through(cover, posts, {"traffic": since, "weather": since}, at(30))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), loss=st.sampled_from([0.0, 0.05, 0.3]), since=st.integers(-1, 10))
def test_what_is_before_the_contiguous_time_has_landed_or_was_dropped(seed: int, loss: float, since: int) -> None:
    device = Device(Random(seed))
    device.live(8, loss)
    found = through(cover_of(device), at(since / 2))
    boots = {row[1] for row in device.rows}
    born = {boot for stream, boot, _ in device.landed if stream == "status"}
    for stream, moment in found.items():
        for row in device.rows:
            # without a word of the next boot, or when it gave its birth up, nobody can tell how this one ended
            after = f"a{int(row[1][1:]) + 1}"
            is_open = after in boots and (after not in born or ("status", after, 0) in device.gone)
            if row[0] == stream and at(since / 2) < row[3] < moment and not is_open:
                assert row[:3] in device.landed | device.gone, (row, moment)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), loss=st.sampled_from([0.0, 0.1]))
def test_without_a_gap_it_is_the_end_of_what_landed_last(seed: int, loss: float) -> None:
    device = Device(Random(seed))
    device.live(8, loss)
    device.landed = {row[:3] for row in device.rows} - device.gone
    found = through(cover_of(device), START - timedelta(hours=1))
    for stream, period in (("traffic", PERIODS["traffic"]), ("weather", PERIODS["weather"])):
        last = max(row[3] for row in device.rows if row[0] == stream and row[:3] in device.landed)
        # a birth that was dropped says nothing of the boot before
        is_born = all(("status", row[1], 0) in device.landed | device.gone for row in device.rows)
        assert not is_born or found[stream] == last + period


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_a_cover_is_a_union_of_sets(seed: int) -> None:
    """Against sets of seqs; in any parts and order, some twice."""
    dice = Random(seed)
    device = Device(dice)
    device.live(6, 0.3)
    rows = device.messages()
    want: dict[tuple[str, str], set[int]] = {}
    for _, stream, boot, seq, first_seq, *_ in rows.iter_rows():
        want.setdefault((stream, boot), set()).update({seq, *range(first_seq)})
    for stream, boot, seq in device.gone:
        want.setdefault((stream, boot), set()).add(seq)
    for boot, highest, _ in (end for end in device.ends if ("status", f"a{int(end[0][1:]) + 1}", 0) in device.landed):
        for stream, seq in highest.items():
            want.setdefault((stream, boot), set()).add(seq + 1)
    whole = kernel.unite_covers(kernel.landed(rows), kernel.stated(device.statements()))
    got: dict[tuple[str, str], set[int]] = {}
    for _, stream, boot, low, high, *_ in whole.iter_rows():
        seqs = got.setdefault((stream, boot), set())
        assert not seqs & {low - 1, *range(low, high + 1)}
        seqs.update(range(low, high + 1))
    assert got == want
    parts = [kernel.landed(rows.sample(dice.randint(0, rows.height), seed=n)) for n in range(4)]
    parts += [kernel.stated(device.statements()), kernel.landed(rows)]
    dice.shuffle(parts)
    united = COVER.to_frame()
    for part in parts:
        united = kernel.unite_covers(united, part)
    assert_frame_equal(united, whole, check_row_order=False)


def one(
    stream: str, seq: int, minute: float, first_seq: int = 0, boot: str = "a0", post: str = POST
) -> tuple[object, ...]:
    return post, stream, boot, seq, first_seq, at(minute), at(minute)


def cover(*rows: tuple[object, ...], said: pl.DataFrame | None = None) -> pl.DataFrame:
    found = kernel.landed(pl.DataFrame(rows, schema=MESSAGES, orient="row"))
    return found if said is None else kernel.unite_covers(found, kernel.stated(said))


def test_a_gap_holds_until_it_lands_or_lies_before_what_is_final() -> None:
    lacking = [one("weather", 0, 0), one("weather", 1, 1), one("weather", 3, 3), one("weather", 4, 4)]
    assert through(cover(*lacking), START) == {"weather": at(1)}
    assert through(cover(*lacking, one("weather", 2, 2)), START) == {"weather": at(4)}
    assert through(cover(*lacking), at(3)) == {"weather": at(4)}
    # the device holds nothing below: it was received before, or dropped
    assert through(cover(*lacking, one("weather", 5, 5, first_seq=3)), START) == {"weather": at(5)}
    # of what is below the first that landed nothing is known
    assert through(cover(*lacking[2:]), START) == {"weather": datetime.fromtimestamp(0, START.tzinfo)}


def test_a_boot_whose_birth_is_missing_may_hide_the_end_of_the_one_before() -> None:
    before = [one("status", 0, 0), one("weather", 0, 0), one("weather", 1, 1)]
    after = [one("status", 1, 6, boot="a1"), one("weather", 0, 6, boot="a1")]
    assert through(cover(*before, *after), at(0.5))["weather"] < at(0)
    born = [*before, *after, one("status", 0, 5, boot="a1")]
    said = [(POST, at(5), at(5), "a0", '{"weather":3}', None, None)]
    statements = pl.DataFrame(said, schema=STATEMENTS, orient="row")
    assert through(cover(*born, said=statements), at(0.5))["weather"] == at(1)
    assert through(cover(*born, one("weather", 2, 2), one("weather", 3, 3), said=statements), at(0.5))["weather"] == at(
        6
    )


def test_a_post_is_waited_for_as_long_as_it_was_heard_within_an_hour() -> None:
    silent = cover(one("weather", 0, 0), one("weather", 0, 0, post="KT1002"), one("weather", 1, 50, post="KT1002"))
    posts = pl.DataFrame({"post_id": [POST, "KT1002"], "stream": ["weather"] * 2})
    asked = {"weather": START}
    assert kernel.contiguous_through(silent, posts, asked, at(59)) == {"weather": at(0)}
    assert kernel.contiguous_through(silent, posts, asked, at(61)) == {"weather": at(50)}
    # a post that the registry no longer knows is not waited for
    assert kernel.contiguous_through(silent, posts[1:], asked, at(59)) == {"weather": at(50)}


def test_announcements_go_by_whole_windows_and_never_back() -> None:
    def announced(contiguous: float, before: float | None, covered: float) -> list[tuple[object, ...]]:
        known = {} if before is None else {"air": at(before)}
        rows = kernel.announcements({"air": at(contiguous)}, known, frozenset({"air"}), at(covered), 600, at(99))
        return rows.select("stream", "final_through", "reason").rows()

    assert announced(9.9, 0, 10) == [("air", at(5), "contiguous")]
    assert announced(9.9, 5, 10) == []
    assert announced(9.9, 10, 10) == []
    assert announced(3, 0, 17) == [("air", at(5), "grace")]
    # a clock that is ahead ends no window early
    assert announced(16, 0, 14) == [("air", at(10), "contiguous")]


# the lake
