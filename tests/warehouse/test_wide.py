"""Wide views say what the long ones say, and have a column for each row of the table of quantities."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from contracts import quantities
from contracts.quantities import of_stream
from contracts.schemas import TABLES
from tests.warehouse import generated_day as day
from tests.warehouse.lake_samples import ask, some_rows
from warehouse import views
from warehouse.template import template

MESSAGE = ["post_id", "boot_id", "seq", "event_time"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    values = day.observations(1)
    # the rows of a message have its number
    values = values.with_columns(seq=pl.struct("stream", "digest").rank("dense").cast(pl.Int64))
    windows = day.windows_of({"temperature_c": 20.0, "no2_ug_m3": 7.0}, day.START)
    day.fill(root, {"observations": values, "flags": day.flags(1, values), "windows": windows})
    return root


def names(stream: str) -> list[str]:
    return [row.name for row in of_stream(stream)]


@pytest.mark.parametrize("stream", ["weather", "air"])
def test_a_message_is_a_row_with_the_values_that_may_be_used(root: Path, stream: str) -> None:
    long = ask(root, f"SELECT * FROM observations WHERE stream = '{stream}'").sort("quantity")
    is_used = pl.col("flag").is_in([1, 2])
    left_out = pl.concat_str("quantity", pl.lit(" "), "flag").filter(~is_used).str.join(", ")
    wanted = long.group_by(MESSAGE).agg(
        *(pl.col("value").filter(is_used, pl.col("quantity") == name).first().alias(name) for name in names(stream)),
        worst_flag=pl.col("flag").max(),
        left_out=pl.when((~is_used).any()).then(left_out),
    )
    assert wanted["left_out"].null_count() not in (0, wanted.height)
    found = ask(root, f"SELECT * FROM {stream}_messages").select(wanted.columns)
    assert_frame_equal(found.sort(MESSAGE), wanted.sort(MESSAGE))


@pytest.mark.parametrize("stream", ["weather", "air"])
@pytest.mark.parametrize("period_s", [300, 900, 3600])
def test_a_window_is_a_row_with_its_values(root: Path, stream: str, period_s: int) -> None:
    where = f"WHERE period_s = {period_s}"
    long = ask(root, f"SELECT * FROM value_windows {where} AND stream = '{stream}'")
    key = ["post_id", "window_start"]
    wanted = long.pivot("quantity", index=key, values="value")
    found = ask(root, f"SELECT * FROM {stream}_wide {where}")
    assert_frame_equal(found.select(wanted.columns).sort(key), wanted.sort(key))
    assert set(names(stream)) <= set(found.columns)


@pytest.fixture
def one_more(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table of quantities with one row more, as after a change of the contracts."""
    row = quantities._row("soot_ug_m3", "air", "Soot", "ug/m3", (0, 9), 0.1, quantities.Aggregation.MEAN, "Black.")
    monkeypatch.setattr(quantities, "_ROWS", (*quantities._ROWS, row))
    monkeypatch.setitem(quantities.QUANTITIES, row.name, row)
    views.sql_views.cache_clear()
    template.cache_clear()
    yield
    views.sql_views.cache_clear()
    template.cache_clear()


@pytest.mark.usefixtures("one_more")
def test_a_new_quantity_is_a_column_of_every_wide_view(tmp_path: Path) -> None:
    some = pl.DataFrame(some_rows(TABLES["observations"], 9, 1)).with_columns(pl.lit(1.5).alias("value"))
    some = some.with_columns(stream=pl.lit("air"), quantity=pl.lit("soot_ug_m3"), is_conflicting=False)
    day.fill(tmp_path, {"observations": some.with_columns(flag=pl.lit(1, pl.Int8))})
    assert ask(tmp_path, "SELECT soot_ug_m3 FROM air_messages")["soot_ug_m3"].to_list() == [1.5] * 9
    for view in ("air_wide", "latest_wide"):
        assert "soot_ug_m3" in ask(tmp_path, f"SELECT * FROM {view}").columns
    said = "SELECT comment FROM duckdb_columns() WHERE table_name = 'air_wide' AND column_name = 'soot_ug_m3'"
    assert ask(tmp_path, said)["comment"].to_list() == ["Soot. Black. [ug/m3]"]
