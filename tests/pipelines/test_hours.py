"""Hours are the merge of their windows, of their minutes and of their readings, whatever the windows' length."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench.pipeline import plain
from contracts.quantities import QUANTITIES, Aggregation
from contracts.schemas import HOURS, WINDOWS
from contracts.settings import SettingError
from pipelines import __main__ as command
from pipelines import lake, stages
from pipelines.kernels.frames import empty
from pipelines.kernels.minutes import minutes
from pipelines.kernels.rollups import hours, windows
from pipelines.stages import Setup
from tests.pipelines.raw_log import START, land, make_root, messages
from tests.pipelines.test_lake import tables
from tests.warehouse import generated_day as day

KEY = list(HOURS.key)
HOUR = pl.col("event_time").dt.truncate("1h").alias("window_start")


@pytest.fixture(scope="module")
def state() -> pl.DataFrame:
    values = day.observations(5)
    return minutes(values, day.footfall(5), day.flags(5, values))


def assert_close(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    assert wanted.height > 0
    assert_frame_equal(found.sort(KEY), wanted.sort(KEY).select(found.columns), rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("period_s", [60, 300, 1200, 3600])
def test_the_windows_length_does_not_show(state: pl.DataFrame, period_s: int) -> None:
    merged = hours(windows(state, period_s))
    assert_close(merged, windows(state, 3600))
    assert merged["last_used_time"].drop_nulls().len() > 10


def test_the_order_of_windows_does_not_show(state: pl.DataFrame) -> None:
    """To the bit: tables that other workers made are compared."""
    fives = windows(state, 300)
    wanted = hours(fives).sort(KEY)
    for seed in range(3):
        assert hours(fives.sample(fraction=1, shuffle=True, seed=seed)).sort(KEY).equals(wanted)


def test_an_hour_is_its_readings() -> None:
    values = day.observations(6)
    found = hours(windows(minutes(values, day.footfall(6)), 300))
    used = values.filter(~pl.col("is_conflicting") & pl.col("flag").is_in([1, 2])).sort("event_time", "digest")
    value, method = pl.col("value"), {name: row.aggregation for name, row in QUANTITIES.items()}
    means = [name for name, kind in method.items() if kind is Aggregation.MEAN]
    said = used.group_by("post_id", "quantity", HOUR).agg(
        mean=value.mean(),
        value_count=pl.len().cast(pl.Int64),
        value_max=value.max(),
        first_value=value.first(),
        last_value=value.last(),
        used_time=pl.col("event_time").last(),
    )
    got = found.join(said, on=KEY, suffix="_said")
    assert got.height == said.height > 100
    for name in ("value_count", "value_max", "first_value", "last_value"):
        assert got[name].equals(got[f"{name}_said"]), name
    assert got["last_used_time"].fill_null(got["last_event_time"]).equals(got["used_time"])
    of_means = got.filter(pl.col("quantity").is_in(means))
    assert of_means["value"].to_list() == pytest.approx(of_means["mean"].to_list())


def test_no_windows_give_no_hours() -> None:
    assert hours(empty(WINDOWS)).is_empty()


def test_hours_of_a_lake_with_windows_of_another_length(tmp_path: Path) -> None:
    found = {}
    for period_s in (300, 60):
        layout = make_root(tmp_path / str(period_s))
        setup = Setup(root=layout.root, registry=layout.registry, window_s=period_s)
        plain(setup, [land(layout, messages(7, minutes=70))])
        lake.versions(layout.root)
        found[period_s] = tables(layout.root)["hours"]
    assert found[300]["window_start"].n_unique() == 2
    assert_close(found[60], found[300])


def test_only_the_hours_that_windows_lie_in_are_replaced(tmp_path: Path) -> None:
    layout = make_root(tmp_path)
    setup = Setup(root=layout.root, registry=layout.registry)
    plain(setup, [land(layout, messages(7, minutes=70))])
    before = lake.versions(tmp_path)
    block = int((START + timedelta(minutes=65)).timestamp()) // 60
    assert stages.make_hours(setup, "windows", {block}) == {block // 60 * 60}
    assert stages.make_hours(setup, "flow_windows", {block}) == set()
    assert lake.versions(tmp_path) == before


@pytest.mark.parametrize("verb", [["run", "--once", "--no-release"], ["backfill"]])
def test_windows_of_two_lengths_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: list[str]) -> None:
    layout = make_root(tmp_path)
    plain(Setup(root=layout.root, registry=layout.registry), [land(layout, messages(7, minutes=2))])
    monkeypatch.setenv("LAMPLIGHT_WINDOW_S", "60")
    with pytest.raises(SettingError, match=r"LAMPLIGHT_WINDOW_S: the windows in .* have 300 s, not 60: give it 300"):
        command.main([*verb, "--data", str(tmp_path)])
