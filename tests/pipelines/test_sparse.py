"""What is null on disk because others of the row say it comes back exactly, for whatever minutes the kernel makes."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from contracts.implied import IMPLIED
from contracts.layout import Layout
from contracts.quantities import QUANTITIES
from contracts.schemas import FLAGS, FOOTFALL, MINUTES, OBSERVATIONS, TABLES
from pipelines import files, lake
from pipelines.blocks import blocks_of
from pipelines.kernels.frames import conform, empty
from pipelines.kernels.minutes import minutes
from pipelines.sparse import needed, thin, whole
from tests.pipelines.raw_log import START

NAMES = list(IMPLIED["minutes"])
SCALARS = [name for name, row in QUANTITIES.items() if row.stream in ("weather", "air")]
VALUES = st.one_of(st.none(), st.integers(-20, 20).map(lambda tenths: tenths / 10), st.floats(-1e9, 1e9))


@st.composite
def made_minutes(draw: st.DrawFn) -> pl.DataFrame:
    """Minutes of up to 20 values of any quantity and flag, some of them left out for their context."""
    row = st.tuples(st.sampled_from(SCALARS), VALUES, st.sampled_from([1, 2, 3, 4, 9]), st.integers(0, 179))
    rows = draw(st.lists(row, min_size=1, max_size=20))
    observed = pl.DataFrame(rows, ["quantity", "value", "flag", "second"], orient="row", strict=False).with_columns(
        event_time=pl.lit(START) + pl.duration(seconds="second"),
        digest=pl.int_range(pl.len()),
        post_id=pl.lit("KT1001"),
    )
    against = draw(st.lists(st.tuples(st.sampled_from(SCALARS), st.integers(0, 2)), max_size=3, unique=True))
    flags = pl.DataFrame(against, {"quantity": pl.String, "minute": pl.Int64}, orient="row").with_columns(
        post_id=pl.lit("KT1001"),
        window_start=pl.lit(START) + pl.duration(minutes="minute"),
        flag=pl.lit(4),
        accepted_low=pl.lit(0.5),
        accepted_high=pl.lit(1.5),
    )
    return minutes(conform(observed, OBSERVATIONS), empty(FOOTFALL), conform(flags, FLAGS))


@given(made_minutes())
@settings(deadline=None)
def test_what_others_imply_comes_back_exactly(made: pl.DataFrame) -> None:
    lean = thin(made, MINUTES)
    assert_frame_equal(whole(lean, MINUTES), made, check_exact=True)
    # one form only, however often it was written and read
    assert_frame_equal(thin(whole(lean, MINUTES), MINUTES), lean, check_exact=True)
    for name in made.columns:
        part = whole(lean.select(needed([name], MINUTES)), MINUTES)[name]
        assert part.equals(made[name], null_equal=True)
    single = lean.filter((pl.col("value_count") == 1) & (pl.col("plain_count") == 1) & pl.col("unit_count").is_null())
    assert single.select(NAMES).null_count().row(0) == (single.height,) * len(NAMES)


@pytest.mark.parametrize("kept_rows", [0, 1_000])
def test_stages_read_whole_rows_of_lean_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_rows: int) -> None:
    """Of files that are kept in memory and of larger ones, all of their blocks or some."""
    monkeypatch.setattr(files, "KEPT_ROWS", kept_rows)
    rows = conform(
        pl.DataFrame({"value": [20.5, 3.25], "quantity": ["temperature_c", "wind_speed_ms"]}).with_columns(
            event_time=pl.lit(START) + pl.duration(minutes=pl.int_range(2)),
            digest=pl.lit(1),
            post_id=pl.lit("KT1001"),
            flag=pl.lit(1),
        ),
        OBSERVATIONS,
    )
    made = minutes(rows, empty(FOOTFALL))
    blocks = blocks_of(made, MINUTES)
    assert lake.replace_blocks(tmp_path, MINUTES, blocks, lambda _: made)
    stored = pl.scan_delta(str(Layout(tmp_path).table("minutes"))).collect()
    assert stored.select(NAMES).null_count().row(0) == (2,) * len(NAMES)
    key = list(MINUTES.key)
    # as docs/warehouse.md says
    implied = [pl.coalesce(name, pl.sql_expr(text)) for name, text in IMPLIED["minutes"].items()]
    assert_frame_equal(stored.with_columns(implied).sort(key), made.sort(key), check_exact=True)
    assert_frame_equal(lake.read(tmp_path, MINUTES, blocks).sort(key), made.sort(key), check_exact=True)
    sums = lake.read(tmp_path, MINUTES, {min(blocks)}, ["quantity", "value_sum"])
    assert sums.rows() == [("temperature_c", 20.5)]
    assert not lake.replace_blocks(tmp_path, MINUTES, blocks, lambda _: made)


def test_only_nullable_columns_are_implied() -> None:
    for name, columns in IMPLIED.items():
        for column in columns:
            assert TABLES[name].schema.field(column).nullable
            assert not set(needed([column], TABLES[name])[1:]) & set(columns)
