"""Days in Hong Kong and by UTC are the merge of their hours, of their minutes and of their readings."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from contracts.schemas import ANNOUNCEMENTS, HOURS
from pipelines.kernels import rollups
from pipelines.kernels.frames import conform
from tests.warehouse import generated_day as day
from tests.warehouse.lake_samples import ask
from warehouse.views import sql_views

DAY_S = 86_400
OFFSETS = {"daily": timedelta(hours=8), "daily_utc": timedelta(0)}
KEY = ["post_id", "quantity", "window_start"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    """Six hours around midnight in Hong Kong."""
    root = tmp_path_factory.mktemp("data")
    return root, day.build(root, 3)


def starts(offset: timedelta) -> pl.Expr:
    """Local midnights of the column window_start."""
    return (pl.col("window_start") + offset).dt.truncate("1d") - offset


def assert_equal(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    assert wanted.height > 0
    found = found.select(wanted.columns).cast(dict(wanted.schema))  # type: ignore[arg-type]
    assert_frame_equal(found.sort(KEY), wanted.sort(KEY), rel_tol=1e-9, abs_tol=1e-6)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize("view", OFFSETS)
def test_a_day_is_the_kernels_merge_of_its_minutes(built: tuple[Path, pl.DataFrame], view: str, zone: str) -> None:
    root, minutes = built
    shift = pl.col("window_start") + OFFSETS[view]
    whole = rollups.windows(minutes.with_columns(shift), DAY_S)
    found = ask(root, f"SELECT * FROM {view}", zone=zone)
    assert found["window_start"].n_unique() == (2 if view == "daily" else 1)
    shown = [name for name in whole.columns if name in found.columns and name not in ("revision", "is_final")]
    assert_equal(found, whole.with_columns(pl.col("window_start") - OFFSETS[view]).select(shown))


@pytest.mark.parametrize("view", OFFSETS)
def test_a_day_is_its_readings(built: tuple[Path, pl.DataFrame], view: str) -> None:
    root, _ = built
    value = pl.col("value")
    good = ask(root, "SELECT * FROM observations").filter(
        pl.col("flag").is_in([1, 2]) & ~pl.col("quantity").is_in(["wind_direction_deg", "rain_mm"])
    )
    wanted = (
        good.rename({"event_time": "window_start"})
        .group_by("post_id", "quantity", starts(OFFSETS[view]))
        .agg(
            value_count=value.count().cast(pl.Int64),
            value_mean=value.mean(),
            value_sd=value.std(),
            value_min=value.min(),
            value_max=value.max(),
            completeness=value.count() / 1440,
        )
    )
    found = ask(root, f"SELECT * FROM {view} WHERE value_count > 0")
    assert_equal(found.join(wanted, on=KEY, how="semi"), wanted)
    assert set(found["period_s"]) == {DAY_S}


def test_a_day_is_final_when_all_of_it_is_announced(tmp_path: Path) -> None:
    """Three days of hours, final until the second midnight in Hong Kong."""
    begin = datetime(2026, 11, 20, tzinfo=UTC)
    midnight = datetime(2026, 11, 21, 16, tzinfo=UTC)
    rows = [
        {"post_id": day.POSTS[0], "quantity": quantity, "window_start": begin + timedelta(hours=hour), "revision": hour}
        for quantity in ("temperature_c", "no2_ug_m3")
        for hour in range(72)
    ]
    same = {"period_s": 3600, "value_count": 60, "flagged_count": 1, "expected_count": 60, "completeness": 1.0}
    hours = conform(
        pl.DataFrame(rows).with_columns(
            **{name: pl.lit(value) for name, value in same.items()},
            value_sum=pl.lit(600.0),
            last_event_time=pl.col("window_start"),
        ),
        HOURS,
    )
    said = {"stream": ["weather"], "final_through": [midnight], "announced_time": [midnight], "reason": ["grace"]}
    announced = conform(pl.DataFrame(said), ANNOUNCEMENTS)
    day.fill(tmp_path, {HOURS.name: hours, ANNOUNCEMENTS.name: announced})
    for view, offset in OFFSETS.items():
        found = ask(tmp_path, f"SELECT * FROM {view}").with_columns(pl.col("revision").cast(pl.Int64))
        wanted = hours.group_by("post_id", "quantity", starts(offset)).agg(
            pl.col("value_count", "flagged_count").sum(), pl.col("revision").sum().cast(pl.Int64)
        )
        assert_equal(found, wanted)
        end = pl.col("window_start") + timedelta(days=1)
        is_final = (pl.col("quantity") == "temperature_c") & (end <= midnight)
        assert found.select((pl.col("is_final") == is_final).all()).item()
        assert found["is_final"].sum() == (2 if view == "daily" else 1)
        assert set(found.filter(pl.col("value_count") == 1440)["value"]) == {10.0}
    whole = ask(tmp_path, "SELECT * FROM daily").filter(pl.col("window_start") >= midnight - timedelta(days=1))
    since = f"daily_since(TIMESTAMPTZ '{midnight - timedelta(hours=1)}')"
    assert_equal(ask(tmp_path, f"SELECT * FROM {since}"), whole)


TIMES = {view.full_name: "window_start" for view in sql_views() if view.schema in ("minutes", "windows")}
TIMES |= dict.fromkeys(("observations", "lane_flows", "footfall"), "event_time")


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize("view", TIMES)
def test_every_time_is_told_as_in_hong_kong(built: tuple[Path, pl.DataFrame], view: str, zone: str) -> None:
    time = TIMES[view]
    found = ask(
        built[0],
        f"SELECT count(*) AS rows, count(*) FILTER (epoch_us({time}) + 28800000000 = epoch_us({time}_hk)) AS told, "
        f"any_value(typeof({time}_hk)) AS kind FROM {view}",
        zone=zone,
    )
    rows, told, kind = found.row(0)
    assert 0 < rows == told
    assert kind == "TIMESTAMP"
