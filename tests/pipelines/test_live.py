"""The running loop: segments that go while it reads, a disk that refuses, what it tells a scraper."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from random import Random

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.utils.counters import CounterFactory

from contracts.layout import Layout, Positions, Segment
from contracts.schemas import TABLES
from contracts.segments import read_segment
from contracts.settings import SettingError
from contracts.times import US
from pipelines import __main__ as command
from pipelines import disk, graph, lake, live
from pipelines.config import Config, from_environment, parser
from pipelines.log import new_segments, rewound, rows_new
from pipelines.metrics import Metrics
from tests.broker import free_port
from tests.pipelines.raw_log import Landed, land, make_root, messages
from tests.pipelines.test_lake import assert_same, dirty_log, setup_of, tables
from tests.small_disk import small_file_system


def config_of(root: Path, *more: str) -> Config:
    arguments = parser().parse_args(["run", "--once", "--no-release", "--data", str(root), *more])
    return from_environment({"LAMPLIGHT_DISK_GRACE_S": "60"}, arguments)


def merged(layout: Layout, segments: list[Segment]) -> Segment:
    """The segments as one merged file, as ingest leaves it."""
    whole = Segment("a", segments[0].first, segments[-1].last, is_merged=True)
    pq.write_table(pa.concat_tables([read_segment(layout.raw, one) for one in segments]), whole.path(layout.raw))
    for one in segments:
        one.path(layout.raw).unlink()
    return whole


@pytest.fixture(scope="module")
def landed() -> list[Landed]:
    return Random(12).sample(dirty_log(12), 400)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory, landed: list[Landed]) -> dict[str, pl.DataFrame]:
    layout = make_root(tmp_path_factory.mktemp("batch"))
    graph.run(setup_of(layout), [(land(layout, landed),)])
    return tables_of(layout)


def tables_of(layout: Layout) -> dict[str, pl.DataFrame]:
    lake.versions(layout.root)
    return tables(layout.root)


def listed_and_then(act: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Something happens to the raw log between listing and reading, once."""
    listing: Callable[..., object] = new_segments
    done: list[object] = []

    def late(*arguments: object) -> object:
        found = listing(*arguments)
        if not done:
            done.append(act())
        return found

    patch.setattr(live, "new_segments", late)


def test_segments_merged_while_they_are_read_are_read(
    tmp_path: Path, landed: list[Landed], batch: dict[str, pl.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = make_root(tmp_path)
    segments = [land(layout, landed[at : at + 100], first=at) for at in range(0, 400, 100)]
    listed_and_then(lambda: merged(layout, segments), monkeypatch)
    assert live.run(config_of(tmp_path), live.StopFlag()) == 0
    assert_same(tables_of(layout), batch)


def test_a_segment_removed_while_it_is_read_is_passed_over(tmp_path: Path, landed: list[Landed]) -> None:
    layout = make_root(tmp_path)
    segments = [land(layout, landed[at : at + 100], first=at) for at in range(0, 400, 100)]
    with pytest.MonkeyPatch.context() as patch:
        listed_and_then(segments[1].path(layout.raw).unlink, patch)
        assert live.run(config_of(tmp_path), live.StopFlag()) == 0
    assert Positions.load(layout.positions).offsets == {"a": 400}
    other = make_root(tmp_path / "other")
    for at in (0, 200, 300):
        land(other, landed[at : at + 100], first=at)
    graph.run(setup_of(other), [tuple(one for one in segments if one.first != 100)])
    assert_same(tables_of(layout), tables_of(other))


def test_what_devices_had_stored_waits_and_is_not_claimed_before(
    tmp_path: Path, landed: list[Landed], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(5)
    stored = [
        Landed(row.topic, row.payload, row.received + timedelta(hours=6)) if random.random() < 0.3 else row
        for row in landed
    ]
    want, layout = make_root(tmp_path / "want"), make_root(tmp_path)
    graph.run(setup_of(want), [(land(want, stored),)])
    for at in range(0, 400, 100):
        land(layout, stored[at : at + 100], first=at)
    monkeypatch.setattr(live, "LATE_ROWS", 1)
    claimed = []
    one = live.Live(config_of(tmp_path), Metrics(layout.raw))
    while one.tick():
        positions = Positions.load(layout.positions)
        claimed.append((positions.offsets["a"], positions.covered_us))
    assert claimed == [(100, 0), (200, 0), (300, 0)]
    assert Positions.load(layout.positions).offsets == {"a": 400}
    assert one.covered_us > 0
    assert_same(tables_of(layout), tables_of(want))
    # begun anew from a claim in the middle, as after a crash
    other = make_root(tmp_path / "other")
    for at in range(0, 400, 100):
        land(other, stored[at : at + 100], first=at)
    live.Live(config_of(other.root), Metrics(other.raw)).tick()
    assert Positions.load(other.positions).offsets == {"a": 100}
    assert live.run(config_of(other.root), live.StopFlag()) == 0
    assert_same(tables_of(other), tables_of(want))


def test_positions_inside_a_merged_segment(
    tmp_path: Path, landed: list[Landed], batch: dict[str, pl.DataFrame]
) -> None:
    layout = make_root(tmp_path)
    segments = [land(layout, landed[at : at + 100], first=at) for at in range(0, 400, 100)]
    graph.run(setup_of(layout), [(segments[0],)])
    Positions(offsets={"a": 100}, versions={}, covered_us=0).store(layout.positions)
    whole = merged(layout, segments)
    assert rows_new({"a": 100}, [whole]) == 300
    assert live.run(config_of(tmp_path), live.StopFlag()) == 0
    assert_same(tables_of(layout), batch)


def test_a_rewind_finds_its_place_in_a_merged_segment(tmp_path: Path) -> None:
    layout = make_root(tmp_path)
    rows = sorted(messages(1, minutes=20), key=lambda row: row.received)
    whole = merged(layout, [land(layout, rows)])
    middle = rows[len(rows) // 2].received
    first = rewound(layout.raw, {"a": len(rows)}, (middle + timedelta(minutes=1)).timestamp())["a"]
    assert 0 < first <= len(rows) // 2
    assert rows[first].received >= middle > rows[first - 1].received
    os.utime(whole.path(layout.raw), (1, 1))
    assert rewound(layout.raw, {"a": len(rows)}, middle.timestamp()) == {"a": len(rows)}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MiB."""
    with small_file_system(tmp_path / "small", "48m") as folder:
        yield folder
        lake.forget()


def fill(folder: Path, but_bytes: int) -> None:
    status = os.statvfs(folder)
    (folder / "fill").write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - but_bytes)))


class Mends(live.StopFlag):
    """Mends the disk when the loop has been refused twice."""

    def __init__(self, failures: Callable[[], float], mend: Callable[[], object]):
        super().__init__()
        self._failures, self._mend = failures, mend

    def __call__(self) -> bool:
        if self._failures() >= 2:
            self._mend()
        return False


@pytest.mark.parametrize("how", ["nearly full", "full", "read-only"])
def test_a_disk_that_refuses_is_waited_for(
    small: Path,
    how: str,
    landed: list[Landed],
    batch: dict[str, pl.DataFrame],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    layout = make_root(small / "root")
    first, second = land(layout, landed[:200]), landed[200:]
    graph.run(setup_of(layout), [(first,)])
    land(layout, second, first=200)
    metrics = Metrics(layout.raw)

    def failures() -> float:
        return metrics.disk_failures._value.get()  # type: ignore[no-any-return]

    def mend() -> None:
        subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
        (small / "fill").unlink(missing_ok=True)

    if how != "nearly full":
        monkeypatch.setattr(disk, "RESERVE_BYTES", 0)
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    else:
        fill(small, 60_000)
    config = config_of(layout.root)
    assert live._run(config, metrics, Mends(failures, mend)) == 0
    assert failures() >= 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("lamplight")]
    words = {"nearly full": "less than 32 MiB", "full": "No space left", "read-only": "Read-only"}[how]
    assert words in lines[0]
    assert len(lines) == 3, lines
    assert "Traceback" not in "".join(lines)
    assert_same(tables_of(layout), batch)


def test_a_disk_that_goes_on_refusing_is_given_up(
    tmp_path: Path, landed: list[Landed], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_root(tmp_path)
    land(layout, landed[:50])
    monkeypatch.setattr(disk, "RESERVE_BYTES", 1 << 60)
    monkeypatch.setattr(disk, "LONGEST_PAUSE_S", 0.01)
    arguments = parser().parse_args(["run", "--data", str(tmp_path)])
    config = from_environment({"LAMPLIGHT_DISK_GRACE_S": "0.05"}, arguments)
    assert live.run(config, live.StopFlag()) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("the disk has refused for 0.05 s: giving up")


def test_an_error_that_is_not_the_disks_is_raised() -> None:
    assert disk.refusal(ValueError("no such column")) is None
    assert disk.refusal(FileNotFoundError(2, "gone")) is None
    assert disk.refusal(RuntimeError("Generic LocalFileSystem error: Permission denied (os error 13)"))


def test_a_scraper_is_told_and_nobody_else_works_on_the_lake(tmp_path: Path, landed: list[Landed]) -> None:
    layout, port = make_root(tmp_path), free_port()
    land(layout, landed)
    run = [sys.executable, "-m", "pipelines", "run", "--data", str(tmp_path), "--health", str(port)]
    process = subprocess.Popen(run, env={**os.environ, "LAMPLIGHT_TICK_S": "0.2"})
    try:
        until = time.monotonic() + 60
        text = ""
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            while f"messages_total {len(landed)}.0" not in text or "tick_seconds_count 0.0" in text:
                assert time.monotonic() < until, text
                time.sleep(0.2)
                try:
                    text = client.get("/metrics").text
                except httpx.TransportError:
                    continue
            answer = client.get("/health")
            assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        prefix = "lamplight_pipelines_"
        figures = dict(
            line.removeprefix(prefix).rsplit(" ", 1) for line in text.splitlines() if line.startswith(prefix)
        )
        assert float(figures["payload_bytes_total"]) == sum(len(row.payload) for row in landed)
        for name in (
            'quarantined_total{reason="unknown_post"}',
            'quarantined_total{reason="malformed"}',
            'readings_total{table="observations"}',
            'table_files{table="windows"}',
            'table_version{table="minutes"}',
            'last_event_timestamp_seconds{stream="weather"}',
            "tick_seconds_count",
        ):
            assert float(figures[name]) > 0, name
        assert (float(figures["segments_waiting"]), float(figures["released_windows"])) == (0, 0)
        for verb in (["rebuild"], ["replay-quarantine", "--all"], ["run"]):
            with pytest.raises(SettingError, match="stop it first"):
                command.main([*verb, "--data", str(tmp_path)])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert command.main(["rebuild", "--data", str(tmp_path), "--since", "2026-01-01"]) == 0


def test_health_fails_when_ticks_or_the_lake_stand_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics(tmp_path)
    assert metrics.check()[0]
    metrics.ticked(0.1, int((time.time() - 61) * US), {}, 0)
    is_well, said = metrics.check()
    assert (is_well, 61 <= float(said["lag_s"] or 0) < 90) == (False, True)
    metrics.ticked(0.1, int(time.time() * US), {}, 0)
    assert metrics.check()[0]
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not metrics.check()[0]


def test_what_the_stages_replace_is_counted(tmp_path: Path, landed: list[Landed]) -> None:
    layout = make_root(tmp_path)
    metrics = Metrics(layout.raw)
    metrics.met(graph.run(setup_of(layout), [(land(layout, landed),)]))
    found = tables_of(layout)

    def figure(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(f"lamplight_pipelines_{name}_total", labels) or 0.0

    for name in ("observations", "minutes", "flow_windows", "quarantine"):
        assert figure("written_rows", table=name) == found[name].height > 0
        time_column = TABLES[name].time
        assert figure("replaced_blocks", table=name) == found[name][time_column].dt.truncate("1m").n_unique()
        assert figure("conflicts", table=name) == 0
    for stage in ("decode", "unite", "minutes", "windows", "hours"):
        assert figure("stage_seconds", stage=stage) > 0


def test_a_bundle_does_not_wait_for_what_times_it() -> None:
    """Beam's default makes the end of a bundle wait for a tenth of what it took."""
    graph.quick_samplers()
    assert StateSampler("any", CounterFactory()).sampling_period_ms == graph.SAMPLE_MS
