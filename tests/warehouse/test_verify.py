"""`python -m warehouse verify`: what the pipeline made is what the readings say, and what is not is found."""

import json
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess

import polars as pl
import pytest

from contracts.layout import Layout
from contracts.settings import SettingError
from contracts.times import to_us
from tests.pipelines.raw_log import START
from tests.warehouse import command
from tests.warehouse.lake_samples import config_of
from tests.warehouse.real_lake import Change, build, changed, first, publish_as_it_is, without_first
from warehouse.catalogue import publish
from warehouse.verify import differences, print_verification

HOUR = timedelta(hours=1)
EVERYTHING = 1000  # more hours than the lake has


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    build(root, seed=2)
    return root


def verify(root: Path, capsys: pytest.CaptureFixture[str], sample: int = EVERYTHING, seed: int = 1) -> list[str]:
    """What is printed; the exit code is that of its last line."""
    code = print_verification(Layout(root).catalogue, sample, seed)
    lines = capsys.readouterr().out.splitlines()
    assert code == (0 if lines[-1].endswith("all as the readings say") else 1)
    return lines


@pytest.mark.parametrize("seed", range(3, 5))
def test_what_the_pipeline_made_is_what_the_readings_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    build(tmp_path, seed)
    lines = verify(tmp_path, capsys)
    assert len(lines) == 1
    # six posts of 75 minutes: of each quantity that a post sent fifteen windows and two hours
    assert int(lines[0].split()[0].replace(",", "")) > 800


def is_at(quantity: str) -> pl.Expr:
    return (pl.col("quantity") == quantity) & (pl.col("value_count") > 0)


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("windows", lambda rows: first(rows, is_at("temperature_c"), value=20.123), "value is 20.123"),
        ("windows", lambda rows: first(rows, is_at("wind_direction_deg"), sin_sum=0.5), "sin_sum is 0.5"),
        ("windows", lambda rows: first(rows, is_at("rain_mm"), increase=7.5), "increase is 7.5"),
        ("windows", lambda rows: without_first(rows, is_at("noise_dba")), "is missing"),
        ("windows", lambda rows: first(rows, is_at("no2_ug_m3"), quantity="o3_ug_m3"), "has no readings"),
        ("hours", lambda rows: first(rows, is_at("crossings_in_count"), value_count=1), "value_count is 1"),
        ("flow_windows", lambda rows: first(rows, space_mean_speed_kmh=0.5), "space_mean_speed_kmh is 0.5"),
        ("flow_windows", lambda rows: first(rows, release_count=1), "release_count is 1"),
        # readings that changed behind the windows are found as well
        ("footfall", lambda rows: without_first(rows, ~pl.col("is_conflicting")), "from the readings"),
    ],
)
def test_what_the_readings_do_not_say_is_found(
    healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, change: Change, said: str
) -> None:
    lines = verify(changed(healthy, tmp_path, [(table, change)]), capsys)
    assert any(said in line for line in lines[:-1]), lines
    assert len(lines) < 30
    if table != "footfall":
        assert all(line.startswith(f"{table} ") for line in lines[:-1])


def test_a_sample_is_drawn_by_its_seed(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, again, *others = (verify(healthy, capsys, sample=3, seed=seed)[-1] for seed in (1, 1, 2, 3, 4))
    assert one == again
    assert "of 3 hours of posts (--seed 1)" in one
    assert {line.split()[0] for line in others} != {one.split()[0]}


def test_hours_whose_readings_were_removed_are_not_drawn(healthy: Path, tmp_path: Path) -> None:
    root = changed(
        healthy, tmp_path, [("observations", lambda rows: rows.filter(pl.col("event_time") >= START + HOUR))]
    )
    assert print_verification(Layout(root).catalogue, EVERYTHING, 1) == 1
    bounds = {"observations": {"weather": to_us(START + HOUR), "air": to_us(START + HOUR)}}
    Layout(root).removed.write_text(json.dumps({"bounds": bounds, "done": {}}))
    publish_as_it_is(root)
    with pytest.raises(SettingError, match="nothing to verify"):  # two hours: one removed, one looks back on it
        print_verification(Layout(root).catalogue, EVERYTHING, 1)


def test_floats_are_compared_as_sums_and_directions_on_the_circle() -> None:
    def found(quantity: str, one: float | None, other: float | None) -> bool:
        key = ("KT1001", quantity, 0)
        return bool(list(differences("windows", {key: {"value": one}}, {key: {"value": other}})))

    assert not found("temperature_c", 20.0, 20.0 + 1e-9)
    assert found("temperature_c", 20.0, 20.0 + 1e-6)
    assert found("temperature_c", None, 0.0)
    assert not found("wind_direction_deg", 360.0, 1e-7)
    assert found("wind_direction_deg", 360.0, 180.0)


def call(root: Path, *arguments: str) -> CompletedProcess[str]:
    return command.call(root, "verify", *arguments)


def test_the_command_says_its_seed(healthy: Path) -> None:
    done = call(healthy, "--sample", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "(--seed " in done.stdout


def test_what_cannot_be_verified_is_one_line_and_exit_code_2(healthy: Path, tmp_path: Path) -> None:
    publish(config_of(tmp_path))
    for root, arguments, said in (
        (tmp_path, (), "nothing to verify"),
        (tmp_path / "nowhere", (), "python -m warehouse publish"),
        (healthy, ("--sample", "0"), "--sample"),
        (healthy, ("--sample", "some"), "--sample"),
        (healthy, ("--timeout", "0.001"), "--timeout"),
    ):
        done = call(root, *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert said in done.stderr
