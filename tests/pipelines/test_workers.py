"""Several workers on one lake: Delta's optimistic concurrency is the only coordination, and no interleaving shows in
the tables (law 4)."""

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from contracts import schemas
from contracts.layout import Layout, Segment
from contracts.times import MINUTE_US, to_us
from pipelines import counts, files, housekeeping, lake, stages
from pipelines.blocks import blocks_of
from pipelines.kernels.unite import unite
from tests.pipelines.crashes import dying_after
from tests.pipelines.raw_log import START, Landed, land, make_root
from tests.pipelines.test_lake import assert_same, dirty_log, setup_of, tables
from tests.pipelines.workers import PUT, Turns, as_another, in_processes, weather, work

TEMPERATURE = re.compile(rb'"temperature_c":[0-9.-]+')
FIRST = to_us(START) // MINUTE_US


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """The weather in one batch."""
    return batch_of(tmp_path_factory.mktemp("whole"), weather(1))


def batch_of(root: Path, landed: list[Landed]) -> dict[str, pl.DataFrame]:
    layout = make_root(root)
    lake.versions(root)
    work(setup_of(layout), [land(layout, landed)])
    return tables(root)


def in_two(layout: Layout, landed: list[Landed], random: Random) -> list[Segment]:
    """The messages in two segments, by chance or by time."""
    rows = sorted(landed, key=lambda row: row.received) if random.random() < 0.5 else random.sample(landed, len(landed))
    middle = random.randint(len(rows) // 3, 2 * len(rows) // 3)
    return [land(layout, rows[:middle]), land(layout, rows[middle:], first=middle)]


def test_the_weather_is_flagged(whole: dict[str, pl.DataFrame]) -> None:
    assert whole["flags"]["test"].n_unique() >= 2
    assert (whole["minutes"]["value_count"] < whole["minutes"]["plain_count"]).sum() > 5


@pytest.mark.parametrize("seed", range(8))
def test_two_workers_in_any_order_of_steps_end_as_one_batch(
    tmp_path: Path, whole: dict[str, pl.DataFrame], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = make_root(tmp_path)
    lake.versions(tmp_path)
    parts = in_two(layout, weather(1), Random(seed))
    Turns(seed).run([partial(work, setup_of(layout), [part]) for part in parts], monkeypatch)
    assert_same(tables(tmp_path), whole)


def worked_between(act: Callable[[], None], table: str, patch: pytest.MonkeyPatch) -> None:
    """Let another process do something between our reading and our writing of a table, once."""
    done: list[str] = []

    def late(pinned: files.Pinned, *args: object) -> int:
        if not done and pinned.folder.name == table:
            done.append(table)
            as_another(act)
        return PUT(pinned, *args)  # type: ignore[arg-type]

    patch.setattr(lake, "put", late)


@pytest.mark.parametrize("table", ["minutes", "flags", "windows", "hours"])
def test_write_skew(
    tmp_path: Path, whole: dict[str, pl.DataFrame], table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each changes its minutes and has read those of the other, within the hour, as they were before."""
    layout = make_root(tmp_path)
    rows = sorted(weather(1), key=lambda row: row.received)
    early, late = (rows[:120], rows[120:])
    segments = [land(layout, early), land(layout, late, first=len(early))]
    lake.versions(tmp_path)
    lake.take_counts()
    worked_between(partial(work, setup_of(layout), [segments[1]]), table, monkeypatch)
    work(setup_of(layout), [segments[0]])
    assert_same(tables(tmp_path), whole)
    met = lake.take_counts()
    assert met.get(counts.REPEATS + table, 0) + met.get(counts.CONFLICTS + table, 0) > 0


def test_flags_of_minutes_that_were_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without some minutes in its middle the hour stands still and is flagged. They come between our reading of the
    minutes and our writing of the flags, and whoever brings them finds that no flag is missing."""
    rows = [row for row in weather(1, minutes=85) if "KT1001" in row.topic]
    calm = [
        Landed(row.topic, TEMPERATURE.sub(b'"temperature_c":20.%d' % value, row.payload), row.received)
        for row, value in zip(rows, [0] * 28 + [1, 2] * 4 + [0] * 49, strict=True)
    ]
    moved, others = calm[28:36], calm[:28] + calm[36:]
    without = batch_of(tmp_path / "without", others)
    want = batch_of(tmp_path / "want", others + moved)
    assert without["flags"].height > 10
    assert want["flags"].is_empty()
    layout = make_root(tmp_path / "got")
    lake.versions(layout.root)
    late = land(layout, moved, first=1000)
    worked_between(partial(work, setup_of(layout), [late]), "flags", monkeypatch)
    work(setup_of(layout), [land(layout, others)])
    assert_same(tables(layout.root), want)


def test_a_commit_elsewhere_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker two days later and a compaction change nothing that was read: nothing is done twice."""
    layout = make_root(tmp_path)
    rows = weather(1)
    later = [
        Landed(row.topic, row.payload.replace(b"2026-11-21T", b"2026-11-23T"), row.received + timedelta(days=2))
        for row in rows
    ]
    segments = [land(layout, rows), land(layout, later, first=len(rows))]
    lake.versions(tmp_path)

    def another() -> None:
        work(setup_of(layout), [segments[1]])
        listed = files.listed(lake.newest_version(tmp_path, "minutes"), schemas.MINUTES)
        housekeeping.rewrite(
            tmp_path, housekeeping.Span(table=schemas.MINUTES, start_us=0, end_us=2**60, files=tuple(listed))
        )

    lake.take_counts()
    worked_between(another, "minutes", monkeypatch)
    work(setup_of(layout), [segments[0]])
    met = lake.take_counts()
    assert met[counts.REPLACED_BLOCKS + "minutes"] == 160
    assert not any(name.startswith((counts.REPEATS, counts.CONFLICTS)) for name in met), met
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake, "told", lambda entry: None)  # who does not tell may have changed anything
        more = [Landed(row.topic, row.payload.replace(b'"seq":', b'"seq":9'), row.received) for row in rows[:50]]
        late = [land(layout, part, first=at) for at, part in ((10_000, more), (20_000, more[:10]))]
        worked_between(partial(work, setup_of(layout), [late[1]]), "minutes", patch)
        work(setup_of(layout), [late[0]])
    assert any(name.startswith((counts.REPEATS, counts.CONFLICTS)) for name in lake.take_counts())


def test_two_writers_on_one_handle(tmp_path: Path) -> None:
    """A commit through the same handle moves it: what was read before must be read again, or a row is lost."""
    layout = make_root(tmp_path)
    rows = pl.DataFrame(stages.decode(setup_of(layout), [land(layout, weather(2, minutes=2))])["observations"])
    mine, theirs = rows[:7], rows[7:]
    blocks = blocks_of(rows, schemas.OBSERVATIONS)
    calls: list[int] = []

    def replace(new: pl.DataFrame, meanwhile: Callable[[], object] = lambda: None) -> None:
        def recompute(existing: pl.DataFrame) -> pl.DataFrame:
            calls.append(1)
            if len(calls) == 1:
                meanwhile()
            return unite(existing, new, schemas.OBSERVATIONS)

        lake.replace_blocks(tmp_path, schemas.OBSERVATIONS, blocks, recompute)

    replace(mine, lambda: replace(theirs))
    got = lake.read(tmp_path, schemas.OBSERVATIONS, blocks)
    want = unite(rows.clear(), rows, schemas.OBSERVATIONS)
    order = list(schemas.OBSERVATIONS.identity)
    assert_frame_equal(got.sort(order), want.sort(order))
    assert len(calls) == 3


@pytest.mark.parametrize("is_cleaned", [False, True])
def test_a_slow_worker_with_an_old_version_commits_late(
    tmp_path: Path, whole: dict[str, pl.DataFrame], is_cleaned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It slept between reading and writing: others have worked, compacted, and the log entries are gone."""
    layout, rows = make_root(tmp_path), weather(1)
    segments = [land(layout, rows[at : at + 40], first=at) for at in range(0, len(rows), 40)]
    lake.versions(tmp_path)

    def meanwhile() -> None:
        for segment in segments[1:]:
            work(setup_of(layout), [segment])
        housekeeping.compact_all(tmp_path, (FIRST + 10_000) * MINUTE_US)
        if is_cleaned:
            for name, version in lake.versions(tmp_path).items():
                lake.open_table(tmp_path, name).create_checkpoint()
                for old in range(version):
                    (layout.table(name) / "_delta_log" / f"{old:020d}.json").unlink()

    worked_between(meanwhile, "minutes", monkeypatch)
    work(setup_of(layout), [segments[0]])
    assert_same(tables(tmp_path), whole)


def test_a_crash_after_any_commit_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tables, flags and minutes among them; the work is done again by somebody else."""
    rows = sorted(weather(3, minutes=40), key=lambda row: row.received)
    want = batch_of(tmp_path / "want", rows)
    survives, is_done = 0, False
    while not is_done:
        layout = make_root(tmp_path / str(survives))
        lake.versions(layout.root)
        segments = [land(layout, rows[:60]), land(layout, rows[60:], first=60)]
        work(setup_of(layout), [segments[1]])
        with dying_after(survives, InterruptedError):
            try:
                work(setup_of(layout), [segments[0]])
                is_done = True
            except InterruptedError:
                pass
        as_another(partial(work, setup_of(layout), [segments[0]]))
        assert_same(tables(layout.root), want)
        survives += 1
    assert survives >= 4


@pytest.mark.parametrize("are_same", [True, False])
def test_three_processes_at_once(tmp_path: Path, are_same: bool) -> None:
    """On the same blocks (each has a third of every minute and some of the others' messages), and on different ones."""
    rows = dirty_log(5)[:700] + weather(5)
    want = batch_of(tmp_path / "want", rows)
    layout = make_root(tmp_path / "got")
    lake.versions(layout.root)
    order = Random(1).sample(rows, len(rows)) if are_same else sorted(rows, key=lambda row: row.received)
    third = len(order) // 3 + 1
    parts: list[list[Segment]] = []
    for number in range(3):
        mine = order[number * third : (number + 1) * third] + (order[:40] if are_same else [])
        first = 10_000 * number
        cut = len(mine) // 2
        parts.append([land(layout, mine[:cut], first=first), land(layout, mine[cut:], first=first + cut)])
    met = in_processes(layout.root, parts)
    assert_same(tables(layout.root), want)
    if are_same:
        assert any(name.startswith(counts.CONFLICTS) for found in met for name in found)
