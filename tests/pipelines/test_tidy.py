"""The verb `tidy`, what it says and refuses; housekeeping beside the live loop; settings of both."""

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import psutil
import pytest

from contracts.layout import Layout, Positions, try_lock
from contracts.retention import EVER, RULES
from contracts.schemas import TABLES
from contracts.settings import SettingError
from contracts.times import to_us
from pipelines import __main__ as command
from pipelines import chores, disk, durability, lake, live, tidy
from pipelines.chores import Chores, ChoresError
from pipelines.config import from_environment, parser
from pipelines.metrics import Metrics
from pipelines.pins import Keep
from tests.end_to_end.city import wait_for
from tests.pipelines.days import MIDNIGHT, days, setup_of, take_up, tidied
from tests.pipelines.test_lake import assert_same, tables
from tests.pipelines.test_retention import SHORT
from tests.small_disk import small_file_system
from warehouse import catalogue
from warehouse.config import Config as WarehouseConfig

NOW = MIDNIGHT + timedelta(hours=10)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A lake of days in many files; the machine's clock decides nothing."""
    setup = setup_of(tmp_path)
    for number, landed in enumerate(days(2)):
        for part in range(5):
            take_up(setup, landed[part::5], 1000 * number + 200 * part)
    claim(tmp_path, NOW)
    return tmp_path


def claim(root: Path, covered: datetime) -> None:
    before = Positions.load(Layout(root).positions)
    durability.claim(root, before, before.offsets, to_us(covered))


def run(root: Path, *more: str) -> int:
    return command.main(["tidy", "--data", str(root), *more])


def test_a_dry_run_says_what_then_is_done(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: to_us(NOW) * 1000)
    for rule in RULES:
        monkeypatch.setenv(rule.variable, EVER if SHORT[rule.name] is None else str(SHORT[rule.name]))
    before = lake.versions(root)
    with try_lock(Layout(root).lake / "lock") or pytest.fail("locked"):
        names = sorted(root.rglob("*"))
        assert run(root, "--dry-run") == 0
        assert (lake.versions(root), sorted(root.rglob("*"))) == (before, names)
        would = capsys.readouterr().out.splitlines()
        with pytest.raises(SettingError, match="another process"):
            run(root)
    assert {line.split()[1] for line in would} == {"pin", "join", "remove"}
    assert run(root) == 0
    assert [line.replace("did", "would") for line in capsys.readouterr().out.splitlines()] == would
    assert lake.count_rows(root, "lane_flows") > 0
    assert Positions.load(Layout(root).positions).versions == lake.versions(root)


def test_where_there_is_no_lake_one_line_says_so(tmp_path: Path) -> None:
    for more in ([], ["--dry-run"]):
        with pytest.raises(SettingError, match="no lake"):
            run(tmp_path, *more)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LAMPLIGHT_PINS", "many"),
        ("LAMPLIGHT_PINS", "24"),
        ("LAMPLIGHT_PINS", "24,-7"),
        ("LAMPLIGHT_QUERY_GRACE_S", "0"),
        ("LAMPLIGHT_QUERY_TIMEOUT_S", "901"),
        *((rule.variable, text) for rule in RULES[:2] for text in ("0", "-3", "never", "nan")),
    ],
)
def test_a_wrong_setting_is_named(variable: str, text: str) -> None:
    with pytest.raises(SettingError, match=variable):
        from_environment({variable: text}, parser().parse_args(["tidy"]))


def test_settings_are_what_they_say() -> None:
    given = {
        "LAMPLIGHT_PINS": "0",
        "LAMPLIGHT_QUERY_GRACE_S": "1200",
        "LAMPLIGHT_RETENTION_MOVEMENT_READINGS_DAYS": "0.5",
        "LAMPLIGHT_RETENTION_WEATHER_READINGS_DAYS": EVER,
    }
    config = from_environment(given, parser().parse_args(["tidy"]))
    assert (config.rules.pins, config.rules.grace_s) == (Keep(0, 0), 1200)
    assert config.rules.days["movement_readings"] == 0.5
    assert config.tolerance.behind_s("traffic") == 43_200
    assert config.tolerance.behind_s("weather") > 10**12


def test_an_older_catalogue_answers_within_the_grace(root: Path) -> None:
    """It names files that compaction has replaced since; vacuum takes them when the grace is over."""
    catalogue.publish(WarehouseConfig.build({"LAMPLIGHT_DATA": str(root)}))
    want = tables(root)["observations"].height

    def asked() -> int:
        with duckdb.connect(str(Layout(root).catalogue), read_only=True) as connection:
            (count,) = connection.execute("SELECT count(*) FROM lake.observations").fetchone() or (0,)
        return int(count)

    grace = tidy.Rules(days=dict.fromkeys(SHORT), pins=Keep(0, 0))
    later = NOW + timedelta(days=9)
    assert any(line.startswith("join observations") for line in tidied(root, grace, later))
    tidied(root, grace, later)
    assert asked() == want
    none = tidy.Rules(days=dict.fromkeys(SHORT), pins=Keep(0, 0), grace_s=0)
    tidied(root, none, later)
    assert asked() == want  # nothing that the positions do not claim yet
    claim(root, NOW)
    time.sleep(0.01)
    assert [line for line in tidied(root, none, later) if line.startswith("vacuum observations")]
    assert not [line for line in tidied(root, none, later) if line.startswith("vacuum")]
    with pytest.raises(duckdb.Error):
        asked()
    claim(root, NOW)
    catalogue.publish(WarehouseConfig.build({"LAMPLIGHT_DATA": str(root)}))
    assert asked() == want


def loop_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> live.Live:
    monkeypatch.setattr(chores, "TIDY_S", 0)
    environ = {rule.variable: EVER for rule in RULES} | {"LAMPLIGHT_PINS": "0"}
    config = from_environment(environ, parser().parse_args(["run", "--no-release", "--data", str(root)]))
    return live.Live(config, Metrics(config.layout.raw))


def finished(found: Chores) -> None:
    """Wait for the round's end; whatever ended it is raised."""
    wait_for("the round", lambda: found.is_due)


def test_the_live_loop_tidies_beside_its_ticks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, before = loop_of(root, monkeypatch), tables(root)
    files = {name: lake.count_files(root, name) for name in TABLES}
    loop.chores()
    while not loop._chores.is_due:
        loop.tick()
    loop.close()
    assert lake.count_files(root, "observations") < files["observations"]
    assert_same(tables(root), before)
    assert loop.metrics.registry.get_sample_value("lamplight_pipelines_chores_seconds")


def test_the_loop_outlives_its_housekeeping_and_not_the_other_way(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chores, "TIDY_S", 0)
    rounds: list[float] = []
    found, files = Chores(root, tidy.Rules(pins=Keep(0, 0)), rounds.append), lake.count_files(root, "observations")
    found.begin()
    assert found.pid
    os.kill(found.pid, signal.SIGKILL)
    finished(found)
    assert "housekeeping was killed by SIGKILL" in capsys.readouterr().err
    found.begin()
    finished(found)
    assert len(rounds) == 1
    assert lake.count_files(root, "observations") < files
    process = psutil.Process(found.pid)
    found.close()
    assert not process.is_running()


def test_a_killed_loop_leaves_no_housekeeping_behind(root: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from pipelines import tidy; from pipelines.chores import Chores\n"
        "if __name__ == '__main__':\n"
        "    found = Chores(Path(sys.argv[1]), tidy.Rules(), lambda _: None)\n"
        "    found.begin(); print(found.pid, flush=True); time.sleep(60)"
    )
    loop = subprocess.Popen([sys.executable, "-c", program, root], stdout=subprocess.PIPE)
    assert loop.stdout is not None
    chore = psutil.Process(int(loop.stdout.readline()))
    loop.kill()
    loop.wait()
    wait_for("its end", lambda: not chore.is_running() or chore.status() == psutil.STATUS_ZOMBIE)


def test_a_disk_that_refuses_housekeeping_is_said_by_the_loop(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "TIDY_S", 0)
    with small_file_system(tmp_path / "small", "16m") as small:
        shutil.copytree(Layout(root).lake, Layout(small).lake)
        rounds: list[float] = []
        found = Chores(small, tidy.Rules(pins=Keep(0, 0)), rounds.append)
        found.begin()
        with pytest.raises(disk.DiskError) as refusal:
            finished(found)
        assert "MiB of room" in (disk.refusal(refusal.value) or "")
        assert len(rounds) == 1
        assert found.is_due
        found.close()


def test_what_else_ends_a_round_ends_the_loop(root: Path) -> None:
    (Layout(root).lake / "positions.json").write_text("nonsense")
    found = Chores(root, tidy.Rules(), lambda _: None)
    found.begin()
    with pytest.raises(ChoresError, match="Traceback"):
        finished(found)
    found.close()


def test_without_links_the_loop_goes_on_and_says_so_once(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "TIDY_S", 0)
    claim(root, datetime.now(UTC))
    with small_file_system(Layout(root).pins, "1m"):
        found = Chores(root, tidy.Rules(days=dict.fromkeys(SHORT)), lambda _: None)
        for _ in range(2):
            found.begin()
            finished(found)
        found.close()
    assert capfd.readouterr().err.count("takes no hard links") == 1
    assert pl.scan_delta(lake.open_table(root, "observations")).collect().height
