"""Commits of our own beside Delta's: who comes second begins anew, what fails leaves nothing, everybody reads them."""

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from contracts.schemas import OBSERVATIONS
from pipelines import commit, files, housekeeping, lake, stages
from pipelines.blocks import block, blocks_of
from pipelines.kernels.unite import unite
from tests.pipelines.raw_log import land, make_root
from tests.pipelines.test_lake import setup_of
from tests.pipelines.workers import PUT, as_another, weather

KEY = list(OBSERVATIONS.identity)


@pytest.fixture
def rows(tmp_path: Path) -> pl.DataFrame:
    layout = make_root(tmp_path)
    return pl.DataFrame(stages.decode(setup_of(layout), [land(layout, weather(2, minutes=30))])["observations"])


def add(root: Path, new: pl.DataFrame) -> None:
    lake.replace_blocks(
        root, OBSERVATIONS, blocks_of(new, OBSERVATIONS), lambda existing: unite(existing, new, OBSERVATIONS)
    )


def stored(root: Path) -> pl.DataFrame:
    """As a foreign reader has it."""
    return pl.scan_delta(str(root / "lake" / "observations")).collect().sort(KEY)


def racing(patch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Let `act` commit before the first of our commits, behind our reading."""
    done: list[int] = []

    def late(*args: object) -> int:
        if not done:
            done.append(1)
            as_another(act)
        return PUT(*args)  # type: ignore[arg-type]

    patch.setattr(lake, "put", late)


@pytest.mark.parametrize("bulk", [(0, 10**9), (10**9, 0), (0, 0), (10**9, 10**9)])
def test_ours_and_deltas_commits_exclude_one_another(
    tmp_path: Path, rows: pl.DataFrame, bulk: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers on the same blocks, each with a way of its own."""
    mine, theirs, first = (rows.gather_every(3, at) for at in range(3))
    add(tmp_path, first)
    before = lake.versions(tmp_path)["observations"]

    def other() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lake, "BULK_ROWS", bulk[1])
            add(tmp_path, theirs)

    monkeypatch.setattr(lake, "BULK_ROWS", bulk[0])
    racing(monkeypatch, other)
    add(tmp_path, mine)
    assert lake.versions(tmp_path)["observations"] == before + 2
    assert_frame_equal(stored(tmp_path), rows.sort(KEY), check_column_order=False)


def test_who_changes_other_blocks_is_passed(
    tmp_path: Path, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their commit lies between our version and ours, and nothing is read again. Files are of few blocks each."""
    monkeypatch.setattr(lake, "LIVE_ROWS", 1)
    add(tmp_path, rows.gather_every(2))
    moved = rows.gather_every(2, 1)
    middle = moved["event_time"].sort()[moved.height // 2].replace(second=0, microsecond=0)
    early, late = moved.filter(pl.col("event_time") < middle), moved.filter(pl.col("event_time") >= middle)
    calls: list[int] = []
    racing(monkeypatch, lambda: add(tmp_path, early))

    def recompute(existing: pl.DataFrame) -> pl.DataFrame:
        calls.append(1)
        return unite(existing, late, OBSERVATIONS)

    lake.replace_blocks(tmp_path, OBSERVATIONS, blocks_of(late, OBSERVATIONS), recompute)
    assert len(calls) == 1
    assert_frame_equal(stored(tmp_path), rows.sort(KEY), check_column_order=False)


def test_what_fails_leaves_no_file(tmp_path: Path, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full at any step of a commit."""
    add(tmp_path, rows.head(100))
    folder = tmp_path / "lake" / "observations"
    before = sorted(folder.rglob("*"))
    for name in ("add_file", "commit"):
        calls: list[int] = []

        def full(*args: object, name: str = name, calls: list[int] = calls) -> object:
            calls.append(1)
            if name == "commit" or len(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            return commit.add_file(*args)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(lake, "LIVE_ROWS", 50)
            patch.setattr(lake, name, full)
            with pytest.raises(OSError, match="No space"):
                add(tmp_path, rows)
        assert sorted(folder.rglob("*")) == before
    add(tmp_path, rows)
    assert stored(tmp_path).height == rows.height


def test_replaced_again_and_again_it_is_what_was_put_in(
    tmp_path: Path, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random parts, files of random size, compaction between: what our reads keep between versions is what Delta's
    readers see, of any blocks and columns, and bounds in the log are those of the files."""
    random = Random(3)
    every = sorted(blocks_of(rows, OBSERVATIONS))
    left = rows.sample(fraction=1.0, shuffle=True, seed=3)
    while left.height:
        monkeypatch.setattr(lake, "LIVE_ROWS", random.choice([1, 40, 4_096]))
        part, left = left.head(60), left[60:]
        add(tmp_path, part)
        if random.random() < 0.2:
            housekeeping.compact_all(tmp_path, 2**62)
        if random.random() < 0.3:
            files._kept.clear()
        monkeypatch.setattr(files, "VIEWED_FILES", random.choice([1, 3, 8]))
        columns = random.sample(OBSERVATIONS.schema.names, random.randrange(1, 6))
        blocks = random.sample(every, random.randrange(1, len(every)))
        here = block(OBSERVATIONS).is_in(blocks)
        got = lake.read_blocks(lake.newest_version(tmp_path, "observations"), OBSERVATIONS, blocks, columns)
        want = stored(tmp_path).filter(here).select(columns)
        assert_frame_equal(got.sort(columns), want.sort(columns), check_column_order=False)
    assert_frame_equal(stored(tmp_path), rows.sort(KEY), check_column_order=False)
    pinned = lake.newest_version(tmp_path, "observations")
    got = lake.read_blocks(pinned, OBSERVATIONS, blocks_of(rows, OBSERVATIONS))
    assert_frame_equal(got.sort(KEY), rows.sort(KEY), check_column_order=False)
    files.forget()
    files._kept.clear()
    files._views.clear()
    assert lake.read_blocks(pinned, OBSERVATIONS, blocks_of(rows, OBSERVATIONS)).sort(KEY).equals(got.sort(KEY))
    for file in files.listed(pinned, OBSERVATIONS):
        content = pl.read_parquet(pinned.folder / file.name)
        moments = content["event_time"].dt.epoch("us")
        assert (file.low_us, file.high_us, file.rows) == (moments.min(), moments.max(), content.height)
        assert (file.first_post, file.last_post) == (content["post_id"].min(), content["post_id"].max())
        assert file.size == (pinned.folder / file.name).stat().st_size


def test_a_read_of_more_than_is_kept_reads_each_file_once(
    tmp_path: Path, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Posts of a compacted day that change are files across the day: hundreds, each with rows of every block."""
    count = files.VIEW_CHUNKS + 3
    for number in range(count):
        lake.append_rows(tmp_path, OBSERVATIONS, rows.gather_every(count, number))
    monkeypatch.setattr(files, "KEPT_BYTES", 1)
    files._kept.clear()
    monkeypatch.setattr(files, "_views", files._Memory(10.0**9))
    names: list[str] = []

    def reading(place: str, *rest: object) -> pl.DataFrame:
        names.append(place)
        return read_file(place, *rest)  # type: ignore[arg-type]

    read_file = files._file
    monkeypatch.setattr(files, "_file", reading)
    pinned = lake.newest_version(tmp_path, "observations")
    got = lake.read_blocks(pinned, OBSERVATIONS, blocks_of(rows, OBSERVATIONS))
    assert_frame_equal(got.sort(KEY), rows.sort(KEY), check_column_order=False)
    assert len(names) == len(set(names)) == len(files.listed(pinned, OBSERVATIONS)) == count
    # nor is each of them kept whole for the few rows of a block
    views = [view.rows for view in files._views._found.values()]
    assert len(views) > 1
    assert max(rows.n_chunks() for rows in views) <= files.VIEW_CHUNKS


def test_a_version_that_was_cleaned_up_is_not_made_again(
    tmp_path: Path, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the version that a sleeper holds there is a free name; what it writes there nobody would read."""
    add(tmp_path, rows.head(50))
    slow = lake.newest_version(tmp_path, "observations")
    for end in (100, 150, 200):
        add(tmp_path, rows[end - 50 : end])
    handle = DeltaTable(str(slow.folder))
    handle.create_checkpoint()
    for version in range(handle.version()):
        files.entry(slow.folder / "_delta_log", version).unlink()
    names = sorted(slow.folder.rglob("*"))
    gone = rows.head(50)
    with pytest.raises(commit.Conflict, match="cleaned up"):
        lake.put(slow, OBSERVATIONS, gone, blocks_of(gone, OBSERVATIONS))
    assert sorted(slow.folder.rglob("*")) == names
    add(tmp_path, rows)
    assert_frame_equal(stored(tmp_path), rows.sort(KEY), check_column_order=False)
