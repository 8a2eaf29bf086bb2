"""Retention, and the command: what goes is old, passed by every consumer, and told."""

import subprocess
from pathlib import Path

import pytest

from contracts.layout import Layout, Positions, sealed_segments, try_lock
from contracts.settings import SettingError
from ingest import memory, merge
from ingest.config import Config
from ingest.memory import Memory
from ingest.tidy import Tidied, Tidier, tidy
from tests.ingest.processes import command, environment, until
from tests.ingest.raw_files import DAY, NOW, fill, never, readable, seal, small_shards, tree


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    monkeypatch.setattr(merge, "LISTED_S", 0.0)


def config(root: Path) -> Config:
    return Config(root=root, instance="a", mqtt_host="127.0.0.1", mqtt_port=1, mqtt311_port=1)


def passed(root: Path, lake: dict[str, int] | None, receipts: dict[str, int] | None) -> None:
    """The consumers say how far they are; None: they never ran."""
    if lake is not None:
        Positions(offsets=lake, versions={}, covered_us=0).store(Layout(root).positions)
    if receipts is not None:
        memory.store(Layout(root), Memory(offsets=receipts))


def run(root: Path, is_dry: bool = False) -> list[str]:
    told: list[str] = []
    tidy(config(root), is_dry, told.append, never)
    return told


def firsts(root: Path, instance: str = "a") -> list[int]:
    return [segment.first for segment in sealed_segments(Layout(root).raw, instance)]


def test_what_is_old_and_passed_goes_but_never_the_newest_shard(tmp_path: Path) -> None:
    fill(tmp_path, NOW - 8 * DAY)
    passed(tmp_path, {"a": 300}, {"a": 300})
    told = run(tmp_path)
    assert firsts(tmp_path) == [200, 225, 250, 275]
    assert sum("merged 4 segments, 100 rows" in line for line in told) == 2
    (gone,) = [line for line in told if line.startswith("removed")]
    assert "removed 2 files, 200 rows" in gone
    assert (NOW - 8 * DAY).date().isoformat() in gone
    assert sorted(path.name for path in (Layout(tmp_path).raw / "a").iterdir()) == ["00000002"]
    assert run(tmp_path) == []


def test_a_day_younger_stays(tmp_path: Path) -> None:
    fill(tmp_path, NOW - 8 * DAY, segments=5)
    fill(tmp_path, NOW - 6 * DAY, first=125, segments=7)
    passed(tmp_path, {"a": 300}, {"a": 300})
    run(tmp_path)
    # the merged second shard holds rows of both ages: its newest row counts
    assert firsts(tmp_path) == [100, 200, 225, 250, 275]


def test_the_newest_row_counts_and_not_the_file(tmp_path: Path) -> None:
    fill(tmp_path, NOW - 6 * DAY)
    for path in Layout(tmp_path).raw.rglob("*.arrow"):
        subprocess.run(["touch", "-d", "30 days ago", str(path)], check=True)
    passed(tmp_path, {"a": 300}, {"a": 300})
    run(tmp_path)
    assert firsts(tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("lake", "receipts", "left"),
    [
        (None, {"a": 300}, 0),
        ({"a": 300}, None, 0),
        ({"a": 300}, {"b": 300}, 0),
        ({"a": 300}, {"a": 99}, 0),
        ({"a": 100}, {"a": 300}, 100),
        ({"a": 199}, {"a": 300}, 100),
        ({"a": 200}, {"a": 200}, 200),
    ],
)
def test_what_a_consumer_has_not_passed_stays(
    tmp_path: Path, lake: dict[str, int] | None, receipts: dict[str, int] | None, left: int
) -> None:
    fill(tmp_path, NOW - 30 * DAY)
    passed(tmp_path, lake, receipts)
    run(tmp_path)
    assert firsts(tmp_path)[0] == left
    assert readable(tmp_path)["offset"].to_pylist() == list(range(left, 300))


@pytest.mark.parametrize("broken", ["positions", "memory", "segment"])
def test_nothing_goes_while_something_cannot_be_read(
    tmp_path: Path, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    segments = fill(tmp_path, NOW - 30 * DAY)
    passed(tmp_path, {"a": 300}, {"a": 300})
    path = {
        "positions": Layout(tmp_path).positions,
        "memory": memory.path(Layout(tmp_path)),
        "segment": segments[0].path(Layout(tmp_path).raw),
    }[broken]
    path.write_bytes(b'{"offs')
    run(tmp_path)
    assert firsts(tmp_path)[0] == 0
    assert (str(path) in capsys.readouterr().err) == (broken != "memory")


def test_a_broken_instance_does_not_stop_the_others(tmp_path: Path) -> None:
    segments = fill(tmp_path, NOW - 30 * DAY)
    segments[0].path(Layout(tmp_path).raw).write_bytes(b"broken")
    fill(tmp_path, NOW - 30 * DAY, instance="b")
    passed(tmp_path, {"a": 300, "b": 300}, {"a": 300, "b": 300})
    run(tmp_path)
    assert (firsts(tmp_path)[0], firsts(tmp_path, "b")[0]) == (0, 200)


def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, NOW - 8 * DAY)
    passed(tmp_path, {"a": 300}, {"a": 300})
    before = tree(tmp_path)
    told = run(tmp_path, is_dry=True)
    assert tree(tmp_path) == before
    assert sum(line.startswith("would merge 4 segments, 100 rows") for line in told) == 2
    (gone,) = [line for line in told if line.startswith("would remove")]
    assert "8 files, 200 rows" in gone


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, NOW - DAY)
    lock = try_lock(Layout(tmp_path).receipts / "tidy")
    assert lock is not None
    with lock, pytest.raises(SettingError, match="another process tidies"):
        run(tmp_path)


def test_the_command(tmp_path: Path) -> None:
    """With real shards: a full one is merged and removed, the newest stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("contracts.layout.SHARD", 100_000)
        for first, rows in ((0, 30_000), (30_000, 30_000), (60_000, 30_000), (90_000, 30_000), (120_000, 10)):
            seal(tmp_path, first, rows, NOW - 8 * DAY)
    passed(tmp_path, {"a": 120_010}, {"a": 120_010})

    def said(*options: str) -> str:
        done = subprocess.run(
            command("tidy", *options), env=environment(tmp_path, 1), capture_output=True, text=True, check=True
        )
        return done.stdout

    before = tree(tmp_path)
    assert "would merge 4 segments, 120,000 rows" in said("--dry-run")
    assert tree(tmp_path) == before
    out = said()
    assert "merged 4 segments, 120,000 rows" in out
    assert "removed 1 files, 120,000 rows" in out
    assert "nothing to merge, nothing to remove" in said()


def test_it_tidies_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.tidy.PERIOD_S", 0.05)
    fill(tmp_path, NOW - 8 * DAY)
    passed(tmp_path, {"a": 300}, {"a": 300})
    rounds: list[Tidied] = []
    tidier = Tidier(config(tmp_path), rounds.append)
    until(lambda: len(rounds) > 1)
    tidier.close()
    assert (rounds[0].merged, rounds[0].removed) == (8, 2)
    assert firsts(tmp_path) == [200, 225, 250, 275]
