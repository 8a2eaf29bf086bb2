"""`backfill`: a span of the raw log in several processes ends as one batch of it, whatever died on the way."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from contracts.layout import Layout, Positions, Segment, try_lock
from contracts.retention import EVER, RULES
from contracts.schemas import Table
from contracts.settings import SettingError
from contracts.times import to_us
from pipelines import __main__ as command
from pipelines import backfill, disk, graph, lake, live, stages
from pipelines.announcements import final_through
from pipelines.explain import TABLES_OF, graph_text
from pipelines.log import in_order, received_between, rows_of
from pipelines.metrics import Metrics
from pipelines.processes import Processes, WorkerError
from tests.pipelines.raw_log import START, Landed, land, make_root
from tests.pipelines.test_lake import assert_same, dirty_log, setup_of, tables
from tests.pipelines.test_live import config_of
from tests.pipelines.workers import weather

ROWS = sorted(dirty_log(7) + weather(7), key=lambda row: row.received)


def land_all(layout: Layout, rows: list[Landed], size: int, instance: str = "a", first: int = 0) -> list[Segment]:
    return [land(layout, rows[at : at + size], instance=instance, first=first + at) for at in range(0, len(rows), size)]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    return batch_of(tmp_path_factory.mktemp("batch"), ROWS)


def batch_of(root: Path, rows: list[Landed]) -> dict[str, pl.DataFrame]:
    layout = make_root(root)
    lake.versions(root)
    graph.run(setup_of(layout), [(land(layout, rows),)])
    return tables(root)


def run(layout: Layout, *more: str) -> int:
    return command.main(["backfill", "--data", str(layout.root), *more])


@pytest.fixture(autouse=True)
def _nothing_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """The days of these tests stay the same, and the machine's clock does not."""
    for one in RULES:
        monkeypatch.setenv(one.variable, EVER)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "SHARE_ROWS", 250)
    monkeypatch.setattr(backfill, "LANE_SHARES", 2)


@pytest.mark.usefixtures("small")
def test_two_processes_end_as_one_batch_and_nothing_is_left_to_do(
    tmp_path: Path, batch: dict[str, pl.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_root(tmp_path)
    middle = len(ROWS) // 2
    land_all(layout, ROWS[:middle], 90)
    # a second instance, which took turns with the first for a while
    land_all(layout, ROWS[middle::2], 90, first=middle)
    land_all(layout, ROWS[middle + 1 :: 2], 90, instance="b")
    assert run(layout, "--processes", "2") == 0
    assert_same(tables(tmp_path), batch)
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"backfill: {len(ROWS):,} messages in" in said
    assert "the lake contains the raw log until" in said
    positions = Positions.load(layout.positions)
    assert sum(positions.offsets.values()) == len(ROWS)
    assert positions.versions == lake.versions(tmp_path)
    assert time.time() - 300 < positions.covered_us / 1e6 <= time.time()
    assert run(layout) == 0
    assert "nothing was received" in capsys.readouterr().err
    loop = live.Live(config_of(tmp_path), Metrics(layout.raw))
    loop.tick()
    assert loop.messages == 0
    assert Positions.load(layout.positions).versions == positions.versions


@pytest.mark.usefixtures("small")
def test_only_what_was_received_in_the_span(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Segments that hold some of it are read as a whole, and positions claim nothing that was passed over."""
    layout = make_root(tmp_path / "got")
    segments = land_all(layout, ROWS, 100)
    since, until = ROWS[150].received, ROWS[len(ROWS) - 150].received
    assert run(layout, "--from", since.isoformat(), "--to", until.isoformat(), "--processes", "1") == 0
    assert "older messages are not in the lake yet" in capsys.readouterr().err
    parts = [ROWS[segment.first : segment.last + 1] for segment in segments]
    read = [row for part in parts if any(since <= row.received < until for row in part) for row in part]
    assert len(ROWS) - 400 <= len(read) < len(ROWS)
    want = batch_of(tmp_path / "want", read)
    assert_same(tables(layout.root), want)
    assert Positions.load(layout.positions).offsets == {}
    assert run(layout, "--to", until.isoformat(), "--processes", "1") == 0
    positions = Positions.load(layout.positions)
    assert (len(ROWS) - 250 < positions.offsets["a"] < len(ROWS), positions.covered_us) == (True, to_us(until))


def test_which_segments_hold_a_span(tmp_path: Path) -> None:
    layout = make_root(tmp_path)
    times = [START + timedelta(seconds=at // 3) for at in range(30)]
    rows = [Landed("t", b"p", moment) for moment in times]
    segments = land_all(layout, rows, 4)
    for since in (None, *(START + timedelta(seconds=at / 2) for at in range(-2, 24))):
        for until in (None, *(START + timedelta(seconds=at / 2) for at in range(-2, 24))):
            first, end = received_between(layout.raw, segments, since, until)
            read = {at for at in range(len(segments)) if first <= at < end}
            wanted = {at // 4 for at, one in enumerate(times) if _is_in(one, since, until)}
            assert wanted <= read, (since, until)
            assert len(read) <= len(wanted) + 1
    assert in_order(layout.raw, [segments]) == segments


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("sizes", [[1], [100] * 50, [20_000] * 43, [100_000] * 25, [7, 90_000, 250] * 9])
def test_shares_are_even_and_whole(processes: int, sizes: list[int]) -> None:
    ends = [sum(sizes[: at + 1]) for at in range(len(sizes))]
    segments = [Segment("a", end - size, end - 1) for end, size in zip(ends, sizes, strict=True)]
    shares = backfill.shares_of(segments, processes)
    assert [segment for share in shares for segment in share] == segments
    assert max(map(rows_of, shares)) <= backfill.SHARE_ROWS + max(sizes)
    if len(shares) > 1 and min(sizes) == max(sizes):
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def _is_in(moment: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or since <= moment) and (until is None or moment < until)


def begin(layout: Layout, *more: str) -> "subprocess.Popen[str]":
    code = "from pipelines import backfill, __main__; backfill.SHARE_ROWS, backfill.LANE_SHARES = 250, 2; import sys; "
    code += "sys.exit(__main__.main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, "backfill", "--data", str(layout.root), *more]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in map(int, found) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def until_true(is_so: Callable[[], object], what: str, patience_s: float = 90) -> None:
    end = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def commits(layout: Layout, table: str) -> int:
    return len(list((layout.table(table) / "_delta_log").glob("*.json")))


def test_a_killed_worker_and_a_killed_parent_leave_a_lake_that_heals(
    tmp_path: Path, batch: dict[str, pl.DataFrame]
) -> None:
    layout = make_root(tmp_path)
    land_all(layout, ROWS, 90)
    process = begin(layout, "--processes", "2")
    until_true(lambda: commits(layout, "observations") > 1, "the first commit")
    os.kill(workers_of(process)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=90)
    lines = [line for line in said.splitlines() if line.startswith("lamplight")]
    assert process.returncode == 1
    assert len(lines) == 1
    assert re.search(r"worker \d+ was killed by SIGKILL at a/.*: the same command heals the lake", lines[0]), said
    assert "Traceback" not in said
    process = begin(layout, "--processes", "1")
    before = commits(layout, "minutes")
    until_true(lambda: commits(layout, "minutes") > before, "a commit of the second try")
    (worker,) = workers_of(process)
    process.kill()
    process.communicate(timeout=10)
    # the worker ends its share with the lock in its hand, and only then may others begin
    until_true(lambda: not Path(f"/proc/{worker}").exists(), "the worker to leave")
    assert run(layout, "--processes", "1") == 0
    assert_same(tables(tmp_path), batch)


def test_a_worker_holds_the_lock_until_it_has_left(tmp_path: Path) -> None:
    layout = make_root(tmp_path)
    lock = try_lock(layout.lake / "lock")
    assert lock is not None
    with Processes(1, setup_of(layout), lock) as workers:
        lock.close()
        assert try_lock(layout.lake / "lock") is None
        assert len(workers.pids) == 1
    again = try_lock(layout.lake / "lock")
    assert again is not None
    again.close()


def test_a_worker_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    layout = make_root(tmp_path)
    segment = land(layout, ROWS[:50])
    layout.registry.write_text("{")
    lock = try_lock(layout.lake / "lock")
    assert lock is not None
    with Processes(1, setup_of(layout), lock) as workers, pytest.raises(WorkerError) as caught:
        list(workers.run([[(segment,)]], lambda: False))
    assert "\n" not in str(caught.value)
    assert segment.relative in str(caught.value)
    lock.close()


def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_root(tmp_path)
    land(layout, ROWS[:50])
    monkeypatch.setattr(disk, "RESERVE_BYTES", 1 << 60)
    assert run(layout, "--processes", "1") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "of room" in line
    assert "the same command heals the lake" in line


@pytest.mark.usefixtures("small")
def test_a_stop_ends_in_peace_and_the_rest_follows(
    tmp_path: Path, batch: dict[str, pl.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_root(tmp_path)
    land_all(layout, ROWS, 90)

    def stop() -> None:
        until_true(lambda: commits(layout, "observations") > 1, "a commit")
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    lake.versions(tmp_path)
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    stopper.start()
    try:
        assert run(layout, "--processes", "1") == 1
    finally:
        stopper.join()
        for one, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(one, handler)
    assert "stopped: the same command does the rest" in capsys.readouterr().err
    done = Positions.load(layout.positions)
    assert 0 < done.offsets["a"] < len(ROWS)
    assert done.covered_us == 0
    assert run(layout, "--processes", "1") == 0
    assert f"{len(ROWS) - done.offsets['a']:,} messages in" in capsys.readouterr().err
    assert_same(tables(tmp_path), batch)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--from", "2026-11-21T09:00", "--to", "2026-11-21T08:00"], "does not lie before"),
        (["--processes", "0"], "--processes 0"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path: Path, more: list[str], words: str) -> None:
    make_root(tmp_path)
    with pytest.raises(SettingError, match=words):
        run(Layout(tmp_path), *more)


def test_beam_leaves_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a run nor one that is killed in the middle of it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    layout = make_root(tmp_path / "root")
    segment = land(layout, ROWS[:30])
    seen: list[list[str]] = []

    def looking(*arguments: object) -> set[int]:
        seen.append(os.listdir(tmp_path / "temporary"))
        return set()

    monkeypatch.setattr(stages, "unite_blocks", looking)
    for _ in range(3):
        graph.run(setup_of(layout), [(segment,)])
    assert seen
    assert not any(seen)
    assert os.listdir(tmp_path / "temporary") == []


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Which tables were read and replaced, by step."""
    found: dict[str, set[str]] = {}
    steps = {"unite_blocks": "Unite", "make_minutes": "MakeMinutes"}
    steps |= {"make_windows": "RollUp", "make_hours": "MakeHours"}
    now: list[str] = []

    def within(step: str, act: Callable[..., object]) -> Callable[..., object]:
        def acting(*arguments: object) -> object:
            now.append(step)
            try:
                return act(*arguments)
            finally:
                now.pop()

        return acting

    for name, step in steps.items():
        monkeypatch.setattr(stages, name, within(step, getattr(stages, name)))
    read, replace = lake.read, lake.replace_blocks

    def reading(root: Path, table: Table, *rest: object) -> pl.DataFrame:
        found.setdefault(f"{now[-1]} reads", set()).add(table.name)
        return read(root, table, *rest)  # type: ignore[arg-type]

    def replacing(root: Path, table: Table, *rest: object) -> bool:
        found.setdefault(f"{now[-1]} replaces", set()).add(table.name)
        return replace(root, table, *rest)  # type: ignore[arg-type]

    def looking_at_announcements(root: Path) -> object:
        found.setdefault(f"{now[-1]} reads", set()).add("announcements")
        return final_through(root)

    monkeypatch.setattr(lake, "read", reading)
    monkeypatch.setattr(stages, "final_through", looking_at_announcements)
    monkeypatch.setattr(stages, "replace_blocks", replacing)
    return found


def test_explain_tells_what_the_steps_do(tmp_path: Path, touched: dict[str, set[str]]) -> None:
    layout = make_root(tmp_path)
    graph.run(setup_of(layout), [(land(layout, ROWS),)])
    for step, (reads, replaces) in TABLES_OF.items():
        assert touched.get(f"{step} replaces", set()) == {table.name for table in replaces}, step
        # a table's own blocks are read by whoever replaces them
        got = touched.get(f"{step} reads", set())
        own = {table.name for table in replaces} - {table.name for table in reads}
        assert got - own == {table.name for table in reads}, step
    text = graph_text(setup_of(layout))
    for step in TABLES_OF:
        assert f"{step}: " in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_lines_are_json_where_they_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAMPLIGHT_LOG", "json")
    monkeypatch.setattr("pipelines.bar.LINE_S", 0.0)
    layout = make_root(tmp_path)
    land_all(layout, ROWS[:200], 100)
    assert run(layout, "--processes", "1") == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["left_s"] == 0
    assert {"messages", "readings", "replaced_blocks", "conflicts"} <= lines[-1].keys()
